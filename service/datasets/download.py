"""Downloads the missing files of a built-in dataset, once, into the data folder.

A file gets its name only after its unpacked content matches the pinned checksum; until then, it has a hidden
temporary name. Mirrors therefore need not be trusted, and a broken transfer is harmless.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import build_opener

from service.datasets.builtins import BuiltIn
from service.datasets.errors import DatasetBroken, DatasetUnavailable
from service.datasets.formats.idx import read_idx
from service.datasets.info import IDX_NAMES

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes received so far and the number expected in total; may raise to abort."""

TIMEOUT_S = 10.0  # for the connection, and for each wait for more bytes
_ABANDONED_AFTER_S = 3600.0
FAILURE_RETENTION_S = 24 * 3600.0
_MAX_REASON_LENGTH = 500
_CHUNK = 2**16


class _MirrorFailed(Exception):
    pass


def download(builtin: BuiltIn, folder: Path, *, present: Mapping[str, Path], progress: Progress | None = None) -> None:
    """Download those of the four files that are not ``present`` into ``folder``, from the first working mirror.

    Raises:
        DatasetUnavailable: no mirror works, or ``folder`` cannot be written.
    """
    name = builtin.info.name
    advice = f"Put its four files ({', '.join(f'{idx}.gz' for idx in IDX_NAMES)}) into {folder}, or use 'mnist-10k'"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
    except OSError as error:
        reason = f"{folder} cannot be written ({error.strerror})"
        raise DatasetUnavailable(name, reason, advice, full_folder=folder) from error
    missing = [idx_name for idx_name in IDX_NAMES if idx_name not in present]
    expected = {idx_name: builtin.packed_bytes[idx_name] for idx_name in missing}
    received = dict.fromkeys(expected, 0)

    def count(idx_name: str, received_bytes: int) -> None:
        # A mirror may compress worse than the original, up to a limit.
        if received_bytes > (limit := 2 * expected[idx_name] + _CHUNK):
            raise _MirrorFailed(f"{idx_name}.gz is larger than {limit:,} bytes")
        received[idx_name] = received_bytes
        if progress is not None:
            progress(sum(received.values()), sum(expected.values()))

    faults = []
    for mirror in builtin.mirrors:
        try:
            while missing:
                _fetch(mirror, missing[0], folder, builtin.digests[missing[0]], count)
                del missing[0]
            with suppress(OSError):
                _failure_path(folder).unlink()
            return
        except _MirrorFailed as error:
            faults.append(f"{mirror}: {error}")
        except OSError as error:  # of the disk; network errors were handled before
            reason = f"{folder} cannot be written ({error.strerror or error})"
            raise DatasetUnavailable(name, reason, advice, full_folder=folder) from error
    reason = "; ".join(faults) or "it has no download mirror"
    record_failure(folder, reason)
    raise DatasetUnavailable(name, f"it could not be downloaded ({reason})", advice)


def _fetch(mirror: str, idx_name: str, folder: Path, sha256: str, count: Callable[[str, int], None]) -> None:
    temporary = folder / f".{idx_name}.{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        _stream_to(temporary, f"{mirror.rstrip('/')}/{idx_name}.gz", idx_name, count)
        try:
            actual = read_idx(temporary).sha256
        except DatasetBroken as error:
            raise _MirrorFailed(f"{idx_name}.gz is not valid: {error.reason}") from error
        if actual != sha256:
            raise _MirrorFailed(f"{idx_name}.gz has other content: sha256 {actual}, expected {sha256}")
        temporary.replace(folder / f"{idx_name}.gz")
    finally:
        temporary.unlink(missing_ok=True)


def _stream_to(path: Path, url: str, idx_name: str, count: Callable[[str, int], None]) -> None:
    try:
        response = build_opener().open(url, timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        raise _MirrorFailed(f"{idx_name}.gz: HTTP {error.code} {error.reason}") from error
    except (HTTPException, OSError) as error:  # URLError is an OSError
        raise _MirrorFailed(_describe(error)) from error
    with response, path.open("wb") as file:
        received = 0
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (HTTPException, OSError) as error:
                raise _MirrorFailed(
                    f"{idx_name}.gz ended early, after {received:,} bytes: {_describe(error)}"
                ) from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            count(idx_name, received)
        file.flush()
        os.fsync(file.fileno())


def _describe(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary files of killed downloads that are too old to be still in use."""
    for path in folder.glob(".*.part"):
        with suppress(FileNotFoundError):  # another process has just removed or renamed it
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                path.unlink()


def record_failure(folder: Path, reason: str) -> None:
    """Record why the download into ``folder`` failed, if the folder is writable."""
    path = _failure_path(folder)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        temporary.write_text(json.dumps({"at": time.time(), "reason": reason[:_MAX_REASON_LENGTH]}), encoding="utf-8")
        temporary.replace(path)


def expected_failure(folder: Path) -> str | None:
    """Why a download into ``folder`` will probably fail: one failed within the last day, or the folder is not
    writable."""
    nearest = folder
    while not os.path.exists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.path.isdir(nearest) or not os.access(nearest, os.W_OK):
        return "its folder cannot be written"
    try:
        record = json.loads(_failure_path(folder).read_text(encoding="utf-8"))
        failed_at, reason = float(record["at"]), str(record["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not 0 <= time.time() - failed_at < FAILURE_RETENTION_S:
        return None
    return f"the last download failed ({datetime.fromtimestamp(failed_at, UTC):%Y-%m-%d %H:%M} UTC): {reason}"


def _failure_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-download-failed.json")
