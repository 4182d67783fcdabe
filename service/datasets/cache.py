"""Loads a dataset: finds its files, downloads them if necessary, unpacks them once, and maps them into memory."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.builtins import BUILT_IN, BuiltIn
from service.datasets.catalogue import check_shapes, describe, find_files, is_complete, locate
from service.datasets.download import Progress, download
from service.datasets.errors import DatasetBroken
from service.datasets.formats.array_files import write_array, write_meta
from service.datasets.formats.array_folders import ArrayCache
from service.datasets.formats.idx import read_idx
from service.datasets.formats.options import TableOptions
from service.datasets.info import (
    IDX_NAMES,
    META,
    TEST_IMAGES,
    TEST_LABELS,
    TEST_NAMES,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    VALIDATION_IMAGES,
    VALIDATION_LABELS,
    DatasetInfo,
)
from service.datasets.tables.importing import import_table
from service.datasets.uploads import UploadFiles
from service.spec.splits import Split

_SPLIT = int.from_bytes(b"split")  # separates these random numbers from others with the same seed
MODES = 1000
"""Of stacked-mnist: the combinations of three digits."""
_STACKED = int.from_bytes(b"stacked")
_FORMAT = 1  # part of every cache key; increase it when the stored format changes


@dataclass(frozen=True)
class Examples:
    """Examples with labels: one part of a dataset.

    Attributes:
        inputs: images, uint8 (count, rows, columns); for a table, float64 (count, columns), see ``datasets.tables``.
        labels: uint8 (count,); float64 if the target of a table is a number.
    """

    inputs: NDArray[np.uint8]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The parts of a dataset, mapped read-only, so that all processes that train on it share the memory pages."""

    info: DatasetInfo
    train: Examples
    validation: Examples
    sha256: str  # of the unpacked content, as computed by content_sha256
    test: Examples | None = None
    """The test part: never used for training or validation, and scored once at the end."""


def load(
    name: str,
    data_root: Path,
    *,
    cache: ArrayCache,
    copies: UploadFiles | None = None,
    progress: Progress | None = None,
    builtins: Mapping[str, BuiltIn] = BUILT_IN,
) -> Dataset:
    """Load the dataset ``name``: from the cache within milliseconds, the first time from its files or a mirror.

    Args:
        data_root: the folder of datasets, one subfolder each; downloads are stored there.
        copies: of what other machines have downloaded; a mirror is used if there is none.
        progress: called during a download; an exception that it raises aborts the download and is passed on.
        builtins: the known datasets; tests pass their own.

    Raises:
        DatasetNotFound: no dataset has this name.
        DatasetUnavailable: its files are missing and cannot be downloaded, or the cache cannot be written.
        DatasetBroken: its files are damaged or have unexpected content.
    """

    def on_copied(count: int) -> None:
        if progress is not None:
            progress(count, None)

    info = describe(name, data_root, builtins=builtins)
    paths = locate(name, data_root, builtins)
    builtin = builtins.get(name)
    if builtin is not None and builtin.table is not None:
        csv, options = builtin.table, TableOptions(target=str((builtin.info.report or {})["target"]))
        key = str(builtin.info.sha256).removeprefix("sha256:")[:16]

        def make(folder: Path) -> None:
            import_table(csv, folder, fraction=None, options=options)

    elif builtin is not None and builtin.made_from is not None:
        source = builtin.made_from
        key = hashlib.sha256(json.dumps([_FORMAT, dict(builtin.digests)]).encode()).hexdigest()[:16]

        def make(folder: Path) -> None:
            _stack_digits(builtin, load(source, data_root, cache=cache, builtins=builtins), folder)

    else:
        key = _cache_key(paths, builtin)

        def make(folder: Path) -> None:
            if builtin is None or is_complete(paths):
                _unpack(paths, folder, builtin)
            elif copies is None or not copies.find_copy(folder, f"{name}-{key}", str(builtin.info.sha256), on_copied):
                download(builtin, data_root / name, present=paths, progress=progress)
                _unpack(find_files(data_root / name), folder, builtin)
                if copies is not None:
                    copies.keep_copy(folder, f"{name}-{key}")

    def use(folder: Path) -> Dataset:
        return open_arrays(folder, info)

    return cache.open(f"{name}-{key}", name, use, make, on_wait=lambda: on_copied(0))


