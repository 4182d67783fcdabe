"""Reproducible zip files: their bytes depend only on their content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Final

_STORED: Final = (".safetensors", ".onnx", ".png")
"""File types that are stored without compression, which would take time and save little."""


def pack(files: Mapping[str, bytes], folder: str) -> bytes:
    """A zip of files (path to content) in one folder, all dated 1980-01-01, the earliest date of the format."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(f"{folder}/{path}")
            entry.compress_type = zipfile.ZIP_STORED if path.endswith(_STORED) else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return target.getvalue()
