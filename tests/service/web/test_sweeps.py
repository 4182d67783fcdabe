from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from service.runtime.settings import Auth
from service.storage.database import Database
from service.sweeps import decisions
from service.web.services import EXTENSION

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
    # Flask would sort the keys, and the order of settings is that of a grid.
    response = client.post("/sweeps", data=json.dumps(document), content_type="application/json")
    assert response.status_code == 201, response.text
    return dict(response.json)


def accuracy(job: dict[str, Any], epoch: int) -> float:
    """What the played training gives: better with a rate near 0.03, and with time."""
    rate, seed = job["resolved"]["optimizer"]["learning_rate"], job["resolved"]["seed"]
    return round(0.9 - abs(rate - 0.03) + epoch / 100 + seed / 1000, 6)


def train_one(client: FlaskClient, worker: Any, *, fails: Callable[[dict[str, Any]], bool] = lambda job: False) -> bool:
    """Play a worker for one lease: until its job is held or ends; gives whether there was a job."""
    waiting = client.get("/queue").json["data"]
    if not waiting:
        return False
    held = worker.claim()
    job = client.get(f"/jobs/{held.job_id}").json
    if fails(job):
        worker.fail("diverged")
        return True
    with worker.database.read() as session:
        from service.storage.tables import Job

        hold = session.get_one(Job, held.job_id).hold_epoch
    for epoch in range(job["progress"]["epoch"] + 1, job["progress"]["epochs"] + 1):
        worker.epoch(epoch, metrics={"val_accuracy": accuracy(job, epoch), "train_loss": 1 / epoch})
        if epoch == hold:
            return True
    worker.succeed()
    return True


def finish(client: FlaskClient, worker: Any, sweep_id: str, **options: Any) -> dict[str, Any]:
    """Train until the sweep has ended, with the scheduler beside."""
    for _ in range(500):
        decisions.advance_all(worker.database)
        if client.get(f"/sweeps/{sweep_id}").json["finished_at"]:
            return dict(client.get(f"/sweeps/{sweep_id}").json)
        assert train_one(client, worker, **options)
    raise AssertionError("the sweep does not end")


def told(client: FlaskClient, sweep_id: str) -> list[tuple[str, Any]]:
    found = client.get(f"/sweeps/{sweep_id}/decisions?limit=2000").json
    assert not found["has_more"]
    return [(event["type"], event["data"]) for event in found["data"]]


@pytest.mark.sqlite_by_default
def test_a_sweep_trains_promotes_and_names_its_winner(either_app: Flask, play: Callable[[Flask], Any]) -> None:
    client, worker = either_app.test_client(), play(either_app)
    sweep = start(client)
    assert sweep["trials"] == {"total": 6, "running": 3, "waiting": 0, "stopped": 0, "succeeded": 0, "failed": 0}
    assert sweep["resolved"]["rungs"] == [1, 3, 4]
    assert (sweep["objective"], sweep["allowed_actions"]) == (
        {"metric": "val_accuracy", "goal": "maximize", "over_seeds": "mean"},
        ["cancel", "pause"],
    )
    assert client.get("/jobs").json["data"][0]["name"] == "rates 2 (seed 1)"
    ended = finish(client, worker, sweep["id"])
    assert (ended["status"], ended["trials"]["succeeded"], ended["trials"]["stopped"]) == ("succeeded", 1, 5)
    trials = client.get(f"/sweeps/{sweep['id']}/trials?sort=best").json["data"]
    rates = [abs(trial["settings"]["/optimizer/learning_rate"] - 0.03) for trial in trials]
    assert rates[0] == min(rates)
    assert (trials[0]["trial"], trials[0]["value"]) == (ended["best_trial"], ended["best_value"])
    assert {trial["status"] for trial in trials[1:]} == {"stopped"}
    assert [job["status"] for trial in trials for job in trial["jobs"]].count("cancelled") == 10
    assert all(job["epoch"] == trial["epoch"] for trial in trials for job in trial["jobs"])
    kinds = [kind for kind, _ in told(client, sweep["id"])]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "propose": 6, "result": 9, "promote": 2, "stop": 2, "winner": 1,
    }  # fmt: skip
    again = finish(client, worker, start(client, name="another name")["id"])
    assert again["sweep_digest"] == ended["sweep_digest"]
    other = finish(client, worker, start(client, search={"name": "random", "trials": 6, "seed": 8})["id"])
    assert other["sweep_digest"] != ended["sweep_digest"]


