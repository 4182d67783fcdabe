"""A folder of image files as an archive."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from service.client.errors import UnreadableImage
from service.spec.sent_images import IMAGE_SUFFIXES, UNSEEN_FILES

_MAX_NAMED_FILES: Final = 5
_SENT_NAMES: Final = 50
"""Files that are not images: so many are named to the service, which limits the files of an archive."""


def files_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files in a folder and its subfolders, and the other files; both sorted, without hidden ones."""
    files = sorted(_walk(folder))
    images = [path for path in files if path.name.lower().endswith(IMAGE_SUFFIXES)]
    others = [path for path in files if not path.name.lower().endswith(IMAGE_SUFFIXES)]
    return images, others


def names_to_send(folder: Path, others: Sequence[Path]) -> list[str]:
    """The names of the first files that are not images, as members of an archive that the service accepts."""
    names = (path.relative_to(folder).as_posix() for path in others)
    safe = (name for name in names if ".." not in PurePosixPath(name.replace("\\", "/")).parts)
    # The service drops the prefix. Without it, a name such as a:b.txt would be that of a drive.
    return [f"./{name}" for name in itertools.islice(safe, _SENT_NAMES)]


def packed_folder(folder: Path, target: Path, *, skips: bool) -> Path:
    """Write a tar file with the image files of a folder, as they are, and the names of its other files.

    Args:
        skips: leave out files that cannot be read.

    Raises:
        UnreadableImage: the folder contains no images, or some cannot be read.
    """
    images, others = files_of(folder)
    if not images:
        raise UnreadableImage(f"{folder} contains no images; files ending in {', '.join(IMAGE_SUFFIXES)} are read")
    pack(folder, images, names_to_send(folder, others), target, skips=skips)
    return target


def pack(
    folder: Path,
    images: Sequence[Path],
    others: Sequence[str],
    target: Path,
    *,
    skips: bool,
    shrunk: Callable[[Path], bytes] | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> list[str]:
    """Write a tar file with image files.

    Args:
        others: names of files that are not images: sent without content, so that the report of the import has them.
        skips: leave out images that cannot be read. One that cannot be decoded is sent as it is, so that the report of
            the import names it.
        shrunk: gives a smaller form of a file that the import decodes to the same pixels, or raises
            ``UnreadableImage``; the name stays. By default, files are sent as they are.
        on_image: called after each.

    Returns:
        What was not sent, each with the reason.

    Raises:
        UnreadableImage: some cannot be read; the message lists them.
    """
    faults: list[str] = []
    sent = 0
    with tarfile.open(target, "w", dereference=True) as archive:  # the service takes no links
        for path in images:
            name = path.relative_to(folder)
            try:
                if shrunk is None:
                    archive.add(path, name.as_posix())
                else:
                    data = shrunk(path)
                    entry = tarfile.TarInfo(name.as_posix())
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
                sent += 1
            except UnreadableImage as error:
                if skips:
                    archive.add(path, name.as_posix())
                else:
                    faults.append(f"{path} {error}")
            except OSError as error:
                faults.append(f"{path} {error.strerror or error}")
            on_image()
        for sent_name in others:
            archive.addfile(tarfile.TarInfo(sent_name))
    if faults and not (skips and sent):
        more = f"\n  and {len(faults) - _MAX_NAMED_FILES:,} more" if len(faults) > _MAX_NAMED_FILES else ""
        these, them = ("this file", "it") if len(faults) == 1 else ("these files", "them")
        advice = f"remove or replace {them}, or leave {them} out with on_bad=skip"
        listed = "\n  ".join(faults[:_MAX_NAMED_FILES])
        raise UnreadableImage(f"{these} cannot be read; {advice}:\n  {listed}{more}")
    return faults


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in files:
            if not name.startswith(".") and name.lower() not in UNSEEN_FILES:
                yield Path(place, name)
