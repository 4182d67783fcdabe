from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.pictures import reading


@settings(max_examples=300)
@given(
    mode=st.sampled_from(["L", "LA", "P", "RGB", "RGBA", "1", "I;16"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=0, max_size=6)), min_size=1, max_size=4),
    checksums_match=st.booleans(),
)
def test_a_damaged_png_is_read_or_reported_as_unreadable(
    mode: str, changes: list[tuple[int, bytes]], checksums_match: bool
) -> None:
    buffer = io.BytesIO()
    levels = np.arange(196, dtype=np.uint8).reshape(14, 14)
    image = Image.fromarray(levels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    image.save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    for offset, replacement in changes:
        data[offset : offset + len(replacement)] = replacement
    damaged = with_checksums(bytes(data)) if checksums_match else bytes(data)
    with suppress(reading.UnreadablePicture):
        assert reading.read_png(damaged, max_side=64).shape[0] <= 64


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_exif_orientation_of_a_png_is_applied_as_in_pillow(orientation: int, order: str) -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = "a camera", orientation
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", exif=exif)
    with Image.open(io.BytesIO(file.getvalue())) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened))
    assert (upright.shape == (3, 4)) is (orientation < 5)
    np.testing.assert_array_equal(reading.read_png(file.getvalue(), max_side=9), upright)


@given(exif=st.binary(max_size=60), tiff_header=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_a_png_with_damaged_exif_data_is_still_read(exif: bytes, tiff_header: bytes) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(file, "PNG")
    data = file.getvalue().replace(chunk(b"IEND", b""), chunk(b"eXIf", tiff_header + exif) + chunk(b"IEND", b""))
    assert reading.read_png(data, max_side=9).shape in ((2, 3), (3, 2))


def with_checksums(data: bytes) -> bytes:
    """Recompute the CRCs of all chunks, so that the damage reaches the reader."""
    repaired, offset = data[:8], 8
    while offset + 12 <= len(data):
        length = int.from_bytes(data[offset : offset + 4])
        repaired += chunk(data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length])
        offset += 12 + length
    return repaired


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
