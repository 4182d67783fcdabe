"""Datasets: the catalogue, imports, and the data as memory-mapped arrays."""

from service.datasets.builtins import BUILT_IN, BuiltIn
from service.datasets.cache import Dataset, Examples, load
from service.datasets.catalogue import catalogue, describe, find_files
from service.datasets.download import Progress
from service.datasets.errors import DatasetBroken, DatasetChanged, DatasetError, DatasetNotFound, DatasetUnavailable
from service.datasets.formats.idx import read_idx, write_idx
from service.datasets.info import IDX_NAMES, DatasetInfo, DatasetState, content_sha256

__all__ = [
    "BUILT_IN",
    "IDX_NAMES",
    "BuiltIn",
    "Dataset",
    "DatasetBroken",
    "DatasetChanged",
    "DatasetError",
    "DatasetInfo",
    "DatasetNotFound",
    "DatasetState",
    "DatasetUnavailable",
    "Examples",
    "Progress",
    "catalogue",
    "content_sha256",
    "describe",
    "find_files",
    "load",
    "read_idx",
    "write_idx",
]
