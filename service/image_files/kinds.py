"""Formats of images that are not read, by the names and the first bytes of files."""

from __future__ import annotations

import re
from typing import Final

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
