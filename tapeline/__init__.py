"""Tapeline for Python programs: ``from tapeline import Client``.

``Client`` calls a running service; its methods return ``Job`` objects. The rest of the project is in the packages
``engine``, ``service`` and ``workers``.
"""

from service.client import (
    AmbiguousJob,
    ApiError,
    Client,
    ClientError,
    DownloadDamaged,
    Event,
    ExportFailed,
    Generated,
    History,
    Job,
    Picture,
    Prediction,
    ServerUnreachable,
    Sweep,
    UnreadableImage,
)

__all__ = [
    "AmbiguousJob",
    "ApiError",
    "Client",
    "ClientError",
    "DownloadDamaged",
    "Event",
    "ExportFailed",
    "Generated",
    "History",
    "Job",
    "Picture",
    "Prediction",
    "ServerUnreachable",
    "Sweep",
    "UnreadableImage",
]
