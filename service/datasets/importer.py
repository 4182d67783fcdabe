"""Imports an uploaded dataset: converts IDX files, an NPZ archive or an archive of images to the arrays that
jobs map.

The headers of all files are read first, then labels, then images, in pieces that are written directly to the
new files. Memory therefore does not depend on the size of the data, and errors are found before the slow
part. The resulting files have the format of ``cache``: pixels and labels as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import DatasetBroken, DatasetError
from service.datasets.formats.archives import is_archive
from service.datasets.formats.array_files import ArrayFile, write_meta
from service.datasets.formats.idx import open_idx
from service.datasets.formats.npz import is_npz, open_npz
from service.datasets.formats.options import DEFAULT_FRACTION, PhotoOptions
from service.datasets.formats.streams import ArrayStream
from service.datasets.info import IDX_NAMES, TEST_NAMES, ImportedDataset, OnProgress, brightness_report, unscored_note
from tapeline.images.files import MAX_DATASET_SIDE

if TYPE_CHECKING:
    from service.datasets.formats.photos import Photos

ARCHIVE: Final = "archive"
IMAGES, LABELS = "images", "labels"
VALIDATION_IMAGES, VALIDATION_LABELS = "validation_images", "validation_labels"
TEST_IMAGES, TEST_LABELS = "test_images", "test_labels"
"""Arrays of the test part. They have no form field, but archives may contain them."""
_PAIRS: Final = ((IMAGES, LABELS), (VALIDATION_IMAGES, VALIDATION_LABELS), (TEST_IMAGES, TEST_LABELS))
_FILES: Final = dict(zip((role for pair in _PAIRS for role in pair), (*IDX_NAMES, *TEST_NAMES), strict=True))
"""File names by role."""
IDX_FIELDS: Final = (IMAGES, LABELS, VALIDATION_IMAGES, VALIDATION_LABELS)

MAX_UNPACKED_BYTES: Final = 2**30
MAX_SIDE: Final = MAX_DATASET_SIDE
MAX_PICTURES: Final = 2_000_000
MAX_LABEL: Final = 255
_DECODED_SHARE: Final = 0.95
"""The progress of importing an archive of image files when all images are decoded."""
_OTHER_NAMES: Final = {
    IMAGES: ("x", "x_train", "train_x", "train_images"),
    LABELS: ("y", "y_train", "train_y", "train_labels"),
    VALIDATION_IMAGES: ("x_test", "test_x", "test_images", "x_val", "val_images"),
    VALIDATION_LABELS: ("y_test", "test_y", "test_labels", "y_val", "val_labels"),
}
"""Common names of the arrays in NPZ archives."""
_ROLES: Final = {name: role for role, aliases in _OTHER_NAMES.items() for name in (role, *aliases)}
_VALIDATION_NAMES: Final = frozenset(
    {VALIDATION_IMAGES, VALIDATION_LABELS, "x_val", "val_images", "y_val", "val_labels"}
)
"""If an archive has these arrays, arrays with ``test`` in their name are the test part."""


DEFAULT_PHOTOS: Final = PhotoOptions()


class UploadRefused(DatasetError, ValueError):
    """The files are not a valid dataset; ``faults`` has the errors by form field."""

    code = "invalid_upload"

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__(dict(faults))
        self.faults = dict(faults)

    def __str__(self) -> str:
        return "; ".join(f"{field}: {detail}" for field, detail in self.faults.items())


def import_dataset(
    files: Mapping[str, Path],
    folder: Path,
    *,
    fraction: float | None,
    photos: PhotoOptions = DEFAULT_PHOTOS,
    on_progress: OnProgress = lambda done: None,
) -> ImportedDataset:
    """Check uploaded files and write their arrays into an empty ``folder``.

    Args:
        files: by form field: ``archive``, or ``images`` and ``labels``, optionally with ``validation_images`` and
            ``validation_labels``.
        fraction: of each class for validation, if the files have no validation part; the choice is deterministic.
        photos: options for an archive of image files.
        on_progress: called with the fraction that is done.

    Raises:
        UploadRefused: the files are not a valid dataset.
        OSError: ``folder`` cannot be written.
    """
    try:
        return _import_dataset(files, folder, fraction, photos, on_progress)
    except DatasetBroken as error:  # also from the checksum at the end of a file, when it is closed
        field = next((field for field, path in files.items() if path == error.path), ARCHIVE)
        raise UploadRefused({field: error.reason}) from error


def _import_dataset(
    files: Mapping[str, Path], folder: Path, fraction: float | None, options: PhotoOptions, on_progress: OnProgress
) -> ImportedDataset:
    with ExitStack() as stack:
        stored, field_of, photos = _open(files, folder, stack, options, lambda done: on_progress(done * _DECODED_SHARE))
        decoded_share = 0.0 if photos is None else _DECODED_SHARE
        _check_shapes(stored, field_of, fraction, is_photos=photos is not None)
        faults: dict[str, str] = {}
        labels: dict[str, NDArray[np.uint8]] = {}
        for _, role in _PAIRS:
            if role in stored:
                with _record_fault(field_of[role], faults):
                    labels[role] = _read_labels(stored[role])
        if faults:
            raise UploadRefused(faults)
        validation_mask = None
        if VALIDATION_LABELS not in labels:
            validation_mask = draw_validation_mask(labels[LABELS], fraction or DEFAULT_FRACTION, field=field_of[LABELS])
            all_labels = labels[LABELS]
            labels |= {LABELS: all_labels[~validation_mask], VALIDATION_LABELS: all_labels[validation_mask]}
        _check_labels(labels, field_of)
        shape = _image_shape(stored[IMAGES].shape)
        with ExitStack() as output_stack:
            outputs = {
                images: output_stack.enter_context(ArrayFile.new(folder, _FILES[images], (len(labels[role]), *shape)))
                for images, role in _PAIRS
                if role in labels
            }
            total, done = sum(stored[role].shape[0] for role in outputs if role in stored), 0
            for role in list(outputs):
                if role in stored:
                    with _record_fault(field_of[role], faults):
                        for count in _copy_images(
                            stored[role], outputs, role, validation_mask if role == IMAGES else None
                        ):
                            done += count
                            on_progress(decoded_share + (1 - decoded_share) * done / total)
            if faults:
                raise UploadRefused(faults)
            for role, values in labels.items():
                outputs[role] = output_stack.enter_context(ArrayFile.new(folder, _FILES[role], values.shape))
            for role, values in labels.items():
                outputs[role].add(values)
    digests = {output.name: output.digest for output in outputs.values()}
    report = dict(photos.report if photos is not None else brightness_report(outputs[IMAGES].mean) or {})
    names = photos.class_names if photos is not None else None
    train_counts, validation_counts = (np.bincount(labels[role]).tolist() for role in (LABELS, VALIDATION_LABELS))
    if note := unscored_note(train_counts, validation_counts, names, noun="image"):
        report["notes"] = [note, *report.get("notes", ())]
    sha256 = write_meta(folder, digests)
    return ImportedDataset(
        image_shape=shape,
        classes=int(max(values.max() for values in labels.values())) + 1,
        train_count=len(labels[LABELS]),
        validation_count=len(labels[VALIDATION_LABELS]),
        test_count=len(labels.get(TEST_LABELS, ())),
        sha256=sha256,
        size_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        class_names=names,
        report=report or None,
    )


@contextmanager
def _record_fault(field: str, faults: dict[str, str]) -> Iterator[None]:
    """Record the error of a field and continue with the next one."""
    try:
        yield
    except DatasetBroken as error:
        faults.setdefault(field, error.reason)


def _open(
    files: Mapping[str, Path], folder: Path, stack: ExitStack, options: PhotoOptions, on_progress: OnProgress
) -> tuple[dict[str, ArrayStream], dict[str, str], Photos | None]:
    """The arrays by role, the form field of each, and the further content of an archive of image files."""
    if ARCHIVE in files:
        if is_image_archive(files[ARCHIVE]):
            from service.datasets.formats.photos import open_photos  # loads Pillow: a quarter of the start of a reader

            photos = stack.enter_context(
                open_photos(
                    files[ARCHIVE],
                    options,
                    folder=folder,
                    max_bytes=MAX_UNPACKED_BYTES,
                    max_side=MAX_SIDE,
                    on_progress=on_progress,
                )
            )
            return dict(photos.arrays), dict.fromkeys(photos.arrays, ARCHIVE), photos
        stored = _by_role(stack.enter_context(open_npz(files[ARCHIVE], max_bytes=MAX_UNPACKED_BYTES)))
        return stored, dict.fromkeys(stored, ARCHIVE), None
    stored, faults = dict[str, ArrayStream](), dict[str, str]()
    for field, path in files.items():
        with _record_fault(field, faults):
            stored[field] = stack.enter_context(open_idx(path, max_bytes=MAX_UNPACKED_BYTES // 2))
    for field in (IMAGES, LABELS):
        if field not in files:
            faults[field] = (
                f"is missing: send {IMAGES} and {LABELS} as IDX files, or an NPZ or image archive as {ARCHIVE}"
            )
    if (VALIDATION_IMAGES in files) != (VALIDATION_LABELS in files):
        missing = VALIDATION_LABELS if VALIDATION_IMAGES in files else VALIDATION_IMAGES
        faults[missing] = f"is missing: {VALIDATION_IMAGES} and {VALIDATION_LABELS} are required together"
    if faults:
        raise UploadRefused(faults)
    return stored, {field: field for field in stored}, None


def is_image_archive(path: Path) -> bool:
    """Whether the first bytes of a file are those of an archive, but not of an NPZ archive."""
    return not is_npz(path) and is_archive(path)


def _by_role(arrays: Mapping[str, ArrayStream]) -> dict[str, ArrayStream]:
    stored: dict[str, ArrayStream] = {}
    has_validation = any(name.lower() in _VALIDATION_NAMES for name in arrays)
    for name, array in arrays.items():
        role = _ROLES.get(name.lower())
        if has_validation and role is not None and name.lower() not in _VALIDATION_NAMES:
            role = {VALIDATION_IMAGES: TEST_IMAGES, VALIDATION_LABELS: TEST_LABELS}.get(role, role)
        if role is None:
            allowed = ", ".join(f"{role} (or {', '.join(aliases)})" for role, aliases in _OTHER_NAMES.items())
            raise UploadRefused({ARCHIVE: f"has an unknown array {name!r}; allowed: {allowed}"})
        if role in stored:
            raise UploadRefused({ARCHIVE: f"has two arrays for {role}"})
        stored[role] = array
    required = {IMAGES, LABELS}.union(*(pair for pair in _PAIRS if stored.keys() & set(pair)))
    if missing := sorted(required - stored.keys()):
        raise UploadRefused({ARCHIVE: f"has no {' and no '.join(missing)}"})
    return stored


def _check_shapes(
    stored: Mapping[str, ArrayStream], field_of: Mapping[str, str], fraction: float | None, *, is_photos: bool
) -> None:
    """Check types, dimensions and counts, which are known from the headers.

    Raises:
        UploadRefused: they are invalid or inconsistent.
    """
    faults: dict[str, str] = {}
    advice = "; give a size, such as 32" if is_photos else ""

    def add_fault(role: str, detail: str) -> None:
        member = stored[role].within
        faults.setdefault(field_of[role], f"{member}: {detail}" if member else detail)

    for images, labels in _PAIRS:
        if images not in stored:
            continue
        shape, counts = stored[images].shape, stored[labels].shape
        if len(shape) != 3 and not (len(shape) == 4 and shape[3] in (1, 3)):
            expected_shape = "images have the shape (count, rows, columns), in colour (count, rows, columns, 3)"
            add_fault(images, f"has the shape {shape}; {expected_shape}")
        elif not 1 <= shape[0] <= MAX_PICTURES:
            add_fault(images, f"has {shape[0]:,} images; 1 to {MAX_PICTURES:,} are allowed")
        elif not all(1 <= side <= MAX_SIDE for side in shape[1:3]):
            add_fault(
                images, f"has images of {shape[1]:,} x {shape[2]:,}; sides of 1 to {MAX_SIDE} are allowed{advice}"
            )
        if len(counts) != 1 and not (len(counts) == 2 and counts[1] == 1):
            add_fault(labels, f"has the shape {counts}; labels have the shape (count,)")
        elif counts[0] != shape[0]:
            add_fault(labels, f"holds {counts[0]:,} labels for {shape[0]:,} images")
        if stored[labels].dtype.kind not in "iu":
            add_fault(labels, f"holds values of type {stored[labels].dtype}; labels must have an integer type")
    if not faults:
        expected = _image_shape(stored[IMAGES].shape)
        for images, _ in _PAIRS:
            if images in stored and (sides := _image_shape(stored[images].shape)) != expected:
                add_fault(images, f"holds images of {sides}, the training images are {expected}")
        if VALIDATION_IMAGES in stored and fraction is not None:
            faults["validation_fraction"] = "is for uploads without validation images"
    if faults:
        raise UploadRefused(faults)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one image: (rows, columns), in colour (rows, columns, 3)."""
    return shape[1:4] if shape[3:] == (3,) else shape[1:3]


