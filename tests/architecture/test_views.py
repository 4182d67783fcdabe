"""Views are thin: they bind the request, call a use case or a query, and represent the result."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "service" / "web"
MAX_VIEW_LINES = 10
"""Without decorators, signature and docstring."""
MAX_HELPER_LINES = 15
"""Of every other function and method beside the views, counted the same way."""


def lengths(text: str, *, of_views: bool) -> dict[str, int]:
    """By name and place the lines of the bodies of functions with the decorator ``endpoint``, or of all others."""
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_view(node) == of_views:
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            found[f"{node.name}:{node.lineno}"] = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return found


def is_view(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(item, ast.Call) and ast.unparse(item.func) == "endpoint" for item in node.decorator_list)


def in_folder(folder: Path, *, of_views: bool) -> dict[str, int]:
    return {
        f"{path.relative_to(ROOT)}: {name}": count
        for path in sorted(folder.rglob("*.py"))
        for name, count in lengths(path.read_text("utf-8"), of_views=of_views).items()
    }


def test_views_are_short() -> None:
    found = in_folder(WEB, of_views=True)
    assert len(found) > 90
    assert {view: count for view, count in found.items() if count > MAX_VIEW_LINES} == {}


def test_no_use_case_hides_in_a_helper_beside_the_views() -> None:
    found = in_folder(WEB / "resources", of_views=False)
    assert len(found) > 90
    assert {helper: count for helper, count in found.items() if count > MAX_HELPER_LINES} == {}


TEXT = """
@blueprint.get("/x")
@endpoint(TAG, None)
def show(x: int) -> None:
    '''Show.'''
    found = f(
        x,
    )
    g(found)


@cache
def helper(x: int) -> int:
    '''Help.'''

    def inner() -> int:
        return x

    return inner()


class Part:
    async def method(self) -> None:
        await f()
"""


@pytest.mark.parametrize(
    ("of_views", "counted"), [(True, {"show:4": 4}), (False, {"helper:13": 4, "inner:16": 1, "method:23": 1})]
)
def test_the_lines_of_functions_are_counted(of_views: bool, counted: dict[str, int]) -> None:
    assert lengths(TEXT, of_views=of_views) == counted


def test_no_form_sends_its_fields_in_the_address_by_accident() -> None:
    """Before its script has run, a form does what its ``method`` says; without one, what it has goes into the address:
    a key, for example. ``dialog`` does nothing outside of a dialog."""
    forms = {
        (path.name, form)
        for path in (WEB / "templates").glob("*.html")
        for form in re.findall(r"<form\b[^>]*>?", path.read_text("utf-8"))
    }
    assert len(forms) > 20
    assert [form for form in sorted(forms) if not re.search(r'\smethod="(dialog|get)"', form[1])] == []
