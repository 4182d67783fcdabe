"""Each remedy for mode collapse and each newer layer: a trainer built from its spec takes a step."""

from __future__ import annotations

from typing import Any

import pytest

import engine
from service.datasets.cache import Dataset
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import check_fit
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.validation import resolve
from tests.workers.training.test_build import digits  # noqa: F401 - a fixture
from workers.training import build

RESIDUAL_BRANCH = [
    {"type": "conv2d", "filters": 4, "activation": "linear"},
    {"type": "layer_norm", "activation": "silu"},
    {"type": "conv2d", "filters": 4, "activation": "linear"},
]
CLASSIFIER = [
    {"type": "conv2d", "filters": 4, "stride": 2, "activation": "elu"},
    {"type": "residual", "layers": RESIDUAL_BRANCH, "activation": "gelu"},
    {"type": "avg_pool2d"},
    {"type": "global_avg_pool2d"},
    {"units": 10, "activation": "softmax"},
]
GENERATOR = [
    {"units": 98, "activation": "softplus"},
    {"type": "reshape", "shape": [7, 7, 2]},
    {"type": "conv2d_transpose", "filters": 4, "activation": "relu"},
    {"type": "conv2d_transpose", "filters": 1, "activation": "tanh"},
]
SPECS: dict[str, dict[str, Any]] = {
    "layers": {"kind": "classifier", "layers": CLASSIFIER, "accumulate": 2},
    "hinge": {"loss": "hinge", "discriminator": {"spectral_norm": True}, "generator": {"layers": GENERATOR}},
    "wasserstein": {"loss": "wasserstein", "discriminator": {"gradient_penalty": 10.0, "critic_steps": 1, "pack": 2}},
    "least squares": {"loss": "least_squares", "discriminator": {"r1": 1.0}, "accumulate": 2},
    "conditional": {"conditional": True, "discriminator": {"pack": 2}},
    "conditional, best": {"conditional": True, "preset": "best", "loss": "hinge", "discriminator": {"pack": 2}},
}


@pytest.mark.parametrize("name", SPECS)
def test_a_trainer_built_from_the_spec_takes_a_step(digits: Dataset, name: str) -> None:  # noqa: F811
    document = {"kind": "gan", **SPECS[name]}
    shape = Shape(rows=28, columns=28, classes=10, train_count=digits.info.train_count)
    spec = match_output_to_dataset(resolve(document), document, shape)
    check_fit(spec, shape)
    trainer = build.trainer(spec, digits)
    assert isinstance(next(iter(trainer.run())), engine.BatchDone)
    if isinstance(trainer, engine.GanTrainer):
        assert build.trainer(spec, digits).samples(3).shape == (3, 28, 28)
