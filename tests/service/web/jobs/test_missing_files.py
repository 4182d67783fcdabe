"""Errors for checkpoints and samples that a job does not have, or no longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

Submit = Callable[..., str]


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("checkpoints/9", "checkpoint of epoch 9; available epochs: 1, 2, 3"),
        ("samples/9.png", "sample of epoch 9; available epochs: 1, 2, 3"),
        ("checkpoints/first", "checkpoint 'first'; name an epoch's number, or latest"),
    ],
)
def test_a_missing_file_lists_the_stored_epochs(
    client: FlaskClient, worker: Any, submit: Submit, path: str, detail: str
) -> None:
    job_id = submit(client)
    worker.claim()
    for epoch in (1, 2, 3):
        worker.commit_epoch(epoch)
    problem = client.get(f"/jobs/{job_id}/{path}").json
    assert (problem["code"], problem["detail"]) == (
        "artifact_not_found",
        f"job {job_id} has no {detail}",
    )


def test_a_deleted_checkpoint_lists_the_latest_and_says_how_to_keep_all(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    job_id = submit(client, epochs=30)
    worker.claim()
    for epoch in range(1, 25):
        worker.commit_epoch(epoch, best=False, keep_last=21)
    listed = ", ".join(map(str, range(5, 25)))
    remedy = 'To keep all checkpoints, set "checkpoint": {"keep_last": 1000} in the spec'
    assert client.get(f"/jobs/{job_id}/checkpoints/3").json["detail"] == (
        f"job {job_id} has no checkpoint of epoch 3; latest available epochs: {listed}. {remedy}"
    )
