"""Receivers of messages, and what each of them got."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from service.features.webhooks.delivery.deliveries import GONE, Attempt
from service.features.webhooks.tables import Webhook
from service.storage.database import Database
from tests.simulation.kernel.faults import Fault
from tests.simulation.kernel.runtime import CURRENT, Time

_SILENCE_S: Final = 20.0
TYPES: Final = ("job.succeeded", "job.failed", "job.cancelled", "job.paused", "sweep.ended")


class Receivers:
    """What was received, by URL and message id: the bodies, in order."""

    def __init__(self) -> None:
        self.received: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)


def subscribe(database: Database) -> None:
    """Have two owners told of all jobs and sweeps."""
    with database.write() as session:
        for number, owner in enumerate((None, "ann"), 1):
            webhook = Webhook(id=f"whk_{number}", owner=owner, url=f"https://receiver{number}.example/", failures=0)
            webhook.host, webhook.events = f"receiver{number}.example", [*TYPES, "worker.lost"]
            webhook.created_ms = 0
            webhook.secret = webhook.signing_key = "c2VjcmV0"
            session.add(webhook)


def send(url: str, body: bytes, headers: Mapping[str, str], *_: object, **__: Any) -> Attempt:
    """In place of the ``send`` of webhooks: one attempt, which may be received although it seems to have failed."""
    world, received = CURRENT.world, CURRENT.receivers.received
    world.step()
    world.fault(Fault.CRASH, Fault.FREEZE)
    behaviour = world.tape.draw(5) if world.climate.has(Fault.RECEIVERS) and not world.is_calm else 0
    at_ms = int(world.now_ms)
    if behaviour == 1:
        return Attempt(at_ms=at_ms, seconds=0.1, status=500, error="HTTP 500", retry_after_s=7.0)
    if behaviour == 3 and world.tape.chance(0.1):
        world.sometimes("message refused for good")
        return Attempt(at_ms=at_ms, seconds=0.1, status=GONE, error="HTTP 410")
    bodies = received[url, headers["webhook-id"]]
    if bodies:
        world.sometimes("message sent twice")
    bodies.append(body)
    if behaviour in (2, 4):
        Time.sleep(_SILENCE_S)
    if behaviour == 2:
        return Attempt(at_ms=at_ms, seconds=_SILENCE_S, error="no answer in time")
    world.fault(Fault.CRASH, Fault.COMA)
    return Attempt(at_ms=at_ms, seconds=0.1, status=200)
