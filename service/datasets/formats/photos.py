"""Archives of image files: zip or tar (also gzipped), one folder for each class, perhaps under ``train/`` and
``validation/``.

Everything is read twice: first the names and the headers of the images, from which classes, labels and the common size
follow; then the pixels, one image at a time. The archive is unpacked nowhere.
"""

from __future__ import annotations

import io
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from service.datasets.errors import DatasetBroken
from service.datasets.formats.streams import ArrayStream, Gunzip
from service.datasets.info import Size

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif")
MAX_FILES: Final = 200_000
MAX_CLASSES: Final = 256
MAX_IMAGE_PIXELS: Final = 2**25
"""The most pixels of one image in the archive, before it is scaled."""
MAX_IMAGE_BYTES: Final = 64 * 2**20
_FORMATS: Final = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        WebPImagePlugin.WebPImageFile,
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
    )
)
_PARTS: Final = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "validation",
    "testing": "validation",
}
_SIZE: Final = re.compile(r"([1-9]\d{0,3})(?:x([1-9]\d{0,3}))?")
_ORIENTATION: Final = 0x0112
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""Values of EXIF's orientation that exchange width and height."""
_NAMED: Final = 5
"""How many files a message names."""
_PILLOW_RAISES: Final = (
    OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""On broken files, by what its readers were seen to do."""
_ARCHIVE_RAISES: Final = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, struct.error, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Photos:
    """An archive that was looked through.

    Attributes:
        arrays: ``images`` and ``labels``, and ``validation_images`` and ``validation_labels`` if the archive has such
            a part; images have the shape (count, rows, columns), in bytes.
        class_names: in the order of the labels.
    """

    arrays: Mapping[str, ArrayStream]
    class_names: tuple[str, ...]


def is_npz(path: Path) -> bool:
    """Whether a file begins like an archive of NumPy's, by its first bytes alone."""
    with path.open("rb") as file:
        head = file.read(30)
        if len(head) < 30 or not head.startswith(b"PK\x03\x04"):
            return False
        return file.read(int.from_bytes(head[26:28], "little")).endswith(b".npy")


def is_archive(path: Path) -> bool:
    """Whether a file begins like a zip, gzip or tar file."""
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")) or head[257:262] == b"ustar"


def parse_size(text: str) -> Size:
    """``32`` or ``32x24`` (width x height).

    Raises:
        ValueError: it is neither.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a size: write 32, or 32x24 for width x height")
    width = int(found[1])
    return width, int(found[2] or width)


@contextmanager
def open_photos(path: Path, *, size: Size | None, max_bytes: int) -> Iterator[Photos]:
    """The images of an archive, for reading piece by piece.

    Args:
        size: scale every image to cover this size and cut off what juts out, evenly. Without it all must have one size.
        max_bytes: what all pixels together may take.

    Raises:
        DatasetBroken: also while the arrays are read.
    """
    try:
        found = _look_through(path)
        width, height = size if size is not None else _common_size(path, found)
        if len(found) * width * height > max_bytes:
            detail = f"{len(found):,} images of {width} x {height} pixels take more than {max_bytes:,} bytes"
            raise DatasetBroken(path, f"{detail}; give a smaller size")
        names = _sorted({item.label for item in found.values()})
        arrays: dict[str, ArrayStream] = {}
        for part, prefix in (("train", ""), ("validation", "validation_")):
            chosen = {name: item for name, item in found.items() if item.part == part}
            if not chosen:
                continue
            labels = bytes(names.index(item.label) for item in chosen.values())
            pixels = _Pixels(path, chosen, (width, height))
            shape = (len(chosen), height, width)
            arrays[f"{prefix}images"] = ArrayStream(path, pixels, np.dtype(np.uint8), shape)
            arrays[f"{prefix}labels"] = ArrayStream(path, io.BytesIO(labels), np.dtype(np.uint8), shape[:1])
        yield Photos(arrays, tuple(names))
    except DatasetBroken:
        raise
    except _ARCHIVE_RAISES as error:
        raise DatasetBroken(path, f"is a damaged archive ({str(error)[:200] or type(error).__name__})") from error
    except OSError as error:
        raise DatasetBroken(path, f"cannot be read ({error.strerror or error})") from error


def decode(file: IO[bytes], size: Size | None) -> Image.Image:
    """An image upright, as grey levels: ``size`` is covered, and what juts out is cut off evenly.

    Transparent parts are black, as in ``/predict``. Of an animation the first frame is taken.

    Raises:
        UnreadableImage: it is none, damaged, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about damaged metadata; pixels are limited here
            with _opened(file) as image:
                if size is not None:
                    sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
                    image.draft("RGB", size[::-1] if sideways else size)  # a JPEG is unpacked at a half or less
                grey = _grey(ImageOps.exif_transpose(image))
                return grey if size is None or grey.size == size else ImageOps.fit(grey, size, Image.Resampling.BOX)
    except UnreadableImage:
        raise
    except _PILLOW_RAISES as error:
        raise UnreadableImage("is damaged") from error


class UnreadableImage(ValueError):
    """A file is no image that is read here; the message says why."""


@dataclass(frozen=True, slots=True)
class _Photo:
    part: str
    label: str
    size: Size


def _opened(file: IO[bytes]) -> Image.Image:
    try:
        image = Image.open(file, formats=[name for name in _FORMATS if name])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"has too many pixels; at most {MAX_IMAGE_PIXELS:,} are read") from error
    except _PILLOW_RAISES as error:
        raise UnreadableImage("is not a PNG, JPEG, WebP, BMP or GIF image") from error
    if image.width * image.height > MAX_IMAGE_PIXELS:
        raise UnreadableImage(
            f"has too many pixels, {image.width} x {image.height}; at most {MAX_IMAGE_PIXELS:,} are read"
        )
    return image


