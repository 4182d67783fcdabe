"""A thread that stores and commits finished epochs while the next one is trained."""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from workers.pace import Pace

COMMIT_INTERVAL_S: Final = 1.0
"""Time between the commits of a job: epochs that are shorter share one."""
SOON_S: Final = 0.25
"""If the training ends within this time, an epoch waits for that, to share the transaction of the result."""
_EXPECTED_COMMIT_S: Final = 0.01
_MAX_SLOWDOWN: Final = 5.0
"""While commits take longer than that, because many workers share the database, the time between them is longer, too,
up to this factor."""
MAX_UNCOMMITTED_BYTES: Final = 2**24
"""Size of the files beyond which they are committed earlier: until then, they are in memory."""

Snapshot = TypeVar("Snapshot")
Record = TypeVar("Record")


class EpochWriter(Generic[Snapshot, Record]):
    """Stores and commits epochs, in order: ``wait`` before each ``start``. An epoch is committed at once if the last
    commit was long ago, otherwise when that is so, or together with the epochs that follow, or with the result.

    An error is raised in the training thread: after the current batch by ``check``, otherwise by ``wait``. Leaving the
    context commits what is left; an error of that replaces one of the later epoch, which would not exist if there were
    only one thread.

    Args:
        store: stores the files of consecutive epochs; returns what their commit needs.
        commit: commits consecutive epochs.
        size: the bytes of the files of an epoch, which take memory until the commit.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Snapshot]], Sequence[Record]],
        commit: Callable[[Sequence[Record]], None],
        size: Callable[[Snapshot], int],
    ) -> None:
        self._store, self._commit, self._size = store, commit, size
        self._changed = threading.Condition()
        """Held to read or change the attributes below."""
        self._pending: list[Snapshot] = []
        """Epochs that are not committed."""
        self._context = contextvars.copy_context()
        """That of the last epoch, as for log lines and NumPy's error handling."""
        self._due_at = self._committed_at = -math.inf
        self._is_committing = self._is_closed = False
        self._thread: threading.Thread | None = None
        self._pace = Pace(_EXPECTED_COMMIT_S, _MAX_SLOWDOWN)
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the epoch that was finished last is not committed."""
        with self._changed:
            return self._is_committing or bool(self._pending)

    def start(self, snapshot: Snapshot, *, ends_in_s: float = math.inf) -> None:
        """Commit an epoch, now or later.

        Args:
            ends_in_s: when the training ends well, about; ``take`` follows.
        """
        with self._changed:
            self._pending.append(snapshot)
            self._context = contextvars.copy_context()
            self._due_at = self._committed_at + COMMIT_INTERVAL_S * self._pace.factor
            if ends_in_s <= SOON_S:
                self._due_at = max(self._due_at, time.monotonic() + COMMIT_INTERVAL_S)
            if sum(map(self._size, self._pending)) > MAX_UNCOMMITTED_BYTES:
                self._due_at = -math.inf
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="epoch writer")
            try:
                self._thread.start()
            except RuntimeError:  # no thread available: the training waits for this epoch
                self._thread = None
                self.flush()

    def check(self) -> None:
        """Raise an error that has occurred."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until what is due is committed; raises an error of that."""
        with self._changed:
            self._wait()
        self.check()

    def take(self) -> Sequence[Snapshot]:
        """Wait likewise; returns the epochs that are not committed, and leaves that to the caller."""
        with self._changed:
            self._wait()
            pending, self._pending = self._pending, []
        self.check()
        return pending

    def flush(self) -> None:
        """Wait likewise, and commit what is not committed."""
        if pending := self.take():
            self._commit_now(pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join()

    def _wait(self) -> None:
        self._changed.wait_for(lambda: not self._is_committing and not (self._thread is not None and self._is_due()))

    def _run(self) -> None:
        while epochs := self._next_due():
            try:
                self._context.run(self._commit_now, epochs)
            except BaseException as error:  # noqa: BLE001 - the training thread raises it
                self._error = error
            with self._changed:
                self._is_committing = False
                self._changed.notify_all()

    def _next_due(self) -> Sequence[Snapshot]:
        """Wait until epochs must be committed; empty: the writer is closed."""
        with self._changed:
            while not self._is_closed:
                if self._is_due():
                    epochs, self._pending, self._is_committing = self._pending, [], True
                    return epochs
                self._changed.wait(max(0.0, self._due_at - time.monotonic()) if self._pending else None)
            return ()

    def _is_due(self) -> bool:
        return bool(self._pending) and self._due_at <= time.monotonic()

    def _commit_now(self, epochs: Sequence[Snapshot]) -> None:
        records = self._store(epochs)
        with self._pace.measured():
            self._commit(records)
        self._committed_at = time.monotonic()
