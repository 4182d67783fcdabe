"""Sealing, retention and the triggers, on both databases."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import DatabaseError

from service.access import audit_seals
from service.access.audit_chain import Entry, Seal, Verification, verify
from service.storage.database import Database, now_ms
from service.storage.tables import AUDIT, AuditSeal
from tests.waiting import wait_until

DAY_MS = 24 * 60 * 60 * 1000


def add(database: Database, count: int, *, days_ago: float = 0.0) -> None:
    with database.write() as session:
        at_ms = now_ms() - int(days_ago * DAY_MS)
        for number in range(count):
            row = {"action": "submit", "subject": f"job_{number}", "owner": "ann", "detail": {"ä": [number, 0.1, None]}}
            session.execute(insert(AUDIT).values(at_ms=at_ms, **row))


def add_ranges(database: Database, *days_ago: float, count: int = 3) -> None:
    """Add entries of each age, and seal each age separately."""
    for days in days_ago:
        add(database, count, days_ago=days)
        assert audit_seals.seal(database, grace_s=0) == count


def run(database: Database, statement: str) -> int:
    with database.write() as session:
        return session.connection().exec_driver_sql(statement).rowcount


def run_without_triggers(database: Database, *statements: str) -> None:
    """As a user with all rights to the database can."""
    with database.write() as session:
        connection = session.connection()
        trigger_statements: list[str] = []
        if database.is_sqlite:
            triggers = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
            for name, sql in triggers:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
                trigger_statements.append(sql)
        else:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for statement in (*statements, *trigger_statements):
            connection.exec_driver_sql(statement)


def verified(database: Database, head: str | None = None) -> Verification:
    return verify(audit_seals.items(database), head=head)


def seals(database: Database) -> list[AuditSeal]:
    with database.read() as session:
        return list(session.scalars(select(AuditSeal).order_by(AuditSeal.id)))


def test_entries_are_sealed_in_order_once_they_are_older_than_the_grace_period(database: Database) -> None:
    assert audit_seals.seal(database) == 0
    add(database, 3)
    assert audit_seals.seal(database) == 0
    assert verified(database).unsealed == 3
    assert audit_seals.seal(database, grace_s=0) == 3
    assert audit_seals.seal(database, grace_s=0) == 0
    add(database, 2)
    assert audit_seals.seal(database, grace_s=0) == 2
    add(database, 1)
    verification = verified(database)
    assert (verification.seals, verification.entries, verification.unsealed, verification.fault) == (2, 5, 1, None)
    assert verification.unsealed_since_ms is not None
    first, second = seals(database)
    assert (first.count, second.count, second.first_id - first.last_id) == (3, 2, 1)
    assert verification.head == second.digest != first.digest
    assert verified(database, first.digest).fault is None
    assert "0" * 64 in str(verified(database, "0" * 64).fault)


def test_many_entries_get_several_seals(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read in pages, whose boundaries are not visible in the result."""
    monkeypatch.setattr(audit_seals, "MAX_ENTRIES_PER_SEAL", 10)
    monkeypatch.setattr(audit_seals, "_ENTRIES_PER_READ", 15)
    add(database, 23)
    assert audit_seals.seal(database, grace_s=0) == 23
    assert [row.count for row in seals(database)] == [10, 10, 3]
    add(database, 11)
    verification = verified(database)
    assert (verification.seals, verification.entries, verification.unsealed, verification.fault) == (3, 23, 11, None)
    kinds = [type(item) for item in audit_seals.items(database)]
    assert [index for index, kind in enumerate(kinds) if kind is Seal] == [10, 21, 25]


@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
def test_an_open_transaction_delays_the_sealing_of_its_entries_and_all_later_ones(database: Database) -> None:
    """In PostgreSQL, a later id can be committed first."""
    with database.engine.connect() as slow, slow.begin() as transaction:
        slow.execute(insert(AUDIT).values(at_ms=now_ms(), action="submit", detail={}))
        add(database, 1)
        assert audit_seals.seal(database, grace_s=0) == 0
        transaction.commit()
    assert audit_seals.seal(database, grace_s=0) == 2
    assert verified(database).fault is None


