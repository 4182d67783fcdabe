"""Specs of small networks, and helpers for requests to them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from PIL import Image

from engine import EpochDone

CONV = [
    {"type": "conv2d", "filters": 4, "activation": "linear"},
    {"type": "batch_norm", "activation": "relu"},
    {"type": "max_pool2d"},
    {"type": "flatten"},
    {"type": "dropout", "rate": 0.3},
    {"units": 10, "activation": "softmax"},
]


DENSE = [{"units": 32, "activation": "relu"}, {"units": 10, "activation": "softmax"}]


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "dense": {"layers": DENSE},
    "averaged": {"layers": DENSE, "average_decay": 0.9, "dataset": {"name": "mnist-10k", "scale": [-1, 1]}},
    "double": {"layers": DENSE, "dtype": "float64"},
    "conv": {"layers": CONV, "average_decay": 0.9},
    "sigmoids": {"layers": [*DENSE[:1], {"units": 10, "activation": "sigmoid"}], "loss": {"name": "squared_error"}},
    "bare": {"layers": [*DENSE[:1], {"units": 10, "activation": "linear"}], "loss": {"name": "squared_error"}},
}


RESIDUAL = [
    {"type": "conv2d", "filters": 4, "stride": 2, "activation": "silu"},
    {
        "type": "residual",
        "layers": [
            {"type": "conv2d", "filters": 4, "activation": "linear"},
            {"type": "layer_norm", "activation": "gelu"},
            {"type": "dropout", "rate": 0.2},
            {"type": "conv2d", "filters": 4, "activation": "linear"},
            {"type": "batch_norm"},
        ],
        "activation": "elu",
    },
    {"type": "avg_pool2d"},
    {"type": "conv2d", "filters": 16, "activation": "softplus"},
    {"type": "global_avg_pool2d"},
    {"type": "layer_norm"},
    {"type": "residual", "layers": [{"units": 16, "activation": "gelu"}, {"units": 16, "activation": "linear"}]},
    {"units": 10, "activation": "softmax"},
]

CLASSIFIERS |= {"residual": {"layers": RESIDUAL}, "residual in double": {"layers": RESIDUAL, "dtype": "float64"}}

GANS: dict[str, dict[str, Any]] = {
    "normal": {},
    "averaged": {"generator": {"average_decay": 0.9}, "latent": {"dim": 20, "distribution": "uniform"}},
    "batch norm": {
        "generator": {
            "layers": [
                {"units": 7 * 7 * 4, "activation": "linear"},
                {"type": "batch_norm", "activation": "relu"},
                {"type": "reshape", "shape": [7, 7, 4]},
                {"type": "upsample2d", "size": 4},
                {"type": "conv2d", "filters": 1, "activation": "tanh"},
            ]
        }
    },
    "transposed": {
        "generator": {
            "layers": [
                {"units": 7 * 7 * 4, "activation": "linear"},
                {"type": "layer_norm", "activation": "silu"},
                {"type": "reshape", "shape": [7, 7, 4]},
                {"type": "conv2d_transpose", "filters": 4, "activation": "elu"},
                {"type": "conv2d_transpose", "filters": 1, "kernel": 3, "activation": "tanh"},
            ]
        }
    },
    "conditional": {"conditional": True},
}


@dataclass
class Trained:
    """One epoch of real training: the trainer after it, its report, and its checkpoint."""

    spec: dict[str, Any]
    trainer: Any
    last_epoch: EpochDone
    checkpoint: bytes


def png(levels: Any, mode: str | None = None) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(levels), mode).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def post(client: FlaskClient, job_id: str, verb: str, status: int = 200, **body: Any) -> Any:
    response = client.post(f"/jobs/{job_id}/{verb}", json=body)
    assert response.status_code == status, response.text
    return response.json


def decode_png(text: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def pointers(problem: dict[str, Any]) -> list[str]:
    return [fault["pointer"] for fault in problem["errors"]]
