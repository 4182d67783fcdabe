"""Downloads: complete, verified, and with names that cannot leave the target folder."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import httpx

from tapeline.connection import MIN_RETRY_DELAY_S, Connection
from tapeline.errors import DownloadDamaged, ServerUnreachable, ServerUntrusted

_CHUNK_BYTES: Final = 1 << 18
_MAX_DOWNLOAD_ATTEMPTS: Final = 4
"""Attempts to download a file whose connection breaks within the body, for example when the web process restarts. In
each attempt, ``Connection`` retries the request: in total 16 requests in about 3.5 seconds."""


def download(connection: Connection, url: str, to: Path) -> Path:
    """As ``Client.download``."""
    delay_s = MIN_RETRY_DELAY_S
    for attempt in range(1, _MAX_DOWNLOAD_ATTEMPTS + 1):
        try:
            with connection.response("GET", url, follow_redirects=True) as response:
                return _store(response, to)
        except ServerUntrusted:
            raise
        except ServerUnreachable:
            if attempt == _MAX_DOWNLOAD_ATTEMPTS:
                raise
        time.sleep(delay_s)
        delay_s *= 2
    raise AssertionError  # the last attempt returns or raises


def download_folder(connection: Connection, url: str, to: Path) -> Path:
    """Download a zip of one folder, and store its files in a new folder, or in an empty one: all of them, or none.

    Raises:
        FileExistsError: the folder has files.
        DownloadDamaged: what the service sent is no such zip.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"{to} exists already; name a new folder")
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as temporary:
        packed, unpacked = Path(temporary, "packed.zip"), Path(temporary, "unpacked")
        download(connection, url, packed)
        unpacked.mkdir()
        try:
            with zipfile.ZipFile(packed) as archive:
                for entry in archive.infolist():
                    name = safe_name(entry.filename.partition("/")[2])
                    with archive.open(entry) as source, complete_file(unpacked / name) as file:
                        shutil.copyfileobj(source, file)
        except zipfile.BadZipFile as error:
            raise DownloadDamaged(f"{url} is not a complete zip file: {error}") from error
        unpacked.replace(to)
    return to


def safe_name(text: str) -> str:
    """A name from the service, sanitized so that it cannot leave the folder."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".") or "download"


@contextmanager
def complete_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that is never visible half-written: it is written beside ``path``, synced and
    renamed at the end of the block, and removed after an exception.

    A symbolic link is kept, and its target is replaced. Devices and pipes (``/dev/null``) are written to
    directly, since a rename would replace them with a file.

    Args:
        private: only the owner may read the new file, from its creation on, also if it replaces one with another mode.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    try:
        mode = 0o600 if private else 0o666
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists() and not private:
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _store(response: httpx.Response, to: Path) -> Path:
    target = to / _file_name(response) if to.is_dir() else to
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with complete_file(target) as file:
        for chunk in response.iter_bytes(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
        expected = _stated_sha256(response)
        if expected is not None and expected != digest.digest():
            raise DownloadDamaged(
                f"{target.name}: its SHA-256 is {digest.hexdigest()}; the service stated {expected.hex()}"
            )
    return target


def _of_service(response: httpx.Response) -> httpx.Response:
    """The response of the service, which may have redirected the client to an object store."""
    return response.history[0] if response.history else response


def _stated_sha256(response: httpx.Response) -> bytes | None:
    match = re.search(r"sha-256=:([A-Za-z0-9+/=]+):", _of_service(response).headers.get("Repr-Digest", ""))
    return base64.b64decode(match[1]) if match else None


def _file_name(response: httpx.Response) -> str:
    response = _of_service(response)
    match = re.search(r'filename="?([^";]+)', response.headers.get("Content-Disposition", ""))
    name = match[1] if match else unquote(urlsplit(str(response.request.url)).path).rpartition("/")[2]
    return safe_name(name)
