"""The methods of the client that send one request are those that the operations declare."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from tests.service.web.docs.client_methods import present, written


def test_the_generated_methods_are_those_of_the_operations() -> None:
    assert _code(present()) == _code(written()), "write them again: make client"


def _code(modules: Mapping[str, str]) -> dict[str, str]:
    """The modules without their format, which is checked with that of all code."""
    return {name: ast.dump(ast.parse(text)) for name, text in modules.items()}