@pytest.mark.stack
def test_a_log_with_concurrent_writers_and_sealers_stays_intact(database: Database) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            add(database, 2)

    def seal() -> None:
        while not stop.is_set():
            audit_seals.seal(database, grace_s=0)

    threads = [threading.Thread(target=work) for work in (write, write, write, write, seal, seal)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: verified(database).seals > 40, "many seals", 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    audit_seals.seal(database, grace_s=0)
    verification = verified(database)
    assert (verification.fault, verification.unsealed) == (None, 0)
    assert verification.seals > 10


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET owner = 'bob'",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)",
        "DELETE FROM audit_seals",
        "DELETE FROM audit_seals WHERE id = 3",
        "UPDATE audit_seals SET digest = 'x'",
        "UPDATE audit_seals SET removed_ms = 1, entries_digest = 'x' WHERE id = 1",
        "UPDATE audit_seals SET removed_ms = 1",  # the last range cannot be removed
        "UPDATE audit_seals SET removed_ms = 1 WHERE id = 2",  # the oldest range must be removed first
        "UPDATE audit_seals SET removed_ms = 1, last_id = last_id + 9 WHERE id = 1",
        "UPDATE audit_seals SET removed_ms = NULL WHERE id = 1",
        "INSERT INTO audit_seals SELECT 9, min(id), max(id), 9, 'x', 'x', 1, 1 FROM audit",
    ],
)
def test_the_database_refuses_changes_to_entries_and_seals(database: Database, statement: str) -> None:
    add_ranges(database, 9, 8, 0)
    with pytest.raises(DatabaseError, match="append-only"):
        run(database, statement)
    verification = verified(database)
    assert (verification.entries, verification.fault) == (9, None)


def test_entries_can_be_deleted_only_in_a_marked_range_that_is_at_least_a_day_old(database: Database) -> None:
    add_ranges(database, 9, 8, 0.5, 0)
    first, second, third, _ = seals(database)
    run(database, "UPDATE audit_seals SET removed_ms = 1 WHERE id = 1")
    with pytest.raises(DatabaseError, match="append-only"):
        run(database, "UPDATE audit_seals SET removed_ms = 2 WHERE id = 1")
    with pytest.raises(DatabaseError, match="append-only"):
        run(database, f"DELETE FROM audit WHERE id <= {second.first_id}")
    run(database, "UPDATE audit_seals SET removed_ms = 1 WHERE id = 2")
    with pytest.raises(DatabaseError, match="append-only"):
        run(database, "UPDATE audit_seals SET removed_ms = 1 WHERE id = 3")
    run_without_triggers(database, "UPDATE audit_seals SET removed_ms = 1 WHERE id = 3")
    with pytest.raises(DatabaseError, match="append-only"):
        run(database, f"DELETE FROM audit WHERE id = {third.first_id}")
    assert run(database, f"DELETE FROM audit WHERE id BETWEEN {first.first_id} AND {second.last_id}") == 6


def test_an_impossible_timestamp_does_not_block_sealing(database: Database) -> None:
    add(database, 1, days_ago=-1000)
    if database.is_sqlite:
        run(database, "INSERT INTO audit (at_ms, action, detail) VALUES ('soon', 'submit', '{}')")
    add(database, 1)
    assert audit_seals.seal(database) == (2 if database.is_sqlite else 1)
    assert audit_seals.seal(database, grace_s=0) == 1
    assert verified(database).fault is None


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_sqlite_refuses_to_replace_rows(database: Database) -> None:
    """SQLite's REPLACE deletes rows without firing DELETE triggers."""
    add_ranges(database, 9, 0)
    for statement in (
        "INSERT OR REPLACE INTO audit SELECT id, at_ms, 'delete', NULL, NULL, NULL, NULL, NULL, '{}' FROM audit",
        "UPDATE OR REPLACE audit SET id = 1",
        "INSERT OR REPLACE INTO audit_seals SELECT id, first_id, last_id, 1, 'x', 'x', 1, NULL FROM audit_seals",
    ):
        with pytest.raises(DatabaseError, match="append-only"):
            run(database, statement)
    assert verified(database).fault is None


@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
def test_postgresql_refuses_to_truncate_and_ignores_a_temporary_table_of_the_same_name(database: Database) -> None:
    add_ranges(database, 9, 8, 0)
    for statement in ("TRUNCATE audit", "TRUNCATE audit_seals", "TRUNCATE audit, audit_seals CASCADE"):
        with pytest.raises(DatabaseError, match="append-only"):
            run(database, statement)
    with database.write() as session:
        connection = session.connection()
        for statement in (
            "CREATE TEMPORARY TABLE audit_seals (LIKE public.audit_seals)",
            "INSERT INTO pg_temp.audit_seals SELECT 1, 0, 1000000, 9, 'x', 'x', 1, 1",
            "SET LOCAL search_path = pg_temp, public",
        ):
            connection.exec_driver_sql(statement)
        with pytest.raises(DatabaseError, match="append-only"):
            connection.exec_driver_sql("DELETE FROM public.audit")
        session.rollback()


