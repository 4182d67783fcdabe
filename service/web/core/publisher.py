"""Sends workers hints to poll the database. A lost hint delays a job by a few seconds."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import Final

import structlog
from celery import Celery

from service.runtime import broker

_MAX_WAITING_HINTS: Final = 1000
"""Maximum number of hints that wait for a slow broker; more of them add nothing."""
_FULL_QUEUE_DELAY_S: Final = 0.1
"""Delay after hints for which the queue had no room: it holds enough of them for every worker."""
_RETRY_DELAY_S: Final = 1.0
"""Delay after a failure, so that not every job contacts an unavailable broker."""

_log = structlog.get_logger("tapeline.web.publisher")


class Publisher:
    """Sends hints from a background thread, so that no request waits for the broker.

    Thread and connection are created with the first hint, so an instance may be created before a fork.
    """

    def __init__(self, broker_url: str | None) -> None:
        self._broker_url = broker_url
        self._hints: queue.Queue[str] = queue.Queue(_MAX_WAITING_HINTS)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def wake(self, job_id: str) -> None:
        """Queue a hint for a new job. Never blocks, never fails."""
        if self._broker_url is None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
                self._thread.start()
        try:
            self._hints.put_nowait(job_id)
        except queue.Full:
            _log.debug("hint dropped", job=job_id)

    def check_broker(self, timeout_s: float) -> None:
        """Raise ``redis.RedisError`` if the broker does not respond or accepts no writes; without one, do nothing."""
        if self._broker_url is not None:
            broker.probe(self._broker_url, timeout_s=timeout_s)

    @property
    def has_broker(self) -> bool:
        """Whether a broker is configured."""
        return self._broker_url is not None

    def _run(self) -> None:
        app = Celery("tapeline-web", broker=self._broker_url, set_as_current=False)
        app.conf.update(broker.SENDER_OPTIONS)
        while True:
            job_ids = [self._hints.get()]
            with suppress(queue.Empty):
                while len(job_ids) < broker.MAX_QUEUED:
                    job_ids.append(self._hints.get_nowait())
            try:
                sent_count = broker.send_hints(app, job_ids)
            except Exception as error:  # noqa: BLE001 - each transport has its own exceptions
                if not self._is_failing:
                    _log.warning("the broker does not respond; workers find jobs by polling", error=str(error))
                self._is_failing = True
                with self._hints.mutex:  # workers find these jobs by polling before the broker is back
                    self._hints.queue.clear()
                time.sleep(_RETRY_DELAY_S)
            else:
                if self._is_failing:
                    _log.info("the broker responds again")
                self._is_failing = False
                if sent_count < len(job_ids):
                    time.sleep(_FULL_QUEUE_DELAY_S)
