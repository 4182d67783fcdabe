"""The sentence that summarizes how two jobs differ."""

from __future__ import annotations

from typing import Any

import pytest

from service.jobs.differences.explanation import Differences, Pair
from service.storage.tables import Job

SETTINGS = [Pair(f"/optimizer/{name}", 1, 2) for name in ("learning_rate", "momentum")]


def job(name: str, **fields: Any) -> Job:
    return Job(id=f"job_{name}", name=name, **({"status": "succeeded", "parent_id": None, "start_epoch": 0} | fields))


def sentence(a: Job, b: Job, epochs: int = 0, **differences: Any) -> str:
    defaults: dict[str, Any] = {"spec": (), "provenance": (), "dataset": None, "epoch": None, "checkpoint": None}
    return Differences(a=a, b=b, compared_epochs=epochs, **defaults | differences).sentence


def test_a_fork_from_the_last_epoch_has_no_epoch_in_common_with_its_original() -> None:
    fork = job("longer", parent_id="job_short", start_epoch=3)
    for pair in ((fork, job("short")), (job("short"), fork)):
        assert sentence(*pair) == "longer continues short after epoch 3, so they have no epoch in common."


def test_an_epoch_to_compare_is_expected_only_while_a_job_runs() -> None:
    assert sentence(job("a"), job("b")) == "They have no epoch in common."
    assert sentence(job("a"), job("b", status="running")) == "No epoch to compare yet."


@pytest.mark.parametrize(
    ("differences", "ending"),
    [
        ({"spec": SETTINGS[:1]}, "The jobs differ in optimizer.learning_rate."),
        ({"spec": SETTINGS}, "The jobs differ in 2 settings (below)."),
        (
            {"spec": SETTINGS, "dataset": Pair("dataset", 1, 2), "provenance": [Pair("preprocessing", 1, 2)]},
            "The jobs differ in 2 settings (below), the data and the preprocessing.",
        ),
    ],
)
def test_causes_are_counted_and_listed(differences: dict[str, Any], ending: str) -> None:
    assert sentence(job("a"), job("b"), epochs=2, **differences) == f"No difference in 2 epochs. {ending}"
