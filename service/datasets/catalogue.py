"""The catalogue: which datasets exist, and where their files are. Reads only headers, no images."""

import functools
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from service.datasets.builtins import BUILT_IN, BuiltIn
from service.datasets.download import expected_failure
from service.datasets.errors import DatasetBroken, DatasetNotFound, closest
from service.datasets.formats.idx import read_idx, read_idx_shape
from service.datasets.info import (
    DATASET_NAME,
    IDX_NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TEST_NAMES,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    VALIDATION_IMAGES,
    VALIDATION_LABELS,
    DatasetInfo,
)


def find_files(folder: Path) -> dict[str, Path]:
    """The dataset files in ``folder`` by canonical name; several common spellings are recognized."""
    paths = {}
    for name in (*IDX_NAMES, *TEST_NAMES):
        dotted = name.replace("-idx", ".idx")  # the spelling of some archives
        for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
            if os.path.isfile(folder / candidate):  # unlike Path.is_file, False without permission
                paths[name] = folder / candidate
                break
    return paths


def locate(name: str, data_root: Path, builtins: Mapping[str, BuiltIn]) -> dict[str, Path]:
    """The four files from the first folder that has them all; otherwise those in the data folder."""
    in_data_root = find_files(data_root / name)
    builtin = builtins.get(name)
    if builtin is None:
        return in_data_root
    candidates = [in_data_root]
    if builtin.shipped is not None:
        candidates.insert(0, find_files(builtin.shipped))
    if builtin.system is not None:
        candidates.append(find_files(builtin.system))
    return next((paths for paths in candidates if is_complete(paths)), in_data_root)


def is_complete(paths: Mapping[str, Path]) -> bool:
    """Whether all four files were found; those of a test part are optional."""
    return all(name in paths for name in IDX_NAMES)


def catalogue(data_root: Path, *, builtins: Mapping[str, BuiltIn] = BUILT_IN) -> list[DatasetInfo]:
    """All datasets: the built-in ones, then the folders of ``data_root`` with four IDX files, by name.

    A folder with damaged files is listed with its ``problem``, so that users see why it cannot be used.
    """
    infos = [_describe_builtin(builtin, data_root, builtins) for builtin in builtins.values()]
    try:
        folders = sorted(data_root.iterdir())
    except OSError:  # missing, or no permission
        folders = []
    for folder in folders:
        if folder.name in builtins or not may_be_named(folder.name) or not folder.is_dir():
            continue
        files = find_files(folder)
        if is_complete(files):
            try:
                infos.append(_describe_folder(folder.name, files))
            except (DatasetBroken, OSError) as error:
                infos.append(_folder_info(folder.name, str(error)))
    return infos


def describe(name: str, data_root: Path, *, builtins: Mapping[str, BuiltIn] = BUILT_IN) -> DatasetInfo:
    """One dataset.

    Raises:
        DatasetNotFound: no dataset has this name.
        DatasetBroken: the files of the folder are inconsistent.
    """
    if name in builtins:
        return _describe_builtin(builtins[name], data_root, builtins)
    if may_be_named(name):
        files = find_files(data_root / name)
        if is_complete(files):
            return _describe_folder(name, files)
    available = [info.name for info in catalogue(data_root, builtins=builtins)]
    raise DatasetNotFound(name, available, closest(name, available))


def may_be_named(name: str) -> bool:
    """Whether a name is valid for a dataset."""
    return DATASET_NAME.fullmatch(name) is not None


def check_shapes(paths: Mapping[str, Path], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check dimensions, counts and image sizes; raises ``DatasetBroken`` if the arrays are inconsistent."""
    parts = {TRAIN_IMAGES: TRAIN_LABELS, VALIDATION_IMAGES: VALIDATION_LABELS, TEST_IMAGES: TEST_LABELS}
    if (TEST_IMAGES in shapes) != (TEST_LABELS in shapes):
        present, missing = (TEST_IMAGES, TEST_LABELS) if TEST_IMAGES in shapes else (TEST_LABELS, TEST_IMAGES)
        raise DatasetBroken(paths[present], f"needs {missing} in the same folder")
    for images, labels in parts.items():
        if images not in shapes:
            continue
        if len(shapes[images]) != 3:
            raise DatasetBroken(paths[images], f"has the shape {shapes[images]}; images are (count, rows, columns)")
        if len(shapes[labels]) != 1:
            raise DatasetBroken(paths[labels], f"has the shape {shapes[labels]}; labels are (count,)")
        if shapes[images][0] != shapes[labels][0]:
            raise DatasetBroken(
                paths[labels],
                f"holds {shapes[labels][0]:,} labels for the {shapes[images][0]:,} images of {paths[images].name}",
            )
        if 0 in shapes[images]:
            raise DatasetBroken(paths[images], f"has the shape {shapes[images]}: it contains no images")
        if shapes[images][1:] != shapes[TRAIN_IMAGES][1:]:
            raise DatasetBroken(
                paths[images],
                f"holds images of {shapes[images][1:]}, the training images are {shapes[TRAIN_IMAGES][1:]}",
            )


def _describe_builtin(builtin: BuiltIn, data_root: Path, builtins: Mapping[str, BuiltIn]) -> DatasetInfo:
    if builtin.table is not None:
        return replace(builtin.info, available=True)
    if builtin.made_from is not None:
        source = describe(builtin.made_from, data_root, builtins=builtins)
        return replace(builtin.info, available=source.available)
    paths = locate(builtin.info.name, data_root, {builtin.info.name: builtin})
    if is_complete(paths):
        return replace(builtin.info, available=True)
    return replace(
        builtin.info,
        available=False,
        download_bytes=sum(size for name, size in builtin.packed_bytes.items() if name not in paths),
        download_from=tuple(urlsplit(mirror).hostname or mirror for mirror in builtin.mirrors),
        download_problem=expected_failure(data_root / builtin.info.name),
    )


def _describe_folder(name: str, paths: Mapping[str, Path]) -> DatasetInfo:
    shapes = {idx_name: read_idx_shape(path) for idx_name, path in paths.items()}
    check_shapes(paths, shapes)
    stat = paths[TRAIN_LABELS].stat()
    classes = _count_classes(paths[TRAIN_LABELS], stat.st_size, stat.st_mtime_ns)
    return replace(
        _folder_info(name),
        image_shape=shapes[TRAIN_IMAGES][1:],
        classes=classes,
        train_count=shapes[TRAIN_IMAGES][0],
        validation_count=shapes[VALIDATION_IMAGES][0],
        test_count=shapes[TEST_IMAGES][0] if TEST_IMAGES in shapes else 0,
        class_names=tuple(str(label) for label in range(classes)),
        available=True,
    )


@functools.lru_cache(maxsize=256)
def _count_classes(labels: Path, _size: int, _mtime_ns: int) -> int:
    # Size and time are part of the cache key, because listing datasets calls this for every folder each time.
    return int(read_idx(labels).array.max()) + 1


def _folder_info(name: str, problem: str | None = None) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        title=name,
        image_shape=(),
        classes=0,
        train_count=0,
        validation_count=0,
        class_names=(),
        source=f"folder {name} in TAPELINE_DATA",
        licence="unknown",
        sha256=None,
        available=False,
        problem=problem,
    )
