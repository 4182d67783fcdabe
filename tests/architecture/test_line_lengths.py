"""No line of the page's sources is longer than 120 columns: formatters leave text, comments and expressions long."""

from __future__ import annotations

import json
import tomllib

import pytest

from tests.architecture.test_modules import ROOT

MAX_COLUMNS = 120
WEB = ROOT / "service" / "web"


@pytest.mark.parametrize("pattern", ["static/**/*.js", "static/**/*.css", "**/templates/*.html"])
def test_lines_are_short(pattern: str) -> None:
    paths = [path for path in WEB.glob(pattern) if not path.is_relative_to(WEB / "static" / "lib")]
    assert len(paths) > 10
    long_lines = {
        f"{path.relative_to(ROOT)}:{number}": len(line)
        for path in paths
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if len(line) > MAX_COLUMNS
    }
    assert long_lines == {}


def test_formatters_wrap_at_the_same_column() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    columns = [tools["ruff"]["line-length"], tools["djangofmt"]["line-length"]]
    columns.append(json.loads((ROOT / "deno.json").read_text("utf-8"))["fmt"]["lineWidth"])
    assert columns == [MAX_COLUMNS] * 3
