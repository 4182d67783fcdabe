"""IDX, the format of MNIST's files. The reader treats files as untrusted.

    offset 0   0x00 0x00   0x08 (unsigned byte)   number of dimensions
    offset 4   each dimension as a big-endian uint32, then the values in row-major order

Gzip is detected by content, not by name: IDX begins with two zero bytes, gzip with 1f 8b.
"""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import DatasetBroken
from service.datasets.formats.streams import ArrayStream, Gunzip, Readable, exceeds, read_fully

MAX_DIMENSIONS = 4
MAX_BYTES = 512 * 2**20  # eleven times the largest file of MNIST
UBYTE, DOUBLE = 0x08, 0x0E  # types of values


@dataclass(frozen=True)
class IdxContent:
    """The values of an IDX file, and the SHA-256 (hex) of the unpacked file."""

    array: NDArray[np.uint8]
    sha256: str


def read_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> IdxContent:
    """Read an IDX file of unsigned bytes, plain or gzipped.

    Memory is proportional to the actual content, not to the size that the header declares, and never exceeds
    ``max_bytes``: a small gzip file that unpacks to gigabytes is rejected one byte after the declared length.

    Raises:
        DatasetBroken: not readable, not IDX, truncated, too long, too large, or with a wrong gzip checksum.
    """
    with open_idx(path, max_bytes=max_bytes) as stored:
        digest = hashlib.sha256(idx_header(stored.shape))
        data = bytearray()
        for chunk in stored.chunks():
            digest.update(chunk)
            data += chunk
    return IdxContent(np.frombuffer(data, np.uint8).reshape(stored.shape), digest.hexdigest())


def read_idx_shape(path: Path) -> tuple[int, ...]:
    """The shape that the header declares. Reads only the header.

    Raises:
        DatasetBroken: not readable, not IDX, or truncated inside the header.
    """
    with _open_stream(path) as stream:
        return _read_header(stream, path)


@contextmanager
def open_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> Iterator[ArrayStream]:
    """Open the array of an IDX file, to read it piece by piece.

    Raises:
        DatasetBroken: like :func:`read_idx`; also for errors inside the block.
    """
    with _open_stream(path) as stream:
        shape = _read_header(stream, path)
        if exceeds(shape, max_bytes):
            raise DatasetBroken(path, f"declares the shape {shape}, which is over {max_bytes:,} bytes")
        yield ArrayStream(path, stream, np.dtype(np.uint8), shape)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write ``array`` as IDX, gzipped if the name ends in ``.gz``. Equal arrays produce equal bytes."""
    content = idx_header(array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0) if path.suffix == ".gz" else content)


def idx_header(shape: Sequence[int], value_type: int = UBYTE) -> bytes:
    """The header of an IDX file."""
    return bytes([0, 0, value_type, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


@contextmanager
def _open_stream(path: Path) -> Iterator[Readable]:
    """The unpacked content as a stream. An error of opening or unpacking becomes DatasetBroken; those of the block,
    such as a full disk, pass through."""
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise DatasetBroken(path, "is not a file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise DatasetBroken(path, f"cannot be read ({error.strerror or error})") from error
    with file:
        try:
            yield Gunzip(file) if file.peek(2)[:2] == b"\x1f\x8b" else file
        except EOFError as error:
            raise DatasetBroken(path, "truncated: the gzip stream has no end") from error
        except zlib.error as error:
            raise DatasetBroken(path, f"damaged gzip data ({error})") from error


def _read_header(stream: Readable, path: Path) -> tuple[int, ...]:
    magic = read_fully(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DatasetBroken(path, "is not an IDX file: it does not begin with two zero bytes and a type")
    if magic[2] != UBYTE:
        raise DatasetBroken(path, f"holds values of type 0x{magic[2]:02x}; only unsigned bytes (0x08) are read")
    dimensions = magic[3]
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise DatasetBroken(path, f"has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are read")
    sizes = read_fully(stream, 4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DatasetBroken(path, "truncated inside the header")
    return struct.unpack(f">{dimensions}I", sizes)
