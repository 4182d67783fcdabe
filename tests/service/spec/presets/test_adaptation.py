"""Presets adapt to images of any size that can be uploaded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.schema import costs
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import check_fit
from service.spec.estimation.networks import networks
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.presets.definitions import PRESETS
from service.spec.schema import ClassifierSpec, GanSpec, Kind
from service.spec.validation import resolve, spec_hash

ALL_PRESETS = [(kind, preset) for kind in PRESETS for preset in PRESETS[kind]]


def adapted(kind: str, preset: str, shape: Shape, **overrides: Any) -> Any:
    document = {"kind": kind, "preset": preset, **overrides}
    return match_output_to_dataset(resolve(document), document, shape)


@pytest.mark.parametrize(("kind", "preset"), [pair for pair in ALL_PRESETS if pair[1] != "table"])
def test_presets_are_unchanged_for_digits(kind: Kind, preset: str) -> None:
    spec = adapted(kind, preset, Shape(rows=28, columns=28, classes=10, train_count=8500))
    assert spec == resolve({"kind": kind, "preset": preset})
    assert spec_hash(spec) == spec_hash(resolve({"kind": kind, "preset": preset}))


@settings(max_examples=200)
@given(
    st.sampled_from(ALL_PRESETS),
    st.integers(1, 512) | st.sampled_from([1, 2, 3, 7, 8, 16, 64, 512]),
    st.integers(1, 512) | st.sampled_from([1, 2, 3, 7, 8, 16, 64, 512]),
    st.integers(2, 255),
    st.integers(1, 70_000),
    st.sampled_from([1, 3]),
)
@example((Kind.GAN, "best"), 16, 16, 2, 100, 1)
@example((Kind.GAN, "best"), 32, 32, 12, 5000, 3)
@example((Kind.GAN, "best"), 512, 512, 10, 1000, 3)
@example((Kind.GAN, "stable"), 512, 512, 10, 1000, 3)
@example((Kind.GAN, "best"), 20, 30, 3, 1000, 1)
@example((Kind.GAN, "best"), 512, 512, 10, 3000, 1)
@example((Kind.GAN, "best"), 446, 388, 10, 1000, 1)
@example((Kind.GAN, "stable"), 509, 509, 10, 3000, 1)
@example((Kind.CLASSIFIER, "conv"), 8, 8, 4, 1000, 1)
@example((Kind.CLASSIFIER, "conv"), 1, 1, 2, 50, 1)
@example((Kind.CLASSIFIER, "conv"), 512, 512, 255, 3000, 1)
@example((Kind.GAN, "best"), 491, 491, 2, 1473, 3)
@example((Kind.GAN, "best"), 509, 509, 2, 1381, 3)
def test_every_preset_adapts_to_every_image_size(
    which: tuple[Kind, str], rows: int, columns: int, classes: int, count: int, channels: int
) -> None:
    max_count = 2**30 // (rows * columns * channels)  # the limit of an upload
    shape = Shape(rows=rows, columns=columns, channels=channels, classes=classes, train_count=min(count, max_count))
    spec = adapted(*which, shape)
    check_fit(spec, shape)
    all_networks = networks(spec, shape)
    network = all_networks[0]
    match spec:
        case GanSpec():
            assert network.layer_shapes[-1].outputs == rows * columns * channels
        case ClassifierSpec():
            assert network.layer_shapes[-1].size == (classes,)
    assert costs.parameters(all_networks) < 20_000_000


def test_explicit_fields_are_not_adapted() -> None:
    small = Shape(rows=8, columns=8, classes=4, train_count=30)
    layers = [{"units": 64, "activation": "tanh"}]
    spec = adapted("gan", "best", small, generator={"layers": layers}, samples={"count": 9}, batch_size=500)
    assert [layer.units for layer in spec.generator.layers] == [64]
    assert spec.discriminator != resolve({"kind": "gan", "preset": "best"}).discriminator
    assert (spec.batch_size, spec.samples.count) == (500, 9)
    classifier = adapted("classifier", "conv", small, augmentation={"max_shift": 3}, epochs=2)
    assert (classifier.augmentation.max_shift, classifier.epochs, classifier.batch_size) == (3, 2, 16)


@pytest.mark.parametrize(
    ("count", "batch", "epochs"), [(1, 1, 60), (170, 16, 60), (500, 16, 40), (1538, 64, 13), (1539, 100, 12)]
)
def test_small_datasets_get_smaller_batches_and_more_epochs(count: int, batch: int, epochs: int) -> None:
    shape = Shape(rows=32, columns=32, channels=3, classes=4, train_count=count)
    spec = adapted("classifier", "conv", shape)
    assert (spec.batch_size, spec.epochs) == (batch, epochs)
    document = {"kind": "classifier", "preset": "conv", "batch_size": 90, "epochs": 7}
    explicit = match_output_to_dataset(resolve(document), document, shape)
    assert (explicit.batch_size, explicit.epochs) == (90, 7)
    assert adapted("classifier", "conv", shape, epochs=1).batch_size == batch


@pytest.mark.parametrize(
    ("preset", "own", "r1"),
    [
        ("stable", {}, 0.5),
        ("stable", {"r1": 2.0, "spectral_norm": True}, 2.0),
        ("stable", {"spectral_norm": True}, 0.0),
        ("stable", {"gradient_penalty": 10.0}, 0.0),
        ("stable", {"layers": [{"type": "batch_norm"}, {"units": 1, "activation": "sigmoid"}]}, 0.0),
    ],
)
def test_the_penalty_of_a_preset_gives_way_to_another_limit_of_slopes(
    preset: str, own: dict[str, Any], r1: float
) -> None:
    spec = adapted("gan", preset, Shape(rows=8, columns=8, classes=4, train_count=30), discriminator=own)
    assert spec.discriminator.r1 == r1


def test_a_generator_ends_in_three_channels_for_colour_images() -> None:
    colour = Shape(rows=32, columns=32, channels=3, classes=12, train_count=5000)
    assert adapted("gan", "best", colour).generator.layers[-1].filters == 3
    assert adapted("gan", "stable", colour).generator.layers[-1].units == 32 * 32 * 3
