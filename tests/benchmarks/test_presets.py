"""`make results`: rows are really trained, stored at once, and retrained only after a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.presets import __main__ as command
from benchmarks.presets import independent, tables, training
from benchmarks.presets.__main__ import Store
from benchmarks.presets.rows import PLAN, Row, planned
from engine import EpochDone, GanTrainer
from service.datasets.cache import Dataset, load
from service.datasets.formats.array_folders import ArrayCache
from service.spec.presets.definitions import PRESETS
from service.spec.schema import Kind, Spec
from service.spec.validation import resolve
from workers.training import build
from workers.training.diagnostics import TrainingDiagnostics

FAST, BEST = Row("classifier", "fast", "mnist", 0), Row("gan", "best", "mnist-10k", 0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("data")
    return load("mnist-10k", folder, cache=ArrayCache(folder / "cache"))


def classifier_result(accuracy: float = 0.9841, **overrides: Any) -> dict[str, Any]:
    costs = {"seconds": 9.0, "cpu_seconds": 4.5, "load": 2.0, "epochs": 4, "parameters": 311_650, "findings": {}}
    return costs | {"accuracy": accuracy} | overrides


def gan_result(min_class_share: float = 0.05, **overrides: Any) -> dict[str, Any]:
    scores = {
        "frechet_distance": 20.4,
        "kl_to_uniform": 0.012,
        "min_class_share": min_class_share,
        "mode_coverage": 1.0,
    }
    costs = {"seconds": 90.0, "cpu_seconds": 80.0, "load": 2.0, "epochs": 80, "parameters": 750_000, "findings": {}}
    return costs | scores | overrides


def test_the_plan_has_all_image_presets_but_classifier_classic_which_takes_fifteen_minutes() -> None:
    presets = {(kind.value, preset) for kind in Kind for preset in PRESETS[kind]}
    plan = {(kind, preset) for kind, preset, _, _ in PLAN}
    assert presets - plan == {("classifier", "classic"), ("classifier", "table"), ("regressor", "table")}
    assert plan - presets == {("classifier", "digits")}  # docs/examples/digits.json


def test_words_select_rows_of_the_plan() -> None:
    assert {row.name for row in planned(["gan", "best"], 1)} == {"gan best, mnist-10k, seed 0"}
    assert {row.preset for row in planned(["gan", "classic"])} == {"classic"}
    assert {(row.dataset, row.seed) for row in planned(["conv", "mnist", "4"])} == {("mnist", 4)}


@pytest.mark.nightly
def test_a_row_has_the_metrics_of_a_job_and_its_samples_are_scored_independently(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_spec = {
        "layers": [{"units": 12, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
        "epochs": 1,
    }
    monkeypatch.setattr(independent, "SPEC", {"kind": "classifier", "seed": 1000} | small_spec)
    classifier = tmp_path / "independent.safetensors"
    training.checkpoint.save(classifier, independent.make(digits, training._print_line))
    real_scores = independent.calibrate(classifier, digits, 500)
    assert real_scores["accuracy"] > 0.5

    def spec(row: Row) -> Spec:
        return resolve({"kind": row.kind, "preset": row.preset, "seed": row.seed, "epochs": 1, "batch_size": 500})

    monkeypatch.setattr(Row, "spec", spec)
    monkeypatch.setattr(training, "EVALUATED_SAMPLES", 300)
    row = Row("gan", "seed", "mnist-10k", 0)
    result = training.train(row, digits, tmp_path)
    assert result["min_class_share"] == 0
    assert result["kl_to_uniform"] > 1  # one class of ten: ln 10
    assert result["parameters"] == 749_085
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "seed-mnist-10k-0.npy",
        "seed-mnist-10k-0.png",
    ]
    progress = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert progress == [{"epoch": 1, "epochs": 1}] * 2

    trainer = build.trainer(row.spec(), digits)
    assert isinstance(trainer, GanTrainer)
    diagnostics = TrainingDiagnostics.of(row.spec(), digits)
    metrics = [
        diagnostics.evaluate(trainer, report).metrics for report in trainer.run() if isinstance(report, EpochDone)
    ][-1]
    assert result["frechet_distance"] == round(metrics["frechet_distance"], 5)

    images = np.load(row.samples(tmp_path))
    independent_distance = independent.score(independent.load(classifier), images)
    assert independent_distance > 2 * real_scores["test digits"]["500"]
    assert independent_distance != result["frechet_distance"]


def test_the_short_table_has_the_bundled_distance_and_the_full_table_both() -> None:
    row = BEST.key | gan_result(frechet_distance=83.8) | {independent.METRIC: 4.1}
    content = {"independent": None, "rows": [row]}
    assert "84 (84)" in tables.short_table(content)
    assert "4.1" not in tables.short_table(content)
    (line,) = [line for line in tables.full_table(content).splitlines() if "`best`" in line]
    assert "| 83.8 |" in line
    assert "| 4.1 |" in line


def test_a_finished_row_is_kept_until_its_spec_or_the_reference_classifier_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "presets.json")
    store.put(BEST, gan_result())
    store.put(FAST, classifier_result())
    reopened = Store(tmp_path / "presets.json")
    assert [row["preset"] for row in reopened.content["rows"]] == ["fast", "best"]  # in the order of the plan
    assert reopened.find(FAST) is not None
    assert reopened.find(Row("classifier", "fast", "mnist", 1)) is None
    monkeypatch.setattr("benchmarks.presets.rows.reference", lambda: "sha256:another")
    assert reopened.find(FAST) is not None
    assert reopened.find(BEST) is None
    monkeypatch.setitem(PRESETS[Kind.CLASSIFIER]["fast"], "epochs", 99)
    assert reopened.find(FAST) is None
    reopened.put(FAST, classifier_result(0.99))
    assert [row["accuracy"] for row in reopened.content["rows"] if row["preset"] == "fast"] == [0.99]


def test_an_interrupted_table_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []

    def in_process(label: str, options: Any, *arguments: str) -> dict[str, Any]:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(label.split("seed ")[1].strip())
        return classifier_result()

    monkeypatch.setattr(command, "_in_process", in_process)
    monkeypatch.setattr(command, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / tables.DOCUMENT).write_text(f"before\n{tables.BEGIN}old\n{tables.END}after\n")
    monkeypatch.setattr("sys.argv", ["presets", "fast", "mnist", "--seeds", "3", "--results", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        command.main()
    trained.pop()
    command.main()
    assert trained == ["0", "2"]
    text = (tmp_path / tables.DOCUMENT).read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| `fast` | `mnist` | 98.41% (98.41%) | 98.3% | 3 of 3 (2 to come) |" in text
    assert capsys.readouterr().out.count("98.41%") > 3


def test_missed_goals_do_not_count_as_reached() -> None:
    rows = [FAST.key | classifier_result(0.9829), FAST.key | classifier_result(0.99, seed=1)]
    rows += [Row("gan", "stable", "mnist-10k", 0).key | gan_result(0.029, findings={"mode_collapse": 4})]
    text = tables.short_table({"rows": rows})
    assert "98.64% (98.29%)" in text.replace("98.65%", "98.64%")
    assert "1 of 2 (3 to come)" in text
    assert "| 1 (4 to come) | 20 (20) | 0.012 | 2.9% | 0 of 1 | epoch 4, 1 of 1 |" in text


def test_the_tables_show_the_median_of_the_seeds() -> None:
    rows = [FAST.key | classifier_result(value, seed=n) for n, value in enumerate((0.91, 0.97, 0.98))]
    rows += [BEST.key | gan_result(seed=n, frechet_distance=value) for n, value in enumerate((38.0, 40.0, 90.0))]
    text = tables.short_table({"rows": rows})
    assert "97.00% (91.00%)" in text
    assert "| 40 (90) |" in text
    assert "median accuracy" in text
    assert "median Fréchet distance" in text
