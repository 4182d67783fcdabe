"""Files of bytes in NumPy's format, written in pieces."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.datasets.formats.idx import idx_header


class ArrayFile:
    """An .npy file of bytes that is being written, and the digest of the equivalent IDX file."""

    def __init__(self, name: str, file: IO[bytes], shape: tuple[int, ...]) -> None:
        self.name, self._file = name, file
        self._sum, self._size = 0, math.prod(shape)
        self.digest = hashlib.sha256(idx_header(shape))
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})

    @classmethod
    @contextmanager
    def new(cls, folder: Path, name: str, shape: tuple[int, ...]) -> Iterator[ArrayFile]:
        """Create a file, which is synced to disk at the end of the block."""
        with (folder / f"{name}.npy").open("xb") as file:
            yield cls(name, file, shape)
            file.flush()
            os.fsync(file.fileno())

    @property
    def mean(self) -> float:
        """The mean of all values, relative to the largest possible one."""
        return self._sum / (255 * self._size)

    def add(self, values: NDArray[np.uint8]) -> None:
        """Append values."""
        self._sum += int(values.sum(dtype=np.uint64))
        data = np.ascontiguousarray(values).data
        self.digest.update(data)
        self._file.write(data)