def _read_labels(stored: ArrayStream) -> NDArray[np.uint8]:
    labels = bytearray()
    for values in stored.rows():
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > MAX_LABEL:
            raise stored.broken(f"holds the label {low if low < 0 else high}; labels must be from 0 to {MAX_LABEL}")
        labels += values.astype(np.uint8).tobytes()
    return np.frombuffer(labels, np.uint8)


def draw_validation_mask(
    labels: NDArray[np.uint8], fraction: float, *, noun: str = "image", field: str = LABELS
) -> NDArray[np.bool_]:
    """A mask of the validation examples: this fraction of each class, drawn with a fixed seed, but at least
    one example, and never a whole class.

    Args:
        noun: the word for one example in error messages.
        field: the form field that an error is about.

    Raises:
        UploadRefused: no class has two examples.
    """
    rng = np.random.default_rng(0)
    chosen = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        indices = rng.permutation(np.flatnonzero(labels == label))
        chosen[indices[: min(max(1, int(fraction * len(indices))), len(indices) - 1)]] = True
    if not chosen.any():
        explanation = f"one is for training and one for validation, so a class needs at least two {noun}s"
        raise UploadRefused({field: f"has only one {noun} of each class: {explanation}"})
    return chosen


def _check_labels(labels: Mapping[str, NDArray[np.uint8]], field_of: Mapping[str, str]) -> None:
    highest_trained = int(labels[LABELS].max())
    for role, part in ((VALIDATION_LABELS, "validation"), (TEST_LABELS, "test")):
        highest = int(labels[role].max()) if role in labels else 0
        if highest > highest_trained:
            detail = f"has the {part} label {highest}, but the highest training label is {highest_trained}"
            raise UploadRefused({field_of.get(role, field_of[LABELS]): detail})


