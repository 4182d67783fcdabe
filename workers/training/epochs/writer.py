"""A thread that commits an epoch while the next one is trained."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class EpochWriter:
    """Commits one epoch at a time, in order: ``wait`` before each ``start``.

    An error of a commit is raised in the training thread: after the current batch by ``check``, otherwise by ``wait``.
    Leaving the context also waits; the error of a commit then replaces one of the later epoch, which would not exist
    if there were only one thread.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the commit that was started last is not finished."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, commit: Callable[[], None]) -> None:
        """Begin a commit. It runs in the current context, as for log lines and NumPy's error handling."""
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run, commit), name="epoch writer")
        try:
            self._thread.start()
        except RuntimeError:  # no thread available: the training waits for this commit
            self._thread = None
            self._run(commit)

    def check(self) -> None:
        """Raise the error of a commit that has failed."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the commit has finished, and raise its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()

    def _run(self, commit: Callable[[], None]) -> None:
        try:
            commit()
        except BaseException as error:  # noqa: BLE001 - the training thread raises it
            self._error = error
