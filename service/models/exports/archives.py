"""Zip files whose bytes depend on their content alone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Final

_STORED: Final = (".safetensors", ".onnx", ".png")
"""What compression would cost time for, and save little."""


def packed(files: Mapping[str, bytes], folder: str) -> bytes:
    """A zip of files by their paths below one folder, all dated 1980, the first day that the format knows."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(f"{folder}/{path}")
            entry.compress_type = zipfile.ZIP_STORED if path.endswith(_STORED) else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return target.getvalue()
