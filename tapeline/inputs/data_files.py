"""Recognizes the kind of a file for an upload by its name and its first bytes."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import Final

from tapeline.errors import NotUploadable

ARCHIVES: Final = (".npz", ".zip", ".tar", ".tar.gz", ".tgz")
TABLES: Final = tuple(f"{suffix}{packing}" for suffix in (".csv", ".tsv", ".txt") for packing in ("", ".gz"))
_HEAD_BYTES: Final = 512
_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_TAR_MAGIC: Final = slice(257, 262)
_IDX_WORDS: Final = ("images", "labels", "ubyte", "idx")

_SHEET: Final = "a spreadsheet: save the sheet as CSV, and upload that file"
_CONVERT: Final = "convert the table to CSV, and upload that file"
_PACK: Final = "upload the folder itself, or pack it as zip or tar.gz"
_UNPACK: Final = "unpack it, and upload what is in it"
_IMAGE: Final = "a single image: upload a folder that has a folder of images for each class"
_ARRAY: Final = "NPZ with the arrays images and labels"

_BY_SUFFIX: Final = {
    (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers"): _SHEET,
    (".parquet", ".pq"): f"a Parquet file: {_CONVERT}",
    (".feather", ".arrow"): f"an Arrow file: {_CONVERT}",
    (".json", ".jsonl", ".ndjson"): f"a JSON file: {_CONVERT}",
    (".sqlite", ".sqlite3", ".db"): f"a database: {_CONVERT}",
    (".pkl", ".pickle"): "a pickle, which may run code when it is read: save the data as CSV or NPZ",
    (".7z", ".rar", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst"): f"an unsupported archive: {_PACK}",
    (".xz", ".bz2", ".zst"): f"compressed in an unsupported way: {_UNPACK}",
    (".npy",): f"a single array: save {_ARRAY}",
    (".h5", ".hdf5"): f"an HDF5 file: save {_ARRAY}",
    (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".heic", ".avif", ".tif", ".tiff"): _IMAGE,
}
"""Refused kinds of files by suffix, each with the remedy."""
_BY_SIGNATURE: Final = {
    b"PAR1": f"a Parquet file: {_CONVERT}",
    b"ARROW1": f"an Arrow file: {_CONVERT}",
    b"SQLite format 3": f"a database: {_CONVERT}",
    b"\xd0\xcf\x11\xe0": _SHEET,
    b"7z\xbc\xaf": f"an unsupported archive: {_PACK}",
    b"Rar!": f"an unsupported archive: {_PACK}",
    b"\xfd7zXZ\0": f"compressed in an unsupported way: {_UNPACK}",
    b"BZh": f"compressed in an unsupported way: {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"compressed in an unsupported way: {_UNPACK}",
    b"\x93NUMPY": f"a single array: save {_ARRAY}",
    b"\x89HDF": f"an HDF5 file: save {_ARRAY}",
    b"\x89PNG": _IMAGE,
    b"\xff\xd8\xff": _IMAGE,
    b"GIF8": _IMAGE,
    b"%PDF": "a PDF document: a dataset is a folder of images, a CSV file, an archive or IDX files",
}
"""The same by the first bytes, for files whose names say nothing or mislead."""


def is_table(path: Path) -> bool:
    """Whether a file has the name of a table."""
    return path.name.lower().endswith(TABLES)


def field_of(path: Path) -> str:
    """The form field for a file: ``table``, ``archive``, or the role of an IDX file.

    Raises:
        NotUploadable: it is none of them; the message names its kind and the remedy.
    """
    name, head = path.name.lower(), _first_bytes(path)
    if head.startswith(_ZIP) and not name.endswith((".zip", ".npz")) and _is_spreadsheet(path):
        raise NotUploadable(f"{path} is {_SHEET}")
    for suffixes, problem in _BY_SUFFIX.items():
        if name.endswith(suffixes):
            raise NotUploadable(f"{path} is {problem}")
    for signature, problem in _BY_SIGNATURE.items():
        if head.startswith(signature):
            raise NotUploadable(f"{path} is {problem}")
    if name.endswith(TABLES):
        return "table"
    if name.endswith(ARCHIVES) or head.startswith(_ZIP) or head[_TAR_MAGIC] == b"ustar":
        return "archive"
    if not head.startswith(b"\0\0") and not any(word in name for word in _IDX_WORDS):
        raise NotUploadable(
            f"{path} is not a file that can be uploaded: these are CSV and TSV files (a text file with a table: rename "
            "it to .csv), zip, tar, tar.gz and NPZ archives, and IDX files"
        )
    role = "labels" if "label" in name else "images"
    return f"validation_{role}" if any(word in name for word in ("t10k", "test", "val")) else role


def _first_bytes(path: Path) -> bytes:
    """The first bytes, unpacked if the file is gzipped."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(_GZIP):
        return head
    try:
        with gzip.open(path) as unpacked:
            return unpacked.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return head  # damaged: the service reports where


def _is_spreadsheet(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.startswith("xl/") or name == "content.xml" for name in names)
