"""The artifact store. Files are written once, under names that are never reused, so a database row can be the commit
point."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from service.errors import ServiceError
from service.runtime.failpoints import reach


class ArtifactKind(StrEnum):
    """The kinds of artifacts."""

    CHECKPOINT = "checkpoint"
    SAMPLE = "sample"
    ONNX = "onnx"
    TORCH = "torch"
    TENSORBOARD = "tensorboard"
    HUGGINGFACE = "huggingface"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """A format in which a trained model is exported.

    Attributes:
        contents: a sentence.
        library: the optional library that creates it; ``None`` if it needs none.
        has_weights: of one checkpoint; otherwise, it has all epochs.
        has_history: whether it contains tags, status and epochs of the job.
        has_card: whether it contains a model card, which names a license.
    """

    label: str
    contents: str
    library: str | None = None
    suffix: str = "zip"
    media_type: str = "application/zip"
    has_weights: bool = True
    has_history: bool = False
    has_card: bool = False

    @property
    def missing(self) -> ExtraMissing | None:
        """Why this process cannot create the format; ``None`` if it can."""
        return None if self.library is None or find_spec(self.library) is not None else ExtraMissing(self.library)


class ExtraMissing(ServiceError):
    """An optional library is not installed."""

    code = "extra_missing"

    def __init__(self, library: str) -> None:
        self.library = library
        self.command = f"pip install {library}"
        remedy = f"{self.command} (with make up: .venv/bin/{self.command})"
        super().__init__(f"{library} is not installed where the service runs; install it there with: {remedy}")


EXPORTS: Final = {
    ArtifactKind.ONNX: ExportFormat(
        label="ONNX",
        contents="One file for onnxruntime and other runtimes, preprocessing included.",
        library="onnx",
        suffix="onnx",
        media_type="application/octet-stream",
    ),
    ArtifactKind.TORCH: ExportFormat(label="PyTorch", contents="A module that needs only torch, and its weights."),
    ArtifactKind.HUGGINGFACE: ExportFormat(
        label="Hugging Face",
        contents="Model card, weights, ONNX and PyTorch in one folder.",
        library="onnx",
        has_history=True,
        has_card=True,
    ),
    ArtifactKind.TENSORBOARD: ExportFormat(
        label="TensorBoard",
        contents="All metrics, samples and settings as event files.",
        library="tensorboardX",
        has_weights=False,
        has_history=True,
    ),
}
"""The formats. Their files are artifacts that are created on request; at most one of each per epoch."""
EXPORT_NAMES: Final[Mapping[str, ArtifactKind]] = {kind.value: kind for kind in EXPORTS} | {
    "pytorch": ArtifactKind.TORCH
}
MEDIA_TYPES: Final = {
    ArtifactKind.CHECKPOINT: "application/octet-stream",
    ArtifactKind.SAMPLE: "image/png",
    **{kind: entry.media_type for kind, entry in EXPORTS.items()},
}
SUFFIXES: Final = {
    ArtifactKind.CHECKPOINT: "safetensors",
    ArtifactKind.SAMPLE: "png",
    **{kind: entry.suffix for kind, entry in EXPORTS.items()},
}
_DERIVED: Final = "derived"
"""The folder for cached images, which can be rendered again and have no rows."""
_UNFINISHED: Final = ".tmp"
_BATCH: Final = 1000
_PROBE_CHUNK_BYTES: Final = 2**20
_COPY_BYTES: Final = 2**25
"""Files are copied together up to this size, because syncing several at once takes less time."""


class ArtifactDamaged(ServiceError):
    """A file is missing, or its content differs from what was written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class ArtifactUnreadable(ArtifactDamaged):
    """A file cannot be read, perhaps temporarily: an unavailable share, missing permissions, no free descriptors."""


_LOST_ERRNOS = frozenset({errno.ENOENT, errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENOTDIR})
"""Error codes of files whose content is lost permanently."""


