"""Settings against mode collapse: adaptation to the loss, mutually exclusive settings, and costs."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import SpecError
from service.schema import costs
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import check_fit
from service.spec.estimation.networks import networks
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.schema import GanSpec
from service.spec.validation import derive, resolve, spec_hash

DIGITS = Shape(rows=28, columns=28, classes=10, train_count=8500)
CONV = {"type": "conv2d", "filters": 4, "stride": 4, "activation": "leaky_relu"}
DISCRIMINATOR = [CONV, {"type": "flatten"}, {"units": 1, "activation": "linear"}]


def fitted(**changes: Any) -> GanSpec:
    document = {"kind": "gan", **changes}
    spec = match_output_to_dataset(resolve(document), document, DIGITS)
    check_fit(spec, DIGITS)
    assert isinstance(spec, GanSpec)
    return spec


def faults(**changes: Any) -> dict[str, tuple[str, str, str | None]]:
    with pytest.raises(SpecError) as caught:
        fitted(**changes)
    return {fault.pointer: (fault.code, fault.detail, fault.suggestion) for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("loss", "activation"),
    [
        ("binary_cross_entropy", "sigmoid"),
        ("least_squares", "linear"),
        ("hinge", "linear"),
        ("wasserstein", "linear"),
    ],
)
@pytest.mark.parametrize("preset", ["stable", "best"])
def test_the_output_of_a_presets_discriminator_follows_the_loss(preset: str, loss: str, activation: str) -> None:
    spec = fitted(preset=preset, loss=loss, discriminator={"spectral_norm": True})
    assert spec.discriminator.layers[-1].activation == activation  # type: ignore[union-attr]


def test_conflicting_and_missing_settings_are_reported_with_a_remedy() -> None:
    faults_by_pointer = faults(
        loss="wasserstein", discriminator={"label_smoothing": 0.1, "critic_steps": 5, "skip_every": 3}
    )
    assert faults_by_pointer["#/discriminator/label_smoothing"][2] == "0"
    assert faults_by_pointer["#/discriminator/critic_steps"][1].startswith("cannot be combined with skip_every")
    assert faults_by_pointer["#/discriminator/gradient_penalty"][1:] == (
        "must be above 0 for wasserstein (10 is usual), or set spectral_norm",
        "10",
    )
    norm = [{"units": 4, "activation": "linear"}, {"type": "batch_norm"}, {"units": 1, "activation": "linear"}]
    for penalty in ("r1", "gradient_penalty"):
        faults_by_pointer = faults(loss="hinge", discriminator={"layers": norm, penalty: 1.0, "label_smoothing": 0.0})
        assert faults_by_pointer["#/discriminator/layers/1/type"][::2] == ("unsuitable", "layer_norm")
    end = [{"units": 4, "activation": "relu"}, {"units": 1, "activation": "sigmoid"}]
    faults_by_pointer = faults(loss="hinge", discriminator={"layers": end, "label_smoothing": 0.0})
    assert faults_by_pointer["#/discriminator/layers/1/activation"][::2] == ("wrong_activation", "linear")
    assert faults(loss={"name": "absolute"})["#/loss/name"][2] is None
    assert faults(loss={"name": "hing"})["#/loss/name"][2] == "hinge"


@pytest.mark.parametrize(
    ("settings", "discriminator", "generator_input", "discriminator_input"),
    [
        ({}, {"pack": 3}, (100,), (3 * 784,)),
        ({"conditional": True}, {}, (110,), (794,)),
        ({"conditional": True}, {"pack": 2}, (110,), (2 * 794,)),
        ({"loss": "hinge"}, {"pack": 3, "layers": DISCRIMINATOR}, (100,), (28, 28, 3)),
        ({"loss": "hinge", "conditional": True}, {"pack": 2, "layers": DISCRIMINATOR}, (110,), (28, 28, 22)),
    ],
)
def test_packing_and_conditioning_widen_the_inputs_of_the_networks(
    settings: dict[str, Any],
    discriminator: dict[str, Any],
    generator_input: tuple[int, ...],
    discriminator_input: tuple[int, ...],
) -> None:
    gan_networks = networks(fitted(**settings, discriminator=discriminator), DIGITS)
    assert [network.input_size for network in gan_networks] == [generator_input, discriminator_input]
    assert all(len(network.layer_shapes) == len(network.layers) for network in gan_networks)


def test_penalties_cost_time_and_memory_and_explicit_defaults_keep_the_hash() -> None:
    plain, penalized = fitted(discriminator={"r1": 0.0}), fitted(discriminator={"gradient_penalty": 10.0})
    before, after = networks(plain, DIGITS), networks(penalized, DIGITS)
    assert costs.operations(penalized, after, DIGITS) > 1.5 * costs.operations(plain, before, DIGITS)
    assert costs.activation_bytes(penalized, after) > costs.activation_bytes(plain, before)
    seconds = [costs.seconds(spec, nets, steps=850, epochs=10) for spec, nets in ((plain, before), (penalized, after))]
    assert seconds[1] > 1.3 * seconds[0]
    defaults = {"critic_steps": 1, "gradient_penalty": 0.0, "r1": 0.0, "spectral_norm": False, "pack": 1}
    explicit = fitted(discriminator=defaults, conditional=False, accumulate=1)
    assert spec_hash(explicit) == spec_hash(plain)
    assert spec_hash(penalized) != spec_hash(plain)


def test_a_fork_cannot_change_what_the_weights_depend_on() -> None:
    parent = fitted(loss="hinge").model_dump(mode="json")
    for pointer, changes in (
        ("#/discriminator/pack", {"discriminator": {"pack": 2}}),
        ("#/discriminator/spectral_norm", {"discriminator": {"spectral_norm": True}}),
        ("#/conditional", {"conditional": True}),
    ):
        with pytest.raises(SpecError) as caught:
            derive(parent, changes | {"epochs": 200}, epoch=3)
        assert [fault.pointer for fault in caught.value.faults] == [pointer]
    assert derive(parent, {"discriminator": {"r1": 1.0}, "epochs": 200}, epoch=3).epochs == 200
