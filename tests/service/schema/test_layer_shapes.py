"""Shapes and costs of layers, and faults with pointer and remedy for layers that do not fit."""

from __future__ import annotations

import re
from typing import Any

import pytest

from service.errors import SpecError
from service.schema import costs
from service.schema.layer_shapes import Shape, picture_size
from service.spec.dataset_checks import check_fit
from service.spec.estimation.networks import networks
from service.spec.schema import ClassifierSpec
from service.spec.validation import read_resolved, resolve

DIGITS = Shape(rows=28, columns=28, classes=10, train_count=8500)
OUTPUT = {"units": 10, "activation": "softmax"}
CONV = {"type": "conv2d", "filters": 4, "activation": "relu"}
FLAT, POOL, NORM = {"type": "flatten"}, {"type": "max_pool2d"}, {"type": "batch_norm", "activation": "relu"}
IMAGE = {"type": "reshape", "shape": [7, 7, 2]}
UPSAMPLING = [{"units": 98, "activation": "linear"}, NORM, IMAGE, {"type": "upsample2d", "size": 4}]
DISCRIMINATOR = [
    {**CONV, "stride": 2},
    {**CONV, "filters": 1, "kernel": 14, "padding": "valid", "activation": "sigmoid"},
]


def classifier(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "classifier", "layers": list(layers)}


def gan(generator: list[dict[str, Any]], discriminator: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "gan", "generator": {"layers": generator}, "discriminator": {"layers": discriminator}}


def faults(document: Any) -> dict[str, tuple[str, str, str | None]]:
    with pytest.raises(SpecError) as caught:
        check_fit(resolve(document), DIGITS)
    return {fault.pointer: (fault.code, fault.detail, fault.suggestion) for fault in caught.value.faults}


def test_layer_sizes_are_computed_from_the_pixels_to_the_classes() -> None:
    narrow = {**CONV, "kernel": 5, "stride": 2, "padding": "valid"}
    spec = resolve(classifier(CONV, NORM, POOL, narrow, {"type": "dropout", "rate": 0.1}, FLAT, OUTPUT))
    check_fit(spec, DIGITS)
    (network,) = networks(spec, Shape(rows=28, columns=28, classes=10, train_count=1))
    assert network.input_size == (28, 28, 1)
    assert [layer.size for layer in network.layer_shapes] == [
        *((28, 28, 4), (28, 28, 4), (14, 14, 4), (5, 5, 4), (5, 5, 4), (100,), (10,)),
    ]
    assert [layer.weights for layer in network.layer_shapes] == [40, 8, 0, 404, 0, 0, 1010]
    assert costs.parameters(networks(spec, DIGITS)) == 1462
    assert sum(layer.products for layer in network.layer_shapes) == 784 * 9 * 4 + 25 * 100 * 4 + 1000
    assert read_resolved(spec.model_dump(mode="json")) == spec


def test_layer_sizes_of_both_networks_of_a_gan_are_computed() -> None:
    spec = resolve(gan([*UPSAMPLING, {**CONV, "filters": 1, "activation": "tanh"}], DISCRIMINATOR))
    check_fit(spec, DIGITS)
    generator, discriminator = networks(spec, Shape(rows=28, columns=28, classes=10, train_count=1))
    assert [layer.size for layer in generator.layer_shapes] == [(98,), (98,), (7, 7, 2), (28, 28, 2), (28, 28, 1)]
    assert [layer.size for layer in discriminator.layer_shapes] == [(14, 14, 4), (1, 1, 1)]


def test_inputs_are_images_only_if_the_first_layers_need_them() -> None:
    def size_of(*layers: dict[str, Any]) -> tuple[int, ...]:
        spec = resolve(classifier(*layers))
        assert isinstance(spec, ClassifierSpec)
        return picture_size(spec.layers, (20, 30))

    assert size_of(CONV, FLAT, OUTPUT) == size_of({"type": "dropout", "rate": 0.1}, POOL, OUTPUT) == (20, 30, 1)
    assert size_of(OUTPUT) == size_of(NORM, CONV) == size_of({"type": "reshape", "shape": [20, 30, 1]}, CONV) == (600,)


