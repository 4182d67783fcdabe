"""The dashboards are those of their program, and show what the service exports."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.deploy.dashboards.documents import FOLDER, documents

OPERATIONS = FOLDER.parents[1] / "docs" / "operations.md"


def test_each_file_is_as_its_program_writes_it() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == documents(), (
        "run `make dashboards`"
    )


def panels(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(documents()[name])["panels"]
    return found


@pytest.mark.parametrize("name", documents())
def test_panels_say_what_they_show_in_which_unit(name: str) -> None:
    ids = [panel["id"] for panel in panels(name)]
    assert len(ids) == len(set(ids))
    for panel in panels(name):
        if panel["type"] in ("row", "text"):
            continue
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        if panel["type"] == "timeseries":
            assert all(target["legendFormat"] != "__auto" for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize("name", documents())
def test_panels_fill_their_rows(name: str) -> None:
    cells = [
        (x, y)
        for panel in panels(name)
        for position in [panel["gridPos"]]
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


def test_every_metric_is_documented_and_most_are_shown() -> None:
    families = set(re.findall(r"`(tapeline_\w+)`", OPERATIONS.read_text(encoding="utf-8")))
    shown = {
        re.sub(r"_(bucket|count)$", "", name) for name in re.findall(r"tapeline_\w+", "".join(documents().values()))
    }
    assert sorted(shown - families) == []
    assert sorted(families - shown) == []
