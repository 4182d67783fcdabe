from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select, update

from service.access import audit_seals, keys
from service.application.models import Exports
from service.cli import main
from service.errors import JobNotFound
from service.features.webhooks import endpoints
from service.features.webhooks.delivery import deliveries
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.protocol.addresses import AddressRules
from service.features.webhooks.tables import WebhookDelivery
from service.jobs.queries import lookup
from service.maintenance import retention, store_id
from service.maintenance.retention import Policy, RetentionPlan
from service.maintenance.store_migration import migrate
from service.runtime.slots import SlotPool
from service.storage.artifacts import ID_FILE, ArtifactKind
from service.storage.database import now_ms
from service.storage.object_store import ObjectStore
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact, AuditEntry, BrowserSession, Job
from tests.object_servers import BUCKET
from tests.service.maintenance.conftest import DAY_MS, Installation, files_of
from workers.scheduler import delete_expired_data


def names(plan: RetentionPlan) -> tuple[set[str], set[str], set[str]]:
    return ({x.name for x in plan.jobs}, {x.name for x in plan.checkpoints}, {x.name for x in plan.files})


def size_in_row(installation: Installation, job_id: str) -> int:
    with installation.database.read() as session:
        return lookup.get(session, job_id).size_bytes


def test_by_default_nothing_with_a_row_is_deleted(installation: Installation) -> None:
    installation.train(ended_days_ago=1000)
    paths = installation.paths()
    assert names(retention.apply(installation.database, installation.store, Policy())) == (set(), set(), set())
    assert installation.paths() == paths


def test_old_checkpoints_are_deleted_except_the_best_and_the_latest(installation: Installation) -> None:
    old, recent, running = (
        installation.train(ended_days_ago=8),
        installation.train(ended_days_ago=6),
        installation.train(ended_days_ago=None),
    )
    policy = Policy(checkpoints_days=7)
    plan = retention.plan(installation.database, installation.store, policy)
    assert installation.checkpoint_epochs(old) == [1, 2, 3, 4, 5]  # planning changes nothing
    assert {name.partition("/")[0] for name in names(plan)[1]} == {old}
    assert len(plan.checkpoints) == 3
    assert plan.size_bytes == sum((installation.store.root / item.name).stat().st_size for item in plan.checkpoints)
    deleted = retention.carry_out(installation.database, installation.store, policy, plan)
    assert deleted.checkpoints == plan.checkpoints
    assert installation.checkpoint_epochs(old) == [2, 5]
    for job_id in (old, recent, running):
        assert size_in_row(installation, job_id) == sum(item.size_bytes for item in installation.store.stored(job_id))
    assert installation.checkpoint_epochs(recent) == installation.checkpoint_epochs(running) == [1, 2, 3, 4, 5]
    assert len([path for path in installation.paths() if path.startswith(f"{old}/sample/")]) == 5


def test_exports_are_deleted_with_the_checkpoints_that_they_were_made_from(installation: Installation) -> None:
    job_id = installation.train(ended_days_ago=8)
    exports = Exports(
        database=installation.database,
        artifacts=installation.store,
        make=lambda order: b"%d" % order.epoch * 100,
        slots=SlotPool("exports", 1),
        signing_key=lambda by: "not for this format",
    )
    exported = {which: exports.export(job_id, ArtifactKind.ONNX, which=which) for which in ("1", "best", "latest")}
    assert exports.export(job_id, ArtifactKind.ONNX, which="1").id == exported["1"].id  # created only once
    assert size_in_row(installation, job_id) == sum(item.size_bytes for item in installation.store.stored(job_id))
    retention.apply(installation.database, installation.store, Policy(checkpoints_days=7))
    paths = {path for path in installation.paths() if "/onnx/" in path}
    assert paths == {exported["best"].path, exported["latest"].path}
    assert size_in_row(installation, job_id) == sum(item.size_bytes for item in installation.store.stored(job_id))


def test_expired_jobs_are_deleted_with_their_files(installation: Installation) -> None:
    old, recent, running = (
        installation.train(ended_days_ago=31),
        installation.train(ended_days_ago=29),
        installation.train(ended_days_ago=None),
    )
    policy = Policy(jobs_days=30, checkpoints_days=30)
    plan = retention.plan(installation.database, installation.store, policy)
    assert names(plan) == ({old}, set(), set())
    assert plan.size_bytes == sum(item.size_bytes for item in installation.store.stored(old))
    retention.carry_out(installation.database, installation.store, policy, plan)
    with installation.database.read() as session:
        with pytest.raises(JobNotFound):
            lookup.get(session, old)
        assert {lookup.get(session, job_id).id for job_id in (recent, running)} == {recent, running}
    assert {item.job_id for item in installation.store.stored()} == {recent, running}


