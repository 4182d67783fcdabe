"""Checkpoints written by the real trainers."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from engine import EpochDone, checkpoint
from service.datasets import cache
from service.datasets.cache import Dataset, Examples
from service.datasets.formats.array_folders import ArrayCache
from service.spec import validation
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.inference.networks import CLASSIFIERS, Trained
from workers.training import build


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return cache.load("mnist-10k", tmp_path_factory.mktemp("data"), cache=ArrayCache(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def train(digits: Dataset) -> Callable[..., Trained]:
    """Train for one epoch on 1,000 images; each spec is trained only once."""

    @functools.cache
    def trained(text: str) -> Trained:
        spec = validation.resolve(json.loads(text))
        subset = Dataset(
            digits.info,
            Examples(digits.train.inputs[:1000], digits.train.labels[:1000]),
            digits.validation,
            digits.sha256,
        )
        trainer = build.trainer(spec, subset)
        last_epoch = [report for report in trainer.run() if isinstance(report, EpochDone)][-1]
        state = trainer.state_dict()
        state.spec = spec.model_dump(mode="json")
        return Trained(json.loads(text), trainer, last_epoch, checkpoint.dumps(state))

    def start(kind: str, **spec: Any) -> Trained:
        return trained(json.dumps({"kind": kind, "epochs": 1, **spec}))

    return start


@pytest.fixture
def job(client: FlaskClient, worker: SimulatedWorker, submit: Callable[..., str]) -> Callable[[Trained], str]:
    """Create a succeeded job with the checkpoint and metrics of a real training."""

    def make(trained: Trained) -> str:
        job_id = submit(client, **trained.spec)
        worker.claim()
        confusion = trained.last_epoch.confusion
        worker.commit_epoch(
            1,
            metrics=trained.last_epoch.metrics,
            checkpoint=trained.checkpoint,
            confusion=confusion.tolist() if confusion is not None else None,
        )
        worker.succeed()
        return job_id

    return make


@pytest.fixture
def classifier(train: Any, job: Any) -> str:
    job_id: str = job(train("classifier", **CLASSIFIERS["averaged"]))
    return job_id


@pytest.fixture
def gan(train: Any, job: Any) -> str:
    job_id: str = job(train("gan"))
    return job_id
