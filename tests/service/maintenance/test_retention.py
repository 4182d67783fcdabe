from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable

import pytest
from sqlalchemy import func, select, update

from service.access import audit_seals, keys
from service.application.exports import Exports
from service.errors import JobNotFound
from service.jobs.queries import lookup
from service.maintenance import restoring, retention
from service.maintenance.retention import Policy, RetentionPlan
from service.models.exports.facts import ExportFormat
from service.storage.artifacts import ArtifactKind
from service.storage.database import now_ms
from service.storage.tables import Artifact, AuditEntry, BrowserSession, Job
from tests.service.maintenance.conftest import DAY_MS, House
from workers.reconcile import delete_expired_data


def names(plan: RetentionPlan) -> tuple[set[str], set[str], set[str]]:
    return ({x.name for x in plan.jobs}, {x.name for x in plan.checkpoints}, {x.name for x in plan.files})


def size_in_row(house: House, job_id: str) -> int:
    with house.database.read() as session:
        return lookup.get(session, job_id).size_bytes


def test_by_default_everything_that_a_row_names_is_kept(house: House) -> None:
    house.train(ended_days_ago=1000)
    before = house.paths()
    assert names(retention.apply(house.database, house.store, Policy())) == (set(), set(), set())
    assert house.paths() == before


def test_old_checkpoints_go_but_the_best_and_the_latest(house: House) -> None:
    old, fresh, running = house.train(ended_days_ago=8), house.train(ended_days_ago=6), house.train(ended_days_ago=None)
    policy = Policy(checkpoints_days=7)
    plan = retention.plan(house.database, house.store, policy)
    assert house.epochs_kept(old) == [1, 2, 3, 4, 5]  # a look changes nothing
    assert {name.partition("/")[0] for name in names(plan)[1]} == {old}
    assert len(plan.checkpoints) == 3
    assert plan.size_bytes == sum((house.store.root / item.name).stat().st_size for item in plan.checkpoints)
    gone = retention.carry_out(house.database, house.store, policy, plan)
    assert gone.checkpoints == plan.checkpoints
    assert house.epochs_kept(old) == [2, 5]
    for job_id in (old, fresh, running):
        assert size_in_row(house, job_id) == sum(item.size_bytes for item in house.store.stored(job_id))
    assert house.epochs_kept(fresh) == house.epochs_kept(running) == [1, 2, 3, 4, 5]
    assert len([path for path in house.paths() if path.startswith(f"{old}/sample/")]) == 5


def test_exports_go_with_the_checkpoints_that_they_were_made_from(house: House) -> None:
    job_id = house.train(ended_days_ago=8)
    exports = Exports(database=house.database, artifacts=house.store, make=lambda order: b"%d" % order.epoch * 100)
    made = {which: exports.export(job_id, ExportFormat.ONNX, which=which) for which in ("1", "best", "latest")}
    assert exports.export(job_id, ExportFormat.ONNX, which="1").id == made["1"].id  # made once
    assert size_in_row(house, job_id) == sum(item.size_bytes for item in house.store.stored(job_id))
    retention.apply(house.database, house.store, Policy(checkpoints_days=7))
    kept = {path for path in house.paths() if "/onnx/" in path}
    assert kept == {made["best"].path, made["latest"].path}
    assert size_in_row(house, job_id) == sum(item.size_bytes for item in house.store.stored(job_id))


def test_expired_jobs_go_with_their_files(house: House) -> None:
    old, fresh, running = (
        house.train(ended_days_ago=31),
        house.train(ended_days_ago=29),
        house.train(ended_days_ago=None),
    )
    policy = Policy(jobs_days=30, checkpoints_days=30)
    plan = retention.plan(house.database, house.store, policy)
    assert names(plan) == ({old}, set(), set())
    assert plan.size_bytes == sum(item.size_bytes for item in house.store.stored(old))
    retention.carry_out(house.database, house.store, policy, plan)
    with house.database.read() as session:
        with pytest.raises(JobNotFound):
            lookup.get(session, old)
        assert {lookup.get(session, job_id).id for job_id in (fresh, running)} == {fresh, running}
    assert {item.job_id for item in house.store.stored()} == {fresh, running}


def test_what_changed_since_the_look_stays(house: House) -> None:
    with_leave = Policy(jobs_days=30, checkpoints_days=0)
    job_id = house.train(ended_days_ago=31)
    plan = retention.plan(house.database, house.store, with_leave)
    assert names(plan)[0] == {job_id}
    with house.database.write() as session:  # as a retry would
        session.execute(update(Job).where(Job.id == job_id).values(status="queued", finished_ms=None))
    assert names(retention.carry_out(house.database, house.store, with_leave, plan))[0] == set()
    assert house.epochs_kept(job_id) == [1, 2, 3, 4, 5]


def test_what_ended_anew_since_the_look_stays(house: House) -> None:
    policy = Policy(jobs_days=30, checkpoints_days=7)
    whole, thinned = house.train(ended_days_ago=31), house.train(ended_days_ago=8)
    plan = retention.plan(house.database, house.store, policy)
    assert names(plan)[0] == {whole}
    assert plan.checkpoints
    with house.database.write() as session:  # as a retry and its end would
        session.execute(update(Job).values(finished_ms=now_ms()))
    assert names(retention.carry_out(house.database, house.store, policy, plan)) == (set(), set(), set())
    assert house.epochs_kept(whole) == house.epochs_kept(thinned) == [1, 2, 3, 4, 5]


