"""Whether the broker takes messages."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.runtime import task_names


def probe(broker_url: str, *, timeout_s: float) -> None:
    """Write to the broker, once: one that is full or read-only still answers a ping.

    Not through Celery, whose connection keeps its descriptors after a failure until the garbage collector runs.

    Raises:
        redis.RedisError: it does not answer in time, or takes no writes.
    """
    # Celery's way to name a socket, in Redis's words.
    url = broker_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=", 1)
    once = Retry(NoBackoff(), 0)
    client = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once)
    with client:
        client.set(task_names.PROBE_KEY, "1", ex=60)
