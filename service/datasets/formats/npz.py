"""NPZ, NumPy's archive of arrays: a zip file whose members are .npy files.

Files are untrusted. The size of the directory is checked before it is read, and each member before it is opened. The
header of an array is parsed by a fixed pattern for its three fields; NumPy's own reader would evaluate it, and allocate
the memory that it declares.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.datasets.errors import DatasetBroken
from service.datasets.formats import archives
from service.datasets.formats.streams import ArrayStream, Readable, exceeds, read_fully

MAX_MEMBERS: Final = 32
MAX_DIMENSIONS: Final = 4
MAX_RATIO: Final = 100
"""Maximum compression ratio of a member beyond its first MiB; deflate itself is limited to 1,032."""
_FREE_BYTES: Final = 2**20
_MAX_HEADER: Final = 4096
_END_BYTES: Final = 22
"""Length of the end of a zip file without a comment."""
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}\.npy")
_REFUSED_FLAGS: Final = 0x1 | 0x20 | 0x40 | 0x2000
"""Flags of members that are encrypted, patched, strongly encrypted, or have a masked directory."""
_PAIR: Final = re.compile(
    r"""\s*'(?:(descr)'\s*:\s*'([<>|=]?[a-z][0-9]{1,2})'
          |(fortran_order)'\s*:\s*(True|False)
          |(shape)'\s*:\s*\(\s*((?:[0-9]{1,19}\s*,\s*)*(?:[0-9]{1,19})?)\s*\))\s*(?:,|(?=\}))""",
    re.VERBOSE,
)
_KINDS: Final = "biuf"


def is_npz(path: Path) -> bool:
    """Whether the first bytes of a file are those of an NPZ archive."""
    with path.open("rb") as file:
        head = file.read(30)
        if len(head) < 30 or not head.startswith(b"PK\x03\x04"):
            return False
        return file.read(int.from_bytes(head[26:28], "little")).endswith(b".npy")


@contextmanager
def open_npz(path: Path, *, max_bytes: int) -> Iterator[dict[str, ArrayStream]]:
    """Open the arrays of an archive by name (without ``.npy``), to read them piece by piece.

    Args:
        max_bytes: maximum unpacked size of all arrays together.

    Raises:
        DatasetBroken: also while the arrays are read.
        OSError: raised by the block; it is not an error of the archive.
    """
    with ExitStack() as stack:
        with archives.reading(path):
            file = stack.enter_context(path.open("rb"))
            archives.check_directory(path, file, MAX_MEMBERS)
            archive = stack.enter_context(zipfile.ZipFile(file))
            members = archive.infolist()
            _check_members(path, members, max_bytes)
            file.seek(-_END_BYTES, os.SEEK_END)
            if file.read(4) != b"PK\x05\x06" or min(member.header_offset for member in members):
                raise DatasetBroken(path, "has data before or after the archive")
            arrays = {
                member.filename.removesuffix(".npy"): _open_array(
                    path, member, stack.enter_context(archive.open(member)), max_bytes
                )
                for member in members
            }
        try:
            yield arrays
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DatasetBroken(path, f"is a damaged archive ({error}); pack it again") from error


def _check_members(path: Path, members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise DatasetBroken(path, f"has {len(members):,} members; 1 to {MAX_MEMBERS} are read")
    names = [member.orig_filename for member in members]
    for member in members:
        name = ascii(member.orig_filename[:80])
        if not _NAME.fullmatch(member.orig_filename):
            raise DatasetBroken(path, f"has a member {name}; their names are letters, digits and _, and end in .npy")
        if names.count(member.orig_filename) > 1:
            raise DatasetBroken(path, f"has two members {name}")
        if member.flag_bits & _REFUSED_FLAGS:
            raise DatasetBroken(path, f"the member {name} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DatasetBroken(path, f"the member {name} uses an unsupported compression; use deflate, or none")
        if member.file_size > max(_FREE_BYTES, MAX_RATIO * member.compress_size):
            raise DatasetBroken(path, f"the member {name} unpacks to more than {MAX_RATIO} times its size")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise DatasetBroken(path, f"unpacks to {total:,} bytes; at most {max_bytes:,} are read")


def _open_array(path: Path, member: zipfile.ZipInfo, stream: Readable, max_bytes: int) -> ArrayStream:
    name = member.filename
    header_bytes, dtype, shape = _read_header(path, name, stream)
    if exceeds(shape, max_bytes // dtype.itemsize):
        raise DatasetBroken(path, f"{name} declares the shape {shape}, which is over {max_bytes:,} bytes")
    stored = ArrayStream(path, stream, dtype, shape, within=name)
    if header_bytes + stored.size_bytes != member.file_size:
        actual_bytes = member.file_size - header_bytes
        raise DatasetBroken(path, f"{name} declares {stored.size_bytes:,} bytes of data, but contains {actual_bytes:,}")
    return stored


def _read_header(path: Path, name: str, stream: Readable) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    """The length of an .npy file's header, and the type and shape that it declares."""
    magic = read_fully(stream, 8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3) or magic[7]:
        raise DatasetBroken(path, f"{name} is not an array in NumPy's format")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(read_fully(stream, width), "little")
    if length > _MAX_HEADER:
        raise DatasetBroken(path, f"{name} has a header of {length:,} bytes; at most {_MAX_HEADER:,} are read")
    text = read_fully(stream, length)
    if len(text) < length:
        raise DatasetBroken(path, f"{name} is truncated inside the header")
    parsed = _parse(text.decode("latin-1"))
    if parsed is None:
        raise DatasetBroken(path, f"{name} has an unsupported header; plain numbers in C order are supported")
    dtype, shape = parsed
    return 8 + width + length, dtype, shape


def _parse(text: str) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Parse type and shape from ``{'descr': '|u1', 'fortran_order': False, 'shape': (2, 28, 28), }``."""
    text = text.strip(" \n")
    if not (text.startswith("{") and text.endswith("}")):
        return None
    fields: dict[str, str] = {}
    position = 1
    while match := _PAIR.match(text, position):
        name, value = (group for group in match.groups() if group is not None)
        if name in fields:
            return None
        fields[name], position = value, match.end()
    if len(fields) != 3 or text[position:].strip() != "}" or fields["descr"].lstrip("<>|=")[0] not in _KINDS:
        return None
    shape = tuple(int(size) for size in fields["shape"].split(",") if size.strip())
    if not 1 <= len(shape) <= MAX_DIMENSIONS or (fields["fortran_order"] == "True" and len(shape) > 1):
        return None
    try:
        dtype = np.dtype(fields["descr"])
    except TypeError:  # such as f3
        return None
    return (dtype, shape) if dtype.itemsize <= 8 else None
