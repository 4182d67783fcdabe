"""Files of jobs: written once under a name never used again, so that a database row can be the commit point."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from service.errors import ContractError
from service.runtime.failpoints import reach


class ArtifactKind(StrEnum):
    """What a file is to its job."""

    CHECKPOINT = "checkpoint"
    SAMPLE = "sample"
    ONNX = "onnx"
    TORCH = "torch"
    TENSORBOARD = "tensorboard"
    HUGGINGFACE = "huggingface"


EXPORTS: Final = (ArtifactKind.ONNX, ArtifactKind.TORCH, ArtifactKind.TENSORBOARD, ArtifactKind.HUGGINGFACE)
"""What is made on request from the other files. A job has at most one of a kind for each epoch."""
MEDIA_TYPES = {
    ArtifactKind.CHECKPOINT: "application/octet-stream",
    ArtifactKind.SAMPLE: "image/png",
    ArtifactKind.ONNX: "application/octet-stream",
    ArtifactKind.TORCH: "application/zip",
    ArtifactKind.TENSORBOARD: "application/zip",
    ArtifactKind.HUGGINGFACE: "application/zip",
}
SUFFIXES = {
    ArtifactKind.CHECKPOINT: "safetensors",
    ArtifactKind.SAMPLE: "png",
    ArtifactKind.ONNX: "onnx",
    ArtifactKind.TORCH: "zip",
    ArtifactKind.TENSORBOARD: "zip",
    ArtifactKind.HUGGINGFACE: "zip",
}
_DERIVED: Final = "derived"
"""The kind of what can be made again, which has no rows."""
_UNFINISHED: Final = ".tmp"
_BATCH: Final = 1000


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


def _open_beneath(root: Path, path: str) -> int:
    """Open a regular file step by step, so that no link leads out on the way, whoever may have put one there."""
    *folders, name = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in (*folders, name)):
        raise OSError(errno.ENOENT, "not a name that this store assigned")
    beneath = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inside = os.open(folder, beneath | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = inside
        file = os.open(name, beneath | os.O_NONBLOCK, dir_fd=here)  # a pipe would make us wait for its writer
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EISDIR, "not a regular file")
    return file


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that lies on disk for good, but that no row names yet."""

    kind: ArtifactKind
    epoch: int
    path: str
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store has, whether a row names it or not."""

    path: str
    size_bytes: int
    age_s: float

    @property
    def job_id(self) -> str:
        """The job whose file it is or was."""
        return self.path.partition("/")[0]

    @property
    def is_derived(self) -> bool:
        """Whether it is a cached picture, which has no row and can be made again."""
        return self.path.split("/")[1:2] == [_DERIVED] and not self.path.endswith(_UNFINISHED)


class ArtifactStore(ABC):
    """Where the files of jobs lie. A store gives the six abstract methods; the rest is made of them.

    A path is ``job/kind/name``, made here and never named by a client.
    """

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Store bytes so that they survive a power cut, whole or not at all.

        Raises:
            OSError: they could not be stored, and nothing of them is left.
        """

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, following no link.

        Raises:
            ArtifactDamaged: the file is missing.
        """

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, where they are there."""

    @abstractmethod
    def stored(self, job_id: str | None = None) -> Iterator[Stored]:
        """Everything that is stored, or everything of one job; the files of a job come one after the other."""

    @abstractmethod
    def remove_job(self, job_id: str) -> None:
        """Remove everything of a deleted job."""

    @abstractmethod
    def check_writable(self) -> None:
        """Raise OSError where nothing can be stored."""

    def write(self, job_id: str, kind: ArtifactKind, epoch: int, lease: int, data: bytes) -> StoredFile:
        """Store a file of a job.

        The name holds the lease and the content's hash: a worker that has lost its lease cannot overwrite
        what its successor wrote.
        """
        digest, suffix = hashlib.sha256(data).hexdigest(), SUFFIXES[kind]
        path = f"{job_id}/{kind}/{epoch:06d}-{lease}-{digest[:16]}.{suffix}"
        self.put(path, data)
        return StoredFile(
            kind=kind,
            epoch=epoch,
            path=path,
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
        with self.open(path) as file:
            try:
                data = file.read()
            except OSError as error:
                raise _unreadable(path, error) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactDamaged(path, "its SHA-256 differs from the stored one")
        return data

    def keep(self, job_id: str, stem: str, version: str, data: bytes) -> None:
        """Keep something that can be made again, in the place of its earlier versions.

        Raises:
            OSError: it could not be kept.
        """
        path = f"{job_id}/{_DERIVED}/{stem}-{version}"
        self.put(path, data)
        older = f"{job_id}/{_DERIVED}/{stem}-"
        suffix = Path(version).suffix
        known = [item.path for item in self.stored(job_id) if item.path.startswith(older)]
        self.remove(name for name in known if name != path and Path(name).suffix == suffix)

    def recall(self, job_id: str, stem: str, version: str) -> bytes | None:
        """What was kept; ``None``: make it again."""
        try:
            with self.open(f"{job_id}/{_DERIVED}/{stem}-{version}") as file:
                return file.read()
        except (ArtifactDamaged, OSError):
            return None

    def orphans(
        self,
        named: Callable[[Sequence[str]], Mapping[str, Container[str]]],
        *,
        older_than_s: float,
        among: Iterable[Stored] | None = None,
    ) -> Iterator[Stored]:
        """Orphaned files: old ones that no row names. A worker wrote them and could not commit, or never finished, or
        they are left of jobs that are gone. Cached pictures of jobs that exist are none.

        Args:
            named: gives the paths that the rows of jobs name, for those of the jobs that there are.
            among: everything that is stored, where the caller looks through it as well.
        """

        def check(batch: list[Stored]) -> Iterator[Stored]:
            known = named(sorted({item.job_id for item in batch}))
            for item in batch:
                paths = known.get(item.job_id)
                if paths is None or (item.path not in paths and not item.is_derived):
                    yield item

        batch: list[Stored] = []
        for item in self.stored() if among is None else among:
            if item.age_s > older_than_s:
                batch.append(item)
            if len(batch) >= _BATCH:
                yield from check(batch)
                batch = []
        if batch:
            yield from check(batch)

    def sweep(
        self, named: Callable[[Sequence[str]], Mapping[str, Container[str]]], *, older_than_s: float
    ) -> list[Stored]:
        """Remove the ``orphans``, and give what they were."""
        found = list(self.orphans(named, older_than_s=older_than_s))
        self.remove(item.path for item in found)
        return found


class ArtifactFolder(ArtifactStore):
    """A folder that web and workers share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, data: bytes) -> None:
        """As it says: temporary name, fsync, rename, fsync of the folder."""
        target = self.root / path
        folder, kind = target.parent, target.parent.name
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self._sync(folder.parent)
            self._sync(self.root)
        temporary = folder / f".{uuid4().hex}{_UNFINISHED}"
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

    def open(self, path: str) -> BinaryIO:
        """As it says."""
        try:
            return os.fdopen(_open_beneath(self.root, path), "rb")
        except OSError as error:
            raise _unreadable(path, error) from error

    def remove(self, paths: Iterable[str]) -> None:
        """As it says."""
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    def stored(self, job_id: str | None = None) -> Iterator[Stored]:
        """As it says."""
        now = time.time()
        for top in self.root.glob("job_*/") if job_id is None else [self.root / job_id]:
            for folder, folders, names in os.walk(top):  # it passes over what is removed meanwhile
                for path in (Path(folder, name) for name in (*names, *folders)):
                    with suppress(OSError):
                        found = path.lstat()
                        if stat.S_ISDIR(found.st_mode):
                            continue
                        yield Stored(path.relative_to(self.root).as_posix(), found.st_size, now - found.st_mtime)

    def remove_job(self, job_id: str) -> None:
        """As it says."""
        shutil.rmtree(self.root / job_id, ignore_errors=True)

    def check_writable(self) -> None:
        """As it says."""
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
