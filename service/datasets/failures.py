"""Records failed downloads of datasets, so that users are warned before they submit another job."""

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

RETENTION_S: Final = 24 * 3600.0
_MAX_REASON_LENGTH: Final = 500


def record_failure(folder: Path, reason: str) -> None:
    """Record why the download into ``folder`` failed, if the folder is writable."""
    path = _record_path(folder)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        temporary.write_text(json.dumps({"at": time.time(), "reason": reason[:_MAX_REASON_LENGTH]}), encoding="utf-8")
        temporary.replace(path)


def forget(folder: Path) -> None:
    """Remove the record, after a successful download into ``folder``."""
    with suppress(OSError):
        _record_path(folder).unlink()


def expected_failure(folder: Path) -> str | None:
    """Why a download into ``folder`` will probably fail: one failed within the last day, or the folder is not
    writable."""
    nearest = folder
    while not os.path.exists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.path.isdir(nearest) or not os.access(nearest, os.W_OK):
        return "its folder cannot be written"
    try:
        record = json.loads(_record_path(folder).read_text(encoding="utf-8"))
        failed_at, reason = float(record["at"]), str(record["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not 0 <= time.time() - failed_at < RETENTION_S:
        return None
    return f"the last download failed ({datetime.fromtimestamp(failed_at, UTC):%Y-%m-%d %H:%M} UTC): {reason}"


def _record_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-download-failed.json")
