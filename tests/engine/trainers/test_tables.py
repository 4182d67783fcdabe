"""Training on the rows of a table, without images or shifts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import engine
from engine import ClassifierTrainer, DataError, EpochDone, SettingError, TableData, balanced_class_weights
from engine.augmentation import Changes

RNG = np.random.default_rng(0)
LABELS = (RNG.random(400) < 0.1).astype(np.uint8)
ROWS = (RNG.normal(size=(400, 3)) + 1.2 * LABELS[:, None]).astype(np.float32)


def make_trainer(
    *, balanced: bool = False, smoothing: float = 0.0, replay: bool = True, **changes: Any
) -> ClassifierTrainer:
    rng = np.random.default_rng(1)
    hidden = engine.Dense(3, 8, engine.Activation.RELU, initializer=engine.initializers.he_normal, rng=rng)
    last = engine.Dense(8, 2, engine.Activation.SOFTMAX, initializer=engine.initializers.he_normal, rng=rng)
    weights = balanced_class_weights(LABELS[:300], 2) if balanced else None
    settings = {"epochs": 20, "batch_size": 16, "shuffle": True, "seed": 0} | changes
    return ClassifierTrainer(
        engine.Sequential([hidden, last], (3,)),
        engine.SoftmaxCrossEntropy(label_smoothing=smoothing, class_weights=weights),
        engine.Adam(0.01),
        engine.schedules.constant(),
        train=TableData(ROWS[:300], LABELS[:300], 2),
        validation=TableData(ROWS[300:], LABELS[300:], 2),
        replay=replay,
        **settings,
    )


def epoch_reports(trainer: ClassifierTrainer) -> list[EpochDone]:
    return [report for report in trainer.run() if isinstance(report, EpochDone)]


def test_training_on_a_table_learns_and_reports_scores() -> None:
    last = epoch_reports(make_trainer())[-1]
    assert last.metrics["train_accuracy"] > 0.9
    assert set(last.scores) == {"val_balanced_accuracy", "val_macro_f1", "val_log_loss", "val_roc_auc"}
    assert last.scores["val_roc_auc"] > 0.8


@pytest.mark.parametrize("settings", [{}, {"smoothing": 0.2}, {"balanced": True}])
def test_examples_that_are_not_trained_on_are_scored_by_the_plain_log_loss(settings: dict[str, Any]) -> None:
    trainer = make_trainer(**settings)
    last = epoch_reports(trainer)[-1]
    assert last.metrics["val_loss"] == pytest.approx(last.scores["val_log_loss"], rel=1e-5)
    assert trainer.test(trainer.validation)["test_loss"] == last.metrics["val_loss"]


def test_class_weights_raise_balanced_accuracy_and_replay_with_the_same_bits() -> None:
    plain, weighted = epoch_reports(make_trainer()), epoch_reports(make_trainer(balanced=True))
    assert weighted[-1].scores["val_balanced_accuracy"] > plain[-1].scores["val_balanced_accuracy"]
    taped = epoch_reports(make_trainer(balanced=True, replay=False))
    assert [report.metrics for report in weighted] == [report.metrics for report in taped]


def test_a_table_has_no_images_and_cannot_be_shifted() -> None:
    with pytest.raises(DataError, match="a table has no images"):
        make_trainer().samples(3)
    with pytest.raises(SettingError, match="max_shift"):
        make_trainer(max_shift=1)
    with pytest.raises(DataError, match="cannot be shifted"):
        TableData(ROWS, LABELS, 2).inputs(slice(0, 2), np.float32, changes=Changes(shifts=np.zeros((2, 2), int)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS.astype(np.int64), "floats"),
        (ROWS[:0], "floats"),
        (ROWS[0], "floats"),
        (np.full((400, 1), np.nan), "finite"),
    ],
)
def test_invalid_rows_are_rejected(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TableData(rows, LABELS, 2)
