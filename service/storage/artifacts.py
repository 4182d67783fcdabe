"""The artifact store. Files are written once, under names that are never reused, so a database row can be the commit
point."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path
from typing import Final

from service.errors import ServiceError, StorageFull


class ArtifactKind(StrEnum):
    """The kinds of artifacts."""

    CHECKPOINT = "checkpoint"
    SAMPLE = "sample"
    PREDICTIONS = "predictions"
    ONNX = "onnx"
    TORCH = "torch"
    TENSORBOARD = "tensorboard"
    HUGGINGFACE = "huggingface"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """A format in which a trained model is exported.

    Attributes:
        contents: a sentence.
        library: the optional library that creates it; ``None`` if it needs none.
        has_weights: of one checkpoint; otherwise, it has all epochs.
        has_history: whether it contains tags, status and epochs of the job.
        has_card: whether it contains a model card, which names a license.
        is_signed: whether it is a certificate, which only a succeeded job has.
    """

    label: str
    contents: str
    library: str | None = None
    suffix: str = "zip"
    media_type: str = "application/zip"
    has_weights: bool = True
    has_history: bool = False
    has_card: bool = False
    is_signed: bool = False

    @property
    def is_shown_by_links(self) -> bool:
        """Whether share links give it out: it has neither the job's tags, nor the machine, nor examples of the data."""
        return not (self.has_history or self.is_signed)

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
    ArtifactKind.CERTIFICATE: ExportFormat(
        label="Certificate",
        contents="The checkpoint, signed, with all that is needed to train it again bit for bit.",
        is_signed=True,
    ),
}
"""The formats. Their files are artifacts that are created on request; at most one of each per epoch."""
EXPORT_NAMES: Final[Mapping[str, ArtifactKind]] = {kind.value: kind for kind in EXPORTS} | {
    "pytorch": ArtifactKind.TORCH
}
MEDIA_TYPES: Final = {
    ArtifactKind.CHECKPOINT: "application/octet-stream",
    ArtifactKind.SAMPLE: "image/png",
    ArtifactKind.PREDICTIONS: "text/csv",
    **{kind: entry.media_type for kind, entry in EXPORTS.items()},
}
SUFFIXES: Final = {
    ArtifactKind.CHECKPOINT: "safetensors",
    ArtifactKind.SAMPLE: "png",
    ArtifactKind.PREDICTIONS: "csv",
    **{kind: entry.suffix for kind, entry in EXPORTS.items()},
}
ID_FILE: Final = "store-id"
"""The file with the id of a store."""
_DERIVED: Final = "derived"
"""The folder for cached images, which can be rendered again and have no rows."""
UNFINISHED: Final = ".tmp"
"""The end of the name of a file that is being written."""
_MAX_LABEL_BYTES: Final = 200
_BATCH: Final = 1000
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


def unreadable(path: str, error: OSError) -> ArtifactDamaged:
    """The error of a file that cannot be read: it is lost, or perhaps only now."""
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
    store_id: str | None = None
    """The id of the store that it was written to."""


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
        return self.path.split("/")[1:2] == [_DERIVED] and not self.path.endswith(UNFINISHED)


