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
"""Size of the files beyond which they are committed earlier: a commit may remove older ones."""

Snapshot = TypeVar("Snapshot")
Record = TypeVar("Record")


class EpochWriter(Generic[Snapshot, Record]):
    """Stores the files of one epoch at a time, in order: ``wait`` before each ``start``. Commits it at once if the last
    commit was long ago, otherwise when that is so, or together with the epochs that follow, or with the result.

    An error is raised in the training thread: after the current batch by ``check``, otherwise by ``wait``. Leaving the
    context commits what is left; an error of that replaces one of the later epoch, which would not exist if there were
    only one thread.

    Args:
        store: stores the files of an epoch; returns what its commit needs.
        commit: commits consecutive epochs.
        size: the bytes of the files of an epoch, which take space until the commit.
    """

    def __init__(
        self,
        store: Callable[[Snapshot], Record],
        commit: Callable[[Sequence[Record]], None],
        size: Callable[[Record], int],
    ) -> None:
        self._store, self._commit, self._size = store, commit, size
        self._thread: threading.Thread | None = None
        self._stored: list[Record] = []
        """Epochs that are not committed."""
        self._is_next_done = threading.Event()
        self._committed_at = float("-inf")
        self._pace = Pace(_EXPECTED_COMMIT_S, _MAX_SLOWDOWN)
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the epoch that was finished last is not committed."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, snapshot: Snapshot, *, ends_in_s: float = math.inf) -> None:
        """Begin to store an epoch. That runs in the current context, as for log lines and NumPy's error handling.

        Args:
            ends_in_s: when the training ends well, about; ``take`` follows.
        """
        context = contextvars.copy_context()
        self._is_next_done.clear()
        arguments = (self._run, snapshot, ends_in_s <= SOON_S)
        self._thread = threading.Thread(target=context.run, args=arguments, name="epoch writer")
        try:
            self._thread.start()
        except RuntimeError:  # no thread available: the training waits for this epoch
            self._thread = None
            self._is_next_done.set()
            self._run(snapshot, ends_soon=False)

    def check(self) -> None:
        """Raise an error that has occurred."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the files are stored, and a commit that has begun has finished; raises its error."""
        self._is_next_done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def take(self) -> Sequence[Record]:
        """Wait likewise; returns the epochs that are not committed, and leaves that to the caller."""
        self.wait()
        stored, self._stored = self._stored, []
        return stored

    def flush(self) -> None:
        """Wait likewise, and commit what is not committed."""
        self.wait()
        if self._stored:
            self._commit_stored()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            if self._stored:
                self._commit_stored()

    def _run(self, snapshot: Snapshot, ends_soon: bool) -> None:
        try:
            self._stored.append(self._store(snapshot))
            is_large = sum(map(self._size, self._stored)) > MAX_UNCOMMITTED_BYTES
            remaining_s = self._committed_at + COMMIT_INTERVAL_S * self._pace.factor - time.monotonic()
            if ends_soon:
                remaining_s = max(remaining_s, COMMIT_INTERVAL_S)
            if is_large or remaining_s <= 0 or not self._is_next_done.wait(remaining_s):
                self._commit_stored()
        except BaseException as error:  # noqa: BLE001 - the training thread raises it
            self._error = error

    def _commit_stored(self) -> None:
        stored, self._stored = self._stored, []
        with self._pace.measured():
            self._commit(stored)
        self._committed_at = time.monotonic()