def test_decisions_are_made_in_the_transaction_of_the_result(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, parallel=1, seeds=[0], halving=None)
    train_one(client, worker)
    proposed = [data["trial"] for kind, data in told(client, sweep["id"]) if kind == "propose"]
    assert proposed == [0], "the played worker commits without sweeps"
    decisions.advance_all(worker.database)
    assert [data["trial"] for kind, data in told(client, sweep["id"]) if kind == "propose"] == [0, 1]


def test_tpe_learns_and_repeats_itself(client: FlaskClient, worker: Any) -> None:
    asked = {"search": {"name": "tpe", "trials": 16, "seed": 3}, "seeds": [0], "halving": None, "parallel": 2}
    ended = [finish(client, worker, start(client, base=BASE | {"epochs": 1}, **asked)["id"]) for _ in range(2)]
    assert ended[0]["sweep_digest"] == ended[1]["sweep_digest"]
    assert ended[0]["trials"]["succeeded"] == 16


def test_a_grid_tries_every_combination(client: FlaskClient, worker: Any) -> None:
    space = {"/optimizer/learning_rate": {"choice": [0.01, 0.03]}, "/batch_size": {"int": [50, 90], "step": 20}}
    sweep = start(client, space=space, search=None, halving=None, seeds=None, base=BASE | {"epochs": 1, "seed": 9})
    finish(client, worker, sweep["id"])
    trials = client.get(f"/sweeps/{sweep['id']}/trials").json["data"]
    assert [tuple(trial["settings"].values()) for trial in trials] == [
        (rate, size) for rate in (0.01, 0.03) for size in (50, 70, 90)
    ]
    assert [job["seed"] for trial in trials for job in trial["jobs"]] == [9] * 6
    importance = client.get(f"/sweeps/{sweep['id']}/importance").json["data"]
    assert [item["setting"] for item in importance] == ["/optimizer/learning_rate", "/batch_size"]
    assert (importance[0]["best"], importance[0]["share"]) == ("0.03", pytest.approx(1))
    table = client.get(f"/sweeps/{sweep['id']}/trials?format=csv&sort=-value").text.splitlines()
    assert table[0].startswith("trial,status,epoch,val_accuracy,/optimizer/learning_rate,/batch_size,")
    assert table[1].startswith("3,succeeded,1,0.91")
    assert len(table) == 7


def test_a_seed_group_has_an_empty_space(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, space=None, search=None, halving=None, seeds=[3, 1, 2], base=BASE | {"epochs": 1})
    assert finish(client, worker, sweep["id"])["status"] == "succeeded"
    [trial] = client.get(f"/sweeps/{sweep['id']}/trials").json["data"]
    values = {job["seed"]: job["value"] for job in trial["jobs"]}
    assert (list(values), trial["value"]) == ([3, 1, 2], pytest.approx(sum(values.values()) / 3))


def test_a_failing_trial_is_the_worst_and_never_blocks(client: FlaskClient, worker: Any) -> None:
    sweep = start(client)
    ended = finish(client, worker, sweep["id"], fails=lambda job: job["name"] == "rates 1 (seed 0)")
    assert (ended["status"], ended["trials"]["failed"]) == ("succeeded", 1)
    failed = client.get(f"/sweeps/{sweep['id']}/trials").json["data"][1]
    assert (failed["status"], failed["value"], failed["error"]["code"]) == ("failed", None, "diverged")


