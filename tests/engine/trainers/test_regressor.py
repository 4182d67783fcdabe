"""Training a regressor on the rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import engine
from engine import CheckpointError, DataError, EpochDone, RegressorTrainer, SettingError, ShapeError, TableData
from engine.evaluation.metrics import regression_scores

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(400, 3))
PRICES = 250_000 + 80_000 * (ROWS[:, 0] - 0.5 * ROWS[:, 1]) + RNG.normal(0, 20_000, 400)
TRAIN, VALIDATION = slice(0, 300), slice(300, 400)


def make_trainer(*, loss: Any = None, units: int = 1, **changes: Any) -> RegressorTrainer:
    rng = np.random.default_rng(1)
    hidden = engine.Dense(3, 8, engine.Activation.RELU, initializer=engine.initializers.he_normal, rng=rng)
    last = engine.Dense(8, units, None, initializer=engine.initializers.he_normal, rng=rng)
    settings = {"epochs": 20, "batch_size": 16, "shuffle": True, "seed": 0}
    settings |= {"mean": float(PRICES[TRAIN].mean()), "scale": float(PRICES[TRAIN].std())} | changes
    rows = ROWS.astype(settings.get("dtype", np.float32))
    return RegressorTrainer(
        engine.Sequential([hidden, last], (3,)),
        loss or engine.SquaredError(),
        engine.Adam(0.01),
        engine.schedules.constant(),
        train=TableData(rows[TRAIN], targets=PRICES[TRAIN]),
        validation=TableData(rows[VALIDATION], targets=PRICES[VALIDATION]),
        **settings,
    )


def epoch_reports(trainer: RegressorTrainer) -> list[EpochDone]:
    return [report for report in trainer.run() if isinstance(report, EpochDone)]


@pytest.mark.parametrize("loss", [engine.SquaredError, engine.AbsoluteError, engine.Huber])
def test_metrics_are_those_of_the_predictions_in_the_unit_of_the_target(loss: Any) -> None:
    trainer = make_trainer(loss=loss())
    reports = epoch_reports(trainer)
    metrics = reports[-1].metrics
    outputs = np.asarray(trainer.model(ROWS[VALIDATION].astype(np.float32)))[:, 0].astype(np.float64)
    predictions = trainer.mean + trainer.scale * outputs
    errors = predictions - PRICES[VALIDATION]
    assert metrics["val_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-6)
    assert metrics["val_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert metrics["val_r2"] == pytest.approx(1 - np.mean(errors**2) / np.var(PRICES[VALIDATION]), rel=1e-6)
    # The noise has a standard deviation of 20,000, which no model can predict.
    assert 15_000 < metrics["val_rmse"] < 26_000 < reports[0].metrics["val_rmse"]
    assert metrics["train_rmse"] == pytest.approx(20_000, rel=0.2)
    assert metrics["train_r2"] > 0.9
    assert metrics["train_mae"] < metrics["train_rmse"]
    test = trainer.test(trainer.validation)  # type: ignore[arg-type]
    assert test["test_rmse"] == metrics["val_rmse"]
    assert test["test_loss"] == metrics["val_loss"]


def test_the_squared_error_is_that_of_the_standardised_target() -> None:
    trainer = make_trainer()
    metrics = epoch_reports(trainer)[-1].metrics
    assert metrics["val_loss"] == pytest.approx((metrics["val_rmse"] / trainer.scale) ** 2, rel=1e-5)
    assert metrics["train_loss"] == pytest.approx((metrics["train_rmse"] / trainer.scale) ** 2, rel=1e-5)


def test_the_best_epoch_has_the_lowest_error_of_the_validation_rows() -> None:
    trainer = make_trainer()
    errors = [report.metrics["val_rmse"] for report in epoch_reports(trainer)]
    assert trainer.best_rmse == min(errors)
    assert trainer.best_epoch == errors.index(min(errors)) + 1


def test_resuming_and_replaying_give_the_same_bits() -> None:
    whole, taped = make_trainer(loss=engine.Huber()), make_trainer(loss=engine.Huber(), replay=False)
    first = make_trainer(loss=engine.Huber())
    expected = epoch_reports(whole)
    assert [report.metrics for report in epoch_reports(taped)] == [report.metrics for report in expected]
    for report in first.run():
        if isinstance(report, EpochDone) and report.epoch == 7:
            break
    second = make_trainer(loss=engine.Huber())
    second.load_state_dict(first.state_dict())
    assert [report.metrics for report in epoch_reports(second)] == [report.metrics for report in expected[7:]]
    assert second.best_epoch == whole.best_epoch
    for name, array in whole.named_arrays().items():
        np.testing.assert_array_equal(array, second.named_arrays()[name])


def test_a_state_with_an_impossible_best_epoch_is_rejected() -> None:
    trainer = make_trainer(epochs=2)
    epoch_reports(trainer)
    state = trainer.state_dict()
    state.state["best_epoch"] = 3
    with pytest.raises(CheckpointError, match="best of 2 epochs"):
        make_trainer(epochs=2).load_state_dict(state)


def test_early_stopping_can_watch_the_error_in_the_unit_of_the_target() -> None:
    stopping = engine.EarlyStopping("val_rmse", higher_is_better=False, patience=2, min_delta=1e9)
    assert epoch_reports(make_trainer(early_stopping=stopping))[-1].epoch == 3


def test_invalid_settings_and_rows_are_rejected() -> None:
    with pytest.raises(ShapeError, match="one output"):
        make_trainer(units=2)
    with pytest.raises(SettingError, match="scale"):
        make_trainer(scale=0.0)
    with pytest.raises(DataError, match="either labels or targets"):
        TableData(ROWS)
    with pytest.raises(DataError, match="finite"):
        TableData(ROWS, targets=np.full(400, np.nan))
    with pytest.raises(DataError, match="for 400 rows"):
        TableData(ROWS, targets=PRICES[:3])
    trainer = make_trainer()
    with pytest.raises(DataError, match="test rows have no targets"):
        trainer.test(TableData(ROWS.astype(np.float32), np.zeros(400, int), 1))


def test_scores_of_extreme_targets() -> None:
    exact = regression_scores(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert exact == {"rmse": 0.0, "mae": 0.0, "r2": 1.0, "rmse_error": 0.0, "mae_error": 0.0}
    mean = regression_scores(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert mean == {"rmse": 1.0, "mae": 1.0, "r2": 0.0, "rmse_error": 0.0, "mae_error": 0.0}
    for value in (1.0, 0.1, 19.99):  # the mean of equal decimals differs from them
        assert np.isnan(regression_scores(np.full(80, value), np.full(80, 2.0))["r2"])
    assert np.isnan(regression_scores(np.array([1.0]), np.array([2.0]))["rmse_error"])
    huge = regression_scores(np.array([0.0, 1e200]), np.array([0.0, 0.0]))
    assert huge["rmse"] == pytest.approx(1e200 / np.sqrt(2))


def test_a_row_far_away_from_the_training_rows_has_finite_scores() -> None:
    prices = PRICES[VALIDATION].copy()
    prices[0] = 1e90
    rows = TableData(ROWS.astype(np.float32)[VALIDATION], targets=prices)
    scores = make_trainer(epochs=1).test(rows)
    assert scores["test_rmse"] == pytest.approx(1e90 / np.sqrt(len(prices)))
    assert np.isfinite(scores["test_loss"])


def test_intervals_of_the_errors_cover_their_true_values() -> None:
    rng, covered = np.random.default_rng(0), np.zeros(2)
    for _ in range(400):
        scores = regression_scores(np.zeros(200), rng.normal(0, 3, 200))
        for index, (name, true) in enumerate({"rmse": 3.0, "mae": 3 * np.sqrt(2 / np.pi)}.items()):
            covered[index] += abs(scores[name] - true) < 1.96 * scores[f"{name}_error"]
    assert (covered / 400 > 0.9).all()
    assert (covered / 400 < 0.99).all()
