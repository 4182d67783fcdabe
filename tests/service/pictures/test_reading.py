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
    picture=st.sampled_from(["L", "LA", "P", "RGB", "RGBA", "1", "I;16"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=0, max_size=6)), min_size=1, max_size=4),
    mended=st.booleans(),
)
def test_a_damaged_picture_is_read_or_called_broken(
    picture: str, changes: list[tuple[int, bytes]], mended: bool
) -> None:
    made = io.BytesIO()
    levels = np.arange(196, dtype=np.uint8).reshape(14, 14)
    image = Image.fromarray(levels.astype(np.uint16)) if picture == "I;16" else Image.fromarray(levels).convert(picture)
    image.save(made, "PNG")
    data = bytearray(made.getvalue())
    for place, put in changes:
        data[place : place + len(put)] = put
    damaged = with_checksums(bytes(data)) if mended else bytes(data)
    with suppress(reading.UnreadablePicture):
        assert reading.read_png(damaged, max_side=64).shape[0] <= 64


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_png_is_turned_upright_as_pillow_turns_it(orientation: int, order: str) -> None:
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


@given(exif=st.binary(max_size=60), marked=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]))
def test_damaged_exif_data_leave_a_png_as_it_is_or_turn_it(exif: bytes, marked: bytes) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(file, "PNG")
    data = file.getvalue().replace(chunk(b"IEND", b""), chunk(b"eXIf", marked + exif) + chunk(b"IEND", b""))
    assert reading.read_png(data, max_side=9).shape in ((2, 3), (3, 2))


def with_checksums(data: bytes) -> bytes:
    """The chunks with CRCs that fit, so that the damage reaches the reader."""
    made, place = data[:8], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        made += chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length])
        place += 12 + length
    return made


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
