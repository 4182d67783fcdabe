"""Checkpoints made by the real trainers."""

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
from service.spec import validation
from tests.service.web.conftest import PlayedWorker
from tests.service.web.inference.networks import CLASSIFIERS, Trained
from workers.training import build


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return cache.load("mnist-10k", tmp_path_factory.mktemp("data"), cache_root=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def train(digits: Dataset) -> Callable[..., Trained]:
    """Train for an epoch, on few images; each spec once."""

    @functools.cache
    def trained(text: str) -> Trained:
        spec = validation.resolve(json.loads(text))
        few = Dataset(
            digits.info,
            Examples(digits.train.inputs[:1000], digits.train.labels[:1000]),
            digits.validation,
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


@pytest.fixture
def classifier(train: Any, job: Any) -> str:
    made: str = job(train("classifier", **CLASSIFIERS["averaged"]))
    return made


@pytest.fixture
def gan(train: Any, job: Any) -> str:
    made: str = job(train("gan"))
    return made
