"""Ends the stack's processes when the stack itself is gone without a word: kill -9, or no memory left.

Linux can send a signal at a parent's death (PR_SET_PDEATHSIG), macOS cannot. A pipe does it on both: the guard
reads from the stack, and the end of the file is the stack's death. It also outlives a child that ignores SIGTERM.

Run as a script, this file is the guard and imports the standard library only; imported, it is the stack's end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import IO, Final, cast

GRACE_S: Final = 12.0
"""So long a process may take to end by itself: a worker hands its jobs back, the web ends its streams."""


class OrphanGuard:
    """The stack's end of the pipe."""

    def __init__(self, lock: int, *, grace_s: float = GRACE_S) -> None:
        """Start the guard.

        Args:
            lock: descriptor of the lock on the state folder; the guard keeps it until everything has ended, so
                that the next stack does not meet what is left of this one.
            grace_s: how long a process may take to end by itself.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(grace_s)],
            bufsize=0,
            stdin=subprocess.PIPE,
            pass_fds=[lock],
            start_new_session=True,
        )
        self._pipe = cast(IO[bytes], self._process.stdin)

    @property
    def alive(self) -> bool:
        """Whether it still watches."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def watch(self, group: int) -> None:
        """End this process group should the stack die."""
        self._say(f"+{group}")

    def forget(self, group: int) -> None:
        """The group is gone."""
        self._say(f"-{group}")

    def dismiss(self) -> None:
        """Everything has ended well."""
        if not self._pipe.closed:
            self._say("done")
            self._pipe.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        with suppress(BrokenPipeError):  # whoever looks at ``alive`` next starts another guard
            self._pipe.write(f"{line}\n".encode())


def _keep_watch(grace_s: float) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        match line[0], line[1:].strip():
            case "+", group:
                groups.add(int(group))
            case "-", group:
                groups.discard(int(group))
            case _:
                return
    for group in groups:
        with suppress(OSError):
            os.kill(group, signal.SIGTERM)  # its leader, who passes the stop on
    deadline = time.monotonic() + grace_s
    while groups and time.monotonic() < deadline:
        groups = {group for group in groups if _exists(group)}
        time.sleep(0.05)
    for group in groups:
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    _keep_watch(float(sys.argv[1]))
