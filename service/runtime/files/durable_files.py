"""Files of a folder: opened beneath it only, and durable once its entries are synced."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_beneath(root: Path, path: str) -> int:
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
