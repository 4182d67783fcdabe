"""Imports archives of image files: zip or tar (also gzipped), one folder per class, optionally under
``train/``, ``validation/`` and ``test/``.

First, only the names are read: they determine the classes, and errors in them are reported before any image
is decoded. Then each image is decoded once, at its final size, into one temporary file, from which the arrays
are read. This is necessary because it is known only at the end whether the data is in colour, and which
images are damaged.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.datasets.errors import DatasetBroken
from service.datasets.formats import archives
from service.datasets.formats.archives import Member, UnreadableMember
from service.datasets.formats.options import MIN_SPREAD, Channels, OnBad, PhotoOptions
from service.datasets.formats.streams import ArrayStream
from service.datasets.info import CHANNELS_GIVEN, PART_WORDS, Fit, OnProgress, PartName
from tapeline.errors import UnreadableImage
from tapeline.images.decoding import open_image, pixels_of, upright_size
from tapeline.images.files import IMAGE_SUFFIXES, UNSEEN_FILES, Size, format_of_name, unsupported_message

MAX_FILES: Final = 200_000
MAX_FAULTS: Final = 1_000
"""Number of unreadable files after which the import stops."""
_MAX_LISTED: Final = 50
"""Maximum number of skipped files that the report names."""
MAX_CLASSES: Final = 256
MAX_CLASS_NAME: Final = 100

_TABLES: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_INVISIBLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MAX_SHOWN_NAME: Final = 200
"""Maximum number of characters of a name that a message shows."""

_MAX_NAMED: Final = 5
"""Maximum number of files that an error message names."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Photos:
    """The content of an archive.

    Attributes:
        arrays: ``images`` and ``labels``, and the same with the prefixes ``validation_`` and ``test_`` if the archive
            has these parts. Images are bytes of the shape (count, rows, columns), in colour (count, rows, columns, 3).
        class_names: in the order of the labels.
        report: the decisions of the import, and the skipped files.
    """

    arrays: Mapping[str, ArrayStream]
    class_names: tuple[str, ...]
    report: Mapping[str, Any]


@contextmanager
def open_photos(
    path: Path,
    options: PhotoOptions,
    *,
    folder: Path,
    max_bytes: int,
    max_side: int,
    on_progress: OnProgress = lambda done: None,
) -> Iterator[Photos]:
    """Decode the images of an archive.

    Args:
        folder: for an unnamed temporary file, which is deleted at the end of the block.
        max_bytes: maximum size of all pixels together.
        max_side: larger images are decoded only if they are scaled.
        on_progress: called with the fraction of the images that is decoded.

    Raises:
        DatasetBroken
        OSError: ``folder`` cannot be written.
    """
    with archives.reading(path):
        names, other_files = _list_names(path)
    outside = _outside_of_folders(path, names, options.on_bad)
    _classes_of(path, [name for name in names if name not in outside], other_files)
    with tempfile.TemporaryFile(dir=folder) as file:
        spool = _Spool(path, file, options, len(names) - len(outside), max_bytes=max_bytes, max_side=max_side)
        spool.faults += [(name, "is outside of class folders") for name in names if name in outside]
        try:
            with archives.reading(path):
                for number, member in enumerate(_images(path), 1):
                    if member.name not in outside:
                        spool.add(member)
                    on_progress(number / len(names))
        except _NotWritten as error:
            raise error.error from None
        if spool.faults and options.on_bad is OnBad.ERROR:
            raise DatasetBroken(path, _describe_faults(spool.faults))
        if not spool.records and spool.faults:
            raise DatasetBroken(path, f"has no image that can be read: {_describe_faults(spool.faults)}")
        width, height = spool.size()
        # Sorted, so that the same photos are the same data, regardless of the program that packed them.
        assignments = _classes_of(path, sorted(spool.records, key=lambda name: PurePosixPath(name).parts))
        is_colour = options.channels is Channels.COLOUR or spool.coloured_by is not None
        shape = (height, width, 3) if is_colour else (height, width)
        labels = _sort_classes({label for _, label in assignments.values()})
        arrays: dict[str, ArrayStream] = {}
        for part, prefix in ((PartName.TRAIN, ""), (PartName.VALIDATION, "validation_"), (PartName.TEST, "test_")):
            part_names = [name for name, assignment in assignments.items() if assignment[0] == part]
            if not part_names:
                continue
            values = bytes(labels.index(assignments[name][1]) for name in part_names)
            pixels = _Pixels(file, [spool.records[name] for name in part_names], shape)
            byte = np.dtype(np.uint8)
            arrays[f"{prefix}images"] = ArrayStream(path, pixels, byte, (len(part_names), *shape))
            arrays[f"{prefix}labels"] = ArrayStream(path, io.BytesIO(values), byte, (len(part_names),))
        yield Photos(arrays, tuple(labels), _report(options, spool, other_files, is_colour=is_colour))


