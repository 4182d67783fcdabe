"""The triggers that count the running and queued jobs of each owner, and charge owners for the slots that they hold.

They run for every change of a job's state, owner or priority, whichever code makes it: ``owner_queue`` always equals
the counts of the rows. PostgreSQL runs them at the end of a transaction, so that the row of an owner is locked after
all rows of jobs, and briefly. ``vtime`` is the integral of ``running / weight`` up to ``accrued_ms``; what a preempted
lease has done since its last epoch is lost, and its time is given back. An owner that becomes ready (by a job, a slot
under its cap, a new limit) starts at least at the virtual time of those that are, or, without any, at the highest:
neither idleness nor a cap earns credit.

Revisions 0024 and 0033 create them; a change needs a migration.
"""

from __future__ import annotations

from typing import Final

LAST_EPOCH: Final = "(SELECT finished_ms FROM epochs WHERE job_id = OLD.id ORDER BY epoch DESC LIMIT 1)"
"""From when on the time of a preempted lease is given back, if that is later than its begin: its epochs are kept."""
WHOLE_LEASE: Final = "0"
"""The same in revisions 0024 to 0032: all of its time."""

_SQLITE_NOW: Final = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
_SQLITE_HELD: Final = f"MAX(0, {_SQLITE_NOW} - COALESCE(OLD.claimed_ms, {_SQLITE_NOW})) / 1000.0"
_SQLITE_PREEMPTED: Final = "OLD.requested IS 'preempt' AND NEW.status = 'queued'"
_SQLITE_CPU: Final = "MAX(0.0, COALESCE({row}.cpu_seconds, 0.0) - COALESCE(OLD.claimed_cpu_seconds, 0.0))"


def _sqlite_refund(since: str) -> str:
    """The seconds of a preempted lease that are given back."""
    lost = f"{_SQLITE_NOW} - MAX(COALESCE(OLD.claimed_ms, {_SQLITE_NOW}), COALESCE({since}, 0))"
    return f"CASE WHEN {_SQLITE_PREEMPTED} THEN MAX(0, {lost}) / 1000.0 ELSE 0.0 END"


def _sqlite_change(before: str, after: str, *, held: str = "0.0", preempted: str = "FALSE", refund: str = "0.0") -> str:
    """Count a job that was ``before`` and is ``after``: conditions on OLD and NEW, with {} for a status."""
    running = f"({before.format('running')}) + ({after.format('running')})"
    queued = f"({before.format('queued')}) + ({after.format('queued')})"
    released = f"{before.format('running')} < 0 AND NOT {after.format('running')}"
    return f"""
UPDATE owner_queue SET
    vtime = vtime + (running * MAX(0, {_SQLITE_NOW} - accrued_ms) / 1000.0 - {refund}) / weight,
    accrued_ms = {_SQLITE_NOW},
    mean_seconds = CASE WHEN {released} AND NOT ({preempted})
        THEN 0.8 * mean_seconds + 0.2 * {held} ELSE mean_seconds END,
    running = running + {running},
    queued = queued + {queued},
    urgent = COALESCE((SELECT MAX(priority) FROM jobs
                       WHERE jobs.owner IS NULLIF(owner_queue.owner, '') AND status = 'queued' AND priority >= 6), 0)
"""  # noqa: S608 - all text is in this module


_SQLITE_BEFORE: Final = "-(owner = COALESCE(OLD.owner, '') AND OLD.status = '{}')"
_SQLITE_AFTER: Final = "(owner = COALESCE(NEW.owner, '') AND NEW.status = '{}')"
_SQLITE_ENTER: Final = """
INSERT INTO owner_queue (owner, cap)
SELECT COALESCE(NEW.owner, ''), CASE WHEN NEW.owner IS NOT NULL THEN (SELECT MIN(cap) FROM owner_defaults) END
WHERE TRUE
ON CONFLICT (owner) DO NOTHING;
"""


def _sqlite_usage(row: str, *, is_released: str, jobs: str) -> str:
    ended = f"CASE WHEN {is_released} THEN {{}} ELSE 0.0 END"
    return f"""
INSERT INTO owner_usage (owner, day, jobs, cpu_seconds, slot_seconds)
SELECT COALESCE(OLD.owner, ''), {_SQLITE_NOW} / 86400000, {jobs}, {ended.format(_SQLITE_CPU.format(row=row))},
       {ended.format(_SQLITE_HELD)}
WHERE {is_released} OR {jobs}
ON CONFLICT (owner, day) DO UPDATE SET jobs = jobs + excluded.jobs,
    cpu_seconds = cpu_seconds + excluded.cpu_seconds, slot_seconds = slot_seconds + excluded.slot_seconds;
"""


