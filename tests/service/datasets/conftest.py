"""Small IDX files, and fixtures for their folders."""

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from service.datasets.formats.idx import write_idx
from service.datasets.info import IDX_NAMES

TRAIN_IMAGES, TRAIN_LABELS, VALIDATION_IMAGES, VALIDATION_LABELS = IDX_NAMES


def make_files(
    folder: Path, changed: Mapping[str, object] | None = None, *, seed: int = 0, suffix: str = ".gz"
) -> dict[str, str]:
    """Write four small IDX files, some with ``changed`` arrays; return digests of their unpacked content."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, object] = {
        TRAIN_IMAGES: rng.integers(0, 256, (30, 8, 8)),
        TRAIN_LABELS: np.arange(30) % 3,
        VALIDATION_IMAGES: rng.integers(0, 256, (9, 8, 8)),
        VALIDATION_LABELS: np.arange(9) % 3,
    } | dict(changed or {})
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, array in arrays.items():
        path = folder / f"{name}{suffix}"
        write_idx(path, np.asarray(array, np.uint8))
        content = path.read_bytes()
        digests[name] = hashlib.sha256(gzip.decompress(content) if suffix == ".gz" else content).hexdigest()
    return digests


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
