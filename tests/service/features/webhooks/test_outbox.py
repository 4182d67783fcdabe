from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete, event, select, text

from service.features.webhooks import outbox
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.tables import Webhook, WebhookDelivery
from service.jobs import actions, commits, leases
from service.jobs.rescue import rescue
from service.owner_limits import Quotas
from service.storage.database import Database
from service.storage.tables import Job
from tests.service.jobs.conftest import Submit, claim, submit
from tests.waiting import wait_until
from workers.scheduler import apply_quotas

__all__ = ["submit"]


def subscribe(database: Database, *events: str, owner: str | None = None, name: str = "1", **values: Any) -> str:
    row = Webhook(id=f"whk_{name}", owner=owner, url="https://a.test/", host="a.test:443", events=list(events))
    row.secret, row.signing_key, row.created_ms = "whsec_", "whsk_", 0
    for column, value in values.items():
        setattr(row, column, value)
    with database.write() as session:
        session.add(row)
    return row.id


def messages(database: Database) -> list[tuple[str, str, dict[str, Any]]]:
    """The webhook, type and data of each message, in order."""
    with database.read() as session:
        rows = session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.created_ms, WebhookDelivery.event_id))
        return [(row.webhook_id, row.type, json.loads(row.data)) for row in rows]


def types(database: Database) -> list[str]:
    return [kind for _, kind, _ in messages(database)]


def test_a_job_that_ends_is_announced_in_the_transaction_of_its_end(database: Database, submit: Submit) -> None:
    subscribe(database, "job.cancelled", "job.succeeded")
    job_id = submit(name="digits")
    actions.cancel(database, job_id)
    [(webhook, kind, data)] = messages(database)
    assert (webhook, kind) == ("whk_1", "job.cancelled")
    with database.read() as session:
        last_seq = session.get_one(Job, job_id).last_seq
    assert data == {
        "id": job_id, "url": f"/jobs/{job_id}", "name": "digits", "status": "cancelled", "reason": "cancelled",
        "kind": "classifier", "sweep": None, "seq": last_seq,
    }  # fmt: skip


def test_a_rolled_back_transaction_announces_nothing(database: Database) -> None:
    subscribe(database, "alias.moved")
    with database.write() as session:
        outbox.announce(session, owner=None, kind="alias.moved", data={"id": "digits"})
        session.rollback()
    assert messages(database) == []


def test_an_owner_hears_only_of_their_own_objects_and_of_what_they_asked_for(database: Database) -> None:
    subscribe(database, "job.failed", owner="ann", name="ann")
    subscribe(database, "job.failed.not", "sweep.ended", owner="ann", name="other")
    subscribe(database, "job.failed", owner="ben", name="ben")
    subscribe(database, "job.failed", name="nobody")
    subscribe(database, "job.failed", owner="ann", name="off", disabled_ms=1)
    with database.write() as session:
        for owner in ("ann", "ben", None, ""):
            outbox.announce(session, owner=owner, kind="job.failed", data={"to": owner})
    assert sorted((webhook, data["to"] or "") for webhook, _, data in messages(database)) == [
        ("whk_ann", "ann"), ("whk_ben", "ben"), ("whk_nobody", ""), ("whk_nobody", ""),
    ]  # fmt: skip


def test_an_event_has_one_id_and_time_for_all_webhooks(database: Database) -> None:
    for name in "abc":
        subscribe(database, "alias.moved", owner="ann", name=name)
    with database.write() as session:
        event_id = outbox.announce(session.connection(), owner="ann", kind="alias.moved", data={})
    with database.read() as session:
        rows = session.scalars(select(WebhookDelivery)).all()
    assert [row.event_id for row in rows] == [event_id] * 3
    assert len({row.created_ms for row in rows}) == 1


def test_a_message_costs_one_statement_and_an_unknown_type_is_an_error(database: Database) -> None:
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    with database.write() as session:
        outbox.announce(session, owner="ann", kind="job.failed", data={})
        with pytest.raises(ValueError, match="coffee"):
            outbox.announce(session, owner="ann", kind="job.coffee", data={})
    assert [text.split()[0] for text in statements if not text.startswith(("BEGIN", "SET"))] == ["INSERT"]


def test_a_paused_job_is_announced_once_and_not_when_it_is_changed(database: Database, submit: Submit) -> None:
    subscribe(database, *MessageType)
    job_id = submit()
    held = claim(database)
    actions.pause(database, job_id)
    with database.write() as session:
        leases.release(session, leases.guard(session, held), reason="released")
    actions.resume(database, job_id)
    assert types(database) == ["job.paused"]


def test_a_pause_of_its_own_sweep_is_not_announced(database: Database, submit: Submit) -> None:
    subscribe(database, *MessageType)
    submit()
    held = claim(database)
    with database.write() as session:
        leases.pause_for_sweep(session, leases.guard(session, held))
    assert types(database) == []


def test_a_quota_of_files_that_fails_a_job_is_announced_too(database: Database, submit: Submit) -> None:
    subscribe(database, *MessageType)
    job_id = submit()
    commits.fail(database, claim(database), {"code": "storage_quota", "message": "too much"})
    data = {kind: data for _, kind, data in messages(database)}
    assert set(data) == {"job.failed", "quota.exceeded"}
    assert data["quota.exceeded"]["id"] == "artifact_bytes"
    assert data["quota.exceeded"]["job"] == job_id


def test_used_up_cpu_time_is_announced_once_to_its_owner(database: Database, submit: Submit) -> None:
    subscribe(database, *MessageType, owner="ann")
    subscribe(database, *MessageType, owner="ben", name="2")
    submit("ann")
    held = claim(database)
    with database.write() as session:
        session.get_one(Job, held.job_id).cpu_seconds = 10.0
    for _ in range(3):
        apply_quotas(database, Quotas(cpu_seconds=5))
    assert [(webhook, kind, data["id"]) for webhook, kind, data in messages(database)] == [
        ("whk_1", "quota.exceeded", "cpu_seconds")
    ]


def test_a_lost_worker_is_announced_once_however_many_jobs_it_had(database: Database, submit: Submit) -> None:
    subscribe(database, "worker.lost", owner="admin")
    for owner in ("ann", "ben", "ben"):
        submit(owner)
        claim(database, worker="box-12-abcdef", lease_s=0)
    assert len(rescue(database)) == 3
    [(webhook, kind, data)] = messages(database)
    assert (webhook, kind) == ("whk_1", "worker.lost")
    assert data == {"id": "box-12-abcdef", "url": "/ui/workers", "name": "box", "status": "lost"}
    claim(database, worker="box-12-abcdef", lease_s=0)
    assert len(rescue(database)) == 1
    assert len(messages(database)) == 1


def test_a_job_ends_while_its_webhook_is_deleted(database: Database, submit: Submit) -> None:
    if database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    webhook_id, job_id = subscribe(database, "job.cancelled"), submit()
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            session.execute(delete(Webhook).where(Webhook.id == webhook_id))
            ending = pool.submit(actions.cancel, database, job_id)
            wait_until(lambda: has_waiting_statement(database), "the end of the job waits for the deletion")
        assert ending.result(10).status == "cancelled"
    assert messages(database) == []


def has_waiting_statement(database: Database) -> bool:
    with database.read() as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(session.scalar(text(query)))
