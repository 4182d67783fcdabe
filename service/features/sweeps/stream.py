"""The stream of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.features.sweeps.schemas import SweepDetail, SweepEventItem
from service.states import SWEEP_ENDED
from service.storage.sweep_tables import Sweep
from service.sweeps import events
from service.web.streaming.logs import LogEvent, LogSource, follow
from service.web.streaming.messages import message
from service.web.streaming.poller import Poller
from service.web.streaming.response import StreamClient


@dataclass(frozen=True, slots=True)
class SweepHead:
    """The state of a sweep."""

    status: str
    last_seq: int
    step: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether the sweep has ended."""
        return self.status in SWEEP_ENDED


class SweepSource(LogSource):
    """Reads the logs of sweeps."""

    def heads(self, session: Session, keys: Sequence[str]) -> Mapping[str, SweepHead]:
        """The states of the sweeps that exist."""
        rows = session.execute(select(Sweep.id, Sweep.status, Sweep.last_seq).where(Sweep.id.in_(keys)))
        return {sweep_id: SweepHead(status, last_seq) for sweep_id, status, last_seq in rows}

    def events(self, session: Session, key: str, *, after: int, limit: int) -> list[LogEvent]:
        """The events of a sweep after a number."""
        rows = events.read(session, key, after=after, limit=limit)
        return [LogEvent.of(SweepEventItem.from_row(row).model_dump(mode="json")) for row in rows]


SWEEPS: Final = SweepSource()


def follow_sweep(poller: Poller, snapshot: SweepDetail, client: StreamClient, *, after: int) -> Iterator[str]:
    """The text of one client's stream of a sweep."""
    text = message("snapshot", snapshot.model_dump(mode="json"))
    head = SweepHead(snapshot.status, snapshot.last_seq)
    return follow(poller, SWEEPS, snapshot.id, text, head, client, after=after)
