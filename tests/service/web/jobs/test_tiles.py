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


def tiles(client: FlaskClient, job_id: str, query: str = "") -> dict[str, tuple[str, str | None, bool]]:
    """For each metric: its value, its note, and whether it is marked as the best."""
    text = client.get(f"/ui/jobs/{job_id}{query}").text
    return {tile["name"]: (tile["value"], tile["note"], tile["now"] is not None) for tile in TILE.finditer(text)}


def test_tiles_have_the_values_of_the_chosen_model(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1, metrics={"val_accuracy": 0.9, "val_loss": 0.5, "val_roc_auc": 0.75})
    worker.commit_epoch(2, metrics={"val_accuracy": 0.8, "val_loss": 0.25}, best=False)
    best = {
        "val_accuracy": ("90.00%", "best 90.00% in epoch 1", True),
        "val_loss": ("0.5", "best 0.25 in epoch 2", False),
        "val_roc_auc": ("75.00%", "best 75.00% in epoch 1", True),
    }
    assert tiles(client, job_id) == tiles(client, job_id, "?checkpoint=best") == best
    assert tiles(client, job_id, "?checkpoint=latest") == {
        "val_accuracy": ("80.00%", "best 90.00% in epoch 1", False),
        "val_loss": ("0.25", "best 0.25 in epoch 2", True),
        "val_roc_auc": ("75.00%", "epoch 1, the best", True),
    }
    assert client.get(f"/ui/jobs/{job_id}?checkpoint=3").status_code == 400


@pytest.mark.parametrize("kind", ["gan", "classifier"])
def test_a_job_without_a_best_model_shows_the_latest_and_offers_no_choice(
    client: FlaskClient, worker: Any, submit: Submit, kind: str
) -> None:
    job_id = submit(client, kind=kind)
    worker.claim()
    is_gan = kind == "gan"  # the best epoch of a GAN has the lowest Fréchet distance, which is not measured in each
    worker.commit_epoch(1, metrics={"val_loss": 0.5, "g_loss": 0.5}, best=is_gan)
    worker.commit_epoch(2, metrics={"val_loss": 0.25, "g_loss": 0.25}, best=False)
    for query in ("", "?checkpoint=best", "?checkpoint=latest"):
        assert tiles(client, job_id, query)["g_loss"][0] == tiles(client, job_id, query)["val_loss"][0] == "0.25"
        page = client.get(f"/ui/jobs/{job_id}{query}").text
        assert "latest: epoch 2" in page
        assert "data-model=" not in page


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
