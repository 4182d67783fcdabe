"""Progress of uploads, visible to their owners: short files in the folder that all web processes share.

An upload is identified by an id that its sender chose (the header ``Upload-Id``). Its file exists while the
request is in progress; the scheduler deletes files that a killed process left behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

_WRITE_INTERVAL_S: Final = 0.25
_MAX_BYTES: Final = 1000
_ABANDONED_S: Final = 15 * 60
"""Age at which a file's upload counts as ended: no running upload pauses for so long."""
_FOLDER: Final = ".progress"


class UploadState(StrEnum):
    """What is done with an upload."""

    ABSENT = "absent"
    """It has not begun, or has ended."""
    RECEIVING = "receiving"
    READING = "reading"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadProgress:
    """The progress of an upload.

    Attributes:
        fraction: of this state, 0 to 1; ``None`` if the size of the body is not known.
    """

    state: UploadState
    received_bytes: int
    total_bytes: int | None
    fraction: float | None


_ABSENT: Final = UploadProgress(state=UploadState.ABSENT, received_bytes=0, total_bytes=None, fraction=None)


class ProgressBoard:
    """The progress of all uploads; each is visible only to its owner.

    Args:
        artifacts: the folder that all web processes share.
    """

    def __init__(self, artifacts: Path) -> None:
        self._folder = artifacts / "datasets" / _FOLDER

    @contextmanager
    def upload(self, owner: str | None, upload_id: str | None, total_bytes: int | None) -> Iterator[ProgressRecorder]:
        """Record the progress of an upload in this block; without an id, nothing is recorded."""
        path = None if upload_id is None else self._path(owner, upload_id)
        try:
            yield ProgressRecorder(path, total_bytes)
        finally:
            if path is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    path.parent.rmdir()  # unless there are others

    def look_up(self, owner: str | None, upload_id: str) -> UploadProgress:
        """The progress of an upload of this owner."""
        try:
            with self._path(owner, upload_id).open() as file:
                if time.time() - os.fstat(file.fileno()).st_mtime > _ABANDONED_S:
                    return _ABSENT
                document = json.loads(file.read(_MAX_BYTES))
        except FileNotFoundError:
            return _ABSENT
        return UploadProgress(**document | {"state": UploadState(document["state"])})

    def _path(self, owner: str | None, upload_id: str) -> Path:
        """The file's path: cannot be guessed without the owner's name, and is safe for any id."""
        digest = hashlib.sha256(json.dumps([owner, upload_id]).encode()).hexdigest()
        return self._folder / f"{digest}.json"


class ProgressRecorder:
    """Records the progress of one upload, a few times a second."""

    def __init__(self, path: Path | None, total_bytes: int | None) -> None:
        self._path, self._total = path, total_bytes
        self._received = 0
        self._next_write_at = 0.0
        self._state: UploadState | None = None

    def received(self, count: int) -> None:
        """Add a number of received bytes."""
        self._received += count
        fraction = self._received / self._total if self._total else None
        self._record(UploadState.RECEIVING, None if fraction is None else min(fraction, 1.0))

    def read(self, fraction: float) -> None:
        """Record that the sandbox has read this fraction of the files, 0 to 1."""
        self._record(UploadState.READING, fraction)

    def _record(self, state: UploadState, fraction: float | None) -> None:
        now = time.monotonic()
        if self._path is None or (now < self._next_write_at and state is self._state):
            return
        self._next_write_at, self._state = now + _WRITE_INTERVAL_S, state
        progress = UploadProgress(
            state=state, received_bytes=self._received, total_bytes=self._total, fraction=fraction
        )
        temporary = self._path.with_suffix(".new")
        with suppress(OSError):  # nothing depends on it; the import itself reports a full disk
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(progress)))
            os.replace(temporary, self._path)
