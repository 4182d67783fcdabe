"""A streaming tar format of named parts in which every byte is verified.

Each header contains the SHA-256 of the part's content. Everything else in the file is determined by names, sizes and
contents: a reader accepts only headers that this module would write, and zero padding. The last part, ``end.json``, has
the number of parts and a digest over their names and digests, which reveals missing, swapped or repeated parts. Any tar
program can list and unpack the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from io import BufferedReader, BytesIO
from typing import IO, Final

from service.errors import ServiceError

_BLOCK_BYTES: Final = tarfile.BLOCKSIZE
_HEADER_BYTES: Final = 3 * _BLOCK_BYTES
"""An extended header, its records, and the plain header."""
_MAX_SIZE: Final = 8**11 - 1
"""The largest size that a plain header can hold."""
_COPY_BYTES: Final = 1 << 20
_DIGEST: Final = "TAPELINE.sha256"
_RECORD: Final = re.compile(rf"\d+ {re.escape(_DIGEST)}=([0-9a-f]{{64}})\n\0+".encode())
_END_NAME: Final = "end.json"
_TRAILER: Final = bytes(2 * _BLOCK_BYTES)


class BackupError(ServiceError):
    """A backup cannot be created or read; the message says what to do."""


class PartWriter:
    """Writes parts to a file or pipe; without ``finish`` readers reject the result as truncated."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._chain = _Chain()

    def add(self, name: str, content: BufferedReader | bytes) -> int:
        """Add a part; returns its size in bytes. A file is read twice, once for the checksum."""
        file = BytesIO(content) if isinstance(content, bytes) else content
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.seek(0, os.SEEK_END)
        if size > _MAX_SIZE:
            raise BackupError(f"{name} is too large for a backup: {size} bytes")
        file.seek(0)
        self._target.write(_encode_header(name, size, digest))
        while data := file.read(_COPY_BYTES):
            self._target.write(data)
        self._target.write(bytes(-size % _BLOCK_BYTES))
        self._chain.add(name, digest)
        return size

    def finish(self) -> None:
        """Write the end, which makes the file complete."""
        data = self._chain.end()
        self._target.write(_encode_header(_END_NAME, len(data), hashlib.sha256(data).hexdigest()))
        self._target.write(data + bytes(-len(data) % _BLOCK_BYTES) + _TRAILER)


def read_parts(source: IO[bytes]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The parts as names and contents. A content is verified once it is read to its end, at the latest when the next
    part is requested; the whole file is verified after the last part.

    Raises:
        BackupError: the file is damaged, truncated or not a backup; the message names the part.
    """
    chain = _Chain()
    location = "the start of the file"
    while True:
        name, size, digest = _read_header(source, location)
        content = _read_content(source, name, size, digest)
        if name == _END_NAME:
            break
        yield name, content
        for _ in content:
            pass
        chain.add(name, digest)
        location = f"the header after {name}"
    if b"".join(content) != chain.end():
        raise BackupError(f"{_END_NAME}: parts of the backup are missing, swapped or repeated")
    if source.read(len(_TRAILER) + 1) != _TRAILER:
        raise BackupError(f"the end of the file, after {_END_NAME}, is damaged or truncated")


class _Chain:
    """Number and digest of all parts."""

    def __init__(self) -> None:
        self._count, self._sha256 = 0, hashlib.sha256()

    def add(self, name: str, digest: str) -> None:
        self._count += 1
        self._sha256.update(f"{digest}  {name}\n".encode())

    def end(self) -> bytes:
        return json.dumps({"parts": self._count, "sha256": self._sha256.hexdigest()}).encode()


def _encode_header(name: str, size: int, digest: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.pax_headers = {_DIGEST: digest}
    header = info.tobuf(tarfile.PAX_FORMAT)
    if len(header) != _HEADER_BYTES:
        raise BackupError(f"the name {name!r} is too long for a backup")
    return header


def _read_header(source: IO[bytes], location: str) -> tuple[str, int, str]:
    block = source.read(_HEADER_BYTES)
    try:
        first = tarfile.TarInfo.frombuf(block[:_BLOCK_BYTES], "utf-8", "strict")
        if first.name == "manifest.json" and first.isreg():
            raise BackupError(
                "the backup was made by an earlier version of Tapeline (format 1): restore it with that version"
            )
        info = tarfile.TarInfo.frombuf(block[2 * _BLOCK_BYTES :], "utf-8", "strict")
        record = _RECORD.fullmatch(block[_BLOCK_BYTES : 2 * _BLOCK_BYTES])
    except (tarfile.HeaderError, UnicodeDecodeError):
        record = None
    if record is None or _encode_header(info.name, info.size, record[1].decode()) != block:
        if len(block) < _HEADER_BYTES:
            raise BackupError(f"the backup is truncated at {location}")
        if location == "the start of the file":
            raise BackupError("this is not a backup of Tapeline, or the header of manifest.json is damaged")
        raise BackupError(f"{location} is damaged")
    return info.name, info.size, record[1].decode()


def _read_content(source: IO[bytes], name: str, size: int, digest: str) -> Iterator[bytes]:
    sha256, remaining = hashlib.sha256(), size
    while remaining:
        data = source.read(min(remaining, _COPY_BYTES))
        if not data:
            raise BackupError(f"the backup is truncated in {name}")
        sha256.update(data)
        remaining -= len(data)
        yield data
    padding = source.read(-size % _BLOCK_BYTES)
    if len(padding) < -size % _BLOCK_BYTES:
        raise BackupError(f"the backup is truncated in {name}")
    if sha256.hexdigest() != digest or padding.strip(b"\0"):
        raise BackupError(f"{name} is damaged: its SHA-256 or padding is wrong")
