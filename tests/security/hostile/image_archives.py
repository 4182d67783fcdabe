"""Archives of image files, packed entry by entry, and what the answer to a hostile one must be."""

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
        says: the file at fault, as far as there is one, and the remedy.
        seconds: how long the answer may take; what is wrong from the first file on is found within one.
        megabytes: what the reader may have in memory; the sandbox stops it at 512 more than it begins with.
        fields: of the form, besides the archive.
    """

    title: str
    data: bytes
    says: tuple[str, ...]
    seconds: float = 1.0
    megabytes: int = 200
    fields: Mapping[str, str] = field(default_factory=dict)


def image(fmt: str = "PNG", side: int = 12, **how: Any) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(2).integers(0, 256, (side, side, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, fmt, **how)
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
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for entry in special:
            archive.addfile(entry)
    return buffer.getvalue()


def with_file(name: str, data: bytes = PNG) -> dict[str, bytes]:
    """A bad file first, then good ones."""
    return {name: data, **GOOD}


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made
