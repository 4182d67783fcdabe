"""Views are thin: they bind the request, call a use case or a query, and represent the result."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"
MAX_VIEW_LINES = 10
"""Without decorators, signature and docstring."""
MAX_HELPER_LINES = 15
"""For every other function and method in the same files, counted the same way."""


def body_lengths(text: str, *, of_views: bool) -> dict[str, int]:
    """Count the lines of each function's body, by name and line number.

    Args:
        of_views: count functions with the decorator ``endpoint``, or all others.
    """
    line_counts = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_view(node) == of_views:
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            line_counts[f"{node.name}:{node.lineno}"] = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return line_counts


def is_view(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(item, ast.Call) and ast.unparse(item.func) == "endpoint" for item in node.decorator_list)


def web_body_lengths(*, of_views: bool) -> dict[str, int]:
    """The same for all modules of the web process that have views."""
    texts = {path.relative_to(ROOT): path.read_text("utf-8") for path in sorted(SERVICE.rglob("*.py"))}
    return {
        f"{path}: {name}": count
        for path, text in texts.items()
        if body_lengths(text, of_views=True)
        for name, count in body_lengths(text, of_views=of_views).items()
    }


def test_views_are_short() -> None:
    line_counts = web_body_lengths(of_views=True)
    assert len(line_counts) > 90
    assert {view: count for view, count in line_counts.items() if count > MAX_VIEW_LINES} == {}


def test_helpers_beside_the_views_are_short() -> None:
    line_counts = web_body_lengths(of_views=False)
    assert len(line_counts) > 60
    assert {helper: count for helper, count in line_counts.items() if count > MAX_HELPER_LINES} == {}


SOURCE = """
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
def test_body_lines_are_counted_without_decorators_signature_and_docstring(
    of_views: bool, counted: dict[str, int]
) -> None:
    assert body_lengths(SOURCE, of_views=of_views) == counted


def test_no_form_submits_its_fields_in_the_url_by_default() -> None:
    """Until its script has run, a form is submitted by its ``method``. The default, ``get``, puts its fields
    into the URL: an API key, for example. ``dialog`` does nothing outside a dialog, and a ``get`` that is
    intended must be explicit."""
    forms = {
        (path.name, form)
        for path in SERVICE.rglob("templates/*.html")
        for form in re.findall(r"<form\b[^>]*>?", path.read_text("utf-8"))
    }
    assert len(forms) > 20
    assert [form for form in sorted(forms) if not re.search(r'\smethod="(dialog|get)"', form[1])] == []


def test_no_module_names_an_endpoint_by_a_string() -> None:
    """What central code does for some operations, these declare: a list of their names would have to be kept."""
    from service.web.app import build_app

    endpoints = {rule.endpoint for rule in build_app().url_map.iter_rules() if "." in rule.endpoint}
    assert len(endpoints) > 150
    named = {
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for path in SERVICE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in endpoints
    }
    named |= {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SERVICE.rglob("templates/*.html")
        for name in re.findall(r"request\.endpoint|url_for", path.read_text("utf-8"))
    }
    assert named == set()
