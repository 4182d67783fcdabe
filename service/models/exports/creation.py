"""Creates exports. The library of a format is imported when the format is first requested."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

from service.models.exports.archives import pack
from service.models.exports.contents import ExportFormat, ExtraMissing, JobFacts, Pictures
from service.models.exports.torch_module import to_torch
from service.models.exports.trained_network import TrainedModel


def make(target: ExportFormat, facts: JobFacts, pictures: Pictures, model: TrainedModel | None) -> bytes:
    """The bytes of an export.

    Args:
        model: ``None`` for a format without weights.

    Raises:
        ExtraMissing: the format's library is not installed.
    """
    match target:
        case ExportFormat.ONNX:
            with require_extra("onnx"):
                from service.models.exports.onnx.graph import to_onnx  # importing its library takes 0.3 s
            return to_onnx(_require_model(model), facts)
        case ExportFormat.TORCH:
            return pack(to_torch(_require_model(model), facts), folder(facts, target))
        case ExportFormat.TENSORBOARD:
            with require_extra("tensorboardX"):
                from service.models.exports.tensorboard_log import to_tensorboard
            return pack(to_tensorboard(facts, pictures), folder(facts, target))
        case ExportFormat.HUGGINGFACE:
            with require_extra("onnx"):
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
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", facts.name or "").strip("-.")[:60]
    return f"{name or facts.id}-{target}"


@contextmanager
def require_extra(library: str) -> Iterator[None]:
    """Translate a failed import of an optional library in this block.

    Raises:
        ExtraMissing: the library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise ExtraMissing(library) from error
