"""What is uploaded: the kind of a file, by its name and its first bytes, and a folder of image files as an archive."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import re
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Final

from tapeline.errors import NotUploadable, UnreadableImage
from tapeline.images.files import IMAGE_SUFFIXES, MAX_DATASET_SIDE, UNSEEN_FILES, Size

ARCHIVES: Final = (".npz", ".zip", ".tar", ".tar.gz", ".tgz")
TABLES: Final = tuple(f"{suffix}{packing}" for suffix in (".csv", ".tsv", ".txt") for packing in ("", ".gz"))
StrPath = str | os.PathLike[str]
Given = Mapping[str, StrPath] | Sequence[StrPath] | StrPath
"""The files of a dataset: a path, several, or paths by form field."""

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

REFUSED_SUFFIXES: Final = {
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
    (*IMAGE_SUFFIXES, ".heic", ".avif", ".tif", ".tiff"): _IMAGE,
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
    for suffixes, problem in REFUSED_SUFFIXES.items():
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


_LETTERS: Final = str.maketrans({
    "ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o",
    "Ø": "O",
})  # fmt: skip


def dataset_name(file_name: str) -> str:
    """A valid name of a dataset for a file or folder: ``Meine-Fotos`` for ``Meine Fotos``, as on the page."""
    suffixes = sorted((*TABLES, *ARCHIVES, ".gz"), key=len, reverse=True)
    suffix = next((suffix for suffix in suffixes if file_name.lower().endswith(suffix)), "")
    text = unicodedata.normalize("NFC", file_name.removesuffix(file_name[len(file_name) - len(suffix) :]))
    text = unicodedata.normalize("NFKD", text.translate(_LETTERS)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64] or "data"


def reason_to_scale(folder: Path) -> str:
    """Why the images of a folder need a size, as a clause; empty if they do not."""
    from tapeline.images import decoding  # lazily: it loads Pillow

    sizes: dict[Size, None] = {}
    for path in files_of(folder)[0]:
        with suppress(UnreadableImage, OSError), path.open("rb") as file, decoding.open_image(file) as image:
            sizes[decoding.upright_size(image)] = None
        if len(sizes) > 1:
            break
    shown = [f"{width} x {height}" for width, height in sizes]
    if len(sizes) > 1:
        return f"the images have different sizes, such as {shown[0]} and {shown[1]}"
    if any(max(size) > MAX_DATASET_SIDE for size in sizes):
        return f"the images have {shown[0]} pixels, more than {MAX_DATASET_SIDE} on a side"
    return ""


def by_field(files: Given) -> dict[str, Path]:
    """The files of one dataset by form field; a folder of images is an ``archive``.

    Raises:
        NotUploadable: a dataset cannot be made from one of them, or not from all together.
    """
    if isinstance(files, Mapping):
        return {field: Path(path) for field, path in files.items()}
    paths = [Path(files)] if isinstance(files, str | os.PathLike) else list(map(Path, files))
    shown = " and ".join(map(str, paths[:2]))
    if len(paths) > 1 and any(path.is_dir() for path in paths):
        raise NotUploadable(
            "upload one folder at a time: its folders are the classes. If these are parts of one dataset, move them "
            f"into one folder: {shown}"
        )
    if sum(map(is_table, paths)) > 1:
        raise NotUploadable(
            f"{shown} are tables, and a dataset is one: join them into one file and use split: it names the column "
            "that says train, validation or test in each row"
        )
    result: dict[str, Path] = {}
    for path in paths:
        field = "archive" if path.is_dir() else field_of(path)
        if field in result:
            remedy = "upload one archive at a time" if field == "archive" else "rename one"
            raise NotUploadable(f"{result[field]} and {path} would both be used as {field}: {remedy}")
        result[field] = path
    return result


@dataclass(frozen=True, slots=True)
class Packed:
    """The files of an upload, by form field, with a folder of images as an archive."""

    paths: Mapping[str, Path]
    left_out: Sequence[str] = ()
    """Images that were not packed, each with the reason."""
    unnamed: int = 0
    """Number of other files in the folder whose names are not sent."""


@contextmanager
def packed(files: Given, **options: Any) -> Iterator[Packed]:
    """The files of one dataset; a folder of images is a temporary archive, made by ``pack`` with these options."""
    paths = by_field(files)
    folder = paths.get("archive")
    if folder is None or not folder.is_dir():
        yield Packed(paths)
        return
    with TemporaryDirectory(prefix="tapeline-upload-") as temporary:
        archive = Path(temporary, "images.tar")
        left_out, unnamed = pack(folder, archive, **options)
        yield Packed({**paths, "archive": archive}, left_out, unnamed)


_MAX_NAMED_FILES: Final = 5
_MAX_SENT_NAMES: Final = 50
"""Maximum number of non-image files whose names are sent, because the service limits the files of an
archive."""


def files_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files in a folder and its subfolders, and the other files; both sorted, without hidden ones."""
    files = sorted(_walk(folder))
    images = [path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES)]
    other_files = [path for path in files if not path.name.lower().endswith(IMAGE_SUFFIXES)]
    return images, other_files


