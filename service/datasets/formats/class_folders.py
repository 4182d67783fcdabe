"""The classes of image files: the folders that they are in, optionally below folders of parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from service.datasets.errors import DatasetBroken
from service.datasets.formats.skipped_files import first_table
from service.datasets.info import PART_WORDS, OnBad, PartName

MAX_CLASSES: Final = 256
MAX_CLASS_NAME: Final = 100


def outside_of_folders(path: Path, names: Sequence[str], on_bad: OnBad) -> frozenset[str]:
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


def classes_of(path: Path, names: Sequence[str], other_files: Sequence[str] = ()) -> dict[str, tuple[PartName, str]]:
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
        table = first_table(other_files)
        table_hint = f"; {table} is not read" if table else ""
        advice = f"sort the images into a folder per class{table_hint}"
        raise DatasetBroken(path, f"has one class folder, {single_class!r}; a classifier needs at least two: {advice}")
    if len(trained_classes) > MAX_CLASSES:
        raise DatasetBroken(path, f"has {len(trained_classes):,} class folders; at most {MAX_CLASSES} are allowed")
    if long_name := next((label for label in trained_classes if len(label) > MAX_CLASS_NAME), None):
        detail = f"has a class folder with a name of {len(long_name):,} characters, {long_name[:40]!r}"
        raise DatasetBroken(path, f"{detail}; at most {MAX_CLASS_NAME} are allowed: rename it")
    return assignments


def sort_classes(names: set[str]) -> list[str]:
    """Class names in order: numbers by value, words alphabetically."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name.casefold() + name))
