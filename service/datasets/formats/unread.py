"""Files that are not read as images: what they are, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from service.datasets.formats import archives

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
BEGINNING: Final = 12
"""The number of first bytes that tell a format."""
_TABLES: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SHOWN: Final = 200
"""Characters of a name that a message shows."""


def why_left_out(name: str) -> str:
    """Why a file is left out, by its name, which does not end like those of images that are read."""
    found = _format_of_name(name)
    return _not_read(found) if found else "is not an image file"


def why_unreadable(beginning: bytes) -> str:
    """Why a file that is called like an image is none, by its first bytes."""
    found = next((name for pattern, name in _BEGINNINGS.items() if pattern.match(beginning)), None)
    return _not_read(found) if found else "is not a PNG, JPEG, WebP, BMP or GIF image"


def instead_of_images(names: Sequence[str]) -> str:
    """What an archive without images contains that is perhaps meant, and what to do about it."""
    if pictures := [name for name in names if _format_of_name(name)]:
        formats = " and ".join(dict.fromkeys(map(_format_of_name, pictures)))
        if len(pictures) == 1:
            return f"; {printable(pictures[0])} {_not_read(formats)}"
        noun = "formats" if " and " in formats else "format"
        return f"; {len(pictures):,} files have the {noun} {formats}: convert them to JPEG or PNG"
    if inner := next((name for name in names if name.lower().endswith(archives.SUFFIXES)), ""):
        return f"; it contains the archive {printable(inner)}: unpack that, and pack its folders"
    if table := first_table(names):
        return f"; it contains the table {table}: unpack that, and upload it instead"
    return ""


def first_table(names: Sequence[str]) -> str | None:
    """The first name of a table, as it may be shown."""
    return next((printable(name) for name in names if name.lower().endswith(_TABLES)), None)


def printable(name: str) -> str:
    """A name that was not checked: the beginning, as UTF-8, without control characters."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", name[:_SHOWN]).encode(errors="replace").decode()


def _format_of_name(name: str) -> str:
    dot = name.rfind(".")
    return _FORMATS.get(name[dot:].lower(), "") if dot >= 0 else ""


def _not_read(name: str) -> str:
    return f"has the format {name}, which is not read: convert it to JPEG or PNG"
