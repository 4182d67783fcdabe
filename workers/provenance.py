"""What the bits of a result hang on besides its spec: NumPy's build, the BLAS kernels, the processor's features."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import threadpoolctl

from service.datasets import Dataset


def provenance(dataset: Dataset) -> dict[str, Any]:
    """Equal here means: the same spec gives the same bits."""
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    built = np.show_config(mode="dicts")
    simd = built.get("SIMD Extensions", {})
    return {
        "numpy": np.__version__,
        "blas": [f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip() for pool in blas]
        or [str(built.get("Build Dependencies", {}).get("blas", {}).get("name", "unknown"))],
        "threads": max((pool["num_threads"] for pool in blas), default=1),
        "simd": [*simd.get("baseline", []), *simd.get("found", [])],
        "machine": platform.machine(),
        "dataset": dataset.sha256,
    }
