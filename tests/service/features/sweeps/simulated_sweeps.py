"""Sweeps whose trials a simulated worker trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask.testing import FlaskClient

from service.storage.tables import Job
from service.sweeps import decisions
from service.sweeps.proposer import Proposer

BASE = {"kind": "classifier", "epochs": 4, "layers": [{"units": 10, "activation": "softmax"}]}
SWEEP: dict[str, Any] = {
    "name": "rates",
    "base": BASE,
    "seeds": [0, 1],
    "space": {"/optimizer/learning_rate": {"log": [0.001, 0.3]}, "/batch_size": {"choice": [50, 100]}},
    "search": {"name": "random", "trials": 6, "seed": 7},
    "halving": {"min_epochs": 1, "factor": 3},
    "parallel": 3,
}


def start(client: FlaskClient, **changes: Any) -> dict[str, Any]:
    document = {key: value for key, value in (SWEEP | changes).items() if value is not None}
    # Flask would sort the keys, but the order of the settings determines that of a grid.
    response = client.post("/sweeps", data=json.dumps(document), content_type="application/json")
    assert response.status_code == 201, response.text
    return dict(response.json)


def accuracy(job: dict[str, Any], epoch: int) -> float:
    """The simulated accuracy: higher for rates near 0.03, in later epochs, and for higher seeds."""
    rate, seed = job["resolved"]["optimizer"]["learning_rate"], job["resolved"]["seed"]
    return round(0.9 - abs(rate - 0.03) + epoch / 100 + seed / 1000, 6)


def train_one(
    client: FlaskClient,
    worker: Any,
    *,
    fails: Callable[[dict[str, Any]], bool] = lambda job: False,
    measure: Callable[[dict[str, Any], int], float] = accuracy,
) -> bool:
    """Simulate a worker for one lease, until its job is held or ends; return whether a job was queued."""
    queued = client.get("/queue").json["data"]
    if not queued:
        return False
    claim = worker.claim()
    job = client.get(f"/jobs/{claim.job_id}").json
    if fails(job):
        worker.fail("diverged")
        return True
    with worker.database.read() as session:
        hold_epoch = session.get_one(Job, claim.job_id).hold_epoch
    for epoch in range(job["progress"]["epoch"] + 1, job["progress"]["epochs"] + 1):
        worker.commit_epoch(epoch, metrics={"val_accuracy": measure(job, epoch), "train_loss": 1 / epoch})
        if epoch == hold_epoch:
            return True
    worker.succeed()
    return True


def finish(client: FlaskClient, worker: Any, sweep_id: str, **options: Any) -> dict[str, Any]:
    """Train jobs and advance all sweeps, as the scheduler does, until the sweep has ended."""
    previous_counts, proposer = None, Proposer(worker.database)
    for _ in range(500):
        decisions.advance_all(worker.database)
        proposer.propose_all()
        sweep = dict(client.get(f"/sweeps/{sweep_id}").json)
        if sweep["finished_at"]:
            return sweep
        assert train_one(client, worker, **options) or sweep["trials"] != previous_counts
        previous_counts = sweep["trials"]
    raise AssertionError("the sweep does not end")


def logged_decisions(client: FlaskClient, sweep_id: str) -> list[tuple[str, Any]]:
    page = client.get(f"/sweeps/{sweep_id}/decisions?limit=2000").json
    assert not page["has_more"]
    return [(event["type"], event["data"]) for event in page["data"]]
