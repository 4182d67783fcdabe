"""Predict and generate, from checkpoints that the real trainers made."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from engine import EpochDone, checkpoint
from service import datasets
from service.contract import validation
from service.datasets import Dataset
from tests.service.web.conftest import PlayedWorker
from workers import build

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
}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return datasets.load("mnist-10k", tmp_path_factory.mktemp("data"), cache_root=tmp_path_factory.mktemp("cache"))


@dataclass
class Trained:
    """An epoch of real training: the trainer afterwards, what it reported, and its checkpoint."""

    spec: dict[str, Any]
    trainer: Any
    done: EpochDone
    checkpoint: bytes


@pytest.fixture(scope="session")
def train(digits: Dataset) -> Callable[..., Trained]:
    """Train for an epoch, on few images; each spec once."""

    @functools.cache
    def trained(text: str) -> Trained:
        spec = validation.resolve(json.loads(text))
        few = Dataset(
            digits.info,
            digits.train_images[:1000],
            digits.train_labels[:1000],
            digits.validation_images,
            digits.validation_labels,
            digits.sha256,
        )
        trainer = build.trainer(spec, few)
        done = [report for report in trainer.run() if isinstance(report, EpochDone)][-1]
        state = trainer.state_dict()
        state.spec = spec.model_dump(mode="json")
        return Trained(json.loads(text), trainer, done, checkpoint.dumps(state))

    def start(kind: str, **spec: Any) -> Trained:
        return trained(json.dumps({"kind": kind, "epochs": 1, **spec}))

    return start


@pytest.fixture
def job(client: FlaskClient, worker: PlayedWorker, submit: Callable[..., str]) -> Callable[[Trained], str]:
    """A job with what was trained."""

    def make(trained: Trained) -> str:
        job_id = submit(client, **trained.spec)
        worker.claim()
        confusion = trained.done.confusion
        worker.epoch(
            1,
            metrics=trained.done.metrics,
            checkpoint=trained.checkpoint,
            confusion=confusion.tolist() if confusion is not None else None,
        )
        worker.succeed()
        return job_id

    return make


def png(levels: Any, mode: str | None = None) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(levels), mode).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def ask(client: FlaskClient, job_id: str, verb: str, status: int = 200, **body: Any) -> Any:
    response = client.post(f"/jobs/{job_id}/{verb}", json=body)
    assert response.status_code == status, response.text
    return response.json


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predictions_are_those_of_the_trainer(
    client: FlaskClient, train: Any, job: Any, digits: Dataset, name: str
) -> None:
    trained = train("classifier", **CLASSIFIERS[name])
    job_id = job(trained)
    shown = trained.trainer.samples(40)
    answer = ask(client, job_id, "predict", images=[png(image) for image in shown.images])
    probabilities = np.array(answer["probabilities"])
    assert answer["checkpoint"] == 1
    assert answer["classes"] == shown.predictions.tolist()
    np.testing.assert_allclose(probabilities.max(axis=1), np.clip(shown.confidences, 0, 1), atol=1e-6)
    if name not in ("sigmoids", "bare"):
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    arrays = ask(client, job_id, "predict", images=(shown.images[:20] / 255).tolist())
    np.testing.assert_allclose(arrays["probabilities"], probabilities[:20], atol=1e-6)


@pytest.mark.parametrize("name", GANS)
def test_the_jobs_own_seed_gives_its_samples(client: FlaskClient, train: Any, job: Any, name: str) -> None:
    trained = train("gan", **GANS[name])
    job_id = job(trained)
    samples = trained.trainer.samples(9)
    answer = ask(client, job_id, "generate", count=9, seed=trained.spec.get("seed", 0))
    made = np.stack([unpack(image) for image in answer["images"]])
    np.testing.assert_array_equal(made, samples)


def unpack(text: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