_VIRTUAL_TIME: Final = """
COALESCE((SELECT MIN(vtime) FROM owner_queue WHERE ready AND owner <> NEW.owner), (SELECT MAX(vtime) FROM owner_queue))
"""


def sqlite_update(since: str = LAST_EPOCH) -> str:
    """The trigger of changed jobs.

    Args:
        since: ``LAST_EPOCH``, or what it was in an earlier revision.
    """
    return f"""
CREATE TRIGGER owner_queue_update AFTER UPDATE OF status, owner, priority ON jobs
WHEN OLD.status <> NEW.status
    OR NEW.status IN ('queued', 'running') AND (OLD.owner IS NOT NEW.owner OR OLD.priority <> NEW.priority)
BEGIN
{_SQLITE_ENTER}
{
        _sqlite_change(
            _SQLITE_BEFORE,
            _SQLITE_AFTER,
            held=_SQLITE_HELD,
            preempted=_SQLITE_PREEMPTED,
            refund=_sqlite_refund(since),
        )
    }
WHERE owner IN (COALESCE(OLD.owner, ''), COALESCE(NEW.owner, ''));
{
        _sqlite_usage(
            "NEW",
            is_released="OLD.status = 'running' AND NEW.status <> 'running'",
            jobs="(NEW.finished_ms IS NOT NULL AND OLD.finished_ms IS NULL)",
        )
    }
END
"""


SQLITE: Final = (
    f"""
CREATE TRIGGER owner_queue_insert AFTER INSERT ON jobs WHEN NEW.status IN ('queued', 'running')
BEGIN
{_SQLITE_ENTER}
{_sqlite_change("0", _SQLITE_AFTER)} WHERE owner = COALESCE(NEW.owner, '');
END
""",
    f"""
CREATE TRIGGER owner_queue_delete AFTER DELETE ON jobs WHEN OLD.status IN ('queued', 'running')
BEGIN
{_sqlite_change(_SQLITE_BEFORE, "0", held=_SQLITE_HELD)} WHERE owner = COALESCE(OLD.owner, '');
{_sqlite_usage("OLD", is_released="OLD.status = 'running'", jobs="0")}
END
""",
    f"""
CREATE TRIGGER owner_queue_ready AFTER UPDATE ON owner_queue WHEN NEW.ready AND NOT OLD.ready
BEGIN
UPDATE owner_queue SET vtime = MAX(vtime, {_VIRTUAL_TIME}) WHERE owner = NEW.owner;
END
""",  # noqa: S608 - all text is in this module
)
"""All triggers but that of changed jobs."""


def postgresql_count(since: str = LAST_EPOCH) -> str:
    """The function that counts a changed job; arguments as of ``sqlite_update``."""
    return f"""
CREATE OR REPLACE FUNCTION count_owner_queue() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now bigint := CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT);
    held float8 := 0;
    counted float8 := 0;  -- in the mean of the owner's leases
    used float8 := 0;
    ended int := 0;
    refund float8 := 0;
BEGIN
    IF TG_OP = 'DELETE' AND OLD.status = 'running'
            OR TG_OP = 'UPDATE' AND OLD.status = 'running' AND NEW.status <> 'running' THEN
        held := GREATEST(0, now - COALESCE(OLD.claimed_ms, now)) / 1000.0;
        used := GREATEST(0, COALESCE(CASE WHEN TG_OP = 'DELETE' THEN OLD.cpu_seconds ELSE NEW.cpu_seconds END, 0)
                            - COALESCE(OLD.claimed_cpu_seconds, 0));
        counted := held;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        ended := (NEW.finished_ms IS NOT NULL AND OLD.finished_ms IS NULL)::int;
        IF OLD.requested = 'preempt' AND NEW.status = 'queued' THEN
            refund := LEAST(held, GREATEST(0, now - COALESCE({since}, 0)) / 1000.0);
            counted := 0;
        END IF;
        IF NEW.owner IS NOT DISTINCT FROM OLD.owner THEN
            PERFORM change_owner_queue(
                NEW.owner,
                (NEW.status = 'running')::int - (OLD.status = 'running')::int,
                (NEW.status = 'queued')::int - (OLD.status = 'queued')::int, counted, refund);
        END IF;
    END IF;
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND NEW.owner IS DISTINCT FROM OLD.owner THEN
        PERFORM change_owner_queue(
            OLD.owner, -(OLD.status = 'running')::int, -(OLD.status = 'queued')::int, counted, refund);
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.owner IS DISTINCT FROM OLD.owner THEN
        PERFORM change_owner_queue(
            NEW.owner, (NEW.status = 'running')::int, (NEW.status = 'queued')::int, 0, 0);
    END IF;
    IF held > 0 OR used > 0 OR ended > 0 THEN
        INSERT INTO owner_usage (owner, day, jobs, cpu_seconds, slot_seconds)
        VALUES (COALESCE(OLD.owner, ''), now / 86400000, ended, used, held)
        ON CONFLICT (owner, day) DO UPDATE SET jobs = owner_usage.jobs + excluded.jobs,
            cpu_seconds = owner_usage.cpu_seconds + excluded.cpu_seconds,
            slot_seconds = owner_usage.slot_seconds + excluded.slot_seconds;
    END IF;
    RETURN NULL;
END $$
"""  # noqa: S608 - all text is in this module


