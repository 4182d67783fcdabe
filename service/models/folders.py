"""Folders of a model's files, as zips."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Final

from service.storage.tables import Job

_STORED: Final = (".safetensors", ".onnx", ".png")
"""File types that are stored without compression, which would take time and save little."""


def folder_name(job: Job, target: str) -> str:
    """The name of the folder in a zip: the format, after the characters of the job's name that file systems accept."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", job.name or "").strip("-.")[:60]
    return f"{name or job.id}-{target}"


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
