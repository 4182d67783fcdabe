"""Real brokers for tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.local.broker import Broker


def start(broker: Broker) -> None:
    """Start a broker, for the first time or again."""
    broker.prepare()
    broker.child.start()
    broker.wait_until_ready()


@contextmanager
def serve(folder: Path) -> Iterator[Broker]:
    """A broker with its files in ``folder``; at the end of the block it is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "broker.log").open("ab") as log:
        broker = Broker(folder, log=folder / "broker.log", output=log.fileno(), environ=os.environ)
        try:
            start(broker)
            yield broker
        finally:
            broker.child.end(0)
