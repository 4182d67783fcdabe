"""The table in docs/results.md agrees with ``benchmarks/results/tabular.json``, and meets its goals."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tabular import BUNDLED, table

ROOT = Path(__file__).parents[2]
ROWS = json.loads((ROOT / "benchmarks/results/tabular.json").read_text(encoding="utf-8"))


def test_the_results_document_has_the_measured_table() -> None:
    assert table(ROWS) in (ROOT / "docs/results.md").read_text(encoding="utf-8")


def test_the_preset_matches_scikit_learn_and_reaches_97_percent_on_penguins() -> None:
    by_name = {row["dataset"]: row for row in ROWS}
    for name in BUNDLED:
        rival = by_name[name]["sklearn"]
        assert by_name[name]["tapeline"]["mean"] >= rival["mean"] - rival["half"], name
    assert by_name["penguins"]["tapeline"]["mean"] >= 0.97
