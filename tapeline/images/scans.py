"""Counts the scans of a JPEG file, without decoding it.

A progressive JPEG is decoded scan by scan, and each passes over the whole image, even if it has no data: a small file
with thousands of scans takes minutes. Of the other formats, an interlaced PNG always has seven passes and a GIF four.
"""

from __future__ import annotations

import re
from typing import Final

MAX_SCANS: Final = 100
"""Maximum number of scans of an image. Programs write about ten, and at most a few dozen."""
MAX_SEGMENTS: Final = 10_000
"""Maximum number of segments that are looked at; a photo with its metadata has a few hundred at most."""
SIGNATURE: Final = b"\xff\xd8\xff"
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker as libjpeg finds it, also after compressed data: there, FF 00 is a byte, and RST0 to RST7 end no scan."""
_SOS: Final = 0xDA
_EOI: Final = 0xD9
_WITHOUT_LENGTH: Final = frozenset({0x01, 0xD8})


def refusal(jpeg: bytes) -> str:
    """Why a JPEG is not decoded, if it has too many scans or segments; empty if it has not.

    A scan begins with the marker SOS, outside of other segments and of compressed data.
    """
    position = scans = segments = 0
    while match := _MARKER.search(jpeg, position):
        marker, position = jpeg[match.end() - 1], match.end()
        if marker == _EOI:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        segments, scans = segments + 1, scans + (marker == _SOS)
        if scans > MAX_SCANS:
            return f"has more than {MAX_SCANS} scans; save it again, as a JPEG that is not progressive"
        if segments > MAX_SEGMENTS:
            return f"has more than {MAX_SEGMENTS:,} segments; save it again"
        position += max(2, int.from_bytes(jpeg[position : position + 2], "big"))
    return ""
