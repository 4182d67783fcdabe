"""Streams arrays from untrusted files: the header first, then the values in pieces, never more than declared."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import DatasetBroken

CHUNK: Final = 2**20
_PACKED_CHUNK: Final = 2**16
_MAX_MEMBERS: Final = 10_000


class Readable(Protocol):
    """A source of bytes, which may return fewer than requested, and none at the end."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; ``size`` is above 0."""


class Gunzip:
    """The content of a gzip file, with memory and time proportional to what is read.

    The standard library's GzipFile reads names in the header byte by byte, and restarts for each member of a file; a
    crafted file can make both take minutes.
    """

    def __init__(self, file: Readable) -> None:
        self._file, self._packed, self._members = file, b"", 0
        self._inflate: Any = None

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end.

        Raises:
            EOFError: the file ends inside a member.
            zlib.error: the file is damaged.
        """
        while True:
            packed = self._packed or self._file.read(_PACKED_CHUNK)
            if self._inflate is None:
                if not packed:
                    return b""
                self._members += 1
                if self._members > _MAX_MEMBERS:
                    raise zlib.error(f"more than {_MAX_MEMBERS:,} members")
                self._inflate = zlib.decompressobj(wbits=31)
            data: bytes = self._inflate.decompress(packed, size)
            self._packed = self._inflate.unconsumed_tail or self._inflate.unused_data
            if self._inflate.eof:
                self._inflate = None
            elif not (packed or data):
                raise EOFError
            if data:
                return data


@dataclass(frozen=True, slots=True, eq=False)
class ArrayStream:
    """An array that is not read yet.

    Attributes:
        path: the file, for error messages.
        stream: positioned after the header.
        within: the member of the archive, for error messages; empty if the file itself is the array.
    """

    path: Path
    stream: Readable
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    within: str = ""

    @property
    def size_bytes(self) -> int:
        """The size that the header declares."""
        return math.prod(self.shape) * self.dtype.itemsize

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """All bytes, in chunks of ``size``. Reading to the end also verifies the checksums of gzip and zip.

        Raises:
            DatasetBroken: there are fewer or more bytes than declared.
        """
        read_bytes, declared_bytes = 0, self.size_bytes
        while read_bytes < declared_bytes:
            chunk = read_fully(self.stream, min(size, declared_bytes - read_bytes))
            if not chunk:
                raise self.broken(f"truncated: {read_bytes:,} of {declared_bytes:,} bytes of data")
            read_bytes += len(chunk)
            yield chunk
        if self.stream.read(1):
            raise self.broken(f"continues after its {declared_bytes:,} bytes of data")

    def rows(self) -> Iterator[NDArray[Any]]:
        """All values, in blocks along the first axis.

        Raises:
            DatasetBroken: there are fewer or more bytes than declared.
        """
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        for chunk in self.chunks(max(1, CHUNK // max(1, row_bytes)) * max(1, row_bytes)):
            if len(chunk) % row_bytes:
                raise self.broken(f"truncated: {len(chunk) % row_bytes:,} bytes of a row of {row_bytes:,}")
            yield np.frombuffer(chunk, self.dtype).reshape(-1, *self.shape[1:])

    def broken(self, reason: str) -> DatasetBroken:
        """The error for this array, with the given reason."""
        return DatasetBroken(self.path, f"{self.within}: {reason}" if self.within else reason)


def read_fully(stream: Readable, size: int) -> bytes:
    """Read ``size`` bytes, or fewer if the stream ends before."""
    data = b""
    while len(data) < size and (chunk := stream.read(size - len(data))):
        data += chunk
    return data


def exceeds(shape: Sequence[int], limit: int) -> bool:
    """Whether an array of this shape has more than ``limit`` values. Zeros are ignored in the product, because NumPy
    also rejects the shape (0, 2**32 - 1, 2**32 - 1) as too large."""
    return math.prod(size for size in shape if size) > limit
