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

from service.datasets.importer import DEFAULT_PHOTOS, MAX_UNPACKED_BYTES, UploadRefused, import_dataset
from service.datasets.info import Channels, ImportedDataset, OnBad, OnProgress, PhotoOptions, TableOptions
from service.datasets.tables.importing import import_table
from service.datasets.tables.plan import TABLE
from service.datasets.upload_formats import DEFAULT_TABLE, TABLE_FILE, UploadFormat, check, format_of
from service.runtime import process_limits

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
_INHERITED_VARIABLES: Final = ("PATH", "PYTHONPATH", "LANG", "HOME", "SYSTEMROOT", "LD_LIBRARY_PATH")


def import_in_sandbox(
    files: Mapping[str, Path],
    folder: Path,
    *,
    fraction: float | None,
    photos: PhotoOptions = DEFAULT_PHOTOS,
    table: TableOptions | None = None,
    on_progress: OnProgress = lambda done: None,
) -> ImportedDataset:
    """Import an upload in the sandbox, with the reader of its format.

    Raises:
        UploadRefused: the files are not a valid dataset, or exceeded the limits on memory or time.
        OSError: the result could not be written.
    """
    upload_format = format_of(files)
    cpu_s = upload_format.cpu_s
    request = {
        "files": {field: str(path) for field, path in files.items()},
        "folder": str(folder),
        "fraction": fraction,
        "photos": asdict(photos),
        "table": asdict(table or DEFAULT_TABLE),
    }
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "service.datasets.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=child_environment(),
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
    log_failure("an upload could not be read", child.returncode, log_text)
    raise UploadRefused({next(iter(files)): "cannot be read within the limits on memory and time"})


def child_environment() -> dict[str, str]:
    """The environment of a process that reads files: no keys, no addresses of other services."""
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    return inherited | {"OPENBLAS_NUM_THREADS": "1"}


def log_failure(event: str, exit_code: int, log_text: str) -> None:
    """Log that such a process failed."""
    import structlog  # only here: it loads Rich, which takes a third of the start of the process

    structlog.get_logger("tapeline.web").error(event, code=exit_code, said=log_text)


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
    files = {field: Path(path) for field, path in request["files"].items()}
    upload_format = format_of(files)
    apply_limits(upload_format.cpu_s, upload_format.memory_bytes)
    response: Any
    try:
        response = {"imported": asdict(_import(upload_format, request, files))}
    except UploadRefused as error:
        response = {"faults": error.faults}
    except OSError as error:
        json.dump({"storage": [error.errno, error.strerror]}, sys.stdout)
        return _EXIT_WRITE_FAILED
    json.dump(response, sys.stdout)
    return 0


def _import(upload_format: UploadFormat, request: Mapping[str, Any], files: Mapping[str, Path]) -> ImportedDataset:
    folder, fraction, options = Path(request["folder"]), request["fraction"], request["photos"]
    size = tuple(options["size"]) if options["size"] else None
    photos = PhotoOptions(size=size, channels=Channels(options["channels"]), on_bad=OnBad(options["on_bad"]))
    table = TableOptions(**request["table"])
    check(upload_format, files, photos, table)
    if upload_format is TABLE_FILE:
        return import_table(files[TABLE], folder, fraction=fraction, options=table, on_progress=_Reporter())
    return import_dataset(files, folder, fraction=fraction, photos=photos, on_progress=_Reporter())


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
