"""Creates exports. The library of a format is imported when the format is first requested."""

from __future__ import annotations

import io
import pkgutil
import re
import zipfile
from collections.abc import Mapping
from typing import Final

from service.models.exports.contents import JobFacts, Pictures
from service.models.exports.trained_network import TrainedModel
from service.storage.artifacts import EXPORTS, ArtifactKind

_STORED: Final = (".safetensors", ".onnx", ".png")
"""File types that are stored without compression, which would take time and save little."""


_MAKERS: Final = {
    ArtifactKind.ONNX: "service.models.exports.onnx_graph:to_onnx",
    ArtifactKind.TORCH: "service.models.exports.torch_module:to_torch",
    ArtifactKind.HUGGINGFACE: "service.models.exports.huggingface_folder:to_huggingface",
    ArtifactKind.TENSORBOARD: "service.models.exports.tensorboard_log:to_tensorboard",
}
"""Functions of model (without weights: ``None``), facts and pictures; they return a file, or the files of a folder."""


def make(kind: ArtifactKind, facts: JobFacts, pictures: Pictures, model: TrainedModel | None) -> bytes:
    """The bytes of an export.

    Raises:
        ExtraMissing: the format's library is not installed.
    """
    if (missing := EXPORTS[kind].missing) is not None:
        raise missing
    made = pkgutil.resolve_name(_MAKERS[kind])(model, facts, pictures)
    return made if isinstance(made, bytes) else pack(made, folder(facts, kind))


def folder(facts: JobFacts, target: str) -> str:
    """The name of the folder in a zip: the format, after the characters of the job's name that file systems accept."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", facts.job.name or "").strip("-.")[:60]
    return f"{name or facts.job.id}-{target}"


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