def _copy_images(
    stored: ArrayStream, outputs: Mapping[str, ArrayFile], role: str, validation_mask: NDArray[np.bool_] | None
) -> Iterator[int]:
    """Copy all images, block by block; yields the number of images in each block."""
    done = 0
    for values in stored.rows():
        pixels = _as_pixels(stored, values).reshape(len(values), *_image_shape(stored.shape))
        if validation_mask is None:
            outputs[role].add(pixels)
        else:
            mask = validation_mask[done : done + len(pixels)]
            outputs[IMAGES].add(pixels[~mask])
            outputs[VALIDATION_IMAGES].add(pixels[mask])
        done += len(pixels)
        yield len(pixels)


def _as_pixels(stored: ArrayStream, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert pixels to bytes (0 to 255), from integers in this range, floats from 0 to 1, or booleans."""
    match stored.dtype.kind:
        case "b":
            bits = values.view(np.uint8)
            if bits.max() > 1:
                raise stored.broken("contains a byte that is neither true nor false")
            return np.where(bits, np.uint8(255), np.uint8(0))
        case "f":
            low, high = float(values.min()), float(values.max())
            if not (low >= 0 and high <= 1):  # also for NaN, which min and max propagate
                raise stored.broken(f"holds pixels from {low:g} to {high:g}; floats must be from 0 to 1, and not NaN")
            return np.asarray(np.rint(values * 255), np.uint8)
        case _:
            if values.dtype == np.uint8:
                return np.asarray(values, np.uint8)
            low, high = int(values.min()), int(values.max())
            if low < 0 or high > 255:
                raise stored.broken(f"holds pixels from {low} to {high}; integers must be from 0 to 255")
            return values.astype(np.uint8)