def _cache_key(paths: Mapping[str, Path], builtin: BuiltIn | None) -> str:
    if builtin is not None:
        identity = [[name, builtin.digests[name]] for name in IDX_NAMES]
    else:
        stats = {name: path.stat() for name, path in paths.items()}
        names = (name for name in (*IDX_NAMES, *TEST_NAMES) if name in stats)
        identity = [[name, str(stats[name].st_size), str(stats[name].st_mtime_ns)] for name in names]
    return hashlib.sha256(json.dumps([_FORMAT, identity]).encode()).hexdigest()[:16]


def open_arrays(folder: Path, info: DatasetInfo) -> Dataset:
    """Map the arrays of a complete folder.

    Raises:
        OSError, EOFError, ValueError, KeyError: the folder is incomplete or damaged.
    """
    meta = json.loads((folder / META).read_text())
    sha256 = str(meta["sha256"])
    names = [*IDX_NAMES, *(TEST_NAMES if TEST_IMAGES in meta["files"] else ())]
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
    return Dataset(
        info=replace(info, sha256=sha256, available=True),
        train=Examples(arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS]),
        validation=Examples(arrays[VALIDATION_IMAGES], arrays[VALIDATION_LABELS]),
        sha256=sha256,
        test=Examples(arrays[TEST_IMAGES], arrays[TEST_LABELS]) if TEST_IMAGES in arrays else None,
    )


def divide(dataset: Dataset, split: Split) -> Dataset:
    """The same data with another split into training and validation examples."""
    is_validation = validation_mask(split, np.concatenate([dataset.train.labels, dataset.validation.labels]))
    train, validation = (_Selection(dataset, np.flatnonzero(mask)) for mask in (~is_validation, is_validation))
    info = replace(dataset.info, train_count=len(train), validation_count=len(validation), split=split)
    return replace(dataset, info=info, train=train, validation=validation)


def validation_mask(split: Split, labels: NDArray[Any]) -> NDArray[np.bool_]:
    """A mask of the validation examples of a pool.

    The examples of each class are shuffled, and the classes concatenated. Taking examples at even distances from this
    order is stratified, and their number depends only on the size of the pool. The shuffle uses raw 64-bit numbers,
    whose stream NumPy guarantees not to change. Without folds, each class has examples in both parts, if that number
    allows it.

    Args:
        labels: of the whole pool. Numbers to predict are no classes: the split is then not stratified.
    """
    count = len(labels)
    labels = labels if labels.dtype.kind in "ui" else np.zeros(count, np.uint8)
    keys = np.random.SFC64(np.random.SeedSequence([split.seed, _SPLIT])).random_raw(count)
    order = np.lexsort((keys, labels))
    positions = np.arange(count, dtype=np.int64)
    if split.folds is not None:
        is_chosen = positions % split.folds == split.fold
    else:
        validation_count = split.validation_count(count)
        is_chosen = (positions + 1) * validation_count // count > positions * validation_count // count
        _share_with_rare(is_chosen, np.unique(labels, return_counts=True)[1])
    chosen = np.zeros(count, np.bool_)
    chosen[order[is_chosen]] = True
    return chosen


def _share_with_rare(is_validation: NDArray[np.bool_], sizes: NDArray[np.intp]) -> None:
    """Give rare classes an example in both parts, in place. In exchange, the largest class of that part gives one up.

    Args:
        is_validation: whether each example is for validation; sorted by class.
        sizes: number of examples of each class.
    """
    classes = np.split(is_validation, np.cumsum(sizes)[:-1])  # views
    for rare in classes:
        for part in (True, False):
            if not ((part not in rare and len(rare) > 1) or (not part and rare.all())):
                continue
            counts = [np.count_nonzero(class_mask == part) for class_mask in classes]
            largest = int(np.argmax(counts))
            if counts[largest] > 1:
                rare[np.argmax(rare != part)] = part
                classes[largest][np.argmax(classes[largest] == part)] = not part


