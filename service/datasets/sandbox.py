"""Imports untrusted files in a separate process with limited memory and time.

``python -m service.datasets.sandbox`` is that process. It reads a request as JSON from standard input. It writes lines
of JSON to standard output: the fraction that is done, a few times a second, and the response as the last one. It has no
access to the database, to keys or to addresses of other services.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final

from service.datasets.formats.photos import is_npz
from service.datasets.importer import (
    ARCHIVE,
    DEFAULT_PHOTOS,
    MAX_UNPACKED_BYTES,
    UploadRefused,
    import_dataset,
)
from service.datasets.info import Channels, ImportedDataset, OnBad, OnProgress, PhotoOptions, TableOptions
from service.datasets.tables.importing import import_table
from service.datasets.tables.plan import TABLE
from service.runtime import process_limits

MEMORY_BYTES: Final = 48 * 2**20
"""Memory that the process may map in addition to what it has after importing NumPy."""
CPU_S: Final = 60
PHOTO_MEMORY_BYTES: Final = 512 * 2**20
"""The same for archives of images: enough to decode, rotate and scale an image of 32 million pixels."""
PHOTO_CPU_S: Final = 300
TABLE_MEMORY_BYTES: Final = 192 * 2**20
"""The same for tables: enough for the labels of 10 million rows, and blocks of 2,000 columns."""
TABLE_CPU_S: Final = 300
_WALL_FACTOR: Final = 2
_MAX_OPEN_FILES: Final = 32
_OOM_SCORE: Final = 1000
NICENESS: Final = 3
"""Of a process that reads files: it yields to the web process and to those that start, but not to trainings."""
_REPORT_INTERVAL_S: Final = 0.2
_MAX_RESPONSE_BYTES: Final = 64 * 2**20
_MAX_LOG_BYTES: Final = 2000
_EXIT_WRITE_FAILED: Final = 3
"""Exit code if the result could not be written."""
INHERITED_VARIABLES: Final = ("PATH", "PYTHONPATH", "LANG", "HOME", "SYSTEMROOT", "LD_LIBRARY_PATH")


def import_in_sandbox(
    files: Mapping[str, Path],
    folder: Path,
    *,
    fraction: float | None,
    photos: PhotoOptions = DEFAULT_PHOTOS,
    table: TableOptions | None = None,
    on_progress: OnProgress = lambda done: None,
) -> ImportedDataset:
    """Run ``importer.import_dataset`` or, for a file ``table``, ``tables.importing.import_table`` in the sandbox.

    Raises:
        UploadRefused: the files are not a valid dataset, or exceeded the limits on memory or time.
        OSError: the result could not be written.
    """
    # The first bytes of an archive show its kind, which determines the limits.
    is_photos = ARCHIVE in files and not is_npz(files[ARCHIVE])
    cpu_s = TABLE_CPU_S if TABLE in files else PHOTO_CPU_S if is_photos else CPU_S
    memory_bytes = TABLE_MEMORY_BYTES if TABLE in files else PHOTO_MEMORY_BYTES if is_photos else MEMORY_BYTES
    request = {
        "files": {field: str(path) for field, path in files.items()},
        "folder": str(folder),
        "fraction": fraction,
        "photos": asdict(photos),
        "cpu_s": cpu_s,
        "memory_bytes": memory_bytes,
        "table": asdict(table or TableOptions()),
    }
    environ = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ} | {
        "OPENBLAS_NUM_THREADS": "1"
    }
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "service.datasets.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environ,
            start_new_session=True,
        )
        with child, _kill_after(child, _WALL_FACTOR * cpu_s) as is_late:
            response = _exchange(child, request, on_progress)
        if is_late.is_set():
            raise UploadRefused({next(iter(files)): f"was not read within {_WALL_FACTOR * cpu_s} seconds"})
        if child.returncode == 0 and "imported" in response:
            return ImportedDataset(**response["imported"])
        if child.returncode == 0 and "faults" in response:
            raise UploadRefused(response["faults"])
        if child.returncode == _EXIT_WRITE_FAILED and "storage" in response:
            raise OSError(*response["storage"])
        log.seek(max(0, log.seek(0, os.SEEK_END) - _MAX_LOG_BYTES))
        log_text = log.read().decode("utf-8", "replace")
    import structlog  # only here: it loads Rich, which takes a third of the start of the process

    structlog.get_logger("tapeline.web").error("an upload could not be read", code=child.returncode, said=log_text)
    raise UploadRefused({next(iter(files)): "cannot be read within the limits on memory and time"})


@contextmanager
def _kill_after(child: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill a process that takes longer; the event is set if this happened."""
    is_late = threading.Event()

    def kill() -> None:
        is_late.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield is_late
        child.wait()
    except BaseException:
        child.kill()
        raise
    finally:
        timer.cancel()


