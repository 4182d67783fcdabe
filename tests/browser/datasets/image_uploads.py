"""Uploads of small random images."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np

from tests.browser.apps.simulated_worker import WebProcess


def upload(bare: WebProcess, name: str, labels: Any, side: int = 6) -> None:
    data, rng = io.BytesIO(), np.random.default_rng(0)
    np.savez(data, images=rng.integers(0, 100, (len(labels), side, side)).astype(np.uint8), labels=labels)
    with httpx.Client(base_url=bare.url, timeout=30) as http:
        response = http.post("/datasets", data={"name": name}, files={"archive": ("a.npz", data.getvalue())})
        assert response.status_code == 201, response.text
