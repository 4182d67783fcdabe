"""Sweeps in lists, streams, comparisons, curves, plots and pages."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from service.jobs import leases
from service.runtime.settings import Auth
from service.storage.sweep_tables import Sweep
from service.storage.tables import Job
from tests.service.features.sweeps.simulated_sweeps import BASE, finish, start, train_one
from tests.service.web.markup import one_line


def test_the_list_of_sweeps_is_paginated(client: FlaskClient) -> None:
    sweep_ids = [start(client, name=f"number {number}", seeds=[0], halving=None)["id"] for number in range(3)]
    first = client.get("/sweeps?limit=2").json
    assert [item["id"] for item in first["data"]] == sweep_ids[:0:-1]
    second = client.get(f"/sweeps?limit=2&cursor={first['next_cursor']}").json
    assert ([item["id"] for item in second["data"]], second["has_more"]) == (sweep_ids[:1], False)
    assert client.get("/sweeps?cursor=nonsense").status_code == 400
    assert client.get("/sweeps?status=succeeded").json["data"] == []


def test_a_stream_replays_the_log(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, seeds=[0], halving=None, search={"name": "random", "trials": 2})
    ended = finish(client, worker, sweep["id"])
    text = client.get(f"/sweeps/{sweep['id']}/stream").text
    ids = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    assert ids == list(range(1, ended["last_seq"] + 1))
    assert text.rstrip().rpartition("event: ")[2].startswith("end")
    rest = client.get(f"/sweeps/{sweep['id']}/stream", headers={"Last-Event-ID": str(ids[-2])}).text
    assert rest.count("id: ") == 1
    assert client.get(f"/sweeps/{sweep['id']}/stream?after={ids[-1]}").status_code == 204


def test_a_sweep_and_its_jobs_belong_to_its_submitter(make_app: Callable[..., Flask], sqlite_url: str) -> None:
    app = make_app(sqlite_url, auth=Auth.KEYS, api_keys=("chosen-by-the-operator",))
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = "Bearer chosen-by-the-operator"
    owner = client.get("/session").json["owner"]
    sweep = start(client)
    assert sweep["owner"] == owner
    assert {job["owner"] for job in client.get("/jobs").json["data"]} == {owner}
    entry = client.get("/audit").json["data"][0]
    assert (entry["action"], entry["subject"], entry["owner"]) == ("submit", sweep["id"], owner)


def test_trials_are_compared_over_their_seeds(client: FlaskClient, worker: Any) -> None:
    space = {"/optimizer/learning_rate": {"choice": [0.01, 0.03]}}
    sweep = start(client, space=space, search=None, halving=None, seeds=[0, 1, 2], base=BASE | {"epochs": 1})
    finish(client, worker, sweep["id"])
    comparison = client.get("/comparisons", query_string={"a": f"{sweep['id']}:0", "b": sweep["id"]}).json
    assert (comparison["paired"], comparison["n"], comparison["difference"]) == (True, 3, pytest.approx(0.02))
    assert comparison["sentence"].startswith(
        "rates trial 1 was 2.00 points higher than rates trial 0 in val accuracy of the last epoch, in each of 3 pairs"
    )
    by_trial = {job["trial"]: [] for job in client.get("/jobs").json["data"]}
    for job in client.get("/jobs").json["data"]:
        by_trial[job["trial"]].append(job["id"])
    by_jobs = client.get("/comparisons", query_string={side: ",".join(by_trial[n]) for side, n in (("a", 0), ("b", 1))})
    assert by_jobs.json == comparison
    one_job = client.get("/comparisons", query_string={"a": by_trial[0][0], "b": f"{sweep['id']}:1"}).json
    assert one_job["a"]["label"].startswith("rates 0 (seed ")
    for path in ("comparisons", "differences"):
        for name, code, detail in (
            (f"{sweep['id']}:7", "trial_not_found", f"sweep {sweep['id']} has no trial '7'; it has trials 0 to 1"),
            (f"{sweep['id']}:x", "trial_not_found", "has no trial 'x'"),
            ("swp_00000000000000000000000000", "sweep_not_found", "there is no sweep"),
        ):
            missing = client.get(f"/{path}", query_string={"a": name, "b": name}).json
            assert (missing["status"], missing["code"]) == (404, code)
            assert detail in missing["detail"]
    differences = client.get("/differences", query_string={"a": f"{sweep['id']}:0", "b": sweep["id"]}).json
    assert {client.get(f"/jobs/{differences[side]}").json["resolved"]["seed"] for side in "ab"} == {0}
    with_job = client.get(
        "/differences", query_string={"a": f"{sweep['id']}:0", "b": by_jobs.json["b"]["jobs"][2]["job"]}
    )
    assert client.get(f"/jobs/{with_job.json['a']}").json["resolved"]["seed"] == 2
    assert [pair["name"] for pair in with_job.json["spec"]] == ["/optimizer/learning_rate"]


def test_a_sweep_without_results_has_no_best_trial_to_compare(client: FlaskClient) -> None:
    sweep = start(client, halving=None)
    comparison = client.get("/comparisons", query_string={"a": sweep["id"], "b": f"{sweep['id']}:0"}).json
    assert (comparison["code"], comparison["detail"]) == (
        "trial_not_found",
        f"sweep {sweep['id']} has no best trial yet; name one",
    )


def test_a_trial_without_jobs_cannot_be_compared(client: FlaskClient) -> None:
    layers = [{"units": 4, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    space = {"/layers/1/units": {"choice": [10, 11]}}  # there are ten classes
    sweep = start(client, space=space, search=None, halving=None, seeds=[0], base=BASE | {"layers": layers})
    for trial in ("0", "1"):
        response = client.get("/comparisons", query_string={"a": f"{sweep['id']}:1", "b": f"{sweep['id']}:{trial}"})
        assert (response.status_code, response.json["code"]) == (400, "invalid_parameter")
        assert "the trial has no jobs" in response.json["detail"]
    line = client.get(f"/sweeps/{sweep['id']}/trials?format=csv").text.splitlines()[2]
    assert "11" in line.rpartition(",")[2], "why it failed"


def test_a_job_stopped_by_its_sweep_is_distinguished_from_a_cancelled_job(client: FlaskClient, worker: Any) -> None:
    cancelled_id = client.post("/jobs", json=BASE).json["id"]
    client.post(f"/jobs/{cancelled_id}/cancel")
    space = {"/optimizer/learning_rate": {"choice": [0.001, 0.03]}}
    halving = {"min_epochs": 1, "factor": 2}
    sweep = start(client, space=space, search=None, halving=halving, seeds=[0], parallel=2)
    finish(client, worker, sweep["id"])
    listing = client.get("/jobs?counts=true&status=cancelled,stopped").json
    statuses = {job["trial"]: (job["status"], job["stopped_by_sweep"]) for job in listing["data"]}
    assert statuses == {0: ("cancelled", True), None: ("cancelled", False)}
    assert listing["counts"] == {"succeeded": 1, "stopped": 1, "cancelled": 1}
    assert listing["stopped_by_sweep"] == 1
    for states, trials in {"stopped": {0}, "cancelled": {None}, "stopped,succeeded": {0, 1}}.items():
        for path, total in (("/jobs?", None), ("/jobs?format=csv&", str(len(trials)))):
            response = client.get(f"{path}status={states}")
            assert response.headers.get("X-Total-Count") == total
        assert {job["trial"] for job in client.get(f"/jobs?status={states}").json["data"]} == trials
    [usage] = client.get("/usage").json["data"]
    assert (usage["jobs"]["cancelled"], usage["stopped_by_sweep"]) == (2, 1)
    assert "1 of them stopped by its sweep" in client.get("/ui/usage").text
    stopped = next(job for job in listing["data"] if job["trial"] == 0)
    page = one_line(client.get(f"/ui/jobs/{stopped['id']}").text)
    assert '<span class="status stopped">stopped by sweep</span>' in page
    assert "sweep</a> stopped it (not promoted at epoch 1)." in page
    assert client.get(stopped["urls"]["results"]).json["stopped_by_sweep"] is True
    stopped_job = client.get(stopped["urls"]["self"])
    assert stopped_job.json["stopped_by_sweep"] is True
    assert client.get(f"/jobs/{cancelled_id}").json["stopped_by_sweep"] is False
    if_match = {"If-Match": stopped_job.headers["ETag"]}
    assert client.patch(stopped["urls"]["self"], json={"starred": True}, headers=if_match).status_code == 200
    assert "stopped by sweep" not in client.get(f"/ui/jobs/{cancelled_id}").text


def test_a_trials_job_that_a_user_cancelled_was_not_stopped_by_its_sweep(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 2}, seeds=[0], max_failed=1)
    [first] = client.get("/jobs?sort=created_at&limit=1").json["data"]
    client.post(f"/jobs/{first['id']}/cancel")
    finish(client, worker, sweep["id"])
    listing = client.get("/jobs?counts=true&status=cancelled,stopped").json
    assert [(job["id"], job["stopped_by_sweep"]) for job in listing["data"]] == [(first["id"], False)]
    assert listing["stopped_by_sweep"] == 0


def test_jobs_that_a_user_cancelled_are_distinguished_from_those_that_the_sweep_stopped(
    either_app: Flask, make_worker: Callable[[Flask], Any]
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    sweep = start(client, halving={"min_epochs": 1, "factor": 3}, parallel=2)  # two trials of two seeds
    for _ in range(2):
        train_one(client, worker)
    held_ids = [job["id"] for job in client.get("/jobs?status=paused&sort=created_at").json["data"]]
    last_id = client.get("/jobs?status=queued&sort=-created_at&limit=1").json["data"][0]["id"]
    client.post(f"/jobs/{held_ids[0]}/cancel")  # the sweep ends before it notices this
    running = worker.claim()
    client.post(f"/jobs/{running.job_id}/cancel")
    assert client.get(f"/jobs/{running.job_id}").json["error"] is None
    client.post(f"/sweeps/{sweep['id']}/cancel")
    leases.release_lease(worker.database, worker.current_claim, None)
    listing = client.get("/jobs?counts=true&status=cancelled,stopped&columns=error&sort=error").json
    reasons = {job["id"]: (job["stopped_by_sweep"], job["error"], job["columns"]["error"]) for job in listing["data"]}
    by_user = (False, None, None)
    assert (reasons[held_ids[0]], reasons[running.job_id]) == (by_user, by_user)
    assert (reasons[held_ids[1]], reasons[last_id]) == ((True, None, None),) * 2
    assert listing["counts"] == {"stopped": 2, "cancelled": 2}
    assert "<strong>Cancelled</strong>" not in client.get(f"/ui/jobs/{held_ids[0]}").text


def test_the_other_seeds_of_a_cancelled_job_are_stopped_by_the_sweep(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, parallel=1, halving={"min_epochs": 1, "factor": 2}, search={"name": "random", "trials": 2})
    train_one(client, worker)  # its job is held; the job of the other seed is cancelled
    [queued] = client.get("/jobs?status=queued").json["data"]
    client.post(f"/jobs/{queued['id']}/cancel")
    ended = finish(client, worker, sweep["id"])
    assert ended["trials"]["failed"] == 1
    cancelled = client.get("/jobs?status=cancelled,stopped&sort=created_at").json["data"]
    assert [job["stopped_by_sweep"] for job in cancelled if job["trial"] == 0] == [True, False]
    [failed] = [row for row in client.get(f"/sweeps/{sweep['id']}/trials").json["data"] if row["status"] == "failed"]
    assert failed["error"] == {"code": "cancelled", "message": "the job was cancelled"}


def test_a_job_that_succeeds_despite_a_cancel_request_is_not_cancelled(client: FlaskClient, worker: Any) -> None:
    start(client, halving=None, search={"name": "random", "trials": 1}, seeds=[0])
    job_id = worker.claim().job_id
    for epoch in range(1, 5):
        worker.commit_epoch(epoch, metrics={"val_accuracy": 0.5})
    client.post(f"/jobs/{job_id}/cancel")
    worker.succeed()
    with worker.database.read() as session:
        job = session.get_one(Job, job_id)
        assert (job.status, job.error) == ("succeeded", None)


def test_curves_have_a_band_over_the_seeds(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 2}, seeds=[0, 5])
    finish(client, worker, sweep["id"])
    [first, _] = client.get(f"/sweeps/{sweep['id']}/curves").json["data"]
    assert (first["trial"], first["epochs"], first["n"]) == (0, [1, 2, 3, 4], [2, 2, 2, 2])
    assert [high - low for low, high in zip(first["low"], first["high"], strict=True)] == pytest.approx([0.005] * 4)
    assert first["mean"][3] - first["mean"][0] == pytest.approx(0.03)


def test_sweeps_have_pages(client: FlaskClient, worker: Any) -> None:
    assert "New sweep" in client.get("/ui/sweeps").text
    sweep = start(client)
    assert "rates" in client.get("/ui/sweeps").text
    page = client.get(f"/ui/sweeps/{sweep['id']}")
    assert (page.status_code, "maximize val accuracy" in page.text) == (200, True)
    assert client.get("/ui/sweeps/swp_nothing").status_code == 404
    redirected = client.get(f"/sweeps/{sweep['id']}", headers={"Accept": "text/html"})
    assert redirected.headers["Location"] == f"/ui/sweeps/{sweep['id']}"


def test_a_sweep_can_be_one_row_of_the_job_list(client: FlaskClient, worker: Any) -> None:
    earlier_job = client.post("/jobs", json=BASE).json["id"]
    sweep = start(client)
    unnamed = start(client, name=None, seeds=[4], halving=None, search={"name": "random", "trials": 2})
    later_job = client.post("/jobs", json=BASE).json["id"]
    listing = client.get("/jobs?one_per_sweep=true&limit=100&counts=true").json
    listed = [job["sweep_id"] or job["id"] for job in listing["data"]]
    assert listed == [later_job, unnamed["id"], sweep["id"], earlier_job]
    assert sum(listing["counts"].values()) == 2 + 6 + 2  # of all jobs
    summary = listing["sweeps"][sweep["id"]]
    assert (summary["title"], summary["jobs"], summary["trials"], summary["status"]) == ("rates", 6, 6, "running")
    assert listing["sweeps"][unnamed["id"]]["title"] == f"sweep {unnamed['id'][-6:].lower()}"
    second_page = client.get(
        f"/jobs?one_per_sweep=true&limit=2&cursor={client.get('/jobs?limit=1').json['next_cursor']}"
    ).json
    assert [job["sweep_id"] or job["id"] for job in second_page["data"]] == [unnamed["id"], sweep["id"]]
    client.post(f"/sweeps/{sweep['id']}/cancel")
    first = listing["data"][2]["id"]
    assert client.delete(f"/jobs/{first}").status_code == 204
    relisted = client.get("/jobs?one_per_sweep=true").json
    assert sweep["id"] in [job["sweep_id"] for job in relisted["data"]], "another job stands for it"
    assert client.get("/jobs?one_per_sweep=true&format=csv").status_code == 400
    [newest, *_] = client.get("/jobs/groups?by=sweep").json["data"]
    assert (newest["label"], newest["query"]) == ("without a sweep", {"without": "sweep"})
    groups = {group["value"]: group for group in client.get("/jobs/groups?by=sweep").json["data"]}
    assert (groups[sweep["id"]]["label"], groups[sweep["id"]]["count"]) == ("rates", 5)
    assert len(client.get("/jobs?without=sweep").json["data"]) == 2


def test_curves_have_an_interval_and_can_be_downloaded_as_csv(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 2}, seeds=[0, 5])
    finish(client, worker, sweep["id"])
    [first, _] = client.get(f"/sweeps/{sweep['id']}/curves").json["data"]
    # Student's t (97.5%, one degree of freedom) times the standard error of two values.
    margin = 12.706204736432095 * 0.0025
    assert first["interval_high"][0] - first["mean"][0] == pytest.approx(margin, rel=1e-6)
    assert first["mean"][0] - first["interval_low"][0] == pytest.approx(margin, rel=1e-6)
    answer = client.get(f"/sweeps/{sweep['id']}/curves?format=csv&metric=train_loss")
    lines = answer.text.splitlines()
    assert (answer.mimetype, len(lines)) == ("text/csv", 1 + 2 * 4)
    assert lines[0].startswith("trial,epoch,train_loss (mean),train_loss (low)")
    assert lines[2] == "0,2,0.5,0.5,0.5,0.5,0.5,2"
    single_seed = start(client, halving=None, search={"name": "random", "trials": 1}, seeds=[9], name="alone")
    finish(client, worker, single_seed["id"])
    [curve] = client.get(f"/sweeps/{single_seed['id']}/curves").json["data"]
    assert curve["interval_low"] == [None] * 4
    [trial] = client.get(f"/sweeps/{single_seed['id']}/trials").json["data"]
    assert trial["metrics"]["train_loss"] == 0.25


def test_trials_have_an_interval_and_the_last_epoch_of_their_jobs(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 2}, seeds=[0, 5])
    worker.claim()
    worker.commit_epoch(1, metrics={"val_accuracy": 0.5})
    worker.commit_epoch(2, metrics={"val_accuracy": 0.6})
    address = f"/sweeps/{sweep['id']}/trials"
    [first, _] = client.get(address).json["data"]
    assert (first["epoch"], first["last_epoch"], first["interval"]) == (0, 2, None)
    for epoch in (3, 4):
        worker.commit_epoch(epoch, metrics={"val_accuracy": 0.6})
    worker.succeed()
    finish(client, worker, sweep["id"])
    [_, second] = client.get(address).json["data"]
    # Student's t (97.5%, one degree of freedom) times the standard error of two values.
    margin = 12.706204736432095 * 0.0025
    assert second["interval"] == pytest.approx([second["value"] - margin, second["value"] + margin], rel=1e-6)
    header, _, line = client.get(f"{address}?format=csv").text.splitlines()
    row = dict(zip(header.split(","), line.split(","), strict=True))
    assert [float(row[f"val_accuracy (interval_{end})"]) for end in ("low", "high")] == second["interval"]
    assert (row["last_epoch"], row["error"]) == ("4", "")


def test_intervals_stay_within_the_range_of_the_metric(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 1}, seeds=[0, 5])
    for accuracy, loss in ((0.9, 0.5), (0.999, 0.01)):
        worker.claim()
        worker.commit_epoch(1, metrics={"val_accuracy": accuracy, "val_loss": loss})
        worker.succeed()
    finish(client, worker, sweep["id"])
    [trial] = client.get(f"/sweeps/{sweep['id']}/trials").json["data"]
    assert trial["interval"] == pytest.approx([0.9495 - 12.7062047 * 0.0495, 1])
    [accuracies], [losses] = (
        client.get(f"/sweeps/{sweep['id']}/curves?metric={name}").json["data"] for name in ("val_accuracy", "val_loss")
    )
    assert accuracies["interval_high"] == [1]
    assert losses["interval_low"] == [0]
    assert losses["interval_high"][0] > 3


def test_curves_are_drawn_with_a_band(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 2}, seeds=[0, 5])
    address = f"/sweeps/{sweep['id']}/plots/curves"
    assert client.get(f"{address}.png").json["code"] == "not_yet"
    finish(client, worker, sweep["id"])
    images = {}
    for band in ("range", "interval", "none"):
        answer = client.get(f"{address}.png?band={band}")
        assert (answer.status_code, answer.mimetype) == (200, "image/png")
        Image.open(BytesIO(answer.data)).verify()
        images[band] = answer.data
        assert (
            client.get(f"{address}.png?band={band}", headers={"If-None-Match": answer.headers["ETag"]}).status_code
            == 304
        )
    assert len(set(images.values())) == 3
    assert client.get(f"{address}.svg?metric=train_loss").mimetype == "image/svg+xml"
    for invalid, code in (
        ("curves.gif", "not_found"),
        ("confusion.png", "not_found"),
        ("curves.png?band=x", "invalid_parameter"),
    ):
        assert client.get(f"/sweeps/{sweep['id']}/plots/{invalid}").json["code"] == code


def finished_trial_counts(client: FlaskClient, sweep_id: str) -> tuple[int, int]:
    """The number of trials that have ended, according to the list of jobs and to the sweep itself."""
    row = client.get("/jobs?one_per_sweep=true").json["sweeps"][sweep_id]
    counts = client.get(f"/sweeps/{sweep_id}").json["trials"]
    return row["finished_trials"], counts["stopped"] + counts["succeeded"] + counts["failed"]


def test_the_job_list_counts_trials_that_the_end_of_their_sweep_stopped(client: FlaskClient, worker: Any) -> None:
    halving = {"min_epochs": 1, "factor": 3, "mode": "asynchronous"}
    sweep = start(client, seeds=[0], halving=halving)
    assert finish(client, worker, sweep["id"])["trials"]["stopped"] > 0
    assert finished_trial_counts(client, sweep["id"]) == (6, 6)
    cancelled = start(client, seeds=[0])
    client.post(f"/sweeps/{cancelled['id']}/cancel")
    assert finished_trial_counts(client, cancelled["id"]) == (3, 3)
    with worker.database.write() as session:
        session.get_one(Sweep, sweep["id"]).finished_trials = 3  # as earlier versions stored it
    assert finished_trial_counts(client, sweep["id"]) == (6, 6)


def test_a_sweep_counts_trained_and_reused_epochs_separately(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, seeds=[0], halving=None, parallel=2, search={"name": "random", "trials": 2})
    assert (sweep["epochs_started"], sweep["epochs_trained"], sweep["epochs_reused"]) == (8, 0, 0)
    first, second = worker.claim(), worker.claim()
    with worker.database.write() as session:  # as a worker records epochs that it reuses
        session.get_one(Job, second.job_id).epoch = 4
        session.get_one(Job, second.job_id).reused_epochs = 3
        session.get_one(Job, first.job_id).epoch = 2
    client.post(f"/sweeps/{sweep['id']}/cancel")
    for shown in (client.get(f"/sweeps/{sweep['id']}").json, client.get("/sweeps").json["data"][0]):
        assert (shown["epochs_started"], shown["epochs_trained"], shown["epochs_reused"]) == (8, 3, 3)
    listed = client.get("/ui/sweeps").text
    assert "3 trained, 3 reused, 8 planned" in listed
    assert "+ 3 reused" in listed
