"""Reads files from strangers in a process of their own, which may use little memory and time.

``python -m service.datasets.sandbox`` is that process: an order comes as JSON over its standard input, and an
answer goes back over its standard output. It knows no database, no key and no address.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from service.datasets.importer import MAX_UNPACKED_BYTES, UploadRefused, as_document, import_dataset
from service.datasets.info import ImportedDataset

MEMORY_BYTES: Final = 48 * 2**20
"""What the process may map beyond what it has once NumPy is loaded."""
CPU_S: Final = 60
WALL_S: Final = 120
_FILES: Final = 32
_STORAGE: Final = 3
"""Exit code where the result could not be written."""
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "LANG", "HOME", "SYSTEMROOT", "LD_LIBRARY_PATH")

_log = structlog.get_logger("tapeline.web")


def import_in_sandbox(files: Mapping[str, Path], folder: Path, *, fraction: float | None) -> ImportedDataset:
    """As ``importer.import_dataset``, in a process of its own.

    Raises:
        UploadRefused: the files are no dataset, or took more memory or time than a dataset does.
        OSError: the result could not be written.
    """
    order = {"files": {field: str(path) for field, path in files.items()}, "folder": str(folder), "fraction": fraction}
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "service.datasets.sandbox"],
            input=json.dumps(order).encode(),
            capture_output=True,
            env=environ,
            timeout=WALL_S,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise UploadRefused({next(iter(files)): f"was not read within {WALL_S} seconds"}) from error
    if done.returncode == 0:
        answer = json.loads(done.stdout)
        if "faults" in answer:
            raise UploadRefused(answer["faults"])
        return ImportedDataset(**answer["taken"])
    if done.returncode == _STORAGE:
        raise OSError(*json.loads(done.stdout))
    _log.error("an upload could not be read", code=done.returncode, said=done.stderr.decode("utf-8", "replace")[-2000:])
    raise UploadRefused({next(iter(files)): "cannot be read within the limits on memory and time"})


def main() -> int:
    """Read one order, obey, answer."""
    _limit()
    order = json.load(sys.stdin)
    files = {field: Path(path) for field, path in order["files"].items()}
    answer: Any
    try:
        answer = {"taken": as_document(import_dataset(files, Path(order["folder"]), fraction=order["fraction"]))}
    except UploadRefused as error:
        answer = {"faults": error.faults}
    except OSError as error:
        json.dump([error.errno, error.strerror], sys.stdout)
        return _STORAGE
    json.dump(answer, sys.stdout)
    return 0


def _limit() -> None:
    """Bind this process, for good."""
    limits = {
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_FSIZE: MAX_UNPACKED_BYTES + 2**20,
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform == "linux":  # elsewhere the limit of memory is not kept, or counts what the system maps
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = mapped + MEMORY_BYTES
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    for name, limit in limits.items():
        _, hard = resource.getrlimit(name)
        resource.setrlimit(name, (limit, limit) if hard in (resource.RLIM_INFINITY,) or hard > limit else (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