def test_a_job_that_was_requeued_after_planning_is_kept(installation: Installation) -> None:
    policy = Policy(jobs_days=30, checkpoints_days=0)
    job_id = installation.train(ended_days_ago=31)
    plan = retention.plan(installation.database, installation.store, policy)
    assert names(plan)[0] == {job_id}
    with installation.database.write() as session:  # as a retry would
        session.execute(update(Job).where(Job.id == job_id).values(status="queued", finished_ms=None))
    assert names(retention.carry_out(installation.database, installation.store, policy, plan))[0] == set()
    assert installation.checkpoint_epochs(job_id) == [1, 2, 3, 4, 5]


def test_jobs_that_ended_again_after_planning_are_kept(installation: Installation) -> None:
    policy = Policy(jobs_days=30, checkpoints_days=7)
    expired, with_old_checkpoints = installation.train(ended_days_ago=31), installation.train(ended_days_ago=8)
    plan = retention.plan(installation.database, installation.store, policy)
    assert names(plan)[0] == {expired}
    assert plan.checkpoints
    with installation.database.write() as session:  # as a retry that has ended would
        session.execute(update(Job).values(finished_ms=now_ms()))
    assert names(retention.carry_out(installation.database, installation.store, policy, plan)) == (set(), set(), set())
    assert (
        installation.checkpoint_epochs(expired)
        == installation.checkpoint_epochs(with_old_checkpoints)
        == [1, 2, 3, 4, 5]
    )


def test_folders_can_vanish_while_they_are_scanned(installation: Installation) -> None:
    for number in range(20):
        installation.store.write(f"job_{number:02}", ArtifactKind.CHECKPOINT, 1, 1, b"bytes")
    files = installation.store.stored()
    next(files)
    for folder in installation.store.root.iterdir():
        shutil.rmtree(folder)
    assert len(list(files)) < 20


def test_files_without_a_row_are_deleted_once_they_are_old(
    installation: Installation, age: Callable[..., None]
) -> None:
    job_id = installation.train()
    uncommitted = installation.store.write(job_id, ArtifactKind.CHECKPOINT, 9, 9, b"never committed").path
    orphan = installation.store.write("job_gone", ArtifactKind.SAMPLE, 1, 1, b"of a deleted job").path
    recent = installation.store.write(job_id, ArtifactKind.CHECKPOINT, 10, 9, b"about to be").path
    age(*(installation.paths() - {recent}))
    plan = retention.plan(installation.database, installation.store, Policy())
    assert names(plan) == (set(), set(), {uncommitted, orphan})
    retention.carry_out(installation.database, installation.store, Policy(), plan)
    assert {uncommitted, orphan}.isdisjoint(installation.paths())
    assert recent in installation.paths()
    assert installation.checkpoint_epochs(job_id) == [1, 2, 3, 4, 5]


def test_a_file_that_got_its_row_after_planning_is_kept(installation: Installation, age: Callable[..., None]) -> None:
    job_id = installation.train()
    slow = installation.store.write(job_id, ArtifactKind.CHECKPOINT, 6, 9, b"written long ago, and committed only now")
    age(slow.path)
    plan = retention.plan(installation.database, installation.store, Policy())
    assert names(plan)[2] == {slow.path}
    with installation.database.write() as session:
        latest = (Artifact.job_id == job_id) & (Artifact.kind == slow.kind) & (Artifact.epoch == 5)
        session.execute(update(Artifact).where(latest).values(path=slow.path))
    assert names(retention.carry_out(installation.database, installation.store, Policy(), plan))[2] == set()
    assert slow.path in installation.paths()


def test_nothing_is_deleted_while_a_restore_runs(installation: Installation, age: Callable[..., None]) -> None:
    restored = installation.store.write("job_restored", ArtifactKind.CHECKPOINT, 1, 1, b"its row comes last")
    age(restored.path)
    work = retention.restore_folder(installation.files.artifacts)
    work.mkdir()
    with retention.lock_restore(work):
        delete_expired_data(installation.database, installation.files, Policy())
        assert restored.path in installation.paths()
    delete_expired_data(installation.database, installation.files, Policy())  # a killed restore does not prevent it
    assert restored.path not in installation.paths()


def test_cached_images_are_deleted_after_a_week_and_nothing_else_of_a_job(
    installation: Installation, age: Callable[..., None]
) -> None:
    job_id, expired = installation.train(), installation.train(ended_days_ago=31)
    for each in (job_id, expired):
        installation.store.cache_image(each, "samples", "000005.gif", b"an old film")
    old_film = f"{job_id}/derived/samples.gif"
    age(*installation.paths())
    assert retention.plan(installation.database, installation.store, Policy()).pictures == []  # a day old
    eight_days_ago = time.time() - 8 * 86400
    for path in installation.paths():
        os.utime(installation.store.root / path, (eight_days_ago,) * 2)
    installation.store.cache_image(job_id, "curves", "000005.png", b"a new plot")
    paths = installation.paths()
    plan = retention.plan(installation.database, installation.store, Policy(jobs_days=30))
    assert [item.name for item in plan.pictures] == [old_film]
    assert names(plan) == ({expired}, set(), set())  # its film is deleted with it
    retention.carry_out(installation.database, installation.store, Policy(), RetentionPlan(pictures=plan.pictures))
    assert paths - installation.paths() == {old_film}
    assert installation.store.cached_image(job_id, "samples", "000005.gif") is None


