"""``make mutants``: each module of its list can be read, and has places for faults."""

from __future__ import annotations

import pytest

from tests.running.mutants import MODULES
from tests.running.mutations import all_mutants


@pytest.mark.parametrize("module", MODULES.values())
def test_a_module_has_mutants(module: str) -> None:
    assert all_mutants(module)
