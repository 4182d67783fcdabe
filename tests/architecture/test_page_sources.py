"""The scripts, styles and templates of the page: what their formatters do not do, and what they could break."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from tests.architecture.test_modules import ROOT

MAX_COLUMNS = 120
SERVICE = ROOT / "service"
LIBRARIES = SERVICE / "web" / "static" / "lib"


def texts(pattern: str) -> dict[str, str]:
    """The files of ours below ``service``, by path."""
    paths = [path for path in SERVICE.glob(pattern) if not path.is_relative_to(LIBRARIES)]
    return {path.relative_to(SERVICE).as_posix(): path.read_text("utf-8") for path in sorted(paths)}


@pytest.mark.parametrize("pattern", ["**/static/**/*.js", "**/static/**/*.css", "**/templates/*.html"])
def test_lines_are_short(pattern: str) -> None:
    # Formatters leave text, comments, and the expressions of templates as long as they are.
    files = texts(pattern)
    assert len(files) > 10
    lines = {
        f"{path}:{number}": len(line)
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
    }
    assert {line: length for line, length in lines.items() if length > MAX_COLUMNS} == {}


def test_formatters_wrap_at_the_same_column() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    deno = json.loads((ROOT / "deno.json").read_text("utf-8"))
    columns = [tools["ruff"]["line-length"], tools["djangofmt"]["line-length"], deno["fmt"]["lineWidth"]]
    assert columns == [MAX_COLUMNS] * 3


def test_no_style_needs_an_element_to_be_empty_in_which_a_template_has_a_line_break() -> None:
    # The formatter breaks the line after the attributes of an element if they are many; :empty then does not match.
    blank = [
        name
        for text in texts("**/templates/*.html").values()
        for attributes in re.findall(r"<\w+((?:\s[^<>]*)?)>\s+</", text)
        for kind, value in re.findall(r'\b(id|class)="([^"{]*)"', attributes)
        for name in (f"#{value}" if kind == "id" else f".{part}" for part in value.split())
    ]
    assert len(blank) > 5
    selectors = [
        selector for text in texts("**/static/**/*.css").values() for selector in re.findall(r"[^\s{},]*:empty", text)
    ]
    assert len(selectors) > 5
    assert [selector for selector in selectors if set(re.findall(r"[#.][\w-]+", selector)) & set(blank)] == []
