"""Files that are not read as images: what they are, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from service.datasets.formats import archives
from service.image_files.kinds import format_of_name, not_read

_TABLES: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_INVISIBLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SHOWN: Final = 200
"""Characters of a name that a message shows."""


def skip_reason(name: str) -> str:
    """Why a file is left out, by its name, which does not end like those of images that are read."""
    found = format_of_name(name)
    return not_read(found) if found else "is not an image file"


def no_images_hint(names: Sequence[str]) -> str:
    """What an archive without images contains that is perhaps meant, and what to do about it."""
    if pictures := [name for name in names if format_of_name(name)]:
        formats = " and ".join(dict.fromkeys(map(format_of_name, pictures)))
        if len(pictures) == 1:
            return f"; {printable(pictures[0])} {not_read(formats)}"
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
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", name[:_SHOWN]).encode(errors="replace").decode()
