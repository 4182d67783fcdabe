from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from service.schema.preset_info import ReachedItem
from service.spec import metric_info
from service.spec.presets.definitions import DEFAULT_PRESET, PRESET_INFO, PRESETS
from service.spec.schema import Kind

MEASURED = json.loads((Path(__file__).parents[4] / "benchmarks/results/presets.json").read_text(encoding="utf-8"))
TABULAR = json.loads((Path(__file__).parents[4] / "benchmarks/results/tabular.json").read_text(encoding="utf-8"))
FIELD_NAMES = {"val_accuracy": "accuracy"}
"""Field names of metrics with another name in the benchmark's rows."""
STATED = [
    (kind, name, reached)
    for kind, presets in PRESET_INFO.items()
    for name, info in presets.items()
    for reached in info.reaches
    if name != "table"
]


def rows_of(kind: str, name: str, reached: ReachedItem) -> list[dict[str, Any]]:
    """The stored measurements of a stated result."""
    key = {"kind": kind, "preset": name, "dataset": reached.dataset}
    return [row for row in MEASURED["rows"] if key.items() <= row.items()]


def short_id(value: str | ReachedItem) -> str:
    return value.dataset if isinstance(value, ReachedItem) else value


def test_every_preset_has_a_summary_and_stated_results() -> None:
    assert {kind: set(presets) for kind, presets in PRESET_INFO.items()} == {
        kind: set(presets) for kind, presets in PRESETS.items()
    }
    for kind, presets in PRESET_INFO.items():
        assert next(iter(presets)) == DEFAULT_PRESET[kind]
        for info in presets.values():
            assert info.summary.endswith(".")
            assert info.reaches


@pytest.mark.parametrize(
    ("kind", "reached"),
    [(kind, reached) for kind in (Kind.CLASSIFIER, Kind.REGRESSOR) for reached in PRESET_INFO[kind]["table"].reaches],
    ids=short_id,
)
def test_the_stated_results_of_the_table_presets_match_the_measurements(kind: Kind, reached: ReachedItem) -> None:
    (row,) = (row for row in TABULAR if row["dataset"] == reached.dataset)
    assert reached.metric == metric_info.KEY_METRICS[kind][0]
    assert reached.value == pytest.approx(row["tapeline"]["mean"], rel=0.002)
    assert reached.seconds == pytest.approx(row["tapeline"]["seconds"], rel=0.5)


@pytest.mark.parametrize(("kind", "name", "reached"), STATED, ids=short_id)
def test_a_stated_result_is_a_positive_value_of_a_known_metric(kind: str, name: str, reached: ReachedItem) -> None:
    assert reached.metric in metric_info.METRICS
    assert reached.value > 0
    assert reached.seconds > 0


def test_only_classifiers_on_mnist_10k_state_results_without_a_stored_measurement() -> None:
    stated = {(kind, name, reached.dataset) for kind, name, reached in STATED}
    measured = {(row["kind"], row["preset"], row["dataset"]) for row in MEASURED["rows"]}
    assert stated - measured == {("classifier", name, "mnist-10k") for name in ("fast", "best", "conv", "classic")}
    assert {name for _, name, _ in measured - stated} == {"digits"}  # an example, no preset


@pytest.mark.parametrize(("kind", "name", "reached"), [case for case in STATED if rows_of(*case)], ids=short_id)
def test_the_stated_results_of_presets_match_the_measurements(kind: str, name: str, reached: ReachedItem) -> None:
    rows = rows_of(kind, name, reached)
    value = median(row[FIELD_NAMES.get(reached.metric, reached.metric)] for row in rows)
    assert reached.value == pytest.approx(value, rel=0.01 if value > 1 else 0.001)
    assert reached.seconds == pytest.approx(median(row["cpu_seconds"] for row in rows), rel=0.3)
