"""An artifact store in memory, the minimal implementation of the protocol."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

from service.storage.artifacts import ArtifactDamaged, ArtifactStore, Stored


class MemoryStore(ArtifactStore):
    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, float]] = {}

    def put_all(self, contents: Mapping[str, bytes]) -> None:
        self.files |= {path: (data, time.time()) for path, data in contents.items()}

    def open(self, path: str) -> BinaryIO:
        if path not in self.files:
            raise ArtifactDamaged(path, "is not there")
        return io.BytesIO(self.files[path][0])

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.files.pop(path, None)

    def stored(self, job_id: str | None = None) -> Iterator[Stored]:
        for path, (data, written_at) in sorted(self.files.items()):
            if job_id is None or path.startswith(f"{job_id}/"):
                yield Stored(path, len(data), time.time() - written_at)

    def remove_job(self, job_id: str) -> None:
        self.remove([item.path for item in self.stored(job_id)])

    def check_writable(self, size_bytes: int = 0) -> None:
        pass
