"""The cost of a request to the processes of a running stack."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.processor_time import cpu_seconds

MAX_S = 1.0
"""Of processor time, which depends little on what else the machine does."""
MAX_BYTES = 100 * 2**20


def processes(home: Path) -> dict[int, str]:
    """Map the pids of a stack's web processes, and of the upload readers that they started, to their kind."""
    kinds = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if b"service.datasets.sandbox" in command:
                kinds[int(folder.name)] = "reader"
            elif b"gunicorn" in command and str(home).encode() in (folder / "environ").read_bytes():
                kinds[int(folder.name)] = "web"
        except OSError:
            continue
    return kinds


def web_processes(home: Path) -> list[int]:
    pids = [pid for pid, kind in processes(home).items() if kind == "web"]
    assert pids
    return pids


def memory_bytes(pid: int, name: str) -> int:
    """``VmRSS``, the memory of a process in bytes, or ``VmHWM``, its peak; 0 if the process has exited."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


class Meter:
    """Measures processor time and memory of the web processes of a stack and their upload readers during a block."""

    def __init__(self, home: Path) -> None:
        self._home, self._stop = home, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._before = {pid: memory_bytes(pid, "VmRSS") for pid in web_processes(home)}
        for pid in self._before:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak to the current value
        self.reader_bytes = 0

    def __enter__(self) -> Meter:
        self._seconds_before = cpu_seconds(self._before)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.seconds = cpu_seconds(self._before) - self._seconds_before
        self.web_bytes = max(memory_bytes(pid, "VmHWM") - before for pid, before in self._before.items())

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            for pid, kind in processes(self._home).items():
                if kind == "reader":
                    self.reader_bytes = max(self.reader_bytes, memory_bytes(pid, "VmHWM"))
