from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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