def _list_names(path: Path) -> tuple[list[str], list[str]]:
    """The names of the images of an archive, and of the other files, without hidden ones.

    Raises:
        DatasetBroken: no images, too many, or two with the same name.
    """
    names: dict[str, None] = {}
    other_files: list[str] = []
    for member in archives.members(path):
        if not _is_image(member.name):
            if not _is_hidden(member.name):
                other_files.append(member.name)
            continue
        archives.check_name(path, member.name)
        if member.name in names:
            raise DatasetBroken(path, f"has two files {member.name[:200]}; remove one of them")
        names[member.name] = None
        if len(names) > MAX_FILES:
            raise DatasetBroken(path, f"has more than {MAX_FILES:,} images; send fewer")
    if not names:
        raise DatasetBroken(
            path,
            f"contains no images; files ending in {', '.join(IMAGE_SUFFIXES)} are read{_no_images_hint(other_files)}",
        )
    return list(names), other_files


def _images(path: Path) -> Iterator[Member]:
    return (member for member in archives.members(path) if _is_image(member.name))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    """Whether a file is hidden, or one that file managers leave in folders."""
    parts = PurePosixPath(name).parts
    return not parts or parts[-1].lower() in UNSEEN_FILES or any(part.startswith((".", "__MACOSX")) for part in parts)


class _NotWritten(Exception):
    """The temporary file cannot be written, which is not an error of the archive."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True, slots=True)
class _StoredPixels:
    """The position of an image's pixels in the temporary file, and the number of bytes per pixel."""

    start: int
    channels: int


@dataclass(slots=True)
class _Spool:
    """Decodes the images of an archive into a temporary file, grey ones with one byte per pixel."""

    path: Path
    file: IO[bytes]
    options: PhotoOptions
    count: int
    max_bytes: int = field(kw_only=True)
    max_side: int = field(kw_only=True)
    records: dict[str, _StoredPixels] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)
    coloured_by: str | None = None
    """The name of the first image with a coloured pixel, if the import has to detect colour."""
    _sizes: Counter[Size] = field(default_factory=Counter)
    _size_bytes: int = 0

    def add(self, member: Member) -> None:
        """Decode an image, or record why it cannot be decoded. If sizes differ and none is given, only count sizes."""
        try:
            with member.read() as content, open_image(content) as image:
                size = upright_size(image)
                self._sizes[size] += 1
                if self.options.size is None and (len(self._sizes) > 1 or max(size) > self.max_side):
                    self.records[member.name] = _StoredPixels(0, 0)
                    return
                self._check_room(self.options.size or size)
                is_grey, pads = self.options.channels is Channels.GREY, self.options.fit is Fit.PAD
                pixels = np.asarray(pixels_of(image, self.options.size, grey=is_grey, pads=pads))
        except (UnreadableImage, UnreadableMember) as error:
            self.faults.append((member.name, str(error)))
            if len(self.faults) >= MAX_FAULTS and self.options.on_bad is OnBad.ERROR:
                raise DatasetBroken(self.path, _describe_faults(self.faults)) from error
            return
        self._write(member.name, pixels)

    def size(self) -> Size:
        """The size of all images.

        Raises:
            DatasetBroken: the images have different sizes.
        """
        if self.options.size is not None:
            return self.options.size
        counts = self._sizes
        if len(counts) > 1:
            shown = ", ".join(f"{w}x{h} ({count:,})" for (w, h), count in counts.most_common(_MAX_NAMED))
            ellipsis = ", …" if len(counts) > _MAX_NAMED else ""
            detail = f"has images of {len(counts):,} sizes: {shown}{ellipsis}; give a size, such as 32"
            raise DatasetBroken(self.path, detail)
        return next(iter(counts))

    def _check_room(self, size: Size) -> None:
        if not self.records and self.count * size[0] * size[1] > self.max_bytes:
            pixels = f"{self.count:,} images of {size[0]} x {size[1]} pixels"
            raise DatasetBroken(self.path, f"{pixels} take more than {self.max_bytes:,} bytes; give a smaller size")

    def _write(self, name: str, pixels: Pixels) -> None:
        if pixels.ndim == 3:
            spread = int(np.max(pixels.max(axis=2) - pixels.min(axis=2)))
            if not spread:
                pixels = pixels[:, :, 0]
            elif spread > MIN_SPREAD and self.coloured_by is None:
                self.coloured_by = name
        if self._size_bytes + pixels.size > self.max_bytes:
            detail = f"the images take more than {self.max_bytes:,} bytes in colour"
            raise DatasetBroken(self.path, f"{detail}; give a smaller size, or channels=1")
        self.records[name] = _StoredPixels(self._size_bytes, 3 if pixels.ndim == 3 else 1)
        try:
            self._size_bytes += self.file.write(np.ascontiguousarray(pixels).data)
        except OSError as error:
            raise _NotWritten(error) from error