def test_too_many_failures_fail_the_sweep_and_stop_its_jobs(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, max_failed=1)
    ended = finish(client, worker, sweep["id"], fails=lambda job: " 1 " in job["name"] or " 0 " in job["name"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "too_many_failed")
    assert client.get("/jobs?status=queued,paused,running").json["data"] == []


def test_a_budget_ends_a_sweep(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, budget={"epochs": 14}, halving=None, seeds=[0])
    ended = finish(client, worker, sweep["id"])
    assert (ended["status"], ended["epochs_started"], ended["trials"]["succeeded"]) == ("succeeded", 12, 3)
    assert ("exhausted", {"by": "budget"}) in told(client, sweep["id"])


def test_settings_that_do_not_fit_fail_their_trial_alone(client: FlaskClient, worker: Any) -> None:
    layers = [{"units": 16, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    space = {"/layers/1/units": {"choice": [10, 11]}}
    sweep = start(
        client, base=BASE | {"layers": layers, "epochs": 1}, space=space, search=None, halving=None, seeds=[0]
    )
    ended = finish(client, worker, sweep["id"])
    assert (ended["status"], ended["best_trial"], ended["trials"]["failed"]) == ("succeeded", 0, 1)
    failed = client.get(f"/sweeps/{sweep['id']}/trials").json["data"][1]
    assert failed["error"]["code"] == "invalid_spec"


def test_a_paused_sweep_decides_nothing_and_resumes(client: FlaskClient, worker: Any) -> None:
    sweep = start(client)
    address = f"/sweeps/{sweep['id']}"
    train_one(client, worker)
    paused = client.post(f"{address}/pause")
    assert (paused.status_code, paused.json["status"], paused.json["allowed_actions"]) == (
        202,
        "paused",
        ["cancel", "resume"],
    )
    assert client.get("/queue").json["data"] == []
    assert decisions.advance_all(worker.database) == []
    refused = client.post(f"{address}/pause")
    assert (refused.status_code, refused.json["allowed_actions"]) == (409, ["cancel", "resume"])
    assert client.delete(address).status_code == 409
    assert client.post(f"{address}/resume").json["status"] == "running"
    ended = finish(client, worker, sweep["id"])
    undisturbed = finish(client, worker, start(client)["id"])
    assert ended["sweep_digest"] == undisturbed["sweep_digest"]


def test_a_cancelled_sweep_takes_its_jobs_along_and_can_be_deleted(client: FlaskClient, worker: Any) -> None:
    sweep = start(client)
    address = f"/sweeps/{sweep['id']}"
    train_one(client, worker)
    worker.claim()
    assert client.post(f"{address}/cancel").json["status"] == "cancelled"
    ending = client.delete(address)
    assert (ending.status_code, ending.json["code"]) == (409, "illegal_transition")
    from service.jobs import leases

    leases.hand_back(worker.database, worker.held, None)
    jobs = client.get("/jobs?limit=100").json["data"]
    assert {job["status"] for job in jobs} == {"cancelled"}
    assert client.delete(address).status_code == 204
    assert client.get(address).json["code"] == "sweep_not_found"
    assert client.get("/jobs").json["data"] == []


def test_a_trials_job_belongs_to_its_sweep(client: FlaskClient, worker: Any) -> None:
    sweep = start(client)
    train_one(client, worker)
    [held] = client.get("/jobs?status=paused").json["data"]
    assert held["allowed_actions"] == ["cancel", "fork"]
    assert (held["sweep_id"], held["trial"]) == (sweep["id"], 0)
    assert len(client.get(f"/jobs?sweep={sweep['id']}").json["data"]) == 6
    assert client.get("/jobs?sweep=swp_other").json["data"] == []
    assert f"/ui/sweeps/{sweep['id']}" in client.get(f"/ui/jobs/{held['id']}").text
    assert client.post(f"/jobs/{held['id']}/resume").status_code == 409
    client.post(f"/jobs/{held['id']}/cancel")
    assert client.delete(f"/jobs/{held['id']}").status_code == 409
    ended = finish(client, worker, sweep["id"])
    assert ended["trials"]["failed"] == 1
    assert client.delete(f"/jobs/{held['id']}").status_code == 204


def test_a_dry_run_stores_nothing(client: FlaskClient) -> None:
    found = client.post("/sweeps?dry_run=true", json=SWEEP)
    assert found.status_code == 200
    assert (found.json["trials"], found.json["jobs"]) == (6, 12)
    assert (found.json["epochs"], found.json["epochs_without_halving"]) == (2 * (6 + 2 * 2 + 1), 48)
    assert len(found.json["first_settings"]) == 6
    assert client.get("/sweeps").json["data"] == []


def test_a_repeated_request_starts_no_second_sweep(client: FlaskClient) -> None:
    made = [client.post("/sweeps", json=SWEEP, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert made[0].json == made[1].json
    assert made[1].headers["Idempotency-Replayed"] == "true"
    assert made[0].headers["Location"] == f"/sweeps/{made[0].json['id']}"
    other = client.post("/sweeps", json=SWEEP | {"parallel": 2}, headers={"Idempotency-Key": "once"})
    assert other.json["code"] == "idempotency_conflict"


def faults(client: FlaskClient, **changes: Any) -> dict[str, str]:
    document = {key: value for key, value in (SWEEP | changes).items() if value is not None}
    response = client.post("/sweeps", json=document)
    assert (response.status_code, response.json["code"]) == (422, "invalid_spec"), response.text
    return {fault["pointer"]: fault["detail"] for fault in response.json["errors"]}


def test_all_faults_are_named_at_once(client: FlaskClient) -> None:
    found = faults(
        client,
        base=BASE | {"batch_size": 20},
        space={
            "/optimiser/learning_rate": {"log": [0.001, 0.3]},
            "/learning_rate": {"float": [0.1, 0.2]},
            "/batch_size": {"int": [0, 50]},
            "/layers/0/units": {"log": [8, 64]},
            "/seed": {"int": [0, 3]},
        },
        objective={"metric": "val_acuracy"},
        halving={"min_epochs": 4},
        seeds=[1, 1],
    )
    assert "did you mean '/optimizer/learning_rate'" in found["#/space/~1optimiser~1learning_rate"]
    assert "did you mean '/optimizer/learning_rate'" in found["#/space/~1learning_rate"]
    assert "#/space/~1batch_size/int/0" in found
    assert "#/space/~1layers~10~1units/log" in found
    assert "`seeds`" in found["#/space/~1seed"]
    assert "did you mean 'val_accuracy'" in found["#/objective/metric"]
    assert "less than the epochs of a trial, 4" in found["#/halving/min_epochs"]
    assert "listed twice" in found["#/seeds/1"]


@pytest.mark.parametrize(
    ("changes", "pointer", "part"),
    [
        ({"base": {"kind": "classifier", "epochs": 0}}, "#/base/epochs", ""),
        ({"base": {"kind": "classifier", "dataset": "minst"}}, "#/base/dataset", "unknown dataset"),
        ({"search": {"name": "random"}}, "#/search/trials", "is missing"),
        ({"search": {"name": "grid"}}, "#/space/~1optimizer~1learning_rate", "a grid needs values"),
        ({"space": {}}, "#/space", "at least one setting"),
        ({"space": {"/batch_size": {"int": [1, 3000]}}, "search": None}, "#/space", "3,000 combinations"),
        ({"space": {"/batch_size": {"int": [1, 3], "choice": [4]}}}, "#/space/~1batch_size", "exactly one of"),
        ({"space": {"/batch_size": {"int": [3, 1]}}}, "#/space/~1batch_size", "must not exceed"),
        ({"space": {"/epochs": {"int": [2, 9]}}}, "#/space/~1epochs", "halving"),
        ({"space": {"batch_size": {"int": [2, 9]}}}, "#/space/batch_size", "did you mean '/batch_size'"),
        ({"objective": {"metric": "frechet_distance"}}, "#/objective/metric", "does not report"),
        ({"objective": {"metric": "learning_rate"}}, "#/objective/goal", "neither direction"),
        ({"budget": {"epochs": 1}}, "#/budget/epochs", "is too small for one trial"),
        ({"parallel": 600, "search": {"name": "random", "trials": 600}}, "#/parallel", "jobs at a time"),
        ({"paralel": 3}, "#/paralel", "did you mean 'parallel'"),
        ({"space": {"/layers/0/units": {"choice": [11, 12]}}}, "#/space", "no trial has valid settings"),
    ],
)  # fmt: skip
def test_a_fault_says_where_and_what(client: FlaskClient, changes: dict[str, Any], pointer: str, part: str) -> None:
    found = faults(client, **changes)
    assert pointer in found
    assert part in found[pointer]


def test_a_gan_minimises_the_distance(client: FlaskClient) -> None:
    found = client.post(
        "/sweeps?dry_run=true",
        json={"base": {"kind": "gan", "epochs": 10}, "space": {"/batch_size": {"choice": [50, 100]}}},
    )
    assert found.json["resolved"]["objective"] == {
        "metric": "frechet_distance",
        "goal": "minimize",
        "over_seeds": "mean",
    }
    early = client.post(
        "/sweeps",
        json={
            "base": {"kind": "gan", "epochs": 10},
            "space": {"/batch_size": {"choice": [50, 100]}},
            "halving": {"min_epochs": 1},
        },
    )
    assert early.json["errors"][0]["pointer"] == "#/halving/min_epochs"
    assert "every_epochs" in early.json["errors"][0]["detail"]


def test_a_pointer_into_the_presets_layers_is_a_setting(client: FlaskClient) -> None:
    found = client.post(
        "/sweeps?dry_run=true",
        json={
            "base": {"kind": "classifier", "epochs": 2, "optimizer": "adam"},
            "space": {"/layers/0/units": {"int": [32, 64], "step": 32}, "/optimizer/beta1": {"choice": [0.5, 0.9]}},
        },
    )
    assert found.status_code == 200, found.text
    assert found.json["trials"] == 4


def test_sweeps_are_listed_in_pages(client: FlaskClient) -> None:
    made = [start(client, name=f"number {number}", seeds=[0], halving=None)["id"] for number in range(3)]
    first = client.get("/sweeps?limit=2").json
    assert [item["id"] for item in first["data"]] == made[:0:-1]
    second = client.get(f"/sweeps?limit=2&cursor={first['next_cursor']}").json
    assert ([item["id"] for item in second["data"]], second["has_more"]) == (made[:1], False)
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


def test_another_owners_sweep_is_nowhere(make_app: Callable[..., Flask], either_url: str) -> None:
    from service.access import keys

    app = make_app(either_url, auth=Auth.KEYS, api_keys=("chosen-by-the-operator",))
    database: Database = app.extensions[EXTENSION].database
    secrets = {
        owner: keys.create(database, name=owner, owner=owner, scope=keys.Scope.SUBMIT)[1] for owner in ("ann", "bob")
    }
    client = app.test_client()
    ann, bob = ({"Authorization": f"Bearer {secrets[owner]}"} for owner in ("ann", "bob"))
    made = client.post("/sweeps", json=SWEEP, headers=ann)
    assert made.status_code == 201
    assert client.get("/jobs", headers=ann).json["data"][0]["owner"] == "ann"
    for method, path in (
        ("get", ""), ("get", "/trials"), ("get", "/decisions"), ("get", "/importance"), ("get", "/stream"),
        ("post", "/pause"), ("post", "/resume"), ("post", "/cancel"), ("delete", ""),
    ):  # fmt: skip
        answer = client.open(f"/sweeps/{made.json['id']}{path}", method=method.upper(), headers=bob)
        assert (answer.status_code, answer.json["code"]) == (404, "sweep_not_found"), (method, path)
    assert client.get("/sweeps", headers=bob).json["data"] == []
    audit = client.get("/audit", headers={"Authorization": "Bearer chosen-by-the-operator"}).json["data"]
    assert (audit[0]["action"], audit[0]["subject"]) == ("submit", made.json["id"])


def test_trials_are_compared_over_their_seeds(client: FlaskClient, worker: Any) -> None:
    space = {"/optimizer/learning_rate": {"choice": [0.01, 0.03]}}
    sweep = start(client, space=space, search=None, halving=None, seeds=[0, 1, 2], base=BASE | {"epochs": 1})
    finish(client, worker, sweep["id"])
    found = client.get("/comparisons", query_string={"a": f"{sweep['id']}:0", "b": sweep["id"]}).json
    assert (found["paired"], found["n"], found["difference"]) == (True, 3, pytest.approx(0.02))
    assert found["sentence"].startswith("b is better by 2.00 points")
    for name in (f"{sweep['id']}:7", "swp_00000000000000000000000000", f"{sweep['id']}:x"):
        assert client.get("/comparisons", query_string={"a": name, "b": name}).json["code"] == "sweep_not_found"


def test_curves_have_a_band_over_the_seeds(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 2}, seeds=[0, 5])
    finish(client, worker, sweep["id"])
    [first, _] = client.get(f"/sweeps/{sweep['id']}/curves").json["data"]
    assert (first["trial"], first["epochs"], first["n"]) == (0, [1, 2, 3, 4], [2, 2, 2, 2])
    assert [high - low for low, high in zip(first["low"], first["high"], strict=True)] == pytest.approx([0.005] * 4)
    assert first["mean"][3] - first["mean"][0] == pytest.approx(0.03)


def test_the_pages_show_sweeps(client: FlaskClient, worker: Any) -> None:
    assert "New sweep" in client.get("/ui/sweeps").text
    sweep = start(client)
    assert "rates" in client.get("/ui/sweeps").text
    page = client.get(f"/ui/sweeps/{sweep['id']}")
    assert (page.status_code, "maximize val accuracy" in page.text) == (200, True)
    assert client.get("/ui/sweeps/swp_nothing").status_code == 404
    redirected = client.get(f"/sweeps/{sweep['id']}", headers={"Accept": "text/html"})
    assert redirected.headers["Location"] == f"/ui/sweeps/{sweep['id']}"


def test_a_sweep_is_one_row_of_a_job_list(client: FlaskClient, worker: Any) -> None:
    before = client.post("/jobs", json=BASE).json["id"]
    sweep = start(client)
    other = start(client, name=None, seeds=[4], halving=None, search={"name": "random", "trials": 2})
    after = client.post("/jobs", json=BASE).json["id"]
    found = client.get("/jobs?one_per_sweep=true&limit=100&counts=true").json
    listed = [job["sweep_id"] or job["id"] for job in found["data"]]
    assert listed == [after, other["id"], sweep["id"], before]
    assert sum(found["counts"].values()) == 2 + 6 + 2  # of all jobs
    told = found["sweeps"][sweep["id"]]
    assert (told["title"], told["jobs"], told["trials"], told["status"]) == ("rates", 6, 6, "running")
    assert found["sweeps"][other["id"]]["title"] == f"sweep {other['id'][-6:].lower()}"
    paged = client.get(
        f"/jobs?one_per_sweep=true&limit=2&cursor={client.get('/jobs?limit=1').json['next_cursor']}"
    ).json
    assert [job["sweep_id"] or job["id"] for job in paged["data"]] == [other["id"], sweep["id"]]
    client.post(f"/sweeps/{sweep['id']}/cancel")
    first = found["data"][2]["id"]
    assert client.delete(f"/jobs/{first}").status_code == 204
    again = client.get("/jobs?one_per_sweep=true").json
    assert sweep["id"] in [job["sweep_id"] for job in again["data"]], "another job stands for it"
    assert client.get("/jobs?one_per_sweep=true&format=csv").status_code == 400
    [newest, *_] = client.get("/jobs/groups?by=sweep").json["data"]
    assert (newest["label"], newest["query"]) == ("without a sweep", {"without": "sweep"})
    groups = {group["value"]: group for group in client.get("/jobs/groups?by=sweep").json["data"]}
    assert (groups[sweep["id"]]["label"], groups[sweep["id"]]["count"]) == ("rates", 5)
    assert len(client.get("/jobs?without=sweep").json["data"]) == 2


def test_curves_have_an_interval_and_are_a_file_too(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 2}, seeds=[0, 5])
    finish(client, worker, sweep["id"])
    [first, _] = client.get(f"/sweeps/{sweep['id']}/curves").json["data"]
    half = 12.706204736432095 * 0.0025  # t of 97.5% with one degree of freedom; the standard error of two values
    assert first["interval_high"][0] - first["mean"][0] == pytest.approx(half, rel=1e-6)
    assert first["mean"][0] - first["interval_low"][0] == pytest.approx(half, rel=1e-6)
    answer = client.get(f"/sweeps/{sweep['id']}/curves?format=csv&metric=train_loss")
    lines = answer.text.splitlines()
    assert (answer.mimetype, len(lines)) == ("text/csv", 1 + 2 * 4)
    assert lines[0].startswith("trial,epoch,train_loss (mean),train_loss (low)")
    assert lines[2] == "0,2,0.5,0.5,0.5,0.5,0.5,2"
    alone = start(client, halving=None, search={"name": "random", "trials": 1}, seeds=[9], name="alone")
    finish(client, worker, alone["id"])
    [curve] = client.get(f"/sweeps/{alone['id']}/curves").json["data"]
    assert curve["interval_low"] == [None] * 4
    [trial] = client.get(f"/sweeps/{alone['id']}/trials").json["data"]
    assert trial["metrics"]["train_loss"] == 0.25


def test_curves_are_drawn_with_a_band(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, halving=None, search={"name": "random", "trials": 2}, seeds=[0, 5])
    address = f"/sweeps/{sweep['id']}/plots/curves"
    assert client.get(f"{address}.png").json["code"] == "not_yet"
    finish(client, worker, sweep["id"])
    pictures = {}
    for band in ("range", "interval", "none"):
        answer = client.get(f"{address}.png?band={band}")
        assert (answer.status_code, answer.mimetype) == (200, "image/png")
        Image.open(BytesIO(answer.data)).verify()
        pictures[band] = answer.data
        assert (
            client.get(f"{address}.png?band={band}", headers={"If-None-Match": answer.headers["ETag"]}).status_code
            == 304
        )
    assert len(set(pictures.values())) == 3
    assert client.get(f"{address}.svg?metric=train_loss").mimetype == "image/svg+xml"
    for wrong, code in (
        ("curves.gif", "not_found"),
        ("confusion.png", "not_found"),
        ("curves.png?band=x", "invalid_parameter"),
    ):
        assert client.get(f"/sweeps/{sweep['id']}/plots/{wrong}").json["code"] == code
