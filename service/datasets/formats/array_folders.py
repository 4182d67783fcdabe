"""The cache of a machine: a folder of arrays for each version of a source, and for each upload in an object store.

A complete folder gets its name by one rename, so that a killed process leaves only a hidden one. The processes of a
machine make each folder once. When the cache is full, those that were not used for the longest time are removed; a
training that has one mapped keeps its files.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from service.datasets.errors import DatasetUnavailable
from service.datasets.info import META

T = TypeVar("T")

INCOMPLETE: Final = (OSError, EOFError, ValueError, KeyError)
"""Errors of a folder that is incomplete or damaged."""
_LOCK_POLL_S: Final = 0.2
_MAX_WAIT_S: Final = 60.0
"""For a process that writes the same arrays; then both do."""
_ABANDONED_AFTER_S: Final = 24 * 3600.0
_OWN: Final = re.compile(r"(ds_\w+|.+-[0-9a-f]{16})")
"""Names of complete folders. The cache may be in a folder that has others, too."""
_OWN_HIDDEN: Final = re.compile(rf"\.{_OWN.pattern}\.(lock|\d+-[0-9a-f]{{8}})")


class ArrayCache:
    """Folders of arrays, each made when it is first used.

    Args:
        limit_bytes: when it is exceeded, the folders are removed that were not used for the longest time; 0: no limit.
    """

    def __init__(self, root: Path, limit_bytes: int = 0) -> None:
        self.root, self.limit_bytes = root, limit_bytes

    def open(
        self,
        key: str,
        name: str,
        use: Callable[[Path], T],
        make: Callable[[Path], None],
        *,
        on_wait: Callable[[], None] = lambda: None,
    ) -> T:
        """What ``use`` makes of a complete folder.

        Args:
            key: of the folder.
            name: of the dataset, for messages.
            use: maps the arrays; it raises one of ``INCOMPLETE`` if the folder is not complete.
            make: writes the arrays into an empty folder, unless there are complete ones.
            on_wait: called repeatedly while another process writes them; an exception that it raises is passed on.

        Raises:
            DatasetUnavailable: the cache cannot be written.
        """
        folder = self.root / key
        with suppress(*INCOMPLETE):
            return self._use(folder, use)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(key, on_wait):
                with suppress(*INCOMPLETE):  # another process has made it
                    return self._use(folder, use)
                _remove(folder)
                with _new_folder(folder) as temporary:
                    make(temporary)
                found = self._use(folder, use)
            self._remove_unused(key)
            return found
        except OSError as error:
            raise DatasetUnavailable(
                name,
                f"its arrays cannot be cached in {self.root} ({error.strerror or error})",
                "Free disk space there, or make the folder writable",
                full_folder=self.root,
            ) from error

    @staticmethod
    def _use(folder: Path, use: Callable[[Path], T]) -> T:
        found = use(folder)
        with suppress(OSError):  # another user may have filled the cache
            os.utime(folder)
        return found

    def used_bytes(self) -> int:
        """The size of all complete folders."""
        return sum(size for _, size, _ in self._entries())

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Time of the last use, size and path of each complete folder."""
        entries = []
        for folder in self.root.glob("[!.]*/"):
            if _OWN.fullmatch(folder.name):
                with suppress(OSError):  # another process has removed it
                    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
                    if META in sizes:
                        entries.append((folder.stat().st_mtime, sum(sizes.values()), folder))
        return entries

    @contextmanager
    def _lock(self, key: str, on_wait: Callable[[], None]) -> Iterator[None]:
        deadline = time.monotonic() + _MAX_WAIT_S
        with (self.root / f".{key}.lock").open("a") as file:
            while time.monotonic() < deadline:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                on_wait()
                time.sleep(_LOCK_POLL_S)
            os.utime(file.fileno())
            yield

    def _remove_unused(self, key: str) -> None:
        """Remove what exceeds the limit, but not the folder that was just made, and what killed processes left."""
        for path in self.root.glob(".*"):
            with suppress(OSError):
                if _OWN_HIDDEN.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        entries = sorted(self._entries()) if self.limit_bytes else []
        excess = sum(size for _, size, _ in entries) - self.limit_bytes
        for _, size, folder in entries:
            if excess > 0 and folder.name != key:
                _remove(folder)
                excess -= size


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")


def _remove(folder: Path) -> None:
    """Remove a folder, which has another name before its first file goes."""
    hidden = _hidden(folder)
    with suppress(OSError):
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets its name when it is complete."""
    temporary = _hidden(folder)
    temporary.mkdir()
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / META).is_file():  # otherwise another process was faster, with the same arrays
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
