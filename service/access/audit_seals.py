"""Sealing and retention of the audit log: entries are sealed in order, some seconds after they were written, and only
whole sealed ranges are removed. ``audit_chain`` computes the digests."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import takewhile
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.access.audit_chain import GENESIS, Entry, Item, Range, Seal
from service.storage.database import Database, now_ms
from service.storage.tables import AUDIT, AuditSeal, Base

GRACE_PERIOD_S: Final = 10.0
"""An entry is sealed at this age, if no older transaction that writes entries is open."""
MAX_ENTRIES_PER_SEAL: Final = 1000
MIN_DAYS: Final = 1.0
"""The shortest retention period; the triggers reject the removal of younger entries."""

_FUTURE_MS: Final = 60_000
_DAY_MS: Final = 24 * 60 * 60 * 1000
_ENTRIES_PER_READ: Final = 2000
_SEALS_PER_READ: Final = 500
_SEALS_PER_REMOVAL: Final = 100
_SEALS: Final = Base.metadata.tables[AuditSeal.__tablename__]
# As text, so that an entry with damaged JSON can be read, too.
_COLUMNS: Final = [cast(column, Text).label("detail") if column.name == "detail" else column for column in AUDIT.c]
# Ids follow the order of inserts, not of commits: an open transaction may still commit an id below the visible ones.
# Every writer holds this lock on the table. For transactions of other roles, PostgreSQL does not show the start time.
_OLDEST_WRITER: Final = text("""
SELECT CAST(EXTRACT(EPOCH FROM min(coalesce(a.xact_start, to_timestamp(0)))) * 1000 AS BIGINT)
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.relation = 'audit'::regclass
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


def seal(database: Database, *, grace_s: float = GRACE_PERIOD_S) -> int:
    """Seal the entries that are older than the grace period; returns their number."""
    with database.read() as session:  # take SQLite's write lock only if there are unsealed entries
        if session.scalar(select(AUDIT.c.id).where(AUDIT.c.id > _sealed_to()).limit(1)) is None:
            return 0
    total = 0
    while True:
        try:
            with database.write() as session:
                count = _seal_next(session, is_sqlite=database.is_sqlite, grace_s=grace_s)
        except IntegrityError:  # another scheduler has just added this seal
            return total
        total += count
        if count < MAX_ENTRIES_PER_SEAL:
            return total


def _seal_next(session: Session, *, is_sqlite: bool, grace_s: float) -> int:
    now = session.scalar(select(now_ms())) or 0
    sealable_ms = now - int(grace_s * 1000)
    if not is_sqlite:  # SQLite has one writer at a time
        oldest = session.scalar(_OLDEST_WRITER)
        if oldest is not None and oldest > now:  # the clock was set back: times do not reflect the order
            return 0
        sealable_ms = min(sealable_ms, now if oldest is None else oldest - 1)
    last = next(iter(newest(session)), None)
    # One statement: the first entry that is not sealable must be determined from one snapshot of the table.
    entries = _entries(session, _after(last.last_id if last is not None else None))
    next_range = Range(last.digest if last is not None else GENESIS)
    for entry in takewhile(lambda entry: _is_sealable(entry, sealable_ms, now), entries):
        next_range.add(entry)
    if next_range.count:
        session.execute(insert(_SEALS), asdict(next_range.seal(last.id + 1 if last is not None else 1, now)))
    return next_range.count


def _is_sealable(entry: Entry, sealable_ms: int, now: int) -> bool:
    at_ms = entry.columns["at_ms"]
    # An impossible time (the clock was set back, or an entry was manipulated) must not block later entries.
    return not isinstance(at_ms, int) or at_ms <= sealable_ms or at_ms > now + _FUTURE_MS


def items(database: Database) -> Iterator[Item]:
    """The whole log in the order of ``audit_chain``, read in small transactions and in constant memory.

    A range that retention removes during the read appears either complete or as removed.
    """
    sealed_to: int | None = None
    number: int | None = None
    while True:
        with database.read() as session:
            seals = _next_seals(session, number)
            if not seals:
                break
            expected = sum(item.count for item in seals if item.removed_ms is None)
            in_range = _after(sealed_to) & (AUDIT.c.id <= seals[-1].last_id)
            # One entry more than expected is enough to detect added entries.
            entries = _entries(session, in_range, limit=expected + 1)
        # Each seal after its entries.
        streams: tuple[Sequence[Item], Sequence[Item]] = (entries, seals)
        yield from heapq.merge(*streams, key=lambda item: item.last_id if isinstance(item, Seal) else item.id)
        sealed_to, number = seals[-1].last_id, seals[-1].id
    while True:
        with database.read() as session:
            entries = _entries(session, _after(sealed_to))
        yield from entries
        if len(entries) < MAX_ENTRIES_PER_SEAL:
            return
        sealed_to = entries[-1].id


