"""Sweeps over HTTP, from the first proposal to the winner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.storage.tables import Job
from service.sweeps import decisions, queries
from service.sweeps.proposer import Proposer
from service.sweeps.search import proposals, space
from service.sweeps.search.proposals import Suggestions
from tests.service.features.sweeps.simulated_sweeps import BASE, finish, logged_decisions, start, train_one


def test_a_sweep_trains_promotes_and_names_its_winner(either_app: Flask, make_worker: Callable[[Flask], Any]) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
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
    kinds = [kind for kind, _ in logged_decisions(client, sweep["id"])]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "propose": 6, "result": 9, "promote": 2, "stop": 2, "winner": 1,
    }  # fmt: skip


def test_the_digest_of_a_sweep_depends_on_its_seed_but_not_on_its_name(client: FlaskClient, worker: Any) -> None:
    small = {"base": BASE | {"epochs": 1}, "seeds": [0], "halving": None}
    ended, renamed, reseeded = (
        finish(
            client,
            worker,
            start(client, **small, name=name, search={"name": "random", "trials": 2, "seed": seed})["id"],
        )
        for name, seed in (("rates", 7), ("another name", 7), ("rates", 8))
    )
    assert renamed["sweep_digest"] == ended["sweep_digest"]
    assert reseeded["sweep_digest"] != ended["sweep_digest"]


def test_the_digest_of_a_sweep_outlives_the_name_of_its_preset(client: FlaskClient, worker: Any) -> None:
    base = BASE | {"epochs": 1, "preset": "classic"}
    ended = finish(client, worker, start(client, base=base, seeds=[0], halving=None)["id"])
    with worker.database.write() as session:
        sweep = session.get_one(Sweep, ended["id"])
        assert sweep.resolved["base"]["preset"] == "classic"
        sweep.resolved = sweep.resolved | {"base": sweep.resolved["base"] | {"preset": "seed"}}  # as stored before
        session.flush()
        assert decisions.digest(session, sweep) == ended["sweep_digest"]


def test_the_next_trial_is_proposed_when_the_sweep_is_advanced(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, parallel=1, seeds=[0], halving=None)
    train_one(client, worker)
    trials = [data["trial"] for kind, data in logged_decisions(client, sweep["id"]) if kind == "propose"]
    assert trials == [0], "the simulated worker commits without sweeps"
    decisions.advance_all(worker.database)
    assert [data["trial"] for kind, data in logged_decisions(client, sweep["id"]) if kind == "propose"] == [0, 1]


class Proposals:
    """Proposals that take five seconds of ``ann``'s turns, and two of others', on a clock that nothing else moves."""

    def __init__(self, client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client, self.database, self.now_s, self.turns = client, database, 0.0, list[str | None]()
        self.proposer = Proposer(database, clock=lambda: self.now_s)
        monkeypatch.setattr(proposals, "suggest", self.suggest)

    def start(self, *owners: str) -> None:
        """Start sweeps that need three proposals each."""
        changes = {"search": {"name": "tpe", "trials": 13, "seed": 3}, "seeds": [0], "halving": None, "parallel": 13}
        for owner in owners:
            sweep_id = start(self.client, **changes)["id"]
            with self.database.write() as session:
                session.get_one(Sweep, sweep_id).owner = owner

    def suggest(self, session: Session, sweep: Sweep) -> Suggestions:
        self.now_s += 5.0 if sweep.owner == "ann" else 2.0
        self.turns.append(sweep.owner)
        trial = sweep.state["proposed"]
        return {trial: space.random_settings(proposals.ranges_of(sweep.resolved), 3, trial)}


def test_many_sweeps_of_one_owner_do_not_delay_the_proposals_of_another(
    client: FlaskClient, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Proposals(client, worker.database, monkeypatch)
    made.start("ann", "ann", "ann", "ben")
    assert len(made.proposer.propose_all()) == 12
    assert made.turns == ["ann", *["ben"] * 3, *["ann"] * 8]


def test_an_owner_who_comes_later_has_no_credit_for_the_time_before(
    client: FlaskClient, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Proposals(client, worker.database, monkeypatch)
    made.start("ann", "ann", "ann")
    made.proposer.propose_all()
    made.start("ann", "eve")
    made.turns.clear()
    made.proposer.propose_all()
    assert made.turns == ["ann", "eve", "eve", "eve", "ann", "ann"]


@pytest.mark.stack
def test_a_tpe_sweep_is_reproducible(client: FlaskClient, worker: Any) -> None:
    changes = {"search": {"name": "tpe", "trials": 16, "seed": 3}, "seeds": [0], "halving": None, "parallel": 2}
    ended = [finish(client, worker, start(client, base=BASE | {"epochs": 1}, **changes)["id"]) for _ in range(2)]
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
    answer = client.get(f"/sweeps/{sweep['id']}/importance").json
    importance, note = answer["data"], answer["note"]
    assert note.startswith("Fraction of the objective's variance")
    assert [item["setting"] for item in importance] == ["/optimizer/learning_rate", "/batch_size"]
    assert (importance[0]["best"], importance[0]["share"]) == ("0.03", pytest.approx(1))
    assert importance[0]["distinguishable"] is None, "one seed"
    table = client.get(f"/sweeps/{sweep['id']}/trials?format=csv&sort=-value").text.splitlines()
    assert table[0].startswith("trial,status,epoch,val_accuracy,/optimizer/learning_rate,/batch_size,")
    assert table[1].startswith("3,succeeded,1,0.91")
    assert len(table) == 7


def test_importance_says_if_the_best_value_is_not_shown_to_be_better(client: FlaskClient, worker: Any) -> None:
    space = {"/optimizer/learning_rate": {"choice": [0.01, 0.03]}, "/batch_size": {"choice": [50, 60]}}
    sweep = start(client, space=space, search=None, halving=None, seeds=[0, 1, 2], base=BASE | {"epochs": 1})
    before = client.get(f"/sweeps/{sweep['id']}/importance").json
    assert before["note"].startswith("Provisional: the sweep has not ended. ")

    def measure(job: Mapping[str, Any], epoch: int) -> float:
        by_size = (0.01, -0.01, 0.0)[job["resolved"]["seed"]] * (job["resolved"]["batch_size"] == 60)
        return 0.8 + 5 * job["resolved"]["optimizer"]["learning_rate"] + by_size

    finish(client, worker, sweep["id"], measure=measure)
    importance = client.get(f"/sweeps/{sweep['id']}/importance").json["data"]
    clear = {item["setting"]: item["distinguishable"] for item in importance}
    assert clear == {"/optimizer/learning_rate": True, "/batch_size": False}


def test_a_setting_can_be_named_as_in_set_or_by_its_pointer(client: FlaskClient, worker: Any) -> None:
    names = {"/optimizer/learning_rate": "optimizer.learning_rate", "/layers/0/units": "layers.0.units"}
    layers = [{"units": 8, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    ranges = {"/optimizer/learning_rate": {"log": [0.001, 0.3]}, "/layers/0/units": {"int": [4, 64]}}
    spaces = [ranges, {names[pointer]: span for pointer, span in ranges.items()}]
    random, base = {"name": "random", "trials": 3, "seed": 7}, BASE | {"epochs": 1, "layers": layers}
    started = [start(client, base=base, space=space, search=random, halving=None, seeds=[0]) for space in spaces]
    assert [sweep["spec"]["space"] for sweep in started] == spaces, "as sent"
    ended = [finish(client, worker, sweep["id"]) for sweep in started]
    assert ended[0]["sweep_digest"] == ended[1]["sweep_digest"]
    assert list(ended[1]["resolved"]["space"]) == list(names)
    for pointer, name in names.items():
        orders = [client.get(f"/sweeps/{ended[1]['id']}/trials?sort=-{sort}").json["data"] for sort in (pointer, name)]
        assert orders[0] == orders[1]
        drawn = [trial["settings"][pointer] for trial in orders[0]]
        assert drawn == sorted(drawn, reverse=True)
    refused = client.get(f"/sweeps/{ended[1]['id']}/trials?sort=momentum").json["detail"]
    assert "best, optimizer.learning_rate, layers.0.units" in refused


def test_a_seed_group_has_an_empty_space(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, space=None, search=None, halving=None, seeds=[3, 1, 2], base=BASE | {"epochs": 1})
    assert finish(client, worker, sweep["id"])["status"] == "succeeded"
    [trial] = client.get(f"/sweeps/{sweep['id']}/trials").json["data"]
    values = {job["seed"]: job["value"] for job in trial["jobs"]}
    assert (list(values), trial["value"]) == ([3, 1, 2], pytest.approx(sum(values.values()) / 3))


def test_a_failed_trial_has_no_value_ranks_last_and_does_not_block_its_sweep(client: FlaskClient, worker: Any) -> None:
    sweep = start(client)
    ended = finish(client, worker, sweep["id"], fails=lambda job: job["name"] == "rates 1 (seed 0)")
    assert (ended["status"], ended["trials"]["failed"]) == ("succeeded", 1)
    trials = client.get(f"/sweeps/{sweep['id']}/trials").json["data"]
    failed = trials[1]
    assert (failed["status"], failed["value"], failed["error"]["code"]) == ("failed", None, "diverged")
    distances = [abs(trial["settings"]["/optimizer/learning_rate"] - 0.03) for trial in trials]
    assert min(distances) == distances[1], "it would have won"
    assert ended["best_trial"] not in (1, None)
    for sort in ("best", "value", "-value"):
        assert client.get(f"/sweeps/{sweep['id']}/trials?sort={sort}").json["data"][-1] == failed


def test_a_trial_that_fails_at_the_last_rung_does_not_win(client: FlaskClient, worker: Any) -> None:
    sweep = start(client)
    ended = finish(client, worker, sweep["id"], fails=lambda job: job["progress"]["epoch"] > 0)  # after a promotion
    trials = client.get(f"/sweeps/{sweep['id']}/trials").json["data"]
    assert (ended["status"], ended["trials"]["succeeded"], ended["trials"]["failed"]) == ("succeeded", 0, 2)
    best = trials[ended["best_trial"]]
    assert (best["status"], best["value"]) == ("stopped", ended["best_value"])


def test_too_many_failures_fail_the_sweep_and_stop_its_jobs(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, max_failed=1)
    ended = finish(client, worker, sweep["id"], fails=lambda job: " 1 " in job["name"] or " 0 " in job["name"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "too_many_failed")
    assert client.get("/jobs?status=queued,paused,running").json["data"] == []


def test_a_budget_ends_a_sweep(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, budget={"epochs": 14}, halving=None, seeds=[0])
    ended = finish(client, worker, sweep["id"])
    assert (ended["status"], ended["epochs_started"], ended["trials"]["succeeded"]) == ("succeeded", 12, 3)
    assert ("exhausted", {"by": "budget"}) in logged_decisions(client, sweep["id"])


@pytest.mark.parametrize("used", [(6.0, 3.9), (20.0, 0.0)])
def test_a_budget_of_cpu_time_ends_a_sweep(client: FlaskClient, worker: Any, used: tuple[float, float]) -> None:
    sweep = start(client, budget={"seconds": 10}, halving=None, seeds=[0], parallel=2)
    assert (sweep["budget_epochs"], sweep["resolved"]["budget"]) == (None, {"seconds": 10.0})
    with worker.database.write() as session:  # two trials run; the second is still below the budget, or it is not
        for job, seconds in zip(session.scalars(select(Job).order_by(Job.id)), used, strict=True):
            job.cpu_seconds = seconds
    ended = finish(client, worker, sweep["id"])
    assert ended["status"] == "succeeded"
    is_spent = sum(used) >= 10
    assert ended["trials"]["succeeded"] == (2 if is_spent else 6)
    assert (("exhausted", {"by": "budget"}) in logged_decisions(client, sweep["id"])) is is_spent


def test_a_budget_counts_the_epochs_of_each_trial(client: FlaskClient, worker: Any) -> None:
    changes: dict[str, Any] = {"search": None, "halving": None, "seeds": [0], "budget": {"epochs": 5}}
    short = start(client, base=BASE | {"epochs": 1}, space={"/epochs": {"choice": [1, 10]}}, **changes)
    ended = finish(client, worker, short["id"])
    assert (ended["status"], ended["epochs_started"], ended["trials"]["succeeded"]) == ("succeeded", 1, 1)
    assert ("exhausted", {"by": "budget"}) in logged_decisions(client, short["id"])
    long = start(client, base=BASE | {"epochs": 10}, space={"/epochs": {"choice": [1, 2]}}, **changes)
    ended = finish(client, worker, long["id"])
    assert (ended["epochs_started"], ended["trials"]["succeeded"]) == (3, 2)


def test_invalid_settings_fail_only_their_own_trial(client: FlaskClient, worker: Any) -> None:
    layers = [{"units": 16, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    space = {"/layers/1/units": {"choice": [10, 11]}}
    sweep = start(
        client, base=BASE | {"layers": layers, "epochs": 1}, space=space, search=None, halving=None, seeds=[0]
    )
    ended = finish(client, worker, sweep["id"])
    assert (ended["status"], ended["best_trial"], ended["trials"]["failed"]) == ("succeeded", 0, 1)
    failed = client.get(f"/sweeps/{sweep['id']}/trials").json["data"][1]
    assert failed["error"]["code"] == "invalid_spec"


def start_sparse(client: FlaskClient, units: list[int], **changes: Any) -> dict[str, Any]:
    """Start a sweep in which three trials are valid: those with 10 units in the last layer."""
    layers = [{"units": 16, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    space = {"/optimizer/learning_rate": {"choice": [0.01, 0.03, 0.1]}, "/layers/1/units": {"int": units}}
    return start(client, base=BASE | {"layers": layers}, space=space, search=None, seeds=[0], **changes)


def proposed_trials(client: FlaskClient, sweep: dict[str, Any]) -> list[int]:
    return [data["trial"] for kind, data in logged_decisions(client, sweep["id"]) if kind == "propose"]


def test_one_transaction_proposes_a_limited_number_of_trials(client: FlaskClient, worker: Any) -> None:
    sweep = start_sparse(client, [1, 50], halving=None)
    assert proposed_trials(client, sweep) == list(range(100)), "only two of them take one of three places"
    decisions.advance_all(worker.database)
    assert proposed_trials(client, sweep) == list(range(110))
    ended = finish(client, worker, sweep["id"])
    assert (ended["trials"]["succeeded"], ended["trials"]["failed"]) == (3, 147)


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_the_limit_of_proposals_does_not_change_the_decisions(
    client: FlaskClient, worker: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    digests = []
    for limit, proposed_at_start in ((1000, 14), (2, 2)):
        monkeypatch.setattr(decisions, "PROPOSALS_PER_TRANSACTION", limit)
        sweep = start_sparse(client, [7, 11], halving={"min_epochs": 1, "factor": 2, "mode": mode})
        assert len(proposed_trials(client, sweep)) == proposed_at_start
        digests.append(finish(client, worker, sweep["id"])["sweep_digest"])
    assert digests[0] == digests[1]


def test_a_paused_sweep_makes_no_decisions_and_can_be_resumed(client: FlaskClient, worker: Any) -> None:
    sweep = start(client, seeds=[0])
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
    uninterrupted = finish(client, worker, start(client, seeds=[0])["id"])
    assert ended["sweep_digest"] == uninterrupted["sweep_digest"]


def test_cancelling_a_sweep_cancels_its_jobs_and_it_can_then_be_deleted(client: FlaskClient, worker: Any) -> None:
    sweep = start(client)
    address = f"/sweeps/{sweep['id']}"
    train_one(client, worker)
    worker.claim()
    assert client.post(f"{address}/cancel").json["status"] == "cancelled"
    rejected = client.delete(address)
    assert (rejected.status_code, rejected.json["code"]) == (409, "illegal_transition")
    from service.jobs import leases

    leases.release_lease(worker.database, worker.current_claim, None)
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
    refused = client.patch(f"/jobs/{held['id']}", json={"budget": {"seconds": 1}})
    (fault,) = refused.json["errors"]
    assert (refused.status_code, fault["pointer"], fault["code"]) == (422, "#/budget", "unsuitable")
    assert "a sweep has its own `budget`" in fault["detail"]
    assert client.patch(f"/jobs/{held['id']}", json={"budget": None, "name": "held"}).status_code == 200
    client.post(f"/jobs/{held['id']}/cancel")
    assert client.delete(f"/jobs/{held['id']}").status_code == 409
    ended = finish(client, worker, sweep["id"])
    assert ended["trials"]["failed"] == 1
    assert client.delete(f"/jobs/{held['id']}").status_code == 204


def test_the_time_left_follows_from_the_epochs_so_far_and_the_jobs_that_run() -> None:
    epochs = queries.Epochs(trained=10, reused=2, cpu_seconds=30.0, running_jobs=2)
    assert epochs.seconds_left(32) == 20 * 3 / 2
    assert epochs.seconds_left(5) == 0, "asynchronous halving can be below its maximum"
    for unknown in ({"trained": 0}, {"cpu_seconds": 0.0}, {"running_jobs": 0}):
        assert epochs._replace(**unknown).seconds_left(32) is None
    assert epochs.seconds_left(None) is None


def test_the_curves_of_chosen_trials_are_named_by_their_settings(client: FlaskClient, worker: Any) -> None:
    space = {"/optimizer/learning_rate": {"choice": [0.01, 0.03, 0.3]}}
    sweep = start(client, space=space, search=None, halving=None, seeds=[0, 1], base=BASE | {"epochs": 2})
    assert finish(client, worker, sweep["id"])["eta_seconds"] is None
    path = f"/sweeps/{sweep['id']}/curves"
    labels = {0: "learning_rate 0.01", 1: "learning_rate 0.03", 2: "learning_rate 0.3"}
    assert {curve["trial"]: curve["label"] for curve in client.get(path).json["data"]} == labels
    assert [curve["trial"] for curve in client.get(f"{path}?limit=2").json["data"]] == [0, 1]
    assert [curve["trial"] for curve in client.get(f"{path}?trials=0,2&limit=1").json["data"]] == [0]
    assert [curve["trial"] for curve in client.get(f"{path}?trials=0,2").json["data"]] == [0, 2]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"/optimizer/learning_rate": 0.01, "/batch_size": 50}, "learning_rate 0.01, batch_size 50"),
        ({"/layers/0/units": 8, "/layers/1/units": 16}, "layers.0.units 8, layers.1.units 16"),
        ({"/optimizer": {"name": "adam", "beta1": 0.5}}, "optimizer adam (beta1 0.5)"),
        ({"/layers": [{"units": 8, "activation": "relu"}] * 2 + [{"units": 10}]}, "layers 2 x dense 8 relu, dense 10"),
    ],
)
def test_settings_are_named_as_shortly_as_is_unique(settings: dict[str, Any], text: str) -> None:
    assert queries.settings_text(settings) == text
    assert len(queries.settings_text(settings | {f"/x/{n}": n for n in range(40)})) <= 80