def test_folders_may_vanish_while_they_are_looked_through(house: House) -> None:
    for number in range(20):
        house.store.write(f"job_{number:02}", ArtifactKind.CHECKPOINT, 1, 1, b"bytes")
    found = house.store.stored()
    next(found)
    for folder in house.store.root.iterdir():
        shutil.rmtree(folder)
    assert len(list(found)) < 20


def test_files_that_no_row_names_go_once_they_are_old(house: House, age: Callable[..., None]) -> None:
    job_id = house.train()
    lost = house.store.write(job_id, ArtifactKind.CHECKPOINT, 9, 9, b"never committed").path
    foreign = house.store.write("job_gone", ArtifactKind.SAMPLE, 1, 1, b"of a deleted job").path
    fresh = house.store.write(job_id, ArtifactKind.CHECKPOINT, 10, 9, b"about to be").path
    age(*(house.paths() - {fresh}))
    plan = retention.plan(house.database, house.store, Policy())
    assert names(plan) == (set(), set(), {lost, foreign})
    retention.carry_out(house.database, house.store, Policy(), plan)
    assert {lost, foreign}.isdisjoint(house.paths())
    assert fresh in house.paths()
    assert house.epochs_kept(job_id) == [1, 2, 3, 4, 5]


def test_a_file_that_got_its_row_since_the_look_stays(house: House, age: Callable[..., None]) -> None:
    job_id = house.train()
    slow = house.store.write(job_id, ArtifactKind.CHECKPOINT, 6, 9, b"written long ago, and committed only now")
    age(slow.path)
    plan = retention.plan(house.database, house.store, Policy())
    assert names(plan)[2] == {slow.path}
    with house.database.write() as session:
        latest = (Artifact.job_id == job_id) & (Artifact.kind == slow.kind) & (Artifact.epoch == 5)
        session.execute(update(Artifact).where(latest).values(path=slow.path))
    assert names(retention.carry_out(house.database, house.store, Policy(), plan))[2] == set()
    assert slow.path in house.paths()


def test_nothing_is_swept_while_a_restore_runs(house: House, age: Callable[..., None]) -> None:
    restored = house.store.write("job_restored", ArtifactKind.CHECKPOINT, 1, 1, b"its row comes last")
    age(restored.path)
    work = restoring.folder(house.received.artifacts)
    work.mkdir()
    with restoring.lock(work):
        delete_expired_data(house.database, house.store, house.received, Policy())
        assert restored.path in house.paths()
    delete_expired_data(house.database, house.store, house.received, Policy())  # one that was killed holds up nothing
    assert restored.path not in house.paths()


def test_cached_pictures_go_after_a_week_and_a_job_keeps_everything_else(
    house: House, age: Callable[..., None]
) -> None:
    job_id, expired = house.train(), house.train(ended_days_ago=31)
    for each in (job_id, expired):
        house.store.cache_image(each, "samples", "000005.gif", b"an old film")
    old = f"{job_id}/derived/samples-000005.gif"
    age(*house.paths())
    assert retention.plan(house.database, house.store, Policy()).pictures == []  # a day old
    eight_days_ago = time.time() - 8 * 86400
    for path in house.paths():
        os.utime(house.store.root / path, (eight_days_ago,) * 2)
    house.store.cache_image(job_id, "curves", "000005.png", b"a new plot")
    before = house.paths()
    plan = retention.plan(house.database, house.store, Policy(jobs_days=30))
    assert [item.name for item in plan.pictures] == [old]
    assert names(plan) == ({expired}, set(), set())  # its film goes with it
    retention.carry_out(house.database, house.store, Policy(), RetentionPlan(pictures=plan.pictures))
    assert before - house.paths() == {old}
    assert house.store.cached_image(job_id, "samples", "000005.gif") is None


def test_the_sweep_removes_expired_audit_entries_and_ended_sessions(house: House) -> None:
    for days in (40, 0):
        with house.database.write() as session:
            session.add(AuditEntry(at_ms=now_ms() - days * DAY_MS, action="submit", detail={}))
        audit_seals.seal(house.database, settled_s=0)
    going_on, _ = keys.sign_in(house.database, keys.of_settings("chosen by the operator"))
    keys.sign_in(house.database, keys.of_settings("another of the operator"))
    with house.database.write() as session:
        ended = update(BrowserSession).where(BrowserSession.id != going_on.session_id)
        session.execute(ended.values(expires_ms=now_ms() - 1))

    def entries() -> int | None:
        with house.database.read() as session:
            return session.scalar(select(func.count()).select_from(AuditEntry))

    delete_expired_data(house.database, house.store, house.received, Policy())
    assert entries() == 2
    with house.database.read() as session:
        assert session.scalars(select(BrowserSession.id)).all() == [going_on.session_id]
    assert retention.plan(house.database, house.store, Policy(audit_days=30)).audit_entries == 1
    delete_expired_data(house.database, house.store, house.received, Policy(audit_days=30))
    assert entries() == 1
