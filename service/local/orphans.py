"""Ends the stack's processes when the stack itself was killed (kill -9, out of memory).

Linux can signal the death of a parent (PR_SET_PDEATHSIG), macOS cannot. A pipe works on both: the guard reads from the
stack, and end of file means that the stack is dead. The guard also kills children that ignore SIGTERM.

Run as a script, this file is the guard and imports only the standard library; imported, it is the stack's end of the
pipe.
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
"""Grace period for the exit of a process: workers release their jobs, the web process ends its streams."""


class OrphanReaper:
    """The stack's end of the pipe."""

    def __init__(self, lock: int, *, grace_s: float = GRACE_S) -> None:
        """Start the guard.

        Args:
            lock: descriptor of the lock on the state folder. The guard holds it until all processes have exited, so
                that the next stack cannot start before.
            grace_s: how long processes may take to exit before they are killed.
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
        """Whether the guard runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The guard's process id."""
        return self._process.pid

    def watch(self, group: int) -> None:
        """Add a process group, to be ended if the stack dies."""
        self._send(f"+{group}")

    def forget(self, group: int) -> None:
        """Remove a process group that has exited."""
        self._send(f"-{group}")

    def dismiss(self) -> None:
        """Stop the guard: all processes have exited."""
        if not self._pipe.closed:
            self._send("done")
            self._pipe.close()
        self._process.wait()

    def _send(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the stack checks ``alive`` and starts another guard
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
            os.kill(group, signal.SIGTERM)  # the group's leader, which stops its children
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
