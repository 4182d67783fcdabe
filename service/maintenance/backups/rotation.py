"""A folder with the newest backups of a service: a new one is complete and verified before an older one is removed.

Only files are removed that have the name, and in their first part the service, of a backup made for the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from service.maintenance.backups import backup
from service.maintenance.backups.backup_format import BackupError
from service.runtime.files.private_files import FILE_MODE

_NAME: Final = re.compile(r"tapeline-[0-9]{8}T[0-9]{6}Z\.tar", re.ASCII)
_UNFINISHED: Final = re.compile(rf"\.{_NAME.pattern}\.[0-9a-f]{{8}}\.part", re.ASCII)
"""The name that ``complete_file`` gives to a backup that is being written."""
_LOCK: Final = ".tapeline-backups.lock"
_LOOK_S: Final = 0.1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, which is created if it does not exist, for one backup at a time.

    Raises:
        BackupError: another one is being made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BackupError(f"another backup into {folder} is running") from error
    finally:
        os.close(lock)


def new_path(folder: Path) -> Path:
    """The file of a backup that begins now: its name has the time, in UTC."""
    while (path := folder / time.strftime("tapeline-%Y%m%dT%H%M%SZ.tar", time.gmtime())).exists():
        time.sleep(_LOOK_S)
    return path


def remove_older(newest: Path, *, service: str, keep: int) -> list[Path]:
    """Remove backups of a service beside its newest one, the oldest first, and what killed backups left.

    Args:
        newest: a complete backup, which is kept, even if a clock that was set back gave it an older name.
        keep: number of backups that stay, with the newest.
    """
    entries = [path for path in sorted(newest.parent.iterdir()) if path.is_file() and not path.is_symlink()]
    older = [path for path in entries if _NAME.fullmatch(path.name) and path != newest and _is_of(path, service)]
    left = [path for path in entries if _UNFINISHED.fullmatch(path.name) and _is_of(path, service)]
    removed = [*left, *older[: max(0, len(older) - (keep - 1))]]
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def _is_of(path: Path, service: str) -> bool:
    """Whether a file is a backup of this service; one that cannot be read is not."""
    with suppress(OSError, BackupError), path.open("rb") as file:
        return backup.service_of(file) == service
    return False