def _name_file(
    store_id: str | None, job_id: str, kind: ArtifactKind, epoch: int, lease: int, data: bytes
) -> StoredFile:
    digest, suffix = hashlib.sha256(data).hexdigest(), SUFFIXES[kind]
    return StoredFile(
        kind=kind,
        epoch=epoch,
        path=f"{job_id}/{kind}/{epoch:06d}-{lease}-{digest[:8]}-{secrets.token_hex(8)}.{suffix}",
        name=f"{kind}-{epoch:04d}.{suffix}",
        size_bytes=len(data),
        sha256=digest,
        store_id=store_id,
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
    """Interface of a store for the files of jobs and of uploaded datasets. Subclasses implement the abstract methods.

    Paths have the form ``job/kind/name``, or ``datasets/upload/name``. The store assigns them; clients never do.
    """

    address: str
    """A folder or a URL, for messages."""
    is_remote: bool = False
    """Whether files are reached over the network, which may fail for a while."""
    redirects: bool = False
    """Whether clients download files from the store by themselves."""
    min_orphan_age_s: float = 0.0
    """The age from which on a file without a row can be an orphan, however short the period that the caller names."""
    _id: str | None = None

    def prepare(self) -> None:  # noqa: B027 - most stores need nothing
        """Do what the first access would do once, in a process that forks no more."""

    @property
    def id(self) -> str | None:
        """As ``read_id``, which is called until there is one."""
        if self._id is None:
            self._id = self.read_id()
        return self._id

    def read_id(self) -> str | None:
        """The id in the store; ``None`` if it has none.

        Raises:
            OSError: it cannot be read.
        """
        try:
            with self.open(ID_FILE) as file:
                text = file.read().decode().strip()
        except ArtifactUnreadable as error:
            raise OSError(errno.EIO, error.reason) from error
        except ArtifactDamaged:
            return None
        if not text:
            raise OSError(f"{ID_FILE} in {self.address} is empty; another process may be writing it")
        return text

    def create(self, path: str, data: bytes) -> None:
        """Store a file, unless there is one."""
        with suppress(FileExistsError):
            self.put_all({path: data})

    @abstractmethod
    def put_all(self, contents: Mapping[str, bytes], digests: Mapping[str, str] | None = None) -> None:
        """Store files by path, each atomically and durably: after a power cut it is complete or absent.

        Args:
            digests: the SHA-256 (hex) of each file, if the caller has computed them.

        Raises:
            OSError: one could not be stored. No unfinished file is left behind, but finished ones may be.
        """

    @abstractmethod
    def put_file(self, path: str, file: BufferedReader) -> None:
        """Store a file of any size, as ``put_all`` does, without reading it into memory.

        Args:
            file: read from its beginning; it must be seekable.
        """

    def put_folder(self, path: str, folder: Path) -> None:
        """Store the files of a local folder, which may be moved. They must be synced to disk."""
        for source in sorted(folder.iterdir()):
            with source.open("rb") as file:
                self.put_file(f"{path}/{source.name}", file)

    def local_folder(self, path: str) -> Path | None:
        """Where the files beneath a path can be mapped into memory; ``None``: nowhere, they must be copied first."""
        return None

    def refusal(self, error: OSError) -> ServiceError:
        """What a client is told if a file cannot be stored: the store is full, or does not respond now."""
        if not self.is_remote or error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFull(str(error.strerror or error))
        return ArtifactUnreadable(self.address, str(error))

    @abstractmethod
    def open(self, path: str) -> BufferedReader:
        """Open a file for reading, without following symbolic links.

        Raises:
            ArtifactDamaged: the file is missing.
        """

    def size(self, path: str) -> int:
        """The size of a file in bytes.

        Raises:
            ArtifactDamaged: the file is missing.
        """
        with self.open(path) as file:
            return file.seek(0, os.SEEK_END)

    def download_url(self, path: str, *, method: str) -> str | None:
        """A URL from which a client gets a file by itself; ``None``: the service is to send it.

        Raises:
            ArtifactUnreadable: it cannot be signed.
        """
        return None

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""

    @abstractmethod
    def stored(self, folder: str | None = None) -> Iterator[Stored]:
        """All stored files of jobs, grouped by job, or those beneath a folder, such as a job's id."""

    @abstractmethod
    def remove_folder(self, folder: str) -> None:
        """Remove all files of a deleted job or dataset."""

    @abstractmethod
    def check_writable(self, size_bytes: int = 0) -> None:
        """Raise OSError if a file of this size cannot be stored."""

    def write(self, job_id: str, kind: ArtifactKind, epoch: int, lease: int, data: bytes) -> StoredFile:
        """Store a file of a job.

        The name contains the lease, a hash of the content and random bits: it is never used again, and a worker that
        lost its lease cannot overwrite the files of its successor.
        """
        return self.write_all(job_id, epoch, lease, {kind: data})[0]

    def write_all(
        self, job_id: str, epoch: int, lease: int, contents: Mapping[ArtifactKind, bytes]
    ) -> list[StoredFile]:
        """Store the files of an epoch, as ``write`` and ``put_all`` do."""
        files = self.name_all(job_id, epoch, lease, contents)
        data = {file.path: content for file, content in zip(files, contents.values(), strict=True)}
        self.put_all(data, {file.path: file.sha256 for file in files})
        return files

    def name_all(self, job_id: str, epoch: int, lease: int, contents: Mapping[ArtifactKind, bytes]) -> list[StoredFile]:
        """Likewise, without storing them."""
        return [_name_file(self.id, job_id, kind, epoch, lease, data) for kind, data in contents.items()]

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
                named = [_name_file(self.id, job_id, file.kind, file.epoch, lease, data) for file, data in pairs]
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
                raise unreadable(path, error) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactDamaged(path, "its SHA-256 differs from the stored one")
        return data

    def replace(self, path: str, data: bytes) -> None:
        """Store a small file, as ``put_all`` does, in place of the one that has this name."""
        self.put_all({path: data})

    def cache_image(self, job_id: str, stem: str, version: str, data: bytes) -> None:
        """Cache an image that can be rendered again; replaces its earlier versions, which are not looked for: all
        have one name, and the content begins with the version and a digest.

        Args:
            version: ends with the suffix of the image's format, and contains no space.

        Raises:
            OSError: it could not be stored.
        """
        self.replace(_name_image(job_id, stem, version), _label(version, data) + data)

    def cached_image(self, job_id: str, stem: str, version: str) -> bytes | None:
        """The cached image, or ``None`` if it must be rendered again."""
        try:
            with self.open(_name_image(job_id, stem, version)) as file:
                label, data = file.readline(_MAX_LABEL_BYTES), file.read()
        except (ArtifactDamaged, OSError):
            return None
        return data if label == _label(version, data) else None

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

        older_than_s = max(older_than_s, self.min_orphan_age_s)
        batch: list[Stored] = []
        for item in self.stored() if among is None else among:
            if item.age_s > older_than_s:
                batch.append(item)
            if len(batch) >= _BATCH:
                yield from check(batch)
                batch = []
        if batch:
            yield from check(batch)


def _name_image(job_id: str, stem: str, version: str) -> str:
    return f"{job_id}/{_DERIVED}/{stem}{Path(version).suffix}"


def _label(version: str, data: bytes) -> bytes:
    """The first line of a cached image. Its digest finds a mixture of two versions, too: the parts of a large object
    are read one after the other, and another process may have replaced it in between."""
    return f"{version} {hashlib.sha256(data).hexdigest()}\n".encode()


_PATH: Final = re.compile(rf"(\w+)/({'|'.join(ArtifactKind)})/(\d+)-.*")


def disposition(job_id: str, kind: str, epoch: int) -> str:
    """``Content-Disposition``, with the name under which a client saves a file."""
    suffix = SUFFIXES[ArtifactKind(kind)]
    return f'attachment; filename="{job_id}-epoch-{epoch:04d}{f"-{kind}" if suffix == "zip" else ""}.{suffix}"'


def headers_of(path: str) -> dict[str, str]:
    """The headers of the file that has a path in a store; empty for other files than those of jobs."""
    if (match := _PATH.fullmatch(path)) is None:
        return {}
    job_id, kind, epoch = match.groups()
    disposed = disposition(job_id, kind, int(epoch))
    return {"Content-Type": MEDIA_TYPES[ArtifactKind(kind)], "Content-Disposition": disposed}
