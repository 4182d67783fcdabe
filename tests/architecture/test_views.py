"""Views are thin: they bind the request, call a use case or a query, and represent the result."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_VIEW_LINES = 10
"""Without decorators, signature and docstring."""


def views(text: str) -> dict[str, int]:
    """By function with the decorator ``endpoint``: the lines of its body."""
    found = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and any(name(item) == "endpoint" for item in node.decorator_list):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            found[node.name] = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return found


def name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func) if isinstance(decorator, ast.Call) else ""


def test_views_are_short() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}: {view}": count
        for path in sorted((ROOT / "service" / "web").rglob("*.py"))
        for view, count in views(path.read_text("utf-8")).items()
    }
    assert len(lengths) > 90
    assert {view: count for view, count in lengths.items() if count > MAX_VIEW_LINES} == {}


def test_the_lines_of_a_view_are_counted() -> None:
    text = """
@blueprint.get("/x")
@endpoint(TAG, None)
def show(x: int) -> None:
    '''Show.'''
    found = f(
        x,
    )
    g(found)
"""
    assert views(text) == {"show": 4}
