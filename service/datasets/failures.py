"""Records failed downloads of datasets, so that users are warned before they submit another job."""

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

RETENTION_S: Final = 24 * 3600.0
_LONGEST: Final = 500


def record_failure(folder: Path, reason: str) -> None:
    """Record why the download into ``folder`` failed, if the folder is writable."""
    kept = _record(folder)
    temporary = kept.with_name(f"{kept.name}.{os.getpid()}")
    with suppress(OSError):
        temporary.write_text(json.dumps({"at": time.time(), "reason": reason[:_LONGEST]}), encoding="utf-8")
        temporary.replace(kept)


def forget(folder: Path) -> None:
    """Remove the record, after a successful download into ``folder``."""
    with suppress(OSError):
        _record(folder).unlink()


def expected_failure(folder: Path) -> str | None:
    """Why a download into ``folder`` will probably fail: one failed within a day, or the folder is not writable."""
    nearest = folder
    while not os.path.exists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.path.isdir(nearest) or not os.access(nearest, os.W_OK):
        return "its folder cannot be written"
    try:
        kept = json.loads(_record(folder).read_text(encoding="utf-8"))
        at, reason = float(kept["at"]), str(kept["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not 0 <= time.time() - at < RETENTION_S:
        return None
    return f"the last download failed ({datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC): {reason}"


def _record(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-download-failed.json")
