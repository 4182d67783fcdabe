"""The settings against mode collapse: adaptation to the loss, settings that exclude each other, and costs."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import SpecError
from service.spec.estimation import costs, work
from service.spec.estimation.layer_shapes import networks
from service.spec.schema import GanSpec
from service.spec.validation import Shape, check_fit, derive, match_output_to_dataset, resolve, spec_hash

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
    ("loss", "end", "smoothing"),
    [
        ("binary_cross_entropy", "sigmoid", 0.1),
        ("least_squares", "linear", 0.1),
        ("hinge", "linear", 0.0),
        ("wasserstein", "linear", 0.0),
    ],
)
@pytest.mark.parametrize("preset", ["stable", "best"])
def test_the_end_of_a_presets_discriminator_follows_the_loss(
    preset: str, loss: str, end: str, smoothing: float
) -> None:
    spec = fitted(preset=preset, loss=loss, discriminator={"spectral_norm": True})
    assert spec.discriminator.layers[-1].activation == end  # type: ignore[union-attr]
    assert spec.discriminator.label_smoothing == smoothing


def test_settings_that_exclude_or_require_others_are_reported_with_the_remedy() -> None:
    found = faults(loss="wasserstein", discriminator={"label_smoothing": 0.1, "critic_steps": 5, "skip_every": 3})
    assert found["#/discriminator/label_smoothing"][2] == "0"
    assert found["#/discriminator/critic_steps"][1].startswith("cannot be combined with skip_every")
    assert found["#/discriminator/gradient_penalty"][1:] == (
        "must be above 0 for wasserstein (10 is usual), or set spectral_norm",
        "10",
    )
    norm = [{"units": 4, "activation": "linear"}, {"type": "batch_norm"}, {"units": 1, "activation": "linear"}]
    for penalty in ("r1", "gradient_penalty"):
        found = faults(loss="hinge", discriminator={"layers": norm, penalty: 1.0, "label_smoothing": 0.0})
        assert found["#/discriminator/layers/1/type"][::2] == ("unsuitable", "layer_norm")
    end = [{"units": 4, "activation": "relu"}, {"units": 1, "activation": "sigmoid"}]
    found = faults(loss="hinge", discriminator={"layers": end, "label_smoothing": 0.0})
    assert found["#/discriminator/layers/1/activation"][::2] == ("wrong_activation", "linear")
    assert faults(loss={"name": "absolute"})["#/loss/name"][2] is None
    assert faults(loss={"name": "hing"})["#/loss/name"][2] == "hinge"


@pytest.mark.parametrize(
    ("settings", "discriminator", "made", "shown"),
    [
        ({}, {"pack": 3}, (100,), (3 * 784,)),
        ({"conditional": True}, {}, (110,), (794,)),
        ({"conditional": True}, {"pack": 2}, (110,), (2 * 794,)),
        ({"loss": "hinge"}, {"pack": 3, "layers": DISCRIMINATOR}, (100,), (28, 28, 3)),
        ({"loss": "hinge", "conditional": True}, {"pack": 2, "layers": DISCRIMINATOR}, (110,), (28, 28, 22)),
    ],
)
def test_packs_and_classes_widen_what_a_network_is_given(
    settings: dict[str, Any], discriminator: dict[str, Any], made: tuple[int, ...], shown: tuple[int, ...]
) -> None:
    found = networks(fitted(**settings, discriminator=discriminator), DIGITS)
    assert [network.input_size for network in found] == [made, shown]
    assert all(len(network.layer_shapes) == len(network.layers) for network in found)


def test_penalties_cost_time_and_memory_and_defaults_count_as_given() -> None:
    plain, penalized = fitted(), fitted(discriminator={"gradient_penalty": 10.0})
    assert costs.operations(penalized, DIGITS) > 1.5 * costs.operations(plain, DIGITS)
    assert costs.activation_bytes(penalized, DIGITS) > costs.activation_bytes(plain, DIGITS)
    seconds = [sum(work.seconds(work.count(spec, DIGITS), {}).values()) for spec in (plain, penalized)]
    assert seconds[1] > 1.3 * seconds[0]
    defaults = {"critic_steps": 1, "gradient_penalty": 0.0, "r1": 0.0, "spectral_norm": False, "pack": 1}
    named = fitted(discriminator=defaults, conditional=False, accumulate=1)
    assert spec_hash(named) == spec_hash(plain)
    assert spec_hash(penalized) != spec_hash(plain)


def test_a_fork_keeps_what_the_weights_depend_on() -> None:
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
