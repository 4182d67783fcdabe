"""The table in docs/results.md agrees with ``benchmarks/results/tabular.json``, and meets its goals."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.tabular import CLASSES, NUMBERS, table_of_classes, table_of_numbers

ROOT = Path(__file__).parents[2]
ROWS = json.loads((ROOT / "benchmarks/results/tabular.json").read_text(encoding="utf-8"))


def test_the_results_document_has_the_measured_tables() -> None:
    document = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert table_of_classes(ROWS) in document
    assert table_of_numbers(ROWS) in document
    assert {row["dataset"] for row in ROWS} == {*CLASSES, *NUMBERS}


def test_the_preset_matches_scikit_learn_and_reaches_97_percent_on_penguins() -> None:
    by_name = {row["dataset"]: row for row in ROWS}
    for name in CLASSES:
        rival = by_name[name]["sklearn"]
        assert by_name[name]["tapeline"]["mean"] >= rival["mean"] - rival["half"], name
    assert by_name["penguins"]["tapeline"]["mean"] >= 0.97


def test_the_preset_for_numbers_is_within_the_interval_of_scikit_learn_or_better() -> None:
    for row in ROWS:
        if row["dataset"] in NUMBERS:
            rival = row["sklearn"]
            assert row["tapeline"]["mean"] <= rival["mean"] + rival["half"], row["dataset"]