def test_retention_removes_whole_sealed_ranges_and_the_chain_stays_verifiable(database: Database) -> None:
    add_ranges(database, 40, 31, 29, 1)
    digests = [row.digest for row in seals(database)]
    assert audit_seals.remove_expired(database, 0) == 0
    assert audit_seals.count_expired(database, 30) == 6
    assert audit_seals.remove_expired(database, 30) == 6
    assert audit_seals.remove_expired(database, 30) == audit_seals.count_expired(database, 30) == 0
    report = verified(database, digests[0])
    assert (report.removed_seals, report.removed_entries, report.entries, report.fault) == (2, 6, 6, None)
    assert [row.digest for row in seals(database)] == digests
    with pytest.raises(ValueError, match="at least 1 day"):
        audit_seals.remove_expired(database, 0.5)
    # The newest range is kept, however old it is, and the log continues with higher ids.
    run_without_triggers(database, "UPDATE audit SET at_ms = 1")
    assert audit_seals.remove_expired(database, 30) == 3
    add_ranges(database, 0)
    assert audit_seals.remove_expired(database, 30) == 3
    assert [row.removed_ms is None for row in seals(database)] == [False] * 4 + [True]


def test_a_range_with_a_newer_entry_is_kept(database: Database) -> None:
    add(database, 2, days_ago=40)
    add(database, 1, days_ago=10)
    audit_seals.seal(database, grace_s=0)
    add_ranges(database, 9)
    assert audit_seals.remove_expired(database, 30) == 0
    add(database, 2, days_ago=40)  # unsealed entries are never removed
    assert audit_seals.remove_expired(database, 30) == 0


@pytest.mark.parametrize(
    ("tampering", "fault"),
    [
        ("UPDATE audit SET owner = 'bob' WHERE id = {first}", "seal 2 .* changed"),
        ("UPDATE audit SET at_ms = at_ms + 1 WHERE id = {first}", "seal 2 .* changed"),
        ("UPDATE audit SET detail = '[7]' WHERE id = {first}", "seal 2 .* changed"),
        ("DELETE FROM audit WHERE id = {last}", "seal 2 .* missing: there are 2 of 3"),
        ("DELETE FROM audit", "seal 1 .* missing"),
        ("UPDATE audit SET id = 1000000 WHERE id = {first}", "seal 2 .* missing"),
        ("UPDATE audit SET id = -5 WHERE id = {first}", "seal 1 .* added: there are 4 instead of 3"),
        ("UPDATE audit_seals SET digest = 'x' WHERE id = 2", "seal 2 .* changed"),
        ("UPDATE audit_seals SET created_ms = 5 WHERE id = 2", "seal 2 .* changed"),
        ("UPDATE audit_seals SET entries_digest = 'x' WHERE id = 2", "seal 2 .* changed"),
        ("UPDATE audit_seals SET removed_ms = 5 WHERE id = 2", "seal 2 .* removed, but entry"),
        ("DELETE FROM audit_seals WHERE id = 2", "seal 2 is missing"),
        ("DELETE FROM audit_seals WHERE id = 1", "seal 1 is missing"),
        ("UPDATE audit_seals SET id = -1 WHERE id = 1", "seal 1 is missing"),
        ("UPDATE audit_seals SET last_id = last_id - 1 WHERE id = 2", "seal 2 .* missing"),
    ],
)
def test_changes_that_bypass_the_triggers_are_detected(database: Database, tampering: str, fault: str) -> None:
    add_ranges(database, 9, 8, 0)
    _, second, _ = seals(database)
    run_without_triggers(database, tampering.format(first=second.first_id, last=second.last_id))
    with pytest.raises(AssertionError, match=fault):
        assert verified(database).fault is None, verified(database).fault


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_an_entry_with_broken_json_is_detected(database: Database) -> None:
    add_ranges(database, 1)
    run_without_triggers(database, "UPDATE audit SET detail = '{' WHERE id = 1")
    assert "seal 1" in str(verified(database).fault)


def test_a_rebuilt_chain_is_detected_by_a_stored_head(database: Database) -> None:
    add_ranges(database, 3, 2, 1)
    head = verified(database).head
    run_without_triggers(database, "UPDATE audit SET owner = 'bob'", "DELETE FROM audit_seals")
    audit_seals.seal(database, grace_s=0)
    assert verified(database).fault is None
    assert "rebuilt" in str(verified(database, head).fault)


def test_a_log_can_be_verified_while_retention_removes_ranges(database: Database) -> None:
    add_ranges(database, 40, 39, 1)
    items = audit_seals.items(database)
    first = [next(items) for _ in range(2)]
    audit_seals.remove_expired(database, 30)
    verification = verify([*first, *items])
    assert (verification.fault, verification.entries) == (None, 9)
    assert all(isinstance(item, Entry) for item in first)
    after_removal = replace(
        verified(database), entries=9, removed_seals=0, removed_entries=0, oldest_ms=verification.oldest_ms
    )
    assert after_removal == verification