class _Pixels:
    """A readable stream of the pixels of some images in the temporary file."""

    def __init__(self, file: IO[bytes], records: Sequence[_StoredPixels], shape: Sequence[int]) -> None:
        self._source = self._images(file, records, shape)
        self._remaining = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        if not self._remaining:
            self._remaining = memoryview(next(self._source, b""))
        data, self._remaining = bytes(self._remaining[:size]), self._remaining[size:]
        return data

    @staticmethod
    def _images(file: IO[bytes], records: Sequence[_StoredPixels], shape: Sequence[int]) -> Iterator[bytes]:
        rows, columns, *rest = shape
        for record in records:
            file.seek(record.start)
            data = file.read(rows * columns * record.channels)
            match record.channels, bool(rest):
                case 1, True:
                    yield np.repeat(np.frombuffer(data, np.uint8), 3).tobytes()
                case 3, False:
                    yield Image.frombuffer("RGB", (columns, rows), data, "raw", "RGB", 0, 1).convert("L").tobytes()
                case _:
                    yield data


def _describe_faults(faults: Sequence[tuple[str, str]]) -> str:
    count = len(faults)
    shown = "; ".join(f"{name[:200]} {reason}" for name, reason in faults[:_MAX_NAMED])
    remainder = f"; and {count - _MAX_NAMED:,} more" if count > _MAX_NAMED else ""
    files = "one file" if count == 1 else f"{count:,} files" if count < MAX_FAULTS else f"{count:,} files or more"
    pronoun = "it" if count == 1 else "them"
    advice = f"remove or replace {pronoun}, or leave {pronoun} out with on_bad=skip"
    return f"has {files} that cannot be read: {shown}{remainder}; {advice}"


def _report(options: PhotoOptions, spool: _Spool, other_files: Sequence[str], *, is_colour: bool) -> dict[str, Any]:
    match options.channels:
        case Channels.AUTO if spool.coloured_by is not None:
            reason = f"{spool.coloured_by} has colours"
        case Channels.AUTO:
            reason = "no image has colours"
        case _:
            reason = CHANNELS_GIVEN
    report: dict[str, Any] = {"channels": {"value": 3 if is_colour else 1, "reason": reason}}
    if options.fit is Fit.PAD and options.size is not None:
        report["fit"] = options.fit.value
    if count := len(spool.faults) + len(other_files):
        other_entries = ((_printable(name), _skip_reason(name)) for name in other_files[:_MAX_LISTED])
        files = [
            {"file": name[:200], "reason": reason} for name, reason in [*spool.faults, *other_entries][:_MAX_LISTED]
        ]
        report["left_out"] = {"count": count, "files": files}
    return report


def _outside_of_folders(path: Path, names: Sequence[str], on_bad: OnBad) -> frozenset[str]:
    """The images that are outside of class folders, which are left out.

    Raises:
        DatasetBroken: they must not be left out, or there are no other images.
    """
    folders, _, outside = _folders(names)
    if outside and (on_bad is OnBad.ERROR or not folders):
        count = f"{len(outside):,} images" if len(outside) > 1 else "an image"
        advice = "make a folder per class" + (", or leave them out with on_bad=skip" if folders else "")
        raise DatasetBroken(path, f"has {count} outside of class folders, such as {outside[0][:200]}: {advice}")
    return frozenset(outside)