def newest(session: Session, *, before: int | None = None, limit: int = 1) -> Sequence[Seal]:
    """Seals, newest first.

    Args:
        before: only seals with a lower ``id``.
    """
    query = select(_SEALS).order_by(_SEALS.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(_SEALS.c.id < before)
    return [Seal(**row) for row in session.execute(query).mappings()]


def unsealed_for_s(session: Session) -> float:
    """The age of the first unsealed entry; 0 if all are sealed."""
    first = select(AUDIT.c.at_ms).where(AUDIT.c.id > _sealed_to()).order_by(AUDIT.c.id).limit(1)
    at_ms, now = session.scalar(first), session.scalar(select(now_ms())) or 0
    return 0.0 if at_ms is None else (now - at_ms) / 1000


def remove_expired(database: Database, days: float) -> int:
    """Remove sealed ranges whose entries are all older than ``days``; returns the number of entries. Seals stay.

    Args:
        days: 0 removes nothing; otherwise at least ``MIN_DAYS``.
    """
    total = 0
    while days:
        with database.write() as session:
            now = session.scalar(select(now_ms())) or 0
            query = select(_SEALS.c.id, _SEALS.c.first_id, _SEALS.c.last_id, _SEALS.c.count)
            query = query.where(*_expired(session, now, days)).order_by(_SEALS.c.id).limit(_SEALS_PER_REMOVAL)
            ranges = [
                {"seal": row.id, "first": row.first_id, "last": row.last_id, "entries": row.count}
                for row in session.execute(query)
            ]
            if not ranges:
                break
            # Row by row: the trigger requires that the seal before it is marked first.
            marked = update(_SEALS).where(_SEALS.c.id == bindparam("seal")).values(removed_ms=now)
            deletion = delete(AUDIT).where(AUDIT.c.id.between(bindparam("first"), bindparam("last")))
            connection = session.connection()
            connection.execute(marked, [{"seal": item["seal"]} for item in ranges])
            connection.execute(deletion, [{"first": item["first"], "last": item["last"]} for item in ranges])
        total += sum(item["entries"] for item in ranges)
    return total


def count_expired(database: Database, days: float) -> int:
    """The number of entries that ``remove_expired`` would remove."""
    if not days:
        return 0
    with database.read() as session:
        now = session.scalar(select(now_ms())) or 0
        return (
            session.scalar(select(func.coalesce(func.sum(_SEALS.c.count), 0)).where(*_expired(session, now, days))) or 0
        )


def _expired(session: Session, now: int, days: float) -> list[ColumnElement[bool]]:
    """Conditions on seals. The newest is kept: with an empty table, SQLite would reuse the ids of removed entries."""
    if days < MIN_DAYS:
        raise ValueError(f"the audit log is kept for at least {MIN_DAYS:g} day, not {days:g}")
    young = session.scalar(select(func.min(AUDIT.c.id)).where(AUDIT.c.at_ms > now - int(days * _DAY_MS)))
    last = select(func.max(_SEALS.c.id)).scalar_subquery()
    conditions: list[ColumnElement[bool]] = [_SEALS.c.removed_ms.is_(None), _SEALS.c.id < last]
    return conditions if young is None else [*conditions, _SEALS.c.last_id < young]


def _sealed_to() -> ColumnElement[int]:
    lowest = literal_column(str(-(2**63)), BigInteger)
    return func.coalesce(select(func.max(_SEALS.c.last_id)).scalar_subquery(), lowest)


def _after(entry_id: int | None) -> ColumnElement[bool]:
    return AUDIT.c.id > entry_id if entry_id is not None else true()


def _next_seals(session: Session, number: int | None) -> Sequence[Seal]:
    query = select(_SEALS).order_by(_SEALS.c.id).limit(_SEALS_PER_READ)
    if number is not None:
        query = query.where(_SEALS.c.id > number)
    seals: list[Seal] = []
    entries = 0
    for row in session.execute(query).mappings():
        seals.append(Seal(**row))
        entries += row["count"] if row["removed_ms"] is None else 0
        if entries >= _ENTRIES_PER_READ:
            break
    return seals


def _entries(session: Session, condition: ColumnElement[bool], *, limit: int | None = None) -> Sequence[Entry]:
    query = select(*_COLUMNS).where(condition).order_by(AUDIT.c.id).limit(limit or MAX_ENTRIES_PER_SEAL)
    return [Entry(row["id"], {**row, "detail": _parsed(row["detail"])}) for row in session.execute(query).mappings()]


def _parsed(detail: Any) -> Any:
    try:
        return json.loads(detail)
    except (TypeError, ValueError):
        return detail
