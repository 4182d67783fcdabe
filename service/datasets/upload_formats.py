"""The formats of uploads, one entry each: form fields, options, and the limits of the process that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from service.datasets.importer import ARCHIVE, DEFAULT_PHOTOS, IDX_FIELDS, UploadRefused, is_image_archive
from service.datasets.info import PhotoOptions, TableOptions
from service.datasets.tables.plan import TABLE

DEFAULT_TABLE: Final = TableOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFormat:
    """A format of uploads.

    Attributes:
        label: such files, for people.
        fields: of the form, with its files.
        options: the defaults of the options that only this format has.
        memory_bytes: that the process may map in addition to what it has after importing NumPy.
    """

    label: str
    fields: tuple[str, ...]
    options: PhotoOptions | TableOptions | None = None
    memory_bytes: int = 48 * 2**20
    cpu_s: int = 60


IMAGE_ARCHIVE: Final = UploadFormat(
    label="archives of image files",
    fields=(ARCHIVE,),
    options=DEFAULT_PHOTOS,
    memory_bytes=512 * 2**20,  # enough to decode, rotate and scale an image of 32 million pixels
    cpu_s=300,
)
NPZ_ARCHIVE: Final = UploadFormat(label="NPZ files", fields=(ARCHIVE,))
IDX_FILES: Final = UploadFormat(label="IDX files as images and labels", fields=IDX_FIELDS)
TABLE_FILE: Final = UploadFormat(
    label="tables",
    fields=(TABLE,),
    options=DEFAULT_TABLE,
    memory_bytes=192 * 2**20,  # enough for the labels of 10 million rows, and blocks of 2,000 columns
    cpu_s=300,
)
FORMATS: Final = (IMAGE_ARCHIVE, NPZ_ARCHIVE, IDX_FILES, TABLE_FILE)
FIELDS: Final = tuple(dict.fromkeys(field for entry in FORMATS for field in entry.fields))
"""The form fields that contain files."""


def format_of(files: Mapping[str, Path]) -> UploadFormat:
    """The format of files by form field; the first bytes of an archive show its kind."""
    entry = next((entry for entry in (TABLE_FILE, NPZ_ARCHIVE) if entry.fields[0] in files), IDX_FILES)
    return IMAGE_ARCHIVE if entry is NPZ_ARCHIVE and is_image_archive(files[ARCHIVE]) else entry


def check(entry: UploadFormat, files: Mapping[str, Path], photos: PhotoOptions, table: TableOptions) -> None:
    """Refuse files and options of other formats.

    Raises:
        UploadRefused
    """
    if not files.keys() <= set(entry.fields):
        raise UploadRefused({entry.fields[0]: "must be the only file"})
    faults: dict[str, str] = {}
    for other, given in ((IMAGE_ARCHIVE, photos), (TABLE_FILE, table)):
        changed = [
            item.name for item in fields(given) if getattr(given, item.name) != getattr(other.options, item.name)
        ]
        if changed and entry is not other:
            faults |= dict.fromkeys(changed, f"is for {other.label}")
    if faults:
        raise UploadRefused(faults)
