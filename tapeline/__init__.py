"""Tapeline for Python programs: ``from tapeline import Client``.

``Client`` calls a running service; its methods return ``Job`` objects. The names are imported when they are first used:
the service reads image files with ``tapeline.images``, and needs no HTTP client for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tapeline.client import Client
    from tapeline.errors import (
        AmbiguousJob,
        ApiError,
        ClientError,
        DownloadDamaged,
        ExportFailed,
        GateFailed,
        MissingPackage,
        NotUploadable,
        ServerUnreachable,
        ServerUntrusted,
        UnreadableImage,
        VersionMismatch,
    )
    from tapeline.job import Job, Model
    from tapeline.method_types import Comparison, Event, Generated, History, Picture, Prediction, Records
    from tapeline.sweeps import Sweep, Trial

__all__ = [
    "AmbiguousJob",
    "ApiError",
    "Client",
    "ClientError",
    "Comparison",
    "DownloadDamaged",
    "Event",
    "ExportFailed",
    "GateFailed",
    "Generated",
    "History",
    "Job",
    "MissingPackage",
    "Model",
    "NotUploadable",
    "Picture",
    "Prediction",
    "Records",
    "ServerUnreachable",
    "ServerUntrusted",
    "Sweep",
    "Trial",
    "UnreadableImage",
    "VersionMismatch",
]

_MODULES: Final = ("client", "errors", "job", "method_types", "sweeps")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            if hasattr(found := import_module(f"tapeline.{module}"), name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