def _upright_size(file: IO[bytes]) -> Size:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(file) as image:
                turned = image.getexif().get(_ORIENTATION) in _SIDEWAYS
                return (image.height, image.width) if turned else image.size
    except _PILLOW_RAISES as error:
        raise UnreadableImage(str(error) if isinstance(error, UnreadableImage) else "is damaged") from error


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # sixteen bits, which convert() would cut off instead of scaling
        levels = np.asarray(image, np.float32) / 257
        return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(below, image.convert("RGBA"))
    return image.convert("L")


def _look_through(path: Path) -> dict[str, _Photo]:
    """All images by their place in the archive, with class and part. Broken ones are named, all at once."""
    sizes: dict[str, Size] = {}
    faults: list[str] = []
    for name, file in _members(path):
        try:
            sizes[name] = _upright_size(file)
        except UnreadableImage as error:
            faults.append(f"{name} {error}")
    if faults:
        more = f", and {len(faults) - _NAMED:,} more" if len(faults) > _NAMED else ""
        raise DatasetBroken(path, f"has files that cannot be read: {'; '.join(faults[:_NAMED])}{more}; remove them")
    if not sizes:
        raise DatasetBroken(path, f"contains no images; files ending in {', '.join(SUFFIXES)} are read")
    return {name: _Photo(part, label, sizes[name]) for name, (part, label) in _classes(path, list(sizes)).items()}


