"""Writes the tables of operations into docs/api.md: ``make client``."""

from __future__ import annotations

import re
from pathlib import Path

from service.web.app import build_app
from service.web.docs.routes import Route, routes

DOCUMENT = Path(__file__).parents[4] / "docs" / "api.md"
_TABLE = re.compile(r"(?s)^### (\w+)\n(.*?\| operation \| effect \|\n\|---\|---\|\n)((?:\|.*?\n)+)", re.MULTILINE)


def updated() -> str:
    """The document with the present operations under the heading of each tag."""
    rows = dict[str, list[str]]()
    for route in routes(build_app()):
        rows.setdefault(route.operation.tag, []).append(f"| `{route.method} {route.path}` | {_effect(route)} |\n")
    text, _ = _TABLE.subn(
        lambda match: f"### {match[1]}\n{match[2]}{''.join(rows.pop(match[1]))}", DOCUMENT.read_text(encoding="utf-8")
    )
    assert not rows, f"the document has no table of {', '.join(rows)}"
    return text


def _effect(route: Route) -> str:
    first = re.sub(r"\. Requires the scope (`\w+`)\.", r" (scope \1)", route.paragraphs[0]).rstrip(".")
    return first[0].lower() + first[1:]


if __name__ == "__main__":
    DOCUMENT.write_text(updated(), encoding="utf-8")