def names_to_send(folder: Path, other_files: Sequence[Path]) -> list[str]:
    """The names of the first files that are not images, as members of an archive that the service accepts."""
    names = (path.relative_to(folder).as_posix() for path in other_files)
    safe = (name for name in names if ".." not in PurePosixPath(name.replace("\\", "/")).parts)
    # The service drops the prefix. Without it, a name such as a:b.txt would be that of a drive.
    return [f"./{name}" for name in itertools.islice(safe, _MAX_SENT_NAMES)]


def pack(
    folder: Path,
    target: Path,
    *,
    size: Size | None = None,
    grey: bool = False,
    pads: bool = False,
    skips: bool = False,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], int]:
    """Write a tar file with the image files of a folder, and the names of its other files, which have no content.

    Args:
        size: scale images as the import does, so that less is sent for the same dataset; the names stay. Without it,
            files are packed as they are.
        grey: the import converts them to grey.
        pads: it adds borders instead of cropping them.
        skips: leave out images that cannot be read. One that cannot be decoded is packed as it is, so that the report
            of the import names it.
        on_image: called after each image with the number of processed images and of all.

    Returns:
        The images that were not packed, each with the reason, and the number of other files that the archive
        does not name.

    Raises:
        UnreadableImage: the folder contains no images, or some cannot be read; the message lists them.
    """
    images, other_files = files_of(folder)
    if not images:
        raise UnreadableImage(f"{folder} contains no images; files ending in {', '.join(IMAGE_SUFFIXES)} are read")
    names = names_to_send(folder, other_files)
    faults: list[str] = []
    sent = 0
    with tarfile.open(target, "w", dereference=True) as archive:  # the service accepts no links
        for done, path in enumerate(images, 1):
            name = path.relative_to(folder).as_posix()
            try:
                if size is None:
                    archive.add(path, name)
                else:
                    data = _scaled(path, size, grey=grey, pads=pads)
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
                sent += 1
            except UnreadableImage as error:
                if skips:
                    archive.add(path, name)
                else:
                    faults.append(f"{path} {error}")
            except OSError as error:
                faults.append(f"{path} {error.strerror or error}")
            on_image(done, len(images))
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    if faults and not (skips and sent):
        ellipsis = f"\n  and {len(faults) - _MAX_NAMED_FILES:,} more" if len(faults) > _MAX_NAMED_FILES else ""
        these, them = ("this file", "it") if len(faults) == 1 else ("these files", "them")
        advice = f"remove or replace {them}, or leave {them} out with on_bad=skip"
        fault_lines = "\n  ".join(faults[:_MAX_NAMED_FILES])
        raise UnreadableImage(f"{these} cannot be read; {advice}:\n  {fault_lines}{ellipsis}")
    return faults, len(other_files) - len(names)


def _scaled(path: Path, size: Size, *, grey: bool, pads: bool) -> bytes:
    """An image as the import scales it, as a PNG."""
    from tapeline.images import decoding  # lazily: it loads Pillow

    data = io.BytesIO()
    with path.open("rb") as file:
        decoding.decode(file, size, grey=grey, pads=pads).save(data, "PNG")
    return data.getvalue()


def _walk(folder: str | Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The files in a folder and its subfolders, also linked ones, except those that contain the link."""
    above |= {os.path.realpath(folder)}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if not entry.name.startswith((".", "__MACOSX")) and os.path.realpath(entry.path) not in above:
                    yield from _walk(entry.path, above)
            elif not entry.name.startswith(".") and entry.name.lower() not in UNSEEN_FILES:
                yield Path(entry.path)