def _classes(path: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """Part and class of each image, from its folders; folders that all have in common are not looked at."""
    folders = {name: PurePosixPath(name).parts[:-1] for name in names}
    while all(len(parts) > 1 for parts in folders.values()) and len({parts[0] for parts in folders.values()}) == 1:
        folders = {name: parts[1:] for name, parts in folders.items()}
    has_parts = all(len(parts) > 1 and parts[0].lower() in _PARTS for parts in folders.values())
    outside = [name for name, parts in folders.items() if not parts]
    if outside:
        raise DatasetBroken(path, f"has images outside of class folders, such as {outside[0]}: make a folder per class")
    found = {
        name: (_PARTS[parts[0].lower()], parts[1]) if has_parts else ("train", parts[0])
        for name, parts in folders.items()
    }
    trained = {label for part, label in found.values() if part == "train"}
    if not trained:
        raise DatasetBroken(path, "has no training images: only folders for validation")
    if unknown := sorted({label for part, label in found.values() if part != "train"} - trained):
        raise DatasetBroken(path, f"has the class {unknown[0]!r} for validation, but no training images of it")
    if len(trained) < 2:
        raise DatasetBroken(path, f"has one class folder, {next(iter(trained))!r}; a classifier needs at least two")
    if len(trained) > MAX_CLASSES:
        raise DatasetBroken(path, f"has {len(trained):,} class folders; at most {MAX_CLASSES} are allowed")
    return found


def _common_size(path: Path, found: Mapping[str, _Photo]) -> Size:
    counts = Counter(item.size for item in found.values())
    if len(counts) > 1:
        shown = ", ".join(f"{width}x{height} ({count:,})" for (width, height), count in counts.most_common(_NAMED))
        more = ", …" if len(counts) > _NAMED else ""
        raise DatasetBroken(path, f"has images of {len(counts):,} sizes: {shown}{more}; give a size, such as 32")
    return next(iter(counts))


def _sorted(names: set[str]) -> list[str]:
    """Numbers by value, words by the alphabet."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name.casefold() + name))


class _Pixels:
    """The pixels of some of an archive's images, in the archive's order, as bytes to read."""

    def __init__(self, path: Path, chosen: Mapping[str, _Photo], size: Size) -> None:
        self._source = self._images(path, chosen, size)
        self._left = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        if not self._left:
            self._left = memoryview(next(self._source, b""))
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data

    @staticmethod
    def _images(path: Path, chosen: Mapping[str, _Photo], size: Size) -> Iterator[bytes]:
        for name, file in _members(path):
            if name in chosen:
                try:
                    yield decode(file, size).tobytes()
                except UnreadableImage as error:
                    raise DatasetBroken(path, f"{name} {error}; remove it") from error


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the image files, in the archive's order."""
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        source = _of_zip(file) if head.startswith(b"PK") else _of_tar(file, is_packed=head.startswith(b"\x1f\x8b"))
        seen: set[str] = set()
        for name, size, content in source:
            name = name.replace("\\", "/").removeprefix("./")
            parts = PurePosixPath(name).parts
            if not name.lower().endswith(SUFFIXES) or any(part.startswith((".", "__MACOSX")) for part in parts):
                continue
            if size > MAX_IMAGE_BYTES:
                raise DatasetBroken(path, f"{name[:200]} has {size:,} bytes; at most {MAX_IMAGE_BYTES:,} are read")
            if name in seen:
                raise DatasetBroken(path, f"has two files {name[:200]}")
            seen.add(name)
            if len(seen) > MAX_FILES:
                raise DatasetBroken(path, f"has more than {MAX_FILES:,} images")
            yield name, content()


def _of_zip(file: IO[bytes]) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not member.filename.endswith("/"):  # is_dir fails at an empty name
                yield member.filename, member.file_size, partial(_of_member, archive, member)


def _of_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{member.filename[:200]} is packed in a way that is not read; use deflate, or none")
    return _whole(archive.open(member))


def _of_tar(file: IO[bytes], *, is_packed: bool) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    source = cast("IO[bytes]", Gunzip(file)) if is_packed else file
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # typeshed lacks it; without this, all are kept
            if member.isreg() and (content := archive.extractfile(member)) is not None:
                yield member.name, member.size, partial(_whole, content)


def _whole(content: IO[bytes]) -> IO[bytes]:
    """A file that can be read back and forth, as Pillow wants it."""
    with content:
        data = content.read(MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise zipfile.BadZipFile("a file unpacks to more than its directory says")
    return io.BytesIO(data)