@pytest.mark.parametrize(
    ("document", "pointer", "code", "words", "suggestion"),
    [
        (classifier(CONV, OUTPUT), "#/layers/1", "wrong_shape",
         'but its input is images of 28 x 28 x 4; insert {"type": "flatten"} before it', "flatten"),
        (classifier(CONV, FLAT, CONV, FLAT, OUTPUT), "#/layers/2", "wrong_shape",
         "but its input is 3,136 numbers; insert a reshape layer before it, or remove flatten", "reshape"),
        (classifier({"units": 9, "activation": "relu"}, POOL, OUTPUT), "#/layers/1", "wrong_shape",
         "its input is 9 numbers", "reshape"),
        (classifier(CONV, POOL, POOL, {**CONV, "kernel": 9}, FLAT, OUTPUT), "#/layers/3/kernel", "wrong_shape",
         "must be at most 7 for images of 7 x 7 x 4; it is 9", "7"),
        (classifier({**CONV, "kernel": 29}, FLAT, OUTPUT), "#/layers/0/kernel", "wrong_shape", "at most 28", "28"),
        (classifier({"type": "max_pool2d", "size": 3}, FLAT, OUTPUT), "#/layers/0/size", "wrong_shape",
         "images of 28 x 28 x 1; use 2 or 4 or 7 or 14", "2"),
        (classifier({"type": "max_pool2d", "size": 4}, {"type": "conv2d", "filters": 1, "activation": "relu"}, POOL,
                    FLAT, OUTPUT), "#/layers/2/size", "wrong_shape", "; use 7", "7"),
        (classifier(IMAGE, FLAT, OUTPUT), "#/layers/0/shape", "wrong_shape",
         "784 numbers, as many as its input .784 numbers.; it has 98", None),
        (classifier({"type": "upsample2d", "size": 16}, {**CONV, "filters": 64}, FLAT, OUTPUT), "#/layers/1",
         "too_large", r"448 x 448 x 64, more than 786,432 numbers", None),
        (classifier(CONV), "#/layers/0", "wrong_shape", "must end in images of 1 x 1 x 10, one for each class", None),
        (classifier(CONV, FLAT), "#/layers/1", "wrong_shape", "must be dense, conv2d or", None),
        (gan(UPSAMPLING, DISCRIMINATOR), "#/generator/layers/3", "wrong_shape", "must be dense, conv2d or", None),
        (gan([*UPSAMPLING, {**CONV, "filters": 2}], DISCRIMINATOR), "#/generator/layers/4", "wrong_shape",
         "must end in images of 28 x 28 x 1, one for each pixel of mnist-10k; it ends in images of 28 x 28 x 2", None),
        (gan([*UPSAMPLING, {**CONV, "filters": 1}], DISCRIMINATOR[:1]), "#/discriminator/layers/0/activation",
         "wrong_activation", "must be sigmoid", "sigmoid"),
    ],
)  # fmt: skip
def test_a_layer_that_does_not_fit_is_reported_with_pointer_and_remedy(
    document: Any, pointer: str, code: str, words: str, suggestion: str | None
) -> None:
    fault = faults(document)[pointer]
    assert (fault[0], fault[2]) == (code, suggestion)
    assert re.search(words, fault[1])


def test_all_wrong_shapes_of_both_networks_are_reported_at_once() -> None:
    generator = [{"units": 98, "activation": "relu"}, {**IMAGE, "shape": [7, 7, 3]}, {"units": 5, "activation": "tanh"}]
    faults_by_pointer = faults(gan(generator, [{**CONV, "kernel": 30}, {"units": 2, "activation": "relu"}]))
    assert set(faults_by_pointer) == {
        *("#/generator/layers/1/shape", "#/generator/layers/2", "#/generator/layers/2/units"),
        *("#/discriminator/layers/0/kernel", "#/discriminator/layers/1", "#/discriminator/layers/1/units"),
        "#/discriminator/layers/1/activation",
    }


@pytest.mark.parametrize(
    ("layer", "pointer"),
    [
        ({**CONV, "filters": 0}, "filters"),
        ({**CONV, "kernel": 32}, "kernel"),
        ({**CONV, "stride": 0}, "stride"),
        ({**CONV, "padding": "full"}, "padding"),
        ({**CONV, "units": 3}, "units"),
        ({"type": "conv2d", "filters": 3}, "activation"),
        ({"type": "max_pool2d", "size": 1}, "size"),
        ({"type": "reshape", "shape": [7, 7]}, "shape"),
        ({"type": "batch_norm", "momentum": 1}, "momentum"),
        ({"type": "batch_norm", "epsilon": 0}, "epsilon"),
    ],
)
def test_invalid_fields_of_layers_are_reported_with_their_pointer(layer: dict[str, Any], pointer: str) -> None:
    assert f"#/layers/0/{pointer}" in faults(classifier(layer, FLAT, OUTPUT))


def test_parameters_of_convolutions_count_towards_the_limit() -> None:
    wide = {"type": "conv2d", "filters": 1024, "kernel": 5, "stride": 2, "activation": "relu"}
    document = classifier({**wide, "stride": 4}, wide, FLAT, OUTPUT)
    assert faults(document)["#"][0] == "too_large"
