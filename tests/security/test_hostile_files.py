"""Every hostile file, sent over HTTP to the running stack: refused with a reason, at once, and for little memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.security.conftest import Stack
from tests.security.hostile_files import GOOD_IMAGES, GOOD_LABELS, Upload, hostile

pytestmark = pytest.mark.hostile

MAX_S = 1.0
MAX_BYTES = 100 * 2**20
CORPUS = list(hostile())


def processes(home: Path) -> dict[int, str]:
    """The web processes of a stack and what they have started: pid, and whether it is one that reads uploads."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if b"service.datasets.sandbox" in command:
                found[int(folder.name)] = "reader"
            elif b"gunicorn" in command and str(home).encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = "web"
        except OSError:
            continue
    return found


def memory(pid: int, name: str) -> int:
    """``VmRSS``, what a process has in memory, or ``VmHWM``, the most that it had; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


class Meter:
    """Watches the processes of a stack while something is done to it."""

    def __init__(self, home: Path) -> None:
        self._home, self._stop = home, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._before = {pid: memory(pid, "VmRSS") for pid, kind in processes(home).items() if kind == "web"}
        for pid in self._before:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the most that it had is what it has now
        self.reader_bytes = 0

    def __enter__(self) -> Meter:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        self._stop.set()
        self._thread.join()
        self.web_bytes = max(memory(pid, "VmHWM") - before for pid, before in self._before.items())

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            for pid, kind in processes(self._home).items():
                if kind == "reader":
                    self.reader_bytes = max(self.reader_bytes, memory(pid, "VmHWM"))


def test_the_corpus_is_large_and_a_good_upload_passes(stack: Stack) -> None:
    assert len({title for title, _ in CORPUS}) == len(CORPUS) >= 40
    with stack.client("ann") as http:
        answer = http.post("/datasets", data={"name": "good"}, files={"images": GOOD_IMAGES, "labels": GOOD_LABELS})
        assert answer.status_code == 201, answer.text
        assert http.delete("/datasets/good").status_code == 204


@pytest.mark.parametrize(("title", "files"), CORPUS, ids=[title for title, _ in CORPUS])
def test_a_hostile_file_is_refused(stack: Stack, title: str, files: Upload) -> None:
    for _ in range(3):  # a machine with other work is slow now and then, a file that holds us up is so every time
        with stack.client("ann") as http, Meter(stack.home) as meter:
            answer = http.post("/datasets", data={"name": "evil"}, files=dict(files))
        if meter.seconds < MAX_S:
            break
    print(f"{title}: {meter.seconds:.2f} s, web +{meter.web_bytes >> 20} MiB, reader {meter.reader_bytes >> 20} MiB")
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_upload"
    assert "memory and time" not in answer.text, "the reader itself broke, or was stopped by its limits"
    assert str(stack.home) not in answer.text
    assert meter.seconds < MAX_S
    assert max(meter.web_bytes, meter.reader_bytes) < MAX_BYTES
    assert not list((stack.home / "artifacts" / "datasets").iterdir())
