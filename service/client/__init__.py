"""A client of the HTTP API.

``Client("http://127.0.0.1:8000").submit({"kind": "classifier"}).wait().metrics``
"""

from service.client.bisection import Bisection
from service.client.client import Client
from service.client.downloads import safe_name
from service.client.errors import (
    AmbiguousJob,
    ApiError,
    ClientError,
    DownloadDamaged,
    ExportFailed,
    ServerUnreachable,
    UnreadableImage,
)
from service.client.experiments import Sweep
from service.client.job import Job
from service.client.lookup import Found
from service.client.method_types import (
    Event,
    ExportTarget,
    Generated,
    GenerateOptions,
    History,
    Picture,
    Prediction,
    Which,
)

__all__ = [
    "AmbiguousJob",
    "ApiError",
    "Bisection",
    "Client",
    "ClientError",
    "DownloadDamaged",
    "Event",
    "ExportFailed",
    "ExportTarget",
    "Found",
    "GenerateOptions",
    "Generated",
    "History",
    "Job",
    "Picture",
    "Prediction",
    "ServerUnreachable",
    "Sweep",
    "UnreadableImage",
    "Which",
    "safe_name",
]
