"""Image archives packed entry by entry, and the expected response to a hostile one."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One upload that must be refused.

    Attributes:
        mentions: what the error must contain: the file at fault, if there is one, and the remedy.
        seconds: maximum processor time; a fault in the first file must be found within one second.
        megabytes: maximum memory of the reader; the sandbox stops it at 512 MB more than it starts with.
        fields: form fields in addition to the archive.
    """

    title: str
    data: bytes
    mentions: tuple[str, ...]
    seconds: float = 1.0
    megabytes: int = 200
    fields: Mapping[str, str] = field(default_factory=dict)


def image(fmt: str = "PNG", side: int = 12, **options: Any) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(2).integers(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, fmt, **options)
    return file.getvalue()


PNG = image()
GOOD = {f"{label}/{index}.png": PNG for label in "ab" for index in range(8)}


def zipped(files: Mapping[str, bytes], *, alter: Callable[[zipfile.ZipInfo], Any] = id, method: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if name not in GOOD:
                alter(info)
            archive.writestr(info, data)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes], *special: tarfile.TarInfo, fmt: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt, encoding="latin-1") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in special:
            archive.addfile(info)
    return buffer.getvalue()


def with_file(name: str, data: bytes = PNG) -> dict[str, bytes]:
    """The given file, followed by good ones."""
    return {name: data, **GOOD}


def special_entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info
