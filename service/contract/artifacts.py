"""Files of jobs: written once under a name never used again, so that a database row can be the commit point."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from service.contract.errors import ContractError
from service.contract.failpoints import reach


class ArtifactKind(StrEnum):
    """What a file is to its job."""

    CHECKPOINT = "checkpoint"
    SAMPLE = "sample"


MEDIA_TYPES = {ArtifactKind.CHECKPOINT: "application/octet-stream", ArtifactKind.SAMPLE: "image/png"}
_SUFFIXES = {ArtifactKind.CHECKPOINT: "safetensors", ArtifactKind.SAMPLE: "png"}


class ArtifactDamaged(ContractError):
    """A file is missing or its bytes are not those that were written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class ArtifactUnreadable(ArtifactDamaged):
    """A file cannot be read now (a share that does not answer, no rights, no descriptors left): another time it may."""


_LOST = frozenset({errno.ENOENT, errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENOTDIR})
"""What the system says of a file whose bytes are gone for good."""


def _unreadable(path: str, error: OSError) -> ArtifactDamaged:
    kind = ArtifactDamaged if error.errno in _LOST else ArtifactUnreadable
    return kind(path, error.strerror or str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that lies on disk for good, but that no row names yet."""

    kind: ArtifactKind
    epoch: int
    path: str
    name: str
    size_bytes: int
    sha256: str


class ArtifactFolder:
    """A folder that web and workers share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, job_id: str, kind: ArtifactKind, epoch: int, lease: int, data: bytes) -> StoredFile:
        """Put bytes on disk so that they survive a power cut: temporary name, fsync, rename, fsync of the folder.

        The name holds the lease and the content's hash: a worker that has lost its lease cannot overwrite
        what its successor wrote.
        """
        digest = hashlib.sha256(data).hexdigest()
        suffix = _SUFFIXES[kind]
        folder = self.root / job_id / kind
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self._sync(folder.parent)
            self._sync(self.root)
        target = folder / f"{epoch:06d}-{lease}-{digest[:16]}.{suffix}"
        temporary = folder / f".{uuid4().hex}.tmp"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            reach("file_written", kind)
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        reach("file_renamed", kind)
        self._sync(folder)
        return StoredFile(
            kind=kind,
            epoch=epoch,
            path=f"{job_id}/{kind}/{target.name}",
            name=f"{kind}-{epoch:04d}.{suffix}",
            size_bytes=len(data),
            sha256=digest,
        )

    def copy(self, path: str, sha256: str, *, job_id: str, kind: ArtifactKind, epoch: int) -> StoredFile:
        """Copy a file of one job into the folder of another that is about to be made, as durably as ``write``.

        Raises:
            ArtifactDamaged: the file is missing or not what was written.
        """
        # Lease 0: no worker wrote this one.
        return self.write(job_id, kind, epoch, 0, self.read(path, sha256))

    def read(self, path: str, sha256: str) -> bytes:
        """All bytes of a file, checked.

        Raises:
            ArtifactDamaged: the file is missing or not what was written.
        """
        try:
            data = (self.root / path).read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactDamaged(path, "its SHA-256 is not the one that was stored")
        return data

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, following no link.

        Raises:
            ArtifactDamaged: the file is missing.
        """
        try:
            return os.fdopen(os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        except OSError as error:
            raise _unreadable(path, error) from error

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files that no row names any more."""
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    def sweep(self, named: Callable[[str], Container[str]], *, older_than_s: float) -> list[str]:
        """Remove old files that no row names: what a worker wrote and could not commit, or never finished.

        Args:
            named: gives the paths that rows of a job name.
        """
        deadline = time.time() - older_than_s
        removed = []
        for folder in self.root.glob("*/"):
            files = [path for kind in ArtifactKind for path in (folder / kind).glob("*")]
            old = [path for path in files if path.lstat().st_mtime < deadline]
            if old:
                kept = named(folder.name)
                removed += [name for path in old if (name := str(path.relative_to(self.root))) not in kept]
        self.remove(removed)
        return removed

    def remove_job(self, job_id: str) -> None:
        """Remove everything of a deleted job."""
        shutil.rmtree(self.root / job_id, ignore_errors=True)

    def check_writable(self) -> None:
        """Raise OSError where no file can be made."""
        self.root.mkdir(parents=True, exist_ok=True)
        probe = self.root / f".{uuid4().hex}.tmp"
        probe.touch()
        probe.unlink()

    @staticmethod
    def _sync(folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
