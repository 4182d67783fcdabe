"""Files of bytes or doubles in NumPy's format, written in pieces, and the digest of all of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.datasets.formats.idx import DOUBLE, UBYTE, idx_header
from service.datasets.info import META, content_sha256


class ArrayFile:
    """An .npy file that is being written, and the digest of the equivalent IDX file (bytes or big-endian doubles)."""

    def __init__(self, name: str, file: IO[bytes], shape: tuple[int, ...], *, is_float: bool) -> None:
        self.name, self._file, self._is_float = name, file, is_float
        self._sum, self._size = 0, math.prod(shape)
        self._digest = hashlib.sha256(idx_header(shape, DOUBLE if is_float else UBYTE))
        descr = "<f8" if is_float else "|u1"
        npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})

    @classmethod
    @contextmanager
    def new(cls, folder: Path, name: str, shape: tuple[int, ...], *, is_float: bool = False) -> Iterator[ArrayFile]:
        """Create a file, which is synced to disk at the end of the block."""
        with (folder / f"{name}.npy").open("xb") as file:
            yield cls(name, file, shape, is_float=is_float)
            file.flush()
            os.fsync(file.fileno())

    @property
    def digest(self) -> str:
        """The digest (hex) of what was written so far."""
        return self._digest.hexdigest()

    @property
    def mean(self) -> float:
        """The mean of all bytes, relative to the largest possible one."""
        return self._sum / (255 * self._size)

    def add(self, values: NDArray[Any]) -> None:
        """Append values."""
        if not self._is_float:
            self._sum += int(values.sum(dtype=np.uint64))
        data = np.ascontiguousarray(values)
        self._digest.update(data.astype(">f8").data if self._is_float else data.data)
        self._file.write(data.data)


def write_array(folder: Path, name: str, array: NDArray[np.uint8]) -> str:
    """Write a whole array of bytes; returns its digest."""
    with ArrayFile.new(folder, name, array.shape) as file:
        file.add(array)
    return file.digest


def write_meta(folder: Path, digests: Mapping[str, str]) -> str:
    """Complete a folder of arrays with their digests; returns the digest of all."""
    sha256 = content_sha256(digests)
    with (folder / META).open("x") as file:
        json.dump({"sha256": sha256, "files": digests}, file)
        file.flush()
        os.fsync(file.fileno())
    return sha256
