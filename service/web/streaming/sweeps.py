"""A sweep's log as server-sent events, read from the database for each client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service.states import SWEEP_ENDED
from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.sweeps import events
from service.web.schemas.experiments.sweeps import SweepDetail, event_item
from service.web.streaming.client import StreamClient
from service.web.streaming.job_stream import Hub
from service.web.streaming.messages import PING, PING_S, RETRY, PingTimer, chunks, message

_POLL_INTERVAL_S: Final = 0.5
_BATCH_SIZE: Final = 200


def follow_sweep(
    hub: Hub, database: Database, snapshot: SweepDetail, client: StreamClient, *, after: int
) -> Iterator[str]:
    """The text of one client's stream: a snapshot, the events after number ``after``, then new events, until the sweep
    has ended."""
    with hub.occupied():
        yield RETRY + message("snapshot", snapshot.model_dump(mode="json"))
        sent_seq, ping = min(after, snapshot.last_seq), PingTimer(PING_S)
        while not hub.closing and client.permission and not client.has_left:
            try:
                with database.read() as session:
                    query = select(Sweep.status, Sweep.last_seq).where(Sweep.id == snapshot.id)
                    sweep = session.execute(query).first()
                    rows = events.read(session, snapshot.id, after=sent_seq, limit=_BATCH_SIZE)
            except SQLAlchemyError:
                time.sleep(_POLL_INTERVAL_S)
                continue
            yield from chunks(
                message(row.type, event_item(row).model_dump(mode="json"), number=row.seq) for row in rows
            )
            sent_seq = rows[-1].seq if rows else sent_seq
            if sweep is None or (sweep.status in SWEEP_ENDED and sent_seq >= sweep.last_seq):
                return
            if rows:
                ping.restart()
                continue
            if ping.is_due():
                yield PING
            time.sleep(_POLL_INTERVAL_S)
