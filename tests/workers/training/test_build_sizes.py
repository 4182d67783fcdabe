"""The presets train on images of other sizes than MNIST's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import engine
from service.datasets.builtins import BUILT_IN
from service.datasets.cache import Dataset, Examples
from service.kinds.gan import model as gan
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import check_fit
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.presets.definitions import PRESETS
from service.spec.schema import GanSpec, Kind, Spec
from service.spec.validation import resolve
from workers.training import build

CLASSES = 3
GAN_PRESETS = sorted(PRESETS[Kind.GAN])
ALL_PRESETS = [(kind, preset) for kind in (Kind.CLASSIFIER, Kind.GAN) for preset in PRESETS[kind]]


def noise_dataset(*shape: int, count: int = 60) -> Dataset:
    """A dataset of noise images."""
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (count, *shape), np.uint8)
    labels = (np.arange(count) % CLASSES).astype(np.uint8)
    info = replace(
        BUILT_IN["mnist-10k"].info,
        name="noise",
        image_shape=shape,
        classes=CLASSES,
        train_count=count,
        validation_count=count,
    )
    return Dataset(info, Examples(pixels, labels), Examples(pixels, labels), sha256="sha256:none")


def fitted_spec(kind: str, preset: str, dataset: Dataset, **overrides: Any) -> Spec:
    document = {"kind": kind, "preset": preset, **overrides}
    rows, columns, channels = (*dataset.info.image_shape, 1)[:3]
    shape = Shape(rows=rows, columns=columns, channels=channels, classes=CLASSES, train_count=dataset.info.train_count)
    spec = match_output_to_dataset(resolve(document), document, shape)
    check_fit(spec, shape)
    return spec


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.sampled_from(GAN_PRESETS), st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3]))
@hypothesis.example("best", 16, 16, 1)
@hypothesis.example("best", 20, 30, 3)
@hypothesis.example("best", 64, 64, 3)
@hypothesis.example("stable", 96, 100, 3)
def test_a_generator_produces_images_of_the_datasets_size(preset: str, rows: int, columns: int, channels: int) -> None:
    shape = (rows, columns) if channels == 1 else (rows, columns, channels)
    spec = fitted_spec("gan", preset, noise_dataset(*shape, count=2))
    assert isinstance(spec, GanSpec)
    generator = gan.generator(spec, engine.initializers.glorot_uniform, 10)
    noise = np.zeros((2, spec.latent.dim), np.float32)
    generated = np.asarray(generator(noise))
    assert generated.reshape(2, -1).shape == (2, rows * columns * channels)
    assert generated.ndim == 2 or generated.shape[1:] == (rows, columns, channels)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kind", "preset", "shape"),
    [
        *((kind, preset, (16, 16)) for kind, preset in ALL_PRESETS),
        *((kind, preset, (9, 6)) for kind, preset in ALL_PRESETS),
        *((kind, preset, (32, 32, 3)) for kind, preset in ALL_PRESETS),
        (Kind.GAN, "best", (20, 30)),
        (Kind.GAN, "best", (64, 64)),
        (Kind.CLASSIFIER, "conv", (8, 8)),
        (Kind.CLASSIFIER, "conv", (1, 3)),
        (Kind.CLASSIFIER, "conv", (1, 3, 3)),
        (Kind.CLASSIFIER, "conv", (200, 150)),
    ],
)
def test_a_preset_trains_an_epoch_on_images_of_another_size(kind: Kind, preset: str, shape: tuple[int, ...]) -> None:
    dataset = noise_dataset(*shape)
    trainer = build.trainer(fitted_spec(kind, preset, dataset, epochs=1), dataset)
    last_report = list(trainer.run())[-1]
    assert isinstance(last_report, engine.EpochDone)
    assert np.isfinite(list(last_report.metrics.values())).all()
    if isinstance(trainer, engine.GanTrainer):
        noise = trainer.latent.draw(engine.generator_for(0, "test"), 3, trainer.dtype)
        assert trainer.generate(noise).shape == (3, *shape)