def _exchange(child: subprocess.Popen[bytes], request: Mapping[str, Any], on_progress: OnProgress) -> dict[str, Any]:
    """Send a request to the process; returns its response, or an empty dict if there is none."""
    stdin, stdout = _pipe(child.stdin), _pipe(child.stdout)
    try:
        stdin.write(json.dumps(request).encode())
        stdin.close()
    except BrokenPipeError:  # it failed at start; its exit code is checked later
        return {}
    while line := stdout.readline(_MAX_RESPONSE_BYTES):
        try:
            message = json.loads(line)
        except ValueError:  # cut off, as by a signal
            return {}
        if not isinstance(message, dict):
            return {}
        match message.get("done"):
            case None:
                return message
            case float() | int() as done if 0 <= done <= 1:
                on_progress(done)
    return {}


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the process was started without pipes")
    return pipe


def main() -> int:
    """Read one request from standard input, import the files, and write the response to standard output."""
    request = json.load(sys.stdin)
    apply_limits(request["cpu_s"], request["memory_bytes"])
    files = {field: Path(path) for field, path in request["files"].items()}
    response: Any
    try:
        imported = _import(request, files, Path(request["folder"]))
        response = {"imported": asdict(imported)}
    except UploadRefused as error:
        response = {"faults": error.faults}
    except OSError as error:
        json.dump({"storage": [error.errno, error.strerror]}, sys.stdout)
        return _EXIT_WRITE_FAILED
    json.dump(response, sys.stdout)
    return 0


def _photo_options(options: Mapping[str, Any]) -> PhotoOptions:
    return PhotoOptions(
        size=tuple(options["size"]) if options["size"] else None,
        channels=Channels(options["channels"]),
        on_bad=OnBad(options["on_bad"]),
    )


def _import(request: Mapping[str, Any], files: Mapping[str, Path], folder: Path) -> ImportedDataset:
    if TABLE in files:
        if len(files) > 1:
            raise UploadRefused({TABLE: "must be the only file"})
        photos = _photo_options(request["photos"])
        if photos != DEFAULT_PHOTOS:
            changed_options = {name for name, value in asdict(photos).items() if value != getattr(DEFAULT_PHOTOS, name)}
            raise UploadRefused(dict.fromkeys(changed_options, "is for archives of image files"))
        options = TableOptions(**request["table"])
        return import_table(
            files[TABLE], folder, fraction=request["fraction"], options=options, on_progress=_Reporter()
        )
    for name, value in request["table"].items():
        if value:
            raise UploadRefused({name: "is for tables"})
    photos = _photo_options(request["photos"])
    return import_dataset(files, folder, fraction=request["fraction"], photos=photos, on_progress=_Reporter())


class _Reporter:
    """Reports the progress to the parent process, a few times a second."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _REPORT_INTERVAL_S

    def __call__(self, done: float) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _REPORT_INTERVAL_S
            sys.stdout.write(json.dumps({"done": round(done, 4)}) + "\n")
            sys.stdout.flush()


def apply_limits(cpu_s: int, memory_bytes: int) -> None:
    """Apply the limits to this process, and lower its priority; neither can be undone."""
    os.nice(NICENESS)
    process_limits.limit(resource.RLIMIT_CPU, cpu_s, is_final=True)
    process_limits.limit(resource.RLIMIT_FSIZE, MAX_UNPACKED_BYTES + 2**20, is_final=True)
    process_limits.limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES, is_final=True)
    process_limits.limit(resource.RLIMIT_CORE, 0, is_final=True)
    process_limits.limit_memory(memory_bytes, is_final=True)
    process_limits.offer_to_oom_killer(_OOM_SCORE)


if __name__ == "__main__":
    sys.exit(main())
