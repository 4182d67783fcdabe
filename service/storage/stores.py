"""The artifact store in a folder, and the store of the settings."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from service.runtime.failpoints import failpoint
from service.runtime.files.durable_files import fsync_folder, open_beneath
from service.runtime.settings import Settings
from service.storage.artifacts import UNFINISHED, ArtifactStore, Stored, unreadable
from service.storage.object_store import ObjectStore

_CHUNK_BYTES: Final = 2**20


class ArtifactFolder(ArtifactStore):
    """A store in a folder that web processes and workers share."""

    def __init__(self, root: Path) -> None:
        self.root, self.address = root, str(root)

    def create(self, path: str, data: bytes) -> None:
        """Create a file in the root."""
        self.root.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), (self.root / path).open("xb") as file:  # another process may be faster
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(self.root)

    def put_all(self, contents: Mapping[str, bytes], digests: Mapping[str, str] | None = None) -> None:
        """Write under temporary names, fsync, rename, fsync the folders: each step for all files before the next one,
        because the first sync also writes much of the data that the others wait for."""
        targets = [self.root / path for path in contents]
        self._make_folders({target.parent for target in targets})
        with ExitStack() as unfinished:
            files: list[tuple[BinaryIO, Path, Path]] = []
            for target, data in zip(targets, contents.values(), strict=True):
                temporary = target.parent / f".{uuid4().hex}{UNFINISHED}"
                unfinished.callback(temporary.unlink, missing_ok=True)
                file: BinaryIO = unfinished.enter_context(temporary.open("xb"))
                file.write(data)
                file.flush()
                files.append((file, temporary, target))
            for file, _, target in files:
                os.fsync(file.fileno())
                failpoint("file_written", target.parent.name)
            for _, temporary, target in files:
                temporary.rename(target)
                failpoint("file_renamed", target.parent.name)
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

    def put_file(self, path: str, file: BufferedReader) -> None:
        """Write under a temporary name, fsync, rename, fsync the folder."""
        target = self.root / path
        temporary = target.parent / f".{uuid4().hex}{UNFINISHED}"
        self._make_folders({target.parent})
        file.seek(0)
        try:
            with temporary.open("xb") as copy:
                shutil.copyfileobj(file, copy, _CHUNK_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(target.parent)

    def put_folder(self, path: str, folder: Path) -> None:
        """Rename the folder."""
        target = self.root / path
        self._make_folders({target.parent})
        fsync_folder(folder)
        folder.rename(target)
        fsync_folder(target.parent)

    def local_folder(self, path: str) -> Path:
        """The folder itself."""
        return self.root / path

    def open(self, path: str) -> BufferedReader:
        """Open a file beneath the root."""
        try:
            return os.fdopen(open_beneath(self.root, path), "rb")
        except OSError as error:
            raise unreadable(path, error) from error

    def remove(self, paths: Iterable[str]) -> None:
        """Unlink files."""
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    def stored(self, folder: str | None = None) -> Iterator[Stored]:
        """Walk the folders; files that are removed in the meantime are skipped."""
        now = time.time()
        for top in self.root.glob("job_*/") if folder is None else [self.root / folder]:
            for parent, folders, names in os.walk(top):
                for path in (Path(parent, name) for name in (*names, *folders)):
                    with suppress(OSError):
                        status = path.lstat()
                        if stat.S_ISDIR(status.st_mode):
                            continue
                        yield Stored(path.relative_to(self.root).as_posix(), status.st_size, now - status.st_mtime)

    def remove_folder(self, folder: str) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def check_writable(self, size_bytes: int = 0) -> None:
        """Write, sync, read and remove a file. Its content is random: a file system may compress zeros."""
        self.root.mkdir(parents=True, exist_ok=True)
        probe = self.root / f".{uuid4().hex}{UNFINISHED}"
        chunk = os.urandom(min(size_bytes, _CHUNK_BYTES))
        try:
            with probe.open("xb") as file:
                for start in range(0, size_bytes, _CHUNK_BYTES):
                    file.write(chunk[: size_bytes - start])
                file.flush()
                os.fsync(file.fileno())
            with probe.open("rb") as file:
                while data := file.read(_CHUNK_BYTES):
                    if data != chunk[: len(data)]:
                        raise OSError(errno.EIO, "a file that was just written has another content", str(probe))
        finally:
            probe.unlink(missing_ok=True)


def settings_of(url: str, endpoint: str = "", ca: str = "") -> Settings:
    """The settings of a service with this store.

    Args:
        ca: file with certificate authorities.

    Raises:
        SettingsError: the URL is not valid.
    """
    variables = {"TAPELINE_STORE": url, "TAPELINE_STORE_ENDPOINT": endpoint, "TAPELINE_CA": ca}
    return Settings.from_env(variables, cores=1)


def open_store(settings: Settings) -> ArtifactStore:
    """The store for the files of jobs. A process has one for a bucket: its connections are used again."""
    if not settings.store:
        return ArtifactFolder(settings.artifacts)
    address = settings.store, settings.store_endpoint, settings.ca
    return _open_bucket(*address, lease_s=settings.lease_s, redirects=settings.store_redirect)


@functools.cache
def _open_bucket(url: str, endpoint: str, ca: str, *, lease_s: float, redirects: bool) -> ObjectStore:
    return ObjectStore(url, endpoint=endpoint, ca=ca, lease_s=lease_s, redirects=redirects)
