"""A sweep's log as server-sent events, read from the database for each client."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from service.states import SWEEP_ENDED
from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.sweeps import events
from service.web.schemas.experiments.sweeps import SweepDetail, event_item
from service.web.streaming.stream import PING_S, RETRY_MS, Hub, Permission, dump, is_closed

_POLL_INTERVAL_S: Final = 0.5
_BATCH: Final = 200


def follow_sweep(
    hub: Hub,
    database: Database,
    sweep_id: str,
    snapshot: SweepDetail,
    *,
    after: int,
    connection: socket.socket | None,
    may_continue: Callable[[], bool],
) -> Iterator[str]:
    """The text of one client's stream: a snapshot, the log from ``after`` on, then what happens, until the sweep has
    ended and all was sent."""
    allowed = Permission(may_continue)
    with hub.occupied():
        yield f"retry: {RETRY_MS}\nevent: snapshot\ndata: {dump(snapshot.model_dump(mode='json'))}\n\n"
        sent, written = min(after, snapshot.last_seq), time.monotonic()
        while not hub.closing and allowed and not is_closed(connection):
            try:
                with database.read() as session:
                    sweep = session.get(Sweep, sweep_id)
                    rows = events.read(session, sweep_id, after=sent, limit=_BATCH)
            except SQLAlchemyError:
                time.sleep(_POLL_INTERVAL_S)
                continue
            for row in rows:
                item = event_item(row).model_dump(mode="json")
                yield f"id: {row.seq}\nevent: {row.type}\ndata: {dump(item)}\n\n"
                sent = row.seq
            if sweep is None or (sweep.status in SWEEP_ENDED and sent >= sweep.last_seq):
                return
            if rows:
                written = time.monotonic()
                continue
            if time.monotonic() - written >= PING_S:
                yield ": ping\n\n"
                written = time.monotonic()
            time.sleep(_POLL_INTERVAL_S)