def _folders(names: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], bool, list[str]]:
    """The folders of each image; whether the first of them are parts of a dataset; the images outside of class folders.
    Folders that all images share are ignored."""
    folders, outside = {name: PurePosixPath(name).parts[:-1] for name in names}, []
    while True:
        outside += [name for name, parts in folders.items() if not parts]
        folders = {name: parts for name, parts in folders.items() if parts}
        if len({parts[0] for parts in folders.values()}) != 1 or all(len(parts) == 1 for parts in folders.values()):
            break
        folders = {name: parts[1:] for name, parts in folders.items()}
    are_parts = all(parts[0].lower() in PART_WORDS for parts in folders.values())
    has_parts = are_parts and any(len(parts) > 1 for parts in folders.values())
    if has_parts:
        outside += [name for name, parts in folders.items() if len(parts) == 1]
        folders = {name: parts for name, parts in folders.items() if len(parts) > 1}
    return folders, has_parts, outside


def _classes_of(path: Path, names: Sequence[str], other_files: Sequence[str] = ()) -> dict[str, tuple[PartName, str]]:
    """Part and class of each image, from its folders.

    Args:
        other_files: the files that are not images, for advice in an error.

    Raises:
        DatasetBroken: fewer than two classes, too many, or one without training images.
    """
    folders, has_parts, _ = _folders(names)
    assignments = {
        name: (PART_WORDS[parts[0].lower()], parts[1]) if has_parts else (PartName.TRAIN, parts[0])
        for name, parts in folders.items()
    }
    if PartName.VALIDATION not in {part for part, _ in assignments.values()}:  # validate on the test images
        assignments = {
            name: (PartName.VALIDATION if part is PartName.TEST else part, label)
            for name, (part, label) in assignments.items()
        }
    trained_classes = {label for part, label in assignments.values() if part is PartName.TRAIN}
    if not trained_classes:
        raise DatasetBroken(path, "has no training images: only folders for validation; add a folder train")
    for part in (PartName.VALIDATION, PartName.TEST):
        if unknown := sorted(
            {label for image_part, label in assignments.values() if image_part == part} - trained_classes
        ):
            detail = f"has the class {unknown[0][:200]!r} for {part}, but no training images of it; add some"
            raise DatasetBroken(path, detail)
    if len(trained_classes) < 2:
        single_class = next(iter(trained_classes))[:200]
        table = _first_table(other_files)
        table_hint = f"; {table} is not read" if table else ""
        advice = f"sort the images into a folder per class{table_hint}"
        raise DatasetBroken(path, f"has one class folder, {single_class!r}; a classifier needs at least two: {advice}")
    if len(trained_classes) > MAX_CLASSES:
        raise DatasetBroken(path, f"has {len(trained_classes):,} class folders; at most {MAX_CLASSES} are allowed")
    if long_name := next((label for label in trained_classes if len(label) > MAX_CLASS_NAME), None):
        detail = f"has a class folder with a name of {len(long_name):,} characters, {long_name[:40]!r}"
        raise DatasetBroken(path, f"{detail}; at most {MAX_CLASS_NAME} are allowed: rename it")
    return assignments


def _sort_classes(names: set[str]) -> list[str]:
    """Class names in order: numbers by value, words alphabetically."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name.casefold() + name))


def _skip_reason(name: str) -> str:
    """Why a file is left out, by its name, whose extension is not that of an image format that is read."""
    format_name = format_of_name(name)
    return unsupported_message(format_name) if format_name else "is not an image file"


def _no_images_hint(names: Sequence[str]) -> str:
    """A hint for an archive without images: what it contains instead, and what to do about it."""
    if pictures := [name for name in names if format_of_name(name)]:
        formats = " and ".join(dict.fromkeys(map(format_of_name, pictures)))
        if len(pictures) == 1:
            return f"; {_printable(pictures[0])} {unsupported_message(formats)}"
        noun = "formats" if " and " in formats else "format"
        return f"; {len(pictures):,} files have the {noun} {formats}: convert them to JPEG or PNG"
    if archive := next((name for name in names if name.lower().endswith(archives.SUFFIXES)), ""):
        return f"; it contains the archive {_printable(archive)}: unpack that, and pack its folders"
    if table := _first_table(names):
        return f"; it contains the table {table}: unpack that, and upload it instead"
    return ""


def _first_table(names: Sequence[str]) -> str | None:
    """The first name of a table, as it may be shown."""
    return next((_printable(name) for name in names if name.lower().endswith(_TABLES)), None)


def _printable(name: str) -> str:
    """The beginning of a name that was not checked, as UTF-8 without control characters."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", name[:_MAX_SHOWN_NAME]).encode(errors="replace").decode()
