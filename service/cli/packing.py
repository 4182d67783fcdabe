"""A folder of image files, packed for an upload."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from service.cli.errors import Failure
from service.datasets.formats.decoding import SUFFIXES, UNSEEN, UnreadableImage, decode
from service.datasets.info import Channels, OnBad, PhotoOptions, Size

_MAX_NAMED_FILES = 5
_SENT_NAMES: Final = 50
"""Files that are not images: so many are named to the service, which limits the files of an archive."""


def files_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files in a folder and its subfolders, and the other files; both sorted, without hidden ones."""
    files = sorted(_walk(folder))
    images = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    others = [path for path in files if not path.name.lower().endswith(SUFFIXES)]
    return images, others


def names_to_send(folder: Path, others: Sequence[Path]) -> list[str]:
    """The names of the first files that are not images, as members of an archive that the service accepts."""
    names = (path.relative_to(folder).as_posix() for path in others)
    safe = (name for name in names if ".." not in PurePosixPath(name.replace("\\", "/")).parts)
    # The service drops the prefix. Without it, a name such as a:b.txt would be that of a drive.
    return [f"./{name}" for name in itertools.islice(safe, _SENT_NAMES)]


def pack(
    folder: Path,
    images: list[Path],
    others: Sequence[str],
    target: Path,
    *,
    options: PhotoOptions,
    on_image: Callable[[], None],
) -> list[str]:
    """Write a tar file with the images.

    Args:
        others: names of files that are not images: sent without content, so that the report of the import has them.
        options: with a size, images are scaled first, so that less is sent; their names stay. One that cannot be
            decoded is sent as it is if it is to be left out, so that the report of the import names it.
        on_image: called after each.

    Returns:
        What was not sent, each with the reason.

    Raises:
        Failure: some cannot be read; the message lists them.
    """
    faults: list[str] = []
    sent = 0
    skips = options.on_bad is OnBad.SKIP
    with tarfile.open(target, "w") as archive:
        for path in images:
            name = path.relative_to(folder)
            try:
                if options.size is None:
                    archive.add(path, name.as_posix())
                else:
                    data = _shrunk(path, options.size, grey=options.channels is Channels.GREY)
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
        advice = f"remove or replace {them}, or leave {them} out with --on-bad skip"
        raise Failure(f"{these} cannot be read; {advice}:\n  " + "\n  ".join(faults[:_MAX_NAMED_FILES]) + more)
    return faults


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in files:
            if not name.startswith(".") and name.lower() not in UNSEEN:
                yield Path(place, name)


def _shrunk(path: Path, size: Size, *, grey: bool) -> bytes:
    data = io.BytesIO()
    with path.open("rb") as file:
        decode(file, size, grey=grey).save(data, "PNG")
    return data.getvalue()
