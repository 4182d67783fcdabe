"""Whether the rows that the workers left behind are right: each count should be 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

_QUERIES: Final = {
    "jobs still running": "SELECT count(*) FROM jobs WHERE status = 'running'",
    "jobs neither queued nor succeeded": (
        "SELECT count(*) FROM jobs WHERE status NOT IN ('queued', 'running', 'succeeded')"
    ),
    "jobs of lost workers": "SELECT count(*) FROM jobs WHERE attempt > 1 OR deaths > 0",
    "queued jobs with traces of a claim": (
        "SELECT count(*) FROM jobs WHERE status = 'queued' AND lease = 0 AND (last_seq <> 1 OR epoch <> 0)"
    ),
    "jobs without exactly their epochs": """
        SELECT count(*) FROM jobs LEFT JOIN (
            SELECT job_id, count(*) AS rows, min(epoch) AS first, max(epoch) AS last FROM epochs GROUP BY job_id
        ) AS found ON job_id = id
        WHERE status = 'succeeded' AND (rows, first, last) IS DISTINCT FROM (jobs.epochs::bigint, 1, jobs.epochs)
    """,
    "epochs without exactly one event": """
        SELECT count(*) FROM epochs FULL JOIN (
            SELECT job_id, (data ->> 'epoch')::integer AS epoch, count(*) AS lines FROM events
            WHERE type = 'metrics' GROUP BY 1, 2
        ) AS found USING (job_id, epoch) WHERE epochs.step IS NULL OR lines IS DISTINCT FROM 1
    """,
    "jobs with gaps in their events": """
        SELECT count(*) FROM jobs JOIN (
            SELECT job_id, count(*) AS numbered, min(seq) AS first, max(seq) AS last FROM events GROUP BY job_id
        ) AS found ON job_id = id WHERE first <> 1 OR last <> last_seq OR numbered <> last_seq
    """,
    "events out of order": """
        SELECT count(*) FROM (
            SELECT (data ->> 'epoch')::integer AS epoch, created_ms,
                lag((data ->> 'epoch')::integer) OVER job AS epoch_before, lag(created_ms) OVER job AS created_before
            FROM events WHERE type = 'metrics' WINDOW job AS (PARTITION BY job_id ORDER BY seq)
        ) AS pairs WHERE epoch <> epoch_before + 1 OR created_ms < created_before
    """,
    "jobs without one event of each claim and of the end": """
        SELECT count(*) FROM jobs JOIN (
            SELECT job_id, count(*) FILTER (WHERE type = 'status' AND data ->> 'reason' = 'claimed') AS claims,
                count(*) FILTER (WHERE type = 'end') AS ends
            FROM events GROUP BY job_id
        ) AS found ON job_id = id WHERE status = 'succeeded' AND (claims <> lease OR ends <> 1)
    """,
    "owners with wrong counters": """
        SELECT count(*) FROM owner_queue LEFT JOIN (
            SELECT coalesce(owner, '') AS owner, count(*) FILTER (WHERE status = 'queued') AS waiting,
                count(*) FILTER (WHERE status = 'running') AS busy
            FROM jobs GROUP BY 1
        ) AS found USING (owner) WHERE queued <> coalesce(waiting, 0) OR running <> coalesce(busy, 0)
    """,
}


def count_defects(session: Session, acknowledged: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count what is lost, doubled or wrong; by its name, without what there is none of.

    Args:
        acknowledged: by each process, what its workers know to be committed.
    """
    defects = {name: session.scalar(text(query)) or 0 for name, query in _QUERIES.items()}
    epochs = Counter(tuple(row) for row in session.execute(text("SELECT job_id, epoch FROM epochs")))
    again = session.scalar(text("SELECT coalesce(sum(lease - 1), 0) FROM jobs WHERE lease > 1")) or 0
    waiting = session.scalar(text("SELECT count(*) FROM jobs WHERE status = 'queued' AND lease > 0")) or 0
    ended = Counter(session.scalars(text("SELECT id FROM jobs WHERE status = 'succeeded'")))
    known_epochs = Counter(tuple(item) for process in acknowledged for item in process["epochs"])
    known_ended = Counter(item for process in acknowledged for item in process["ended"])
    defects["epochs acknowledged but not stored"] = (known_epochs - epochs).total()
    defects["epochs stored but not acknowledged"] = (epochs - known_epochs).total()
    defects["results acknowledged but not stored"] = (known_ended - ended).total()
    defects["results stored but not acknowledged"] = (ended - known_ended).total()
    defects["leases lost"] = lost = sum(len(process["lost"]) for process in acknowledged)
    defects["jobs claimed twice"] = max(0, again + waiting - lost)
    defects["workers that did not end"] = sum(process["unfinished"] for process in acknowledged)
    return {name: count for name, count in defects.items() if count}