POSTGRESQL: Final = (
    """
CREATE FUNCTION change_owner_queue(job_owner text, running_change int, queued_change int, held float8,
                                   refund float8) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    name text := COALESCE(job_owner, '');
    now bigint;
BEGIN
    -- Lock first: the statements that follow then see what the transactions before this one have committed.
    PERFORM FROM owner_queue WHERE owner = name FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO owner_queue (owner, cap)
        VALUES (name, CASE WHEN job_owner IS NOT NULL THEN (SELECT MIN(cap) FROM owner_defaults) END)
        ON CONFLICT (owner) DO NOTHING;
        PERFORM FROM owner_queue WHERE owner = name FOR UPDATE;
    END IF;
    now := CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT);
    UPDATE owner_queue SET
        vtime = vtime + (running * GREATEST(0, now - accrued_ms) / 1000.0 - refund) / weight,
        accrued_ms = now,
        mean_seconds = CASE WHEN held > 0 AND refund = 0
            THEN 0.8 * mean_seconds + 0.2 * held ELSE mean_seconds END,
        running = running + running_change,
        queued = queued + queued_change,
        urgent = COALESCE(
            CASE WHEN job_owner IS NULL  -- a condition for both would use no index
                THEN (SELECT MAX(priority) FROM jobs
                      WHERE jobs.owner IS NULL AND status = 'queued' AND priority >= 6)
                ELSE (SELECT MAX(priority) FROM jobs
                      WHERE jobs.owner = job_owner AND status = 'queued' AND priority >= 6)
            END, 0)
    WHERE owner = name;
END $$
""",
    f"""
CREATE FUNCTION start_owner_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE owner_queue SET vtime = GREATEST(vtime, {_VIRTUAL_TIME}) WHERE owner = NEW.owner;
    RETURN NULL;
END $$
""",  # noqa: S608 - all text is in this module
    """
CREATE TRIGGER owner_queue_ready AFTER UPDATE ON owner_queue FOR EACH ROW
WHEN (NEW.ready AND NOT OLD.ready) EXECUTE FUNCTION start_owner_queue()
""",
    """
CREATE CONSTRAINT TRIGGER owner_queue_insert AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (NEW.status IN ('queued', 'running')) EXECUTE FUNCTION count_owner_queue()
""",
    """
CREATE CONSTRAINT TRIGGER owner_queue_update AFTER UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (OLD.status <> NEW.status OR NEW.status IN ('queued', 'running')
      AND (OLD.owner IS DISTINCT FROM NEW.owner OR OLD.priority <> NEW.priority))
EXECUTE FUNCTION count_owner_queue()
""",
    """
CREATE CONSTRAINT TRIGGER owner_queue_delete AFTER DELETE ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (OLD.status IN ('queued', 'running')) EXECUTE FUNCTION count_owner_queue()
""",
)

FUNCTIONS: Final = ("count_owner_queue()", "change_owner_queue(text, int, int, float8, float8)", "start_owner_queue()")
"""Functions of PostgreSQL, which are not dropped with their tables."""
