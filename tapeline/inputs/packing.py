"""A folder of image files as an archive."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from tapeline.errors import UnreadableImage
from tapeline.images.files import IMAGE_SUFFIXES, UNSEEN_FILES, Size

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
    skips: bool = False,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], int]:
    """Write a tar file with the image files of a folder, and the names of its other files, which have no content.

    Args:
        size: scale images as the import does, so that less is sent for the same dataset; the names stay. Without it,
            files are packed as they are.
        grey: the import converts them to grey.
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
                    data = _scaled(path, size, grey=grey)
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


def _scaled(path: Path, size: Size, *, grey: bool) -> bytes:
    """An image as the import scales it, as a PNG."""
    from tapeline.images import decoding  # lazily: it loads Pillow

    data = io.BytesIO()
    with path.open("rb") as file:
        decoding.decode(file, size, grey=grey).save(data, "PNG")
    return data.getvalue()


def _walk(folder: Path) -> Iterator[Path]:
    for directory, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX"))]
        for name in files:
            if not name.startswith(".") and name.lower() not in UNSEEN_FILES:
                yield Path(directory, name)
