"""Durations of operations, and statements, in one process of the simulator."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

Durations = dict[str, list[float]]


class Recorder:
    """Records what happens in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._durations: Durations = {}
        self._statements, self._retries, self._errors = itertools.count(), itertools.count(), itertools.count()

    def listen(self) -> None:
        """Count the statements and connections of all of SQLAlchemy's engines in this process, from now on."""
        event.listen(Engine, "before_cursor_execute", self._count_statement)
        for name in ("commit", "rollback"):
            event.listen(Engine, name, self._count_end)
        event.listen(Engine, "do_connect", self._connect)

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Record the duration of an operation that succeeds."""
        started_at = time.perf_counter()
        yield
        self.add(operation, time.perf_counter() - started_at)

    def add(self, operation: str, seconds: float) -> None:
        """Record a duration."""
        with self._lock:
            self._durations.setdefault(operation, []).append(seconds)

    def count_retry(self) -> None:
        """Count an operation that a fault of the database has interrupted."""
        next(self._retries)

    def count_error(self) -> None:
        """Count an operation that failed, and is not repeated."""
        next(self._errors)

    def take(self) -> dict[str, Any]:
        """What was recorded since the last call."""
        with self._lock:
            durations, self._durations = self._durations, {}
        counted = {}
        for name in ("statements", "retries", "errors"):
            counted[name] = next(getattr(self, f"_{name}"))
            setattr(self, f"_{name}", itertools.count())
        return {"durations": durations, "cpu_s": time.process_time(), **counted}

    def _count_statement(self, *_: object) -> None:
        next(self._statements)

    def _count_end(self, connection: Connection) -> None:
        if connection.get_execution_options().get("tapeline_begin") != "single":
            next(self._statements)

    def _connect(self, dialect: Any, record: object, arguments: Sequence[Any], parameters: Mapping[str, Any]) -> Any:
        with self.timed("connect"):
            return dialect.connect(*arguments, **parameters)


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """A percentile in milliseconds; 0 of nothing."""
    if not seconds:
        return 0.0
    ordered = sorted(seconds)
    return round(1000 * ordered[min(len(ordered) - 1, math.ceil(percent / 100 * len(ordered)) - 1)], 2)
