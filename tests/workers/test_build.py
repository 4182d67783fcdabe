from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from service.contract.presets import PRESETS
from service.contract.spec import Activation, Kind
from service.contract.validation import resolve
from service.datasets import Dataset, load
from workers import build


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("data")
    return load("mnist-10k", folder, cache_root=folder / "cache")


@pytest.mark.parametrize(("kind", "preset"), [(kind, name) for kind in PRESETS for name in PRESETS[kind]])
def test_every_preset_becomes_a_trainer_that_takes_a_step(digits: Dataset, kind: Kind, preset: str) -> None:
    trainer = build.trainer(resolve({"kind": kind, "preset": preset}), digits)
    report = next(iter(trainer.run()))
    assert isinstance(report, engine.BatchDone)
    assert report.step == 1


@pytest.mark.parametrize("activation", Activation)
def test_every_activation_of_the_spec_is_one_of_the_engine(digits: Dataset, activation: Activation) -> None:
    layers = [{"units": 4, "activation": activation}, {"units": 10, "activation": "softmax"}]
    trainer = build.trainer(resolve({"kind": "classifier", "layers": layers}), digits)
    assert isinstance(trainer, engine.ClassifierTrainer)
    first = trainer.model.layers[0]
    assert isinstance(first, engine.Dense)
    assert (first.activation or "linear") == activation.value


PARTS: list[dict[str, Any]] = [
    {"loss": {"name": "squared_error", "reduction": "sum"}},
    {"loss": {"name": "binary_cross_entropy"}, "layers": [{"units": 10, "activation": "sigmoid"}]},
    {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}},
    {"schedule": {"name": "step", "at_epochs": [1], "factor": 0.5}},
    {"schedule": {"name": "constant"}},
    {"initializer": {"name": "uniform", "scale": 0.1}},
    {"initializer": {"name": "glorot"}},
    {"dtype": "float64"},
    {"dataset": {"scale": [-1, 1]}},
]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_every_part_of_a_spec_can_be_trained_with(digits: Dataset, part: dict[str, Any]) -> None:
    spec = resolve({"kind": "classifier", "epochs": 1, "batch_size": 500, **part})
    reports = list(build.trainer(spec, digits).run())
    done = reports[-1]
    assert isinstance(done, engine.EpochDone)
    assert np.isfinite(list(done.metrics.values())).all()
    assert len(reports) == 17 + 1


def test_the_seed_decides_the_first_weights(digits: Dataset) -> None:
    def weights(seed: int) -> bytes:
        trainer = build.trainer(resolve({"kind": "classifier", "seed": seed}), digits)
        return trainer.state_dict().tensors["layers.0.weight"].tobytes()

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)


def test_a_layers_place_in_the_spec_is_its_place_in_the_checkpoint(digits: Dataset) -> None:
    trainer = build.trainer(resolve({"kind": "gan"}), digits)
    names = set(trainer.state_dict().tensors)
    assert {"generator.layers.0.weight", "discriminator.layers.0.weight", "discriminator.layers.2.weight"} <= names
    assert "discriminator.layers.1.weight" not in names  # a dropout
