"""A probe of the broker."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.runtime import task_names


def probe(broker_url: str, *, timeout_s: float) -> None:
    """Write a key to the broker: one that is full or read-only still responds to a ping.

    It does not use Celery, whose connection keeps its descriptors after a failure until the garbage collector runs.

    Raises:
        redis.RedisError: the broker does not respond in time, or accepts no writes.
    """
    # Celery's URL of a Unix socket, in the syntax of redis-py.
    url = broker_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=", 1)
    no_retries = Retry(NoBackoff(), 0)
    client = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=no_retries)
    with client:
        client.set(task_names.PROBE_KEY, "1", ex=60)
