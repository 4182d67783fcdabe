"""Tells the workers to look into the database. A message is a hint: losing one costs a few seconds."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import Final

import structlog
from celery import Celery

from service.runtime import broker, task_names, wake_ups

_WAITING: Final = 1000
"""So many hints wait for a slow broker; more would tell the workers nothing new."""
_PAUSE_S: Final = 1.0
"""After a failure, before the next try: a broker that is gone is not asked for each job."""

_log = structlog.get_logger("tapeline.web.publisher")


class Publisher:
    """Sends hints from a thread of its own, so that no request waits for the broker.

    The thread and the connection are made with the first hint: a process that makes this object may still fork.
    """

    def __init__(self, broker_url: str | None) -> None:
        self._broker_url = broker_url
        self._hints: queue.Queue[str] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._celery: Celery | None = None
        self._failing = False

    def wake(self, job_id: str) -> None:
        """Say that this job waits. Never blocks, never fails."""
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
        """Raise ``redis.RedisError`` where the broker does not answer, or takes no writes; without one, do nothing."""
        if self._broker_url is not None:
            broker.probe(self._broker_url, timeout_s=timeout_s)

    @property
    def has_broker(self) -> bool:
        """Whether there is a broker to send to."""
        return self._broker_url is not None

    def _app(self) -> Celery:
        with self._lock:
            if self._celery is None:
                self._celery = Celery("tapeline-web", broker=self._broker_url, set_as_current=False)
                self._celery.conf.update(task_names.SENDER_OPTIONS)
            return self._celery

    def _run(self) -> None:
        app = self._app()
        while True:
            job_ids = self._waiting_hints()
            try:
                wake_ups.send(app, job_ids)
            except Exception as error:  # noqa: BLE001 - each transport raises its own; all mean the same here
                if not self._failing:
                    _log.warning("the broker does not answer; workers find jobs by themselves", error=str(error))
                self._failing = True
                self._forget()
                time.sleep(_PAUSE_S)
            else:
                if self._failing:
                    _log.info("the broker answers again")
                self._failing = False

    def _waiting_hints(self) -> list[str]:
        """What waits to be sent, at least one."""
        found = [self._hints.get()]
        with suppress(queue.Empty):
            while len(found) < task_names.MAX_QUEUED:
                found.append(self._hints.get_nowait())
        return found

    def _forget(self) -> None:
        """Drop what has piled up: by the time the broker is back, workers have found these jobs by themselves."""
        with suppress(queue.Empty):
            while True:
                self._hints.get_nowait()
