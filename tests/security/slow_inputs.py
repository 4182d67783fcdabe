"""Small inputs that take long to read: images, archives, tables and sweeps."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

from PIL import Image

EMPTY_SCAN = b"\xff\xda\0\x08\x01\x01\0\0\0\x10"
"""A scan of a grey progressive JPEG that refines the first coefficient of each block, without data: they stay."""


def jpeg(scans: int, *, side: int = 8) -> bytes:
    """A grey progressive JPEG with this many scans, of which all but the usual ones are empty."""
    file = io.BytesIO()
    Image.new("L", (8, 8), 90).save(file, "JPEG", progressive=True)
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(data[:-2]) + EMPTY_SCAN * (scans - data.count(b"\xff\xda")) + b"\xff\xd9"


def zip_of_jpegs(scans: int, *, side: int = 5792) -> bytes:
    """A zip with two classes, each with one image: 0.7 KB with 4,500 scans in each."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in ("a/1.jpg", "b/1.jpg"):
            archive.writestr(name, jpeg(scans, side=side))
    return file.getvalue()


def gzipped_rows(count: int, row: bytes) -> bytes:
    """A table of equal short rows: 0.2 MB with 50 million."""
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(b"a,b\n")
    for start in range(0, count, 100_000):
        packed += packer.compress(row * min(100_000, count - start))
    return packed + packer.flush()


def large_sweep() -> dict[str, Any]:
    """A valid sweep of 20 settings with 1,000 values each."""
    layers = [{"units": 8, "activation": "relu"} for _ in range(20)] + [{"units": 10, "activation": "softmax"}]
    return {
        "base": {"kind": "classifier", "layers": layers},
        "space": {f"/layers/{index}/units": {"choice": list(range(1, 1001))} for index in range(20)},
        "search": {"name": "random", "trials": 100},
    }