class _Selection(Examples):
    """A selection of examples from a pool, copied on first access."""

    def __init__(self, dataset: Dataset, indices: NDArray[np.intp]) -> None:
        first, second = dataset.train, dataset.validation
        first_count = int(np.searchsorted(indices, len(first)))
        self._pieces = ((first, indices[:first_count]), (second, indices[first_count:] - len(first)))
        labels = np.concatenate([part.labels[chosen] for part, chosen in self._pieces])
        object.__setattr__(self, "labels", labels)  # the dataclass is frozen

    @functools.cached_property
    def inputs(self) -> NDArray[np.uint8]:
        """See ``Examples``."""
        template = self._pieces[0][0].inputs
        copied = np.empty((len(self.labels), *template.shape[1:]), template.dtype)
        done = 0
        for part, chosen in self._pieces:
            np.take(part.inputs, chosen, axis=0, out=copied[done : done + len(chosen)], mode="clip")
            done += len(chosen)
        return copied


def _stack_digits(builtin: BuiltIn, digits: Dataset, folder: Path) -> None:
    """Write the arrays of stacked-mnist."""
    for part, (examples, count, names) in enumerate(
        (
            (digits.train, builtin.info.train_count, (TRAIN_IMAGES, TRAIN_LABELS)),
            (digits.validation, builtin.info.validation_count, (VALIDATION_IMAGES, VALIDATION_LABELS)),
        )
    ):
        stacked = stack(examples.inputs, examples.labels, count, part=part)
        for name, array in zip(names, stacked, strict=True):
            if write_array(folder, name, array) != builtin.digests[name]:
                raise DatasetBroken(Path(name), f"differs from {builtin.info.name}: {digits.info.name} was changed")
    write_meta(folder, builtin.digests)


def stack(
    images: NDArray[np.uint8], labels: NDArray[Any], count: int, *, part: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """``count`` images (count, rows, columns, 3) of digits from ``images``, and the digit in red of each.

    Metz, Poole, Pfau and Sohl-Dickstein, "Unrolled generative adversarial networks" (2017), section 3.3.1, use such
    data to count the modes that a GAN covers. Here, the frequencies of all modes differ by at most one image.

    Args:
        part: each part gets different images. Uses raw 64-bit random numbers, whose stream NumPy guarantees.
    """
    raw = np.random.SFC64(np.random.SeedSequence([_STACKED, part])).random_raw((4, count))
    modes = (np.arange(count) % MODES)[np.argsort(raw[3], kind="stable")]
    digits = np.stack([modes // 100, modes // 10 % 10, modes % 10])
    stacked = np.empty((count, *images.shape[1:], 3), np.uint8)
    for channel, channel_digits in enumerate(digits):
        for digit in range(10):
            indices, of_digit = np.flatnonzero(channel_digits == digit), np.flatnonzero(labels == digit)
            chosen = of_digit[(raw[channel, indices] % np.uint64(len(of_digit))).astype(np.intp)]
            stacked[indices, ..., channel] = images[chosen]
    return stacked, digits[0].astype(np.uint8)


def _unpack(paths: Mapping[str, Path], folder: Path, builtin: BuiltIn | None) -> None:
    digests, shapes, largest = {}, {}, {}
    for name in paths if builtin is None else IDX_NAMES:
        content = read_idx(paths[name])
        if builtin is not None and content.sha256 != builtin.digests[name]:
            raise DatasetBroken(
                paths[name],
                f"is not the file of {builtin.info.name}: sha256 (unpacked) is {content.sha256}, "
                f"expected {builtin.digests[name]}. Store your own data in a folder with another name",
            )
        digests[name] = write_array(folder, name, content.array)
        shapes[name], largest[name] = content.array.shape, int(content.array.max(initial=0))
    check_shapes(paths, shapes)
    for name in (VALIDATION_LABELS, TEST_LABELS):
        if largest.get(name, 0) > largest[TRAIN_LABELS]:
            detail = f"has the label {largest[name]}, but the highest training label is {largest[TRAIN_LABELS]}"
            raise DatasetBroken(paths[name], detail)
    write_meta(folder, digests)
