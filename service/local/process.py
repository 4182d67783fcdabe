"""A process of the embedded stack, with its log file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from service.local.log_writer import mark, read_between


class StackProcess:
    """A command in its own process group: Ctrl-C reaches only the stack, and the whole group can be killed.

    Args:
        log: the file with its output.
        output: descriptor to which it prints: of this file, or of the log writer that writes it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        folder: Path,
        log: Path,
        output: int,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environ = dict(environ)
        self._folder = folder
        self._pass_fds = pass_fds
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._group_ended = False
        self._begin = ""
        self.started_at = 0.0
        """Monotonic clock, in seconds."""

    @property
    def pid(self) -> int:
        """The process id, which is also the process group's; after the exit, that of the last run."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    def start(self) -> None:
        """Run the command; its output is appended to the log."""
        self._begin = mark(self._output, f"{self.name} starts")
        self._process = subprocess.Popen(
            self._command,
            env=self._environ,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=self._pass_fds,
            process_group=0,
        )
        self._group_ended = False
        self.started_at = time.monotonic()

    def exit_code(self) -> int | None:
        """``None`` before the start and while it runs; negative for a signal."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout_s: float) -> int:
        """Wait for the exit code.

        Raises:
            TimeoutError: the process still runs.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{self.name} still runs after {timeout_s:g} s") from error

    def terminate(self) -> None:
        """Send SIGTERM, if the process was started."""
        if self._process is not None:
            self._process.terminate()

    def end(self, timeout_s: float) -> None:
        """Wait up to ``timeout_s`` seconds for the exit, then kill the whole process group."""
        if self._process is None or self._group_ended:  # the id may have been reused
            return
        with suppress(TimeoutError):
            self.wait(timeout_s)
        with suppress(ProcessLookupError, PermissionError):  # macOS: PermissionError if only a zombie is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._group_ended = True

    def tail(self, lines: int = 12) -> str:
        """The last lines in the log of this run."""
        code = self.exit_code()
        end = mark(self._output, f"{self.name} runs" if code is None else f"{self.name} ended ({describe_exit(code)})")
        return "\n".join(read_between(self.log, self._begin, end)[-lines:])


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
