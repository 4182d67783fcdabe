"""Owners: their settings through the API, and what they change."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, update
from structlog.testing import capture_logs

from service import owner_limits
from service.access import owners
from service.access.keys import Scope
from service.cli import main
from service.jobs import actions, commits, events, leases, worker_registry
from service.states import Request
from service.storage.database import Database
from service.storage.owner_tables import Owner
from service.storage.tables import Job, Worker
from service.sweeps import decisions
from service.web.core.core import EXTENSION, Core
from tests.faults.invariants import owner_counts
from tests.service.web.core.quota_clients import SPEC, MakeApp, check_refusal, client_of, keyed
from tests.terminals import run_in_terminal, strip_ansi


def eventually(check: Callable[[], bool]) -> None:
    """Changes take effect after a second."""
    deadline = time.monotonic() + 5
    while not check():
        assert time.monotonic() < deadline, "the change has no effect"
        time.sleep(0.05)


def change(admin: FlaskClient, owner: str, **settings: Any) -> Any:
    return admin.patch(f"/owners/{owner}", json=settings)


def test_settings_of_an_owner_are_changed_without_a_restart(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url, queued=2)
    admin, ann, bob = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann"), client_of(app, "bob")
    assert ann.get("/owners").status_code == 403
    changed = change(admin, "ann", queued_jobs=3, weight=2.5, display_name="Ann Özdemir 王芳")
    assert (changed.status_code, changed.json["display_name"]) == (200, "Ann Özdemir 王芳")
    assert (changed.json["settings"]["queued_jobs"], changed.json["limits"]["queued_jobs"]) == (3, 3)
    assert changed.json["limits"]["weight"] == 2.5
    assert [client.post("/jobs", json=SPEC).status_code for client in (ann, ann, bob, bob)] == [201] * 4
    eventually(lambda: ann.get("/limits").json["owner"]["queued_jobs"] == 3)
    assert ann.post("/jobs", json=SPEC).status_code == 201
    check_refusal(bob.post("/jobs", json=SPEC), "quota_exceeded")
    change(admin, "ann", queued_jobs=None)
    eventually(lambda: ann.get("/limits").json["owner"]["queued_jobs"] == 2)
    entries = admin.get("/audit?action=change_owner").json["data"]
    assert entries[-1]["detail"] == {"queued_jobs": 3, "weight": 2.5, "display_name": "Ann Özdemir 王芳"}
    change(admin, "bob", display_name="zoë")
    listed = {item["id"]: item for item in admin.get("/owners").json["data"]}
    assert list(listed) == ["ann", "root", "bob"], "by the names that people see"
    assert (listed["ann"]["queued"], listed["bob"]["queued"]) == (3, 2)


def test_faulty_settings_name_the_remedy(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    for settings, pointer in (
        ({"weight": 0}, "#/weight"),
        ({"weight": 1e-320}, "#/weight"),
        ({"weight": 1001}, "#/weight"),
        ({"running_jobs": 0}, "#/running_jobs"),
        ({"max_priority": 10}, "#/max_priority"),
    ):
        assert change(admin, "ann", **settings).json["errors"][0]["pointer"] == pointer
    unknown = change(admin, "anna", weight=2)
    assert (unknown.status_code, unknown.json["code"]) == (404, "owner_not_found")
    assert "ann" in unknown.json["detail"]
    core: Core = app.extensions[EXTENSION]
    for _ in range(3):
        ann.post("/jobs", json=SPEC)
        leases.claim(core.database, "w", 60)
    too_low = change(admin, "ann", running_jobs=1)
    assert (too_low.status_code, too_low.json["code"], too_low.json["running"]) == (409, "cap_exceeded", 3)
    assert "pause 2 of them first" in too_low.json["detail"]


def test_a_priority_above_the_owners_is_refused(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    refused = ann.post("/jobs", json=SPEC | {"priority": 6})
    assert refused.status_code == 422
    (fault,) = refused.json["errors"]
    assert (fault["pointer"], fault["code"]) == ("#/priority", "priority_too_high")
    job = ann.post("/jobs", json=SPEC | {"priority": 5}).json["id"]
    assert ann.patch(f"/jobs/{job}", json={"priority": 9}).json["errors"][0]["code"] == "priority_too_high"
    sweep = {"base": SPEC | {"priority": 7}, "seeds": [1, 2]}
    assert ann.post("/sweeps", json=sweep).json["errors"][0]["pointer"] == "#/base/priority"
    change(admin, "ann", max_priority=9)
    eventually(lambda: ann.patch(f"/jobs/{job}", json={"priority": 9}).status_code == 200)


def test_a_lower_highest_priority_holds_for_all_that_is_queued_afterwards(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    core: Core = app.extensions[EXTENSION]
    change(admin, "ann", max_priority=9)
    eventually(lambda: ann.post("/jobs", json=SPEC | {"priority": 9}).status_code == 201)
    failed = leases.claim(core.database, "w", 60)
    assert failed is not None
    commits.fail(core.database, failed, {"code": "internal", "message": "m"})
    ann.post("/jobs", json=SPEC | {"priority": 8})
    paused = leases.claim(core.database, "w", 60)
    assert paused is not None
    leases.release_lease(core.database, paused, Request.PAUSE)
    base = {"kind": "classifier", "priority": 7, "epochs": 1}
    sweep = {"base": base, "space": {"/batch_size": {"choice": [100, 200]}}, "parallel": 1}
    started = ann.post("/sweeps", json=sweep | {"search": {"name": "grid"}})
    assert started.status_code == 201, started.text
    change(admin, "ann", max_priority=3)
    assert ann.post(f"/jobs/{failed.job_id}/retry").json["priority"] == 3
    assert ann.post(f"/jobs/{paused.job_id}/resume").json["priority"] == 3
    first = leases.claim(core.database, "w", 60)
    assert first is not None
    commits.fail(core.database, first, {"code": "internal", "message": "m"}, then=decisions.after_result)
    trials = ann.get(f"/jobs?sweep={started.json['id']}").json["data"]
    assert {job["id"] == first.job_id: job["priority"] for job in trials} == {True: 3, False: 3}


def test_a_lower_highest_priority_holds_for_what_is_queued(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    core: Core = app.extensions[EXTENSION]
    change(admin, "ann", max_priority=9)
    eventually(lambda: ann.post("/jobs", json=SPEC | {"priority": 9}).status_code == 201)
    paused = leases.claim(core.database, "w", 60)
    assert paused is not None
    leases.release_lease(core.database, paused, Request.PAUSE)
    urgent, usual = (ann.post("/jobs", json=SPEC | {"priority": priority}).json["id"] for priority in (8, 4))
    before = ann.get(f"/jobs/{urgent}")
    client_of(app, "bob").post("/jobs", json=SPEC)
    assert owner_counts(core.database)[0]["ann"] == (0, 2, 8)
    changed = change(admin, "ann", max_priority=5)
    assert changed.status_code == 200
    kept, counted = owner_counts(core.database)
    assert kept == counted
    assert kept["ann"] == (0, 2, 0), "no longer urgent"
    after = ann.get(f"/jobs/{urgent}")
    assert (after.json["priority"], after.headers["ETag"] != before.headers["ETag"]) == (5, True)
    assert [ann.get(f"/jobs/{job}").json["priority"] for job in (paused.job_id, usual)] == [5, 4]
    with core.database.read() as session:
        last = events.read(session, urgent)[-1]
    assert (last.type, last.data["reason"], last.data["priority"]) == ("status", "changed", 5)
    assert last.data["request_id"] == changed.headers["X-Request-ID"]


def test_the_scheduler_lowers_what_was_submitted_as_the_limit_changed(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    core: Core = app.extensions[EXTENSION]
    ann = client_of(app, "ann")
    ids = [ann.post("/jobs", json=SPEC).json["id"] for _ in range(2)]
    with core.database.write() as session:
        session.execute(update(Job).where(Job.id == ids[0]).values(priority=9, owner=None))
        session.execute(update(Job).where(Job.id == ids[1]).values(priority=9))
    assert actions.lower_urgent(core.database) == 1
    with core.database.read() as session:
        assert [session.get_one(Job, job).priority for job in ids] == [9, 5], "everybody without a key may have 9"


def test_the_priority_of_an_owner_with_a_low_highest_one_need_not_be_sent(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    change(admin, "ann", max_priority=3)
    eventually(lambda: ann.post("/jobs", json=SPEC | {"priority": 4}).status_code == 422)
    created = ann.post("/jobs", json=SPEC)
    assert (created.status_code, created.json["priority"], created.json["resolved"]["priority"]) == (201, 3, 3)
    assert ann.post("/sweeps", json={"base": SPEC, "seeds": [1, 2]}).status_code == 201
    address = f"/jobs/{created.json['id']}"
    assert ann.patch(address, json={"priority": 0}).json["priority"] == 0
    assert ann.patch(address, json={"priority": None}).json["priority"] == 3


def test_the_queue_says_why_a_job_waits(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann, bob = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann"), client_of(app, "bob")
    core: Core = app.extensions[EXTENSION]
    for _ in range(4):
        ann.post("/jobs", json=SPEC)
    bob.post("/jobs", json=SPEC)
    queued = bob.get("/queue").json
    assert queued["reason"] == "no_worker"
    (job,) = queued["data"]
    assert (job["position"], job["ahead"], job["estimated_start_at"]) == (2, {"own": 0, "others": 1}, None)
    worker = Worker(id="w", host="here", pid=7, slots=2, running=0, draining=False)
    worker_registry.record_heartbeat(core.database, worker)
    for _ in range(2):
        leases.claim(core.database, "w", 60)
    change(admin, "ann", running_jobs=2)
    first, *_ = ann.get("/queue").json["data"]
    assert first["estimated_start_at"] is not None
    assert (ann.get("/queue").json["reason"], bob.get("/queue").json["data"]) == ("share", [])
    assert ann.get("/queue").json["reason_text"] == "2 owners share 2 slots equally; you run 1"
    change(admin, "ann", weight=3)
    assert ann.get("/queue").json["reason_text"] == "your share is 1.5 of 2 slots; you run 1"
    leases.claim(core.database, "w", 60)
    assert ann.get("/queue").json["reason"] == "cap"
    assert "2 jobs of yours run" in ann.get("/queue").json["reason_text"]


def test_an_admin_reads_the_jobs_of_all_owners_and_this_is_recorded(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann, bob = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann"), client_of(app, "bob")
    job, other = ann.post("/jobs", json=SPEC).json["id"], bob.post("/jobs", json=SPEC).json["id"]
    assert admin.get("/jobs").json["data"] == []
    assert [item["id"] for item in admin.get("/jobs?owner=ann").json["data"]] == [job]
    assert [admin.get("/queue").json["data"], ann.get("/queue?owner=*").status_code] == [[], 403]
    for path in ("/queue?owner=*", "/jobs?owner=*"):
        assert {item["id"] for item in admin.get(path).json["data"]} == {job, other}
    assert [admin.get(f"/jobs/{job}{path}").status_code for path in ("", "/metrics", "/events")] == [200] * 3
    assert admin.get(f"/ui/jobs/{job}", headers={"Accept": "text/html"}).status_code == 200
    assert admin.post(f"/jobs/{job}/cancel").status_code == 404, "an admin only reads"
    recorded = admin.get("/audit?action=read_others").json["data"]
    assert sorted(item["subject"] for item in recorded) == ["*", "ann", job]
    assert ann.get(f"/jobs/{other}").status_code == 404
    assert (ann.get("/jobs?owner=bob").status_code, ann.get("/jobs?owner=ann").status_code) == (403, 200)


def test_an_admin_lists_what_has_no_owner_and_a_typo_is_no_owner(make_app: MakeApp, migrated_url: str) -> None:
    job = make_app(migrated_url).test_client().post("/jobs", json=SPEC).json["id"]
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    ann.post("/jobs", json=SPEC)
    paths = ("/sweeps?owner=-", "/shares?owner=-", f"/jobs/{job}", "/jobs?owner=ann")
    with capture_logs() as logged:
        assert [item["id"] for item in admin.get("/jobs?owner=-").json["data"]] == [job]
        assert [admin.get(path).status_code for path in paths] == [200] * 4
        for owner in ("typo", "an", "%00", "a%20b"):
            unknown = admin.get(f"/jobs?owner={owner}")
            assert (unknown.status_code, unknown.json["code"]) == (404, "owner_not_found")
        change(admin, "ann", display_name="Ann Özdemir")
        for path in ("/jobs?owner=ann+özdemir", "/owners/Ann Özdemir"):
            assert admin.get(path).status_code == 200
        assert change(admin, "ANN ÖZDEMIR", display_name="王芳").json["id"] == "ann"
        unknown = admin.get("/jobs?owner=王")
        assert unknown.json["detail"] == "there is no owner '王'; similar owners: 王芳 (ann)"
    recorded = {entry["subject"] for entry in admin.get("/audit?action=read_others").json["data"]}
    assert recorded == {"-", job, "ann"}
    lines = [(entry["event"], entry["owner"]) for entry in logged if entry["event"] in ("request", "audit")]
    assert set(lines) == {("request", "root"), ("audit", "root")}
    page = admin.get(f"/ui/jobs/{job}", headers={"Accept": "text/html"})
    assert "Belongs to everybody without a key" in page.text


def test_a_service_without_keys_lists_the_jobs_of_an_owner(make_app: MakeApp, migrated_url: str) -> None:
    client_of(keyed(make_app, migrated_url), "ann").post("/jobs", json=SPEC)
    client = make_app(migrated_url).test_client()
    job = client.post("/jobs", json=SPEC).json["id"]
    assert [item["id"] for item in client.get("/jobs?owner=-").json["data"]] == [job]
    counts = [len(client.get(f"/jobs{query}").json["data"]) for query in ("", "?owner=*", "?owner=ann", "?owner=")]
    assert counts == [2, 2, 1, 2]
    assert client.get("/jobs?owner=nobody").status_code == 404


@pytest.mark.stack
def test_commands_show_whose_jobs_they_list(
    make_app: MakeApp, migrated_url: str, serve: Callable[[Flask], str]
) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann, bob = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann"), client_of(app, "bob")
    change(admin, "ann", display_name="Özlem Yildiz of the second class")
    sweep = {
        "base": SPEC,
        "seeds": [1, 2],
        "space": {"/batch_size": {"choice": [100, 200]}},
        "search": {"name": "grid"},
    }
    for client in (ann, bob):
        job = client.post("/jobs", json=SPEC).json["id"]
        assert client.post("/shares", json={"path": f"/jobs/{job}"}).status_code == 201
        assert client.post("/sweeps", json=sweep | {"parallel": 1}).status_code == 201
    leases.claim(app.extensions[EXTENSION].database, "w", 60)
    options = ["--server", serve(app), "--key", admin.environ_base["HTTP_AUTHORIZATION"].removeprefix("Bearer ")]

    def run(*arguments: str) -> list[list[str]]:
        with capture_logs():  # of the service, which would be in the output
            result = CliRunner().invoke(main, [*options, *arguments])
        assert result.exit_code == 0, result.output
        return [line.split("\t") for line in result.stdout.splitlines()]

    long = "Özlem Yildiz of the second class"
    for command in ("jobs", "sweeps", "shares"):
        (*_, title), *lines = run(command, "--owner", "*")
        assert (title, {line[-1] for line in lines}) == ("OWNER", {long, "bob"}), command
        (*_, title), *lines = run(command, "--owner", long.upper())
        assert (title != "OWNER", len(lines) > 0, long in lines[0]) == (True, True, False), command
        unknown = CliRunner().invoke(main, [*options, command, "--owner", "nobody"])
        assert (unknown.exit_code, "there is no owner 'nobody'" in unknown.stderr) == (1, True)
    queued = {item["id"]: str(item["queued"]) for item in admin.get("/owners").json["data"]}
    _, *counts = run("queue", "--all")  # after the reason: no worker runs
    assert counts == [
        ["OWNER", "NAME", "RUNNING", "QUEUED"],
        ["bob", "", "0", queued["bob"]],
        ["ann", long, "1", queued["ann"]],
    ]
    for width, shown in ((80, {"OWNER"}), (120, {"OWNER", "AGE", "TOOK"})):
        environ = {"TERM": "xterm", "COLUMNS": str(width)}
        code, output = run_in_terminal(*options, "jobs", "--owner", "*", environ=environ)
        titles, *lines = strip_ansi(output).splitlines()
        assert (code, shown <= set(titles.split()), "AGE" in titles) == (0, True, width == 120)
        assert max(map(len, lines)) <= width
        assert any("Özlem Yildiz of…" in line for line in lines)


def test_a_read_that_is_not_valid_is_not_recorded(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    job = ann.post("/jobs", json=SPEC).json["id"]
    paths = (
        "/jobs/job_%00",
        "/sweeps/swp_%00",
        "/jobs?owner=%00",
        "/jobs?owner=*&limit=x",
        f"/jobs/{job}/events?limit=x",
    )
    assert [admin.get(path).status_code for path in paths] == [404, 404, 404, 400, 400]
    assert admin.get("/audit?action=read_others").json["data"] == []
    token = ann.post("/shares", json={"path": f"/jobs/{job}"}).json["token"]
    stranger = app.test_client()
    stranger.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    paths = ("/jobs/job_%00", "/sweeps/swp_%00", "/comparisons?a=job_%00&b=job_1", "/stream?jobs=job_%00")
    assert [stranger.get(path).status_code for path in paths] == [404] * 4


def test_a_published_dataset_can_be_used_by_all_owners(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    table = b"width,kind\n" + b"".join(b"%d,%s\n" % (row * 7 % 13, b"ab"[row % 2 :][:1]) for row in range(40))

    def upload(client: FlaskClient, content: bytes) -> Any:
        form = {"name": "class-data", "table": (io.BytesIO(content), "rows.csv")}
        return client.post("/datasets", data=form, content_type="multipart/form-data")

    uploaded = upload(admin, table)
    assert uploaded.status_code == 201, uploaded.text
    spec = {"kind": "classifier", "dataset": {"name": "class-data"}}
    assert ann.post("/jobs", json=spec).status_code == 422
    assert ann.patch("/datasets/class-data", json={"shared": True}).status_code == 403
    assert admin.patch("/datasets/class-data", json={"shared": True}).json["shared"] is True
    assert admin.patch("/datasets/mnist", json={"shared": True}).json["code"] == "dataset_fixed"
    assert "class-data" in [item["name"] for item in ann.get("/datasets").json["data"]]
    job = ann.post("/jobs", json=spec)
    assert job.status_code == 201, job.text
    assert ann.delete("/datasets/class-data").json["code"] == "dataset_fixed"
    assert admin.delete("/datasets/class-data").json["code"] == "dataset_in_use"
    assert upload(ann, table + b"41,a\n").status_code == 201, "an owner may have data of the same name"
    assert ann.get("/datasets/class-data").json["shared"] is False
    ann.delete("/datasets/class-data")
    admin.patch("/datasets/class-data", json={"shared": False})
    assert ann.get("/datasets/class-data").status_code == 404


def test_metrics_name_the_largest_owners_to_admins_only(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    admin, ann = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "ann")
    for _ in range(2):
        ann.post("/jobs", json=SPEC)
    assert 'tapeline_owner_queued_jobs{owner="ann"} 2.0' in admin.get("/metrics").text
    assert 'owner="ann"' not in ann.get("/metrics").text


@pytest.mark.parametrize("path", ["/owners", "/usage", "/ui/owners", "/ui/queue", "/ui/usage"])
def test_more_owners_need_no_more_queries(make_app: MakeApp, migrated_url: str, path: str) -> None:
    app = keyed(make_app, migrated_url, requests=0, uploads=0)
    admin = client_of(app, "root", scope=Scope.ADMIN)
    core: Core = app.extensions[EXTENSION]
    statements: list[str] = []
    event.listen(core.database.engine, "before_cursor_execute", lambda c, cur, sql, *_: statements.append(sql))

    def queries() -> int:
        admin.get(path, headers={"Accept": "text/html" if "/ui/" in path else "application/json"})
        statements.clear()
        answer = admin.get(path, headers={"Accept": "text/html" if "/ui/" in path else "application/json"})
        assert (answer.status_code, "ann" in answer.text) == (200, True)
        return sum(sql.lstrip().startswith(("SELECT", "WITH")) for sql in statements)

    for owner in ("ann", "bob"):
        client_of(app, owner).post("/jobs", json=SPEC)
    few = queries()
    for number in range(12):
        client_of(app, f"owner-{number}").post("/jobs", json=SPEC)
    assert queries() <= few + 1  # the key's own limits may have been read again


@pytest.mark.parametrize(("path", "name"), [("/owners", "id"), ("/usage", "owner")])
def test_owners_are_listed_in_pages(make_app: MakeApp, migrated_url: str, path: str, name: str) -> None:
    app = keyed(make_app, migrated_url)
    admin = client_of(app, "root", scope=Scope.ADMIN)
    for owner in ("ann", "bob", "cleo"):
        client_of(app, owner).post("/jobs", json=SPEC)
    everybody = [item[name] for item in admin.get(path).json["data"]]
    first = admin.get(f"{path}?limit=2")
    assert (first.json["has_more"], first.headers["Link"]) == (
        True,
        f'<{path}?limit=2&cursor={first.json["next_cursor"]}>; rel="next"',
    )
    listed = [item[name] for item in first.json["data"]]
    cursor = first.json["next_cursor"]
    while cursor is not None:
        page = admin.get(f"{path}?limit=2&cursor={cursor}").json
        listed += [item[name] for item in page["data"]]
        cursor = page["next_cursor"]
    assert listed == everybody
    assert {"ann", "bob", "cleo", "root"} <= set(listed)
    assert admin.get(f"{path}?cursor=x").status_code == 400
    shown = admin.get(f"/ui{path}?limit=2", headers={"Accept": "text/html"}).text
    assert f'href="/ui{path}?limit=2&amp;cursor=2"' in shown


def test_a_limit_without_a_column_is_kept_until_its_default_is_set_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new_limit", "other_limit"):
        monkeypatch.setitem(owner_limits.BY_NAME, name, replace(owner_limits.MAX_PRIORITY, name=name))
    owners.change(database, owners.EVERYBODY, {"new_limit": 3, "streams": 2})
    with database.read() as session:
        assert owners.limit_of(session, owners.EVERYBODY, "new_limit", 9) == 3
        assert owners.limit_of(session, owners.EVERYBODY, "other_limit", 9) == 9
    owners.change(database, owners.EVERYBODY, {"new_limit": None})
    with database.read() as session:
        assert owners.limit_of(session, owners.EVERYBODY, "new_limit", 9) == 9
        assert session.get_one(Owner, owners.EVERYBODY).further_limits is None


def test_a_limit_that_does_not_exist_is_not_stored(database: Database) -> None:
    with pytest.raises(KeyError, match="runing_jobs"):
        owners.change(database, owners.EVERYBODY, {"runing_jobs": 3})
