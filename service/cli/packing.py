"""A folder of image files, packed for an upload: as the client does it, but scaled first if the upload has a size."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from service.cli.errors import Failure
from service.client import UnreadableImage
from service.client.inputs import packing
from service.client.inputs.packing import files_of, names_to_send
from service.datasets.formats import decoding
from service.datasets.info import Channels, OnBad, PhotoOptions, Size

__all__ = ["files_of", "names_to_send", "pack"]


def pack(
    folder: Path,
    images: Sequence[Path],
    others: Sequence[str],
    target: Path,
    *,
    options: PhotoOptions,
    on_image: Callable[[], None],
) -> list[str]:
    """Write a tar file with the images; see ``service.client.inputs.packing.pack``.

    Args:
        options: with a size, images are scaled first, so that less is sent.

    Raises:
        Failure: some cannot be read; the message lists them.
    """
    skips, grey = options.on_bad is OnBad.SKIP, options.channels is Channels.GREY
    shrunk = partial(_shrunk, size=options.size, grey=grey) if options.size is not None else None
    try:
        return packing.pack(folder, images, others, target, skips=skips, shrunk=shrunk, on_image=on_image)
    except UnreadableImage as error:
        raise Failure(str(error).replace("on_bad=skip", "--on-bad skip")) from error


def _shrunk(path: Path, *, size: Size, grey: bool) -> bytes:
    data = io.BytesIO()
    try:
        with path.open("rb") as file:
            decoding.decode(file, size, grey=grey).save(data, "PNG")
    except decoding.UnreadableImage as error:
        raise UnreadableImage(str(error)) from error
    return data.getvalue()
