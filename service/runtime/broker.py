"""The broker: messages that tell workers to poll the database, and a probe.

Senders and workers must agree on the names and options, also across versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.errors import SettingsError

_KOMBU: Final = (5, 7)
"""Before 5.7, a worker whose connection to the broker is lost may consume no more messages, and say nothing."""

TRAIN_TASK: Final = "tapeline.train"
"""The Celery task. Its argument, a job id, makes the queue readable for operators; to a worker, the message is only a
hint to poll the database."""

TRAIN_QUEUE: Final = "tapeline.train"

MAX_QUEUED: Final = 64
"""The maximum number of messages in the queue. Messages are only hints to poll, so more of them add nothing."""

PROBE_KEY: Final = "tapeline.probe"
"""The key that the broker probe writes."""

CELERY_OPTIONS: Final = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "result_backend": None,
    "task_ignore_result": True,
    "task_default_queue": TRAIN_QUEUE,
    # Early acknowledgement: the lease protects the job; a redelivered message could only start it twice.
    "task_acks_late": False,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # Also retry when the broker responds with errors (read-only, out of memory, no permission): it may recover.
    "broker_channel_error_retry": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_send_task_events": False,
    # For `celery status` and `inspect`; workers.app removes the commands that change a worker.
    "worker_enable_remote_control": True,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "task_publish_retry": False,
    "broker_transport_options": {
        "visibility_timeout": 300,
        "socket_timeout": 30,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 25,
    },
}
"""Celery settings of a worker, which survives a restart of its broker."""

SENDER_OPTIONS: Final = CELERY_OPTIONS | {
    "broker_transport_options": {
        "socket_timeout": 3,
        "socket_connect_timeout": 3,
        # One attempt: the message is only a hint, and the sender must not wait for the broker.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
    },
}
"""Celery settings of a process that only sends."""


def require_kombu() -> None:
    """Refuse to start with an installed kombu that loses messages.

    Raises:
        SettingsError: it is too old.
    """
    installed = metadata.version("kombu")
    if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) < _KOMBU:
        raise SettingsError(
            f"kombu {installed} is installed, with which workers stop consuming messages after the broker was away; "
            "install kombu 5.7 or newer: pip install 'kombu>=5.7'"
        )


def send_hints(app: Any, job_ids: Sequence[str]) -> int:
    """Send a hint for each job while the queue has room; returns how many were sent.

    A full queue already contains enough hints for every worker.

    Args:
        app: a Celery app. Processes that only probe the broker do not load Celery.

    Raises:
        Exception: an error of the transport, if the broker does not accept messages.
    """
    with app.producer_pool.acquire(block=True) as producer:
        room = MAX_QUEUED - producer.channel.client.llen(TRAIN_QUEUE)
        sent = job_ids[: max(room, 0)]
        for job_id in sent:
            app.send_task(
                TRAIN_TASK,
                args=[job_id],
                queue=TRAIN_QUEUE,
                producer=producer,
                retry=False,
                ignore_result=True,
            )
    return len(sent)


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
        client.set(PROBE_KEY, "1", ex=60)