def _unreadable(path: str, error: OSError) -> ArtifactDamaged:
    kind = ArtifactDamaged if error.errno in _LOST_ERRNOS else ArtifactUnreadable
    return kind(path, error.strerror or str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that is durably on disk, but has no row yet."""

    kind: ArtifactKind
    epoch: int
    path: str
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in the store, with or without a row."""

    path: str
    size_bytes: int
    age_s: float

    @property
    def job_id(self) -> str:
        """The job that the file belongs to, which may be deleted."""
        return self.path.partition("/")[0]

    @property
    def is_derived(self) -> bool:
        """Whether it is a cached image, which has no row and can be rendered again."""
        return self.path.split("/")[1:2] == [_DERIVED] and not self.path.endswith(_UNFINISHED)


def _name_file(job_id: str, kind: ArtifactKind, epoch: int, lease: int, data: bytes) -> StoredFile:
    digest, suffix = hashlib.sha256(data).hexdigest(), SUFFIXES[kind]
    return StoredFile(
        kind=kind,
        epoch=epoch,
        path=f"{job_id}/{kind}/{epoch:06d}-{lease}-{digest[:16]}.{suffix}",
        name=f"{kind}-{epoch:04d}.{suffix}",
        size_bytes=len(data),
        sha256=digest,
    )


def _batches(files: Iterable[StoredFile]) -> Iterator[list[StoredFile]]:
    batch: list[StoredFile] = []
    size_bytes = 0
    for file in files:
        if batch and size_bytes + file.size_bytes > _COPY_BYTES:
            yield batch
            batch, size_bytes = [], 0
        batch.append(file)
        size_bytes += file.size_bytes
    if batch:
        yield batch


class ArtifactStore(ABC):
    """Interface of a store for the files of jobs. Subclasses implement the six abstract methods.

    Paths have the form ``job/kind/name``. The store assigns them; clients never do.
    """

    @abstractmethod
    def put_all(self, contents: Mapping[str, bytes]) -> None:
        """Store files by path, each atomically and durably: after a power cut it is complete or absent.

        Raises:
            OSError: one could not be stored. No unfinished file is left behind, but finished ones may be.
        """

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, without following symbolic links.

        Raises:
            ArtifactDamaged: the file is missing.
        """

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""

    @abstractmethod
    def stored(self, job_id: str | None = None) -> Iterator[Stored]:
        """All stored files, or those of one job, grouped by job."""

    @abstractmethod
    def remove_job(self, job_id: str) -> None:
        """Remove all files of a deleted job."""

    @abstractmethod
    def check_writable(self, size_bytes: int = 0) -> None:
        """Raise OSError if a file of this size cannot be stored."""

    def write(self, job_id: str, kind: ArtifactKind, epoch: int, lease: int, data: bytes) -> StoredFile:
        """Store a file of a job.

        The name contains the lease and a hash of the content, so a worker that lost its lease cannot overwrite the
        files of its successor.
        """
        return self.write_all(job_id, epoch, lease, {kind: data})[0]

    def write_all(
        self, job_id: str, epoch: int, lease: int, contents: Mapping[ArtifactKind, bytes]
    ) -> list[StoredFile]:
        """Store the files of an epoch, as ``write`` and ``put_all`` do."""
        files = [_name_file(job_id, kind, epoch, lease, data) for kind, data in contents.items()]
        self.put_all({file.path: data for file, data in zip(files, contents.values(), strict=True)})
        return files

    def copy(self, path: str, sha256: str, *, job_id: str, kind: ArtifactKind, epoch: int) -> StoredFile:
        """Copy a file of one job into the folder of another, whose row need not exist yet; as durable as ``write``.

        Raises:
            ArtifactDamaged: the file is missing, or its SHA-256 differs.
        """
        # Lease 0: the copy is not written by a worker.
        return self.write(job_id, kind, epoch, 0, self.read(path, sha256))

    def copy_all(self, files: Iterable[StoredFile], *, job_id: str, lease: int) -> list[StoredFile]:
        """Copy files of one job into the folder of another; as durable as ``write``.

        The copies are new files, not links: ``orphans`` would see a link as old, and damage to one file would be damage
        to both jobs.

        Raises:
            ArtifactDamaged: one is missing, or its SHA-256 differs; nothing is left behind.
            OSError: one could not be stored; nothing is left behind.
        """
        copies: list[StoredFile] = []
        try:
            for batch in _batches(files):
                contents = [self.read(file.path, file.sha256) for file in batch]
                pairs = zip(batch, contents, strict=True)
                named = [_name_file(job_id, file.kind, file.epoch, lease, data) for file, data in pairs]
                copies += named
                self.put_all({file.path: data for file, data in zip(named, contents, strict=True)})
        except BaseException:
            self.remove(file.path for file in copies)
            raise
        return copies

    def read(self, path: str, sha256: str) -> bytes:
        """The content of a file, verified.

        Raises:
            ArtifactDamaged: the file is missing, or its SHA-256 differs.
        """
        with self.open(path) as file:
            try:
                data = file.read()
            except OSError as error:
                raise _unreadable(path, error) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactDamaged(path, "its SHA-256 differs from the stored one")
        return data

    def cache_image(self, job_id: str, stem: str, version: str, data: bytes) -> None:
        """Cache an image that can be rendered again; replaces its earlier versions.

        Raises:
            OSError: it could not be stored.
        """
        path = f"{job_id}/{_DERIVED}/{stem}-{version}"
        self.put_all({path: data})
        prefix = f"{job_id}/{_DERIVED}/{stem}-"
        suffix = Path(version).suffix
        versions = [item.path for item in self.stored(job_id) if item.path.startswith(prefix)]
        self.remove(name for name in versions if name != path and Path(name).suffix == suffix)

    def cached_image(self, job_id: str, stem: str, version: str) -> bytes | None:
        """The cached image, or ``None`` if it must be rendered again."""
        try:
            with self.open(f"{job_id}/{_DERIVED}/{stem}-{version}") as file:
                return file.read()
        except (ArtifactDamaged, OSError):
            return None

    def orphans(
        self,
        list_paths: Callable[[Sequence[str]], Mapping[str, Container[str]]],
        *,
        older_than_s: float,
        among: Iterable[Stored] | None = None,
    ) -> Iterator[Stored]:
        """Orphaned files: old files without a row, from failed commits, unfinished writes or deleted jobs. Cached
        images of existing jobs are not orphans.

        Args:
            list_paths: for job ids, returns the paths in the rows of each existing job.
            among: all stored files, if the caller iterates over them as well.
        """

        def check(batch: list[Stored]) -> Iterator[Stored]:
            paths_by_job = list_paths(sorted({item.job_id for item in batch}))
            for item in batch:
                paths = paths_by_job.get(item.job_id)
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


class ArtifactFolder(ArtifactStore):
    """A store in a folder that web processes and workers share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_all(self, contents: Mapping[str, bytes]) -> None:
        """Write under temporary names, fsync, rename, fsync the folders: each step for all files before the next one,
        because the first sync also writes much of the data that the others wait for."""
        targets = [self.root / path for path in contents]
        self._make_folders({target.parent for target in targets})
        with ExitStack() as unfinished:
            files: list[tuple[BinaryIO, Path, Path]] = []
            for target, data in zip(targets, contents.values(), strict=True):
                temporary = target.parent / f".{uuid4().hex}{_UNFINISHED}"
                unfinished.callback(temporary.unlink, missing_ok=True)
                file: BinaryIO = unfinished.enter_context(temporary.open("xb"))
                file.write(data)
                file.flush()
                files.append((file, temporary, target))
            for file, _, target in files:
                os.fsync(file.fileno())
                reach("file_written", target.parent.name)
            for _, temporary, target in files:
                temporary.rename(target)
                reach("file_renamed", target.parent.name)
            for folder in dict.fromkeys(target.parent for target in targets):
                fsync_folder(folder)

    def _make_folders(self, folders: Iterable[Path]) -> None:
        missing = [folder for folder in folders if not folder.is_dir()]
        for folder in missing:
            folder.mkdir(parents=True, exist_ok=True)
        for parent in {folder.parent for folder in missing}:
            fsync_folder(parent)
        if missing:
            fsync_folder(self.root)

    def open(self, path: str) -> BinaryIO:
        """Open a file beneath the root."""
        try:
            return os.fdopen(_open_beneath(self.root, path), "rb")
        except OSError as error:
            raise _unreadable(path, error) from error

    def remove(self, paths: Iterable[str]) -> None:
        """Unlink files."""
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    def stored(self, job_id: str | None = None) -> Iterator[Stored]:
        """Walk the folders of jobs; files that are removed in the meantime are skipped."""
        now = time.time()
        for top in self.root.glob("job_*/") if job_id is None else [self.root / job_id]:
            for folder, folders, names in os.walk(top):
                for path in (Path(folder, name) for name in (*names, *folders)):
                    with suppress(OSError):
                        status = path.lstat()
                        if stat.S_ISDIR(status.st_mode):
                            continue
                        yield Stored(path.relative_to(self.root).as_posix(), status.st_size, now - status.st_mtime)

    def remove_job(self, job_id: str) -> None:
        """Remove the folder of a deleted job."""
        shutil.rmtree(self.root / job_id, ignore_errors=True)

    def check_writable(self, size_bytes: int = 0) -> None:
        """Write, sync, read and remove a file. Its content is random: a file system may compress zeros."""
        self.root.mkdir(parents=True, exist_ok=True)
        probe = self.root / f".{uuid4().hex}{_UNFINISHED}"
        chunk = os.urandom(min(size_bytes, _PROBE_CHUNK_BYTES))
        try:
            with probe.open("xb") as file:
                for start in range(0, size_bytes, _PROBE_CHUNK_BYTES):
                    file.write(chunk[: size_bytes - start])
                file.flush()
                os.fsync(file.fileno())
            with probe.open("rb") as file:
                while data := file.read(_PROBE_CHUNK_BYTES):
                    if data != chunk[: len(data)]:
                        raise OSError(errno.EIO, "a file that was just written has another content", str(probe))
        finally:
            probe.unlink(missing_ok=True)


def _open_beneath(root: Path, path: str) -> int:
    """Open a regular file, folder by folder, without following symbolic links: none can lead out of ``root``."""
    *folders, name = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in (*folders, name)):
        raise OSError(errno.ENOENT, "not a path that this store assigned")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            child = os.open(folder, flags | os.O_DIRECTORY, dir_fd=parent)
            os.close(parent)
            parent = child
        file = os.open(name, flags | os.O_NONBLOCK, dir_fd=parent)  # opening a pipe would wait for a writer
    finally:
        os.close(parent)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EISDIR, "not a regular file")
    return file


def fsync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk: only then does a file's new name survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
