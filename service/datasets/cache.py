"""Loads a dataset: finds its files, downloads them if need be, unpacks them once, maps them into memory.

The cache holds a folder for each state in which a source was met: four .npy files and ``meta.json``. It gets its name
by one rename when it is whole, so that any number of processes may unpack at once and a killed one leaves only a
hidden folder. Folders of sources since replaced stay: a training may still have them mapped.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.datasets.builtins import BUILT_IN, BuiltIn
from service.datasets.catalogue import check_shapes, describe, find_files, is_complete, locate
from service.datasets.download import Progress, download
from service.datasets.errors import DatasetBroken, DatasetUnavailable
from service.datasets.formats.idx import read_idx_content
from service.datasets.info import (
    IDX_NAMES,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    VALIDATION_IMAGES,
    VALIDATION_LABELS,
    DatasetInfo,
    content_sha256,
)

_FORMAT = 1  # part of every cache key: raise it when what is stored changes


@dataclass(frozen=True)
class Examples:
    """Inputs of a network with their labels: one part of a dataset.

    Attributes:
        inputs: images, uint8 (count, rows, columns); of a table float64 (count, columns), see ``datasets.tables``.
        labels: uint8 (count,).
    """

    inputs: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A dataset's parts, mapped read-only: pages are shared by all processes that train on it."""

    info: DatasetInfo
    train: Examples
    validation: Examples
    sha256: str  # of the unpacked content, as content_sha256 gives it


def load(
    name: str,
    data_root: Path,
    *,
    cache_root: Path,
    progress: Progress | None = None,
    builtins: Mapping[str, BuiltIn] = BUILT_IN,
) -> Dataset:
    """The dataset ``name``: from the cache within milliseconds, the first time from its files or a mirror.

    Args:
        data_root: the folder of datasets, one sub-folder each; a download goes there.
        cache_root: where unpacked arrays are kept.
        progress: hears of a download's bytes; what it raises ends the download and passes through.
        builtins: the known datasets; tests bring their own, with mirrors of their own.

    Raises:
        DatasetNotFound: no dataset has this name.
        DatasetUnavailable: its files are not there and cannot be downloaded, or the cache cannot be written.
        DatasetBroken: its files are not what they should be.
    """
    info = describe(name, data_root, builtins=builtins)
    paths = locate(name, data_root, builtins)
    builtin = builtins.get(name)
    if builtin is not None and not is_complete(paths):
        download(builtin, data_root / name, present=paths, progress=progress)
        paths = find_files(data_root / name)
    folder = cache_root / f"{name}-{_cache_key(paths, builtin)}"
    if folder.exists():  # then it is whole, unless a full disk or a hand damaged it: it can be made again
        try:
            return open_arrays(folder, info)
        except (OSError, EOFError, ValueError, KeyError):
            shutil.rmtree(folder, ignore_errors=True)
    try:
        cache_root.mkdir(parents=True, exist_ok=True)
        _unpack(paths, folder, builtin)
        return open_arrays(folder, info)
    except OSError as error:
        raise DatasetUnavailable(
            name,
            f"its arrays cannot be cached in {cache_root} ({error.strerror or error})",
            "Make room there, or make the folder writable",
        ) from error


def _cache_key(paths: Mapping[str, Path], builtin: BuiltIn | None) -> str:
    if builtin is not None and builtin.shipped is not None:
        # What is shipped changes with the package only, while each installation gives it new times.
        identity = [[name, builtin.digests[name]] for name in IDX_NAMES]
    else:
        stats = {name: path.stat() for name, path in paths.items()}
        identity = [[name, str(stats[name].st_size), str(stats[name].st_mtime_ns)] for name in IDX_NAMES]
    return hashlib.sha256(json.dumps([_FORMAT, identity]).encode()).hexdigest()[:16]


def open_arrays(folder: Path, info: DatasetInfo) -> Dataset:
    """Map the arrays of a folder that is whole.

    Raises:
        OSError, EOFError, ValueError, KeyError: it is not.
    """
    sha256 = str(json.loads((folder / "meta.json").read_text())["sha256"])
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in IDX_NAMES}
    return Dataset(
        info=replace(info, sha256=sha256, available=True),
        train=Examples(arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS]),
        validation=Examples(arrays[VALIDATION_IMAGES], arrays[VALIDATION_LABELS]),
        sha256=sha256,
    )


def _unpack(paths: Mapping[str, Path], folder: Path, builtin: BuiltIn | None) -> None:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        digests, shapes, largest = {}, {}, {}
        for name in IDX_NAMES:
            content = read_idx_content(paths[name])
            if builtin is not None and content.sha256 != builtin.digests[name]:
                raise DatasetBroken(
                    paths[name],
                    f"is not the file of {builtin.info.name}: sha256 (unpacked) is {content.sha256}, "
                    f"expected {builtin.digests[name]}. Store your own data in a folder with another name",
                )
            digests[name] = content.sha256
            shapes[name] = content.array.shape
            largest[name] = int(content.array.max(initial=0))
            _write_synced(temporary / f"{name}.npy", content.array)
        check_shapes(paths, shapes)
        if largest[VALIDATION_LABELS] > largest[TRAIN_LABELS]:
            raise DatasetBroken(
                paths[VALIDATION_LABELS],
                f"has the label {largest[VALIDATION_LABELS]}, but the highest training label is "
                f"{largest[TRAIN_LABELS]}",
            )
        (temporary / "meta.json").write_text(json.dumps({"sha256": content_sha256(digests), "files": digests}))
        _rename_unless_there(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_synced(path: Path, array: NDArray[np.uint8]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _rename_unless_there(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not (folder / "meta.json").is_file():  # else another process was first, with the same arrays
            raise
