"""Provenance: what determines the bits of a result besides its spec (code, NumPy build, BLAS, CPU features, libc).

The C library computes ``log1p``, ``expm1``, ``cos`` and the tails of normal random numbers.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import threadpoolctl

from service.datasets.builtins import reference_classifier_sha256
from service.datasets.cache import Dataset
from workers.training import code_digest


def provenance(dataset: Dataset, *, evaluated: bool) -> dict[str, Any]:
    """The provenance of a run: with equal provenance, equal specs give the same bits.

    Args:
        evaluated: whether the metrics include scores of the dataset's reference classifier, if it has one.
    """
    reference = reference_classifier_sha256(dataset.info.name) if evaluated else None
    return {
        **base_provenance(),
        "dataset": dataset.sha256,
        **({"reference_classifier": reference} if reference else {}),
    }


def base_provenance() -> dict[str, Any]:
    """The part that does not depend on the data."""
    return {**machine(), "code": code_digest.digest()}


@functools.cache
def machine() -> Mapping[str, Any]:
    """The part that is the same for every job of this process."""
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    build_config = np.show_config(mode="dicts")
    simd = build_config.get("SIMD Extensions", {})
    return {
        "numpy": np.__version__,
        "blas": [f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip() for pool in blas]
        or [str(build_config.get("Build Dependencies", {}).get("blas", {}).get("name", "unknown"))],
        "threads": max((pool["num_threads"] for pool in blas), default=1),
        "simd": [*simd.get("baseline", []), *simd.get("found", [])],
        "machine": platform.machine(),
        # Only glibc tells its version; other C libraries come with their system.
        "libc": " ".join(filter(None, platform.libc_ver())) or f"{platform.system()} {platform.release()}",
    }
