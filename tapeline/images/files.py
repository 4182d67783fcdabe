"""Names, kinds, sizes and limits of image files. It does not import Pillow."""

from __future__ import annotations

import re
from typing import Final

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif")
"""The suffixes of image files in folders and archives, in lower case."""
UNSEEN_FILES: Final = ("thumbs.db", "desktop.ini")
"""Names in lower case of files that file managers leave in folders."""
SENT_UNCHANGED_BYTES: Final = 700_000
"""Maximum size of a file that is sent unchanged: in base64, it fits into the body of a request."""
SENT_UNCHANGED_PIXELS: Final = 2**24
"""Maximum number of pixels of such a file, and of all files of one request."""
MAX_SIDE: Final = 2048
"""Maximum width and height of a PNG, or of rows of numbers, in pixels."""
SENT_SIDE: Final = 384
"""Other images are scaled down to this side length: networks use a few dozen pixels a side."""

MAX_DATASET_SIDE: Final = 512
"""Maximum width and height of the images of a dataset, in pixels."""
USUAL_SIZE: Final = "32"
"""The size to which the images of a folder are fitted if they need one and none is given, as on the page."""

Size = tuple[int, int]
"""Width and height in pixels, in the order that image programs use."""

_SIZE: Final = re.compile(r"([1-9]\d{0,3})(?:x([1-9]\d{0,3}))?")

_FORMATS: Final = {
    ".heic": "HEIC", ".heif": "HEIC", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF", ".jxl": "JPEG XL",
    ".jp2": "JPEG 2000", ".svg": "SVG", ".psd": "PSD", ".dng": "DNG", ".cr2": "CR2", ".nef": "NEF", ".arw": "ARW",
    ".tga": "TGA", ".ppm": "PPM", ".pgm": "PGM", ".pbm": "PBM", ".ico": "ICO",
}  # fmt: skip
"""Image formats that are not read, by extension."""
_SIGNATURES: Final = {
    re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL): "HEIC",
    re.compile(rb"....ftypavi[fs]", re.DOTALL): "AVIF",
    re.compile(rb"II\*\0|MM\0\*"): "TIFF",
    re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "): "JPEG XL",
}
"""The same by the first bytes, for files with the extension of a format that is read."""
_READABLE: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP", re.DOTALL)
"""The first bytes of formats that are read, except BMP, whose signature is too short to be reliable."""
SIGNATURE_BYTES: Final = 12
"""The number of first bytes by which a format is recognized."""


def unreadable_reason(signature: bytes) -> str:
    """Why a file with the extension of an image cannot be opened as one, by its first bytes."""
    if _READABLE.match(signature):
        return "is truncated or damaged"
    format_name = next((name for pattern, name in _SIGNATURES.items() if pattern.match(signature)), None)
    return unsupported_message(format_name) if format_name else "is not a PNG, JPEG, WebP, BMP or GIF image"


def format_of_name(name: str) -> str:
    """The format by the extension of a name; empty if the extension is not one of these."""
    dot = name.rfind(".")
    return _FORMATS.get(name[dot:].lower(), "") if dot >= 0 else ""


def unsupported_message(name: str) -> str:
    """The message for a file in a format that is not read, with what to do about it."""
    return f"has the format {name}, which is not read: convert it to JPEG or PNG"


def parse_size(text: str) -> Size:
    """Parse ``32`` or ``32x24`` (width x height).

    Raises:
        ValueError: neither of these.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a size: write 32, or 32x24 for width x height")
    width = int(match[1])
    return width, int(match[2] or width)


def is_sent_unchanged(size_bytes: int, width: int, height: int, *, is_png: bool) -> bool:
    """Whether a file of this size is sent unchanged. The page's ``draw.js`` decides in the same way."""
    is_small = size_bytes <= SENT_UNCHANGED_BYTES and width * height <= SENT_UNCHANGED_PIXELS
    return is_small and (not is_png or max(width, height) <= MAX_SIDE)
