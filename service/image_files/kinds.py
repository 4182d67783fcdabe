"""Formats of images that are not read, by the names and the first bytes of files."""

from __future__ import annotations

import re
from typing import Final

_FORMATS: Final = {
    ".heic": "HEIC", ".heif": "HEIC", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF", ".jxl": "JPEG XL",
    ".jp2": "JPEG 2000", ".svg": "SVG", ".psd": "PSD", ".dng": "DNG", ".cr2": "CR2", ".nef": "NEF", ".arw": "ARW",
    ".tga": "TGA", ".ppm": "PPM", ".pgm": "PGM", ".pbm": "PBM", ".ico": "ICO",
}  # fmt: skip
"""Other formats of images, by extension."""
_BEGINNINGS: Final = {
    re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL): "HEIC",
    re.compile(rb"....ftypavi[fs]", re.DOTALL): "AVIF",
    re.compile(rb"II\*\0|MM\0\*"): "TIFF",
    re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "): "JPEG XL",
}
"""The same by the first bytes, for files that are called like images that are read."""
_READ: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP", re.DOTALL)
"""The first bytes of formats that are read, but for BMP, of which there are too few to tell."""
BEGINNING: Final = 12
"""The number of first bytes that tell a format."""


def why_unreadable(beginning: bytes) -> str:
    """Why a file that is called like an image cannot be opened as one, by its first bytes."""
    if _READ.match(beginning):
        return "is truncated or damaged"
    found = next((name for pattern, name in _BEGINNINGS.items() if pattern.match(beginning)), None)
    return not_read(found) if found else "is not a PNG, JPEG, WebP, BMP or GIF image"


def format_of_name(name: str) -> str:
    """The format by the extension of a name; empty if it is none of these."""
    dot = name.rfind(".")
    return _FORMATS.get(name[dot:].lower(), "") if dot >= 0 else ""


def not_read(name: str) -> str:
    """Why a file of a format is not read, and what to do about it."""
    return f"has the format {name}, which is not read: convert it to JPEG or PNG"
