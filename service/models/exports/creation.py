"""Creates exports. The library of a format is imported when the format is first requested."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from typing import Final, assert_never

from service.models.exports.contents import FORMATS, ExportFormat, JobFacts, Pictures
from service.models.exports.torch_module import to_torch
from service.models.exports.trained_network import TrainedModel

_STORED: Final = (".safetensors", ".onnx", ".png")
"""File types that are stored without compression, which would take time and save little."""


def make(target: ExportFormat, facts: JobFacts, pictures: Pictures, model: TrainedModel | None) -> bytes:
    """The bytes of an export.

    Args:
        model: ``None`` for a format without weights.

    Raises:
        ExtraMissing: the format's library is not installed.
    """
    if (missing := FORMATS[target].missing) is not None:
        raise missing
    match target:
        case ExportFormat.ONNX:
            from service.models.exports.onnx_graph import to_onnx  # importing its library takes 0.3 s

            return to_onnx(_require_model(model), facts)
        case ExportFormat.TORCH:
            return pack(to_torch(_require_model(model), facts), folder(facts, target))
        case ExportFormat.TENSORBOARD:
            from service.models.exports.tensorboard_log import to_tensorboard

            return pack(to_tensorboard(facts, pictures), folder(facts, target))
        case ExportFormat.HUGGINGFACE:
            from service.models.exports.huggingface_folder import to_huggingface

            return pack(to_huggingface(_require_model(model), facts, pictures), folder(facts, target))
        case _:
            assert_never(target)


def _require_model(model: TrainedModel | None) -> TrainedModel:
    if model is None:
        raise ValueError("this format needs the weights of a checkpoint")
    return model


def folder(facts: JobFacts, target: ExportFormat) -> str:
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
