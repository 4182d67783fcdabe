"""Files that are not read as images: what they are, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from service.datasets.formats import archives
from tapeline.images.files import format_of_name, unsupported_message

_TABLES: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_INVISIBLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MAX_SHOWN: Final = 200
"""Maximum number of characters of a name that a message shows."""


def skip_reason(name: str) -> str:
    """Why a file is left out, by its name, whose extension is not that of an image format that is read."""
    format_name = format_of_name(name)
    return unsupported_message(format_name) if format_name else "is not an image file"


def no_images_hint(names: Sequence[str]) -> str:
    """A hint for an archive without images: what it contains instead, and what to do about it."""
    if pictures := [name for name in names if format_of_name(name)]:
        formats = " and ".join(dict.fromkeys(map(format_of_name, pictures)))
        if len(pictures) == 1:
            return f"; {printable(pictures[0])} {unsupported_message(formats)}"
        noun = "formats" if " and " in formats else "format"
        return f"; {len(pictures):,} files have the {noun} {formats}: convert them to JPEG or PNG"
    if archive := next((name for name in names if name.lower().endswith(archives.SUFFIXES)), ""):
        return f"; it contains the archive {printable(archive)}: unpack that, and pack its folders"
    if table := first_table(names):
        return f"; it contains the table {table}: unpack that, and upload it instead"
    return ""


def first_table(names: Sequence[str]) -> str | None:
    """The first name of a table, as it may be shown."""
    return next((printable(name) for name in names if name.lower().endswith(_TABLES)), None)


def printable(name: str) -> str:
    """The beginning of a name that was not checked, as UTF-8 without control characters."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", name[:_MAX_SHOWN]).encode(errors="replace").decode()
