"""Writes the tables of operations into docs/api.md: ``make client``."""

from __future__ import annotations

import re
from pathlib import Path

from service.web.app import build_app
from service.web.docs.routes import Route, routes
from service.web.http.endpoint import Tag

DOCUMENT = Path(__file__).parents[4] / "docs" / "api.md"
_TABLE = re.compile(r"(?s)^### (\w+)\n(.*?\| operation \| effect \|\n\|---\|---\|\n)((?:\|.*?\n)+)", re.MULTILINE)


def updated() -> str:
    """The document with the present operations under the heading of each tag. A tag without a heading gets one."""
    rows = dict[str, list[str]]()
    for route in routes(build_app()):
        rows.setdefault(route.operation.tag, []).append(f"| `{route.method} {route.path}` | {_effect(route)} |\n")
    text = DOCUMENT.read_text(encoding="utf-8")
    for tag in rows:
        if isinstance(tag, Tag) and f"\n### {tag}\n" not in text:
            text = _with_section(text, tag)
    text, _ = _TABLE.subn(lambda match: f"### {match[1]}\n{match[2]}{''.join(rows.pop(match[1]))}", text)
    assert not rows, f"the document has no table of {', '.join(rows)}"
    return text


def _with_section(text: str, tag: Tag) -> str:
    """The document with a heading and an empty table for a tag, after the section of the tag that it follows."""
    section = f"### {tag}\n\n{tag.text}\n\n| operation | effect |\n|---|---|\n| |\n\n"
    former = re.compile(rf"(?ms)^### {tag.after}\n.*?(?=^#|\Z)")
    return former.sub(lambda match: match[0].rstrip("\n") + "\n\n" + section, text, count=1)


def _effect(route: Route) -> str:
    first = re.sub(r"\. Requires the scope (`\w+`)\.", r" (scope \1)", route.paragraphs[0]).rstrip(".")
    return first[0].lower() + first[1:]


if __name__ == "__main__":
    DOCUMENT.write_text(updated(), encoding="utf-8")
