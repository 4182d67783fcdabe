"""The tiles of a job's page, as its HTML shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

Submit = Callable[..., str]

TILE = re.compile(
    r'data-metric="(?P<name>\w+)".*?<div class="value">(?P<value>.*?)</div>'
    r'\s*(?:<div class="best small(?P<now> now)?">(?P<note>.*?)</div>)?',
    re.DOTALL,
)


def tiles(client: FlaskClient, job_id: str) -> dict[str, tuple[str, str | None, bool]]:
    """For each metric: its value, its note, and whether it is marked as the best."""
    text = client.get(f"/ui/jobs/{job_id}").text
    return {tile["name"]: (tile["value"], tile["note"], tile["now"] is not None) for tile in TILE.finditer(text)}


def test_a_score_that_the_last_epoch_lacks_is_shown_with_its_epoch(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    job_id = submit(client, kind="gan")
    worker.claim()
    expected = [
        (64.0, ("64", "best 64 in epoch 1", True)),
        (None, ("64", "epoch 1, the best", True)),
        (89.5, ("89.5", "best 64 in epoch 1", False)),
        (None, ("89.5", "epoch 3; best 64 in epoch 1", False)),
        (math.nan, ("-", "best 64 in epoch 1", False)),
        (None, ("89.5", "epoch 3; best 64 in epoch 1", False)),
    ]
    for epoch, (distance, tile) in enumerate(expected, 1):
        score = {} if distance is None else {"frechet_distance": distance}
        worker.commit_epoch(epoch, metrics={"g_loss": 1.5} | score)
        assert tiles(client, job_id) == {"frechet_distance": tile, "g_loss": ("1.5", None, False)}


def test_a_metric_without_a_goal_that_the_last_epoch_lacks_has_its_epoch_alone(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    job_id = submit(client, kind="gan")
    worker.claim()
    worker.commit_epoch(1, metrics={"g_loss": 1.5, "sample_diversity": 0.5})
    worker.commit_epoch(2, metrics={"g_loss": 1.25})
    assert tiles(client, job_id) == {
        "sample_diversity": ("50.00%", "epoch 1", False),
        "g_loss": ("1.25", None, False),
    }


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_fork_shows_no_score_of_its_parent(client: FlaskClient, worker: Any, submit: Submit, epochs: int) -> None:
    parent = submit(client, kind="gan", epochs=2)
    worker.claim()
    worker.commit_epoch(1, metrics={"g_loss": 1.5, "frechet_distance": 64.0})
    worker.commit_epoch(2, metrics={"g_loss": 1.25})
    worker.succeed()
    fork = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4}}).json["id"]
    worker.claim()
    for epoch in range(3, 3 + epochs):
        worker.commit_epoch(epoch, metrics={"g_loss": 0.75})
    assert tiles(client, fork) == ({"g_loss": ("0.75", None, False)} if epochs else {})
