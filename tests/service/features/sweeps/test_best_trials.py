"""The best trial of a sweep with halving, among those that were trained equally long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.sweeps import decisions
from tests.service.features.sweeps.simulated_sweeps import finish, start, train_one

HALVING = {"min_epochs": 2, "factor": 2}
RATES = (0.01, 0.02, 0.03, 0.04)
CLOSE = ((0.90, 0.91, 0.92), (0.91, 0.90, 0.915), (0.80, 0.81, 0.80), (0.79, 0.78, 0.79))
CONSTANT = (CLOSE[0], (0.85, 0.86, 0.87), *CLOSE[2:])
CLEAR = (CLOSE[0], (0.85, 0.861, 0.869), *CLOSE[2:])
FIRST = "Trial 0 (learning_rate 0.01)"
BEST = f"{FIRST} is the best of those trained to epoch 4. Whether it is by more than chance is unknown:"
NEXT = "trial 1 (learning_rate 0.02)"
LEAD = f"{NEXT} by 5.00 points in val accuracy of the last epoch, 95% CI over seeds"
NO_WIDTH = (
    f"5.00 points higher than {NEXT} in val accuracy of the last epoch, in each of 3 pairs: the 95% CI has no width."
)
NOT_DISTINGUISHABLE = (
    f", but not distinguishable from trial 1. Its mean is 0.17 points higher than that of {NEXT} in val accuracy of "
    "the last epoch, 95% CI over seeds -2.42 to 2.75, 3 pairs: the interval contains 0, so no difference is shown."
)


def overfit(job: Mapping[str, Any], epoch: int, values: Sequence[Sequence[float]] = CLOSE) -> float:
    """The simulated accuracy, which falls after epoch 2: trials that were stopped then have higher values."""
    value = values[RATES.index(job["resolved"]["optimizer"]["learning_rate"])][job["resolved"]["seed"]]
    return round(value - 0.2 * (epoch > 2), 6)


def halved(client: FlaskClient, **changes: Any) -> dict[str, Any]:
    space = {"/optimizer/learning_rate": {"choice": RATES}}
    return start(client, **{"search": None, "space": space, "halving": HALVING, "seeds": [0, 1, 2]} | changes)


def order(client: FlaskClient, sweep: Mapping[str, Any], sort: str) -> list[tuple[int, int | None]]:
    trials = client.get(f"/sweeps/{sweep['id']}/trials", query_string={"sort": sort}).json["data"]
    return [(trial["trial"], trial["rung_epoch"]) for trial in trials]


def test_the_winner_stands_above_trials_that_were_stopped_with_a_higher_value(
    either_app: Flask, make_worker: Callable[[Flask], Any]
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    sweep = finish(client, worker, halved(client)["id"], measure=overfit)
    by_rung = [(0, 4), (1, 4), (2, 2), (3, 2)]
    assert order(client, sweep, "best") == order(client, sweep, "-value") == by_rung
    assert order(client, sweep, "value") == [(1, 4), (0, 4), (3, 2), (2, 2)]
    assert order(client, sweep, "-trial") == by_rung[::-1]
    assert (sweep["best_trial"], sweep["best_epoch"], sweep["not_distinguishable"]) == (0, 4, [1])
    assert sweep["best_sentence"] == f"{FIRST} is the best of those trained to epoch 4{NOT_DISTINGUISHABLE}"
    assert sweep["best_sentence"] in client.get(f"/ui/sweeps/{sweep['id']}").text


@pytest.mark.parametrize(
    ("changes", "values", "sentence"),
    [
        (
            {},
            CLEAR,
            f"{FIRST} is the best of those trained to epoch 4. It is better than {LEAD} 4.75 to 5.25, 3 pairs.",
        ),
        ({}, CONSTANT, f"{FIRST} is the best of those trained to epoch 4. It was {NO_WIDTH}"),
        (
            {"seeds": [0]},
            CLEAR,
            f"{BEST} with one seed each, the variation between seeds is not measured.",
        ),
        (
            {"objective": {"metric": "val_accuracy", "over_seeds": "max"}},
            CLEAR,
            f"{BEST} intervals are those of means, and trials are ranked by the max.",
        ),
        ({"halving": HALVING | {"factor": 3}, "base": None}, CLEAR, f"{FIRST} is the only one trained to epoch 6."),
        ({"halving": None}, CLEAR, f"{FIRST} is the best. It is better than {LEAD} 4.75 to 5.25, 3 pairs."),
        (
            {"halving": None},
            CLOSE,
            f"{FIRST} is the best{NOT_DISTINGUISHABLE}",
        ),
    ],
    ids=[
        "distinguishable",
        "constant difference",
        "one seed",
        "not the mean",
        "alone",
        "without halving",
        "close without halving",
    ],
)
def test_the_best_trial_is_named_with_what_is_known_of_the_others(
    client: FlaskClient, worker: Any, changes: dict[str, Any], values: Sequence[Sequence[float]], sentence: str | None
) -> None:
    if "base" in changes:
        changes = changes | {"base": {"kind": "classifier", "epochs": 6}}
    created = halved(client, **changes)
    assert created["best_sentence"] is None
    sweep = finish(client, worker, created["id"], measure=lambda job, epoch: overfit(job, epoch, values))
    assert sweep["best_sentence"] == sentence


def test_a_trial_on_its_way_to_the_next_rung_belongs_to_the_one_of_its_value(client: FlaskClient, worker: Any) -> None:
    sweep = halved(client, seeds=[0], parallel=4)
    for _ in RATES:
        train_one(client, worker, measure=overfit)
    decisions.advance_all(worker.database)
    trials = client.get(f"/sweeps/{sweep['id']}/trials?sort=best").json["data"]
    assert [(trial["trial"], trial["status"]) for trial in trials[:2]] == [(1, "running"), (0, "running")]
    by_rung = [(1, 2), (0, 2), (2, 2), (3, 2)]
    assert order(client, sweep, "best") == by_rung
    assert "of those trained to epoch 2" in client.get(f"/sweeps/{sweep['id']}").json["best_sentence"]
    client.post(f"/sweeps/{sweep['id']}/cancel")
    assert order(client, sweep, "best") == by_rung