def test_expired_audit_entries_and_browser_sessions_are_deleted(installation: Installation) -> None:
    for days in (40, 0):
        with installation.database.write() as session:
            session.add(AuditEntry(at_ms=now_ms() - days * DAY_MS, action="submit", detail={}))
        audit_seals.seal(installation.database, grace_s=0)
    active, _ = keys.sign_in(installation.database, keys.of_settings("chosen by the operator"))
    keys.sign_in(installation.database, keys.of_settings("another of the operator"))
    with installation.database.write() as session:
        expire = update(BrowserSession).where(BrowserSession.id != active.session_id)
        session.execute(expire.values(expires_ms=now_ms() - 1))

    def entries() -> int | None:
        with installation.database.read() as session:
            return session.scalar(select(func.count()).select_from(AuditEntry))

    delete_expired_data(installation.database, installation.files, Policy())
    assert entries() == 2
    with installation.database.read() as session:
        assert session.scalars(select(BrowserSession.id)).all() == [active.session_id]
    assert retention.plan(installation.database, installation.store, Policy(audit_days=30)).audit_entries == 1
    delete_expired_data(installation.database, installation.files, Policy(audit_days=30))
    assert entries() == 1


def test_nothing_is_deleted_in_the_store_of_another_service(
    installation: Installation, age: Callable[..., None], tmp_path: Path
) -> None:
    store_id.verify(installation.database, installation.store)
    other = Installation(installation.database, ArtifactFolder(tmp_path / "other"))
    other.store.create(ID_FILE, b"str_other")
    of_another = other.store.write("job_other", ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    os.utime(other.store.root / of_another.path, (time.time() - DAY_MS / 1000,) * 2)
    delete_expired_data(installation.database, other.files, Policy())
    assert other.paths() == {of_another.path}
    environ = {"TAPELINE_DATABASE_URL": installation.database.url, "TAPELINE_HOME": str(tmp_path)}
    environ["TAPELINE_ARTIFACTS"] = str(other.store.root)
    refused = CliRunner().invoke(main, ["gc", "--delete"], env=environ)
    assert (refused.exit_code, "str_other" in refused.output) == (1, True), refused.output
    assert other.paths() == {of_another.path}


def test_expired_data_and_orphans_of_a_bucket_are_deleted(
    installation: Installation, server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = ObjectStore(f"s3://{BUCKET}/retention/{secrets.token_hex(4)}", endpoint=server, lease_s=15)
    expired, old = installation.train(ended_days_ago=40), installation.train(ended_days_ago=8)
    files = files_of(bucket, tmp_path)
    migrate(installation.database, installation.files, files, home=tmp_path, progress=lambda done, total: None)
    orphan = bucket.write(old, ArtifactKind.SAMPLE, 1, 9, b"of a killed worker")
    policy = Policy(jobs_days=30, checkpoints_days=7)
    deleted = retention.apply(installation.database, bucket, policy)
    assert names(deleted)[0] == {expired}
    assert len(deleted.checkpoints) == 3
    assert deleted.files == [], "a clock or a list may lag behind"
    left = {item.path for item in bucket.stored()}
    assert {path.partition("/")[0] for path in left} == {old}
    monkeypatch.setattr(ObjectStore, "min_orphan_age_s", -60.0)
    monkeypatch.setattr(retention, "STALE_FILE_S", -60.0)
    assert names(retention.apply(installation.database, bucket, policy))[2] == {orphan.path}
    assert {item.path for item in bucket.stored()} == left - {orphan.path}


def test_old_messages_to_webhooks_are_deleted(installation: Installation) -> None:
    database = installation.database
    url, events = "https://93.184.216.34/", [MessageType.JOB_FAILED]
    webhook = endpoints.create(database, url, events, AddressRules(), owner=None, is_admin=True)
    old, new = (deliveries.send_test(database, webhook.id, owner=None).event_id for _ in range(2))
    with database.write() as session:
        session.get_one(WebhookDelivery, (webhook.id, old)).created_ms = 1
    policy = Policy(rows_days={"deliveries": 30})
    assert retention.plan(database, installation.store, policy).rows == {"deliveries": 1}
    delete_expired_data(database, installation.files, Policy())
    delete_expired_data(database, installation.files, policy)
    with database.read() as session:
        assert session.scalars(select(WebhookDelivery.event_id)).all() == [new]
