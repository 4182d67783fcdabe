"""ONNX: the network with its preprocessing as one graph of standard operators.

Images inside the graph are (N, channels, rows, columns), as ONNX operators require. The engine's are (N, rows, columns,
channels), so flatten and reshape convert to that order. Weights are float32, because onnxruntime supports convolutions
only in float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, assert_never

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.models.exports import photos
from service.models.exports.contents import JobFacts
from service.models.exports.onnx.nodes import Graph
from service.models.exports.onnx.tables import ML_OPSET, columns_as_inputs, features
from service.models.exports.trained_network import (
    GELU_CUBIC,
    GELU_SCALE,
    Activated,
    Array,
    Size,
    TrainedLayer,
    TrainedModel,
    trailing_rows,
    zeros_around,
)
from service.spec import schema
from service.spec.schema import Activation

OPSET: Final = 17
_IR_VERSION: Final = 8
"""From 2022, like the opset, so that runtimes that are several years old can read it."""
_TO_ENGINE, _TO_ONNX = [0, 2, 3, 1], [0, 3, 1, 2]


def to_onnx(model: TrainedModel, facts: JobFacts) -> bytes:
    """The bytes of an ONNX model; equal models produce equal bytes."""
    graph = Graph()
    opsets = [helper.make_opsetid("", OPSET)]
    if model.is_table:
        inputs = columns_as_inputs(model)
        output = _probabilities(graph, _add_network(graph, features(graph, model), model), model)
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", math.prod(model.layers[-1].after)])
        opsets.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
    elif model.generates:
        inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", model.latent_dim])]
        if model.classes:
            inputs.append(helper.make_tensor_value_info("class", TensorProto.INT64, ["N"]))
        output = _levels(graph, _add_network(graph, _append_class(graph, "latent", model), model), model)
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *model.image_shape])
    else:
        inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *model.image_shape])]
        output = _probabilities(graph, _add_network(graph, _scale_levels(graph, "images", model), model), model)
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", math.prod(model.layers[-1].after)])
    document = onnx.helper.make_model(
        helper.make_graph(graph.nodes, "tapeline", inputs, [result], graph.weights),
        opset_imports=opsets,
        ir_version=_IR_VERSION,
        producer_name="tapeline",
        doc_string=_documentation(model),
    )
    helper.set_model_props(document, metadata(model, facts))
    onnx.checker.check_model(document, full_check=True)
    data: bytes = document.SerializeToString(deterministic=True)
    return data


def _documentation(model: TrainedModel) -> str:
    if model.generates:
        class_text = " class: the number of each image's class, in the order of class_names." if model.classes else ""
        levels = "levels: 0 to 255, 0 is black; round them to get uint8 images."
        return f"latent: points of the latent space.{class_text} {levels}"
    result = "probabilities: of each class, in the order of class_names."
    if model.is_table:
        return f"One input for each column; missing: NaN, or an empty text. Dates: days since 1970-01-01. {result}"
    photo_text = f" Photos are prepared as {photos.NAME} says." if model.photos is not None else ""
    return f"images: uint8 levels 0 to 255, 0 is black.{photo_text} {result}"


def metadata(model: TrainedModel, facts: JobFacts) -> dict[str, str]:
    """The metadata entries of the file, about its origin."""
    entries = {
        "job_id": facts.id,
        "job_name": facts.name or "",
        "spec_hash": facts.spec_hash,
        "epoch": str(facts.checkpoint_epoch),
        "dataset": str(facts.spec["dataset"]["name"]),
        "dataset_sha256": facts.dataset_sha256 or "",
    }
    if not model.generates or model.classes:
        entries["class_names"] = json.dumps(list(model.class_names), ensure_ascii=False)
    if model.is_table:
        entries["columns"] = json.dumps([dict(column) for column in model.columns], ensure_ascii=False)
    if model.photos is not None:
        entries[photos.NAME] = json.dumps(model.photos.facts)
    return entries


def _scale_levels(graph: Graph, images: str, model: TrainedModel) -> str:
    low, high = model.scale
    x = graph.reshape(graph.add("Cast", images, to=TensorProto.FLOAT), model.input_size)
    x = graph.add("Mul", x, graph.constant("level_factor", (high - low) / 255))
    return graph.add("Add", x, graph.constant("level_offset", low)) if low else x


def _append_class(graph: Graph, latent: str, model: TrainedModel) -> str:
    """The input of the generator: the noise, and for a conditional generator the one-hot class after it."""
    if not model.classes:
        return latent
    depth, values = graph.constant("classes", model.classes, np.int64), graph.constant("off_on", [0, 1])
    return graph.add("Concat", latent, graph.add("OneHot", "class", depth, values, axis=-1), axis=1)


def _probabilities(graph: Graph, outputs: str, model: TrainedModel) -> str:
    # With squared error, a network may have no last activation; its outputs approximate 0 and 1.
    return graph.add("Clip", outputs, graph.shared("zero", 0), graph.shared("one", 1), name="probabilities")


def _levels(graph: Graph, outputs: str, model: TrainedModel) -> str:
    low, high = model.scale
    x = graph.add("Sub", outputs, graph.constant("level_offset", low)) if low else outputs
    x = graph.add("Mul", x, graph.constant("level_factor", 255 / (high - low)))
    x = graph.add("Clip", x, graph.constant("black", 0), graph.constant("white", 255))
    shape = graph.constant("image_shape", [-1, *model.image_shape], np.int64)
    return graph.add("Reshape", x, shape, name="levels")


def _add_network(graph: Graph, x: str, model: TrainedModel) -> str:
    """Add all layers; returns the name of the output, (N, outputs)."""
    if len(model.input_size) == 3:
        x = graph.transpose(x, _TO_ONNX)
    for trained in model.layers:
        x = _add_layer(graph, x, trained)
    return _flatten(graph, x, model.layers[-1].after)


def _flatten(graph: Graph, x: str, size: Size) -> str:
    return graph.reshape(graph.transpose(x, _TO_ENGINE), (math.prod(size),)) if len(size) == 3 else x


def _add_layer(graph: Graph, x: str, trained: TrainedLayer) -> str:
    layer = trained.layer
    match layer:
        case schema.Dense():
            y = graph.add("Gemm", x, *_weights(graph, trained, ("weight", "bias")))
            return _activate(graph, y, layer)
        case schema.Conv2D():
            y = _add_convolution(graph, trained, layer, x, "Conv", (3, 2, 0, 1))
            return _activate(graph, y, layer)
        case schema.Conv2DTranspose():
            attributes = {"output_padding": [trailing_rows(layer)] * 2}
            y = _add_convolution(graph, trained, layer, x, "ConvTranspose", (2, 3, 0, 1), **attributes)
            return _activate(graph, y, layer)
        case schema.LayerNorm():
            return _activate(graph, _layer_norm(graph, x, trained, layer), layer)
        case schema.Residual():
            y = x
            for inner in trained.inner:
                y = _add_layer(graph, y, inner)
            return _activate(graph, graph.add("Add", x, y), layer)
        case schema.BatchNorm():
            names = _weights(graph, trained, ("scale", "shift", "running_mean", "running_variance"))
            return _activate(graph, graph.add("BatchNormalization", x, *names, epsilon=layer.epsilon), layer)
        case schema.MaxPool2D():
            return graph.add("MaxPool", x, kernel_shape=[layer.size] * 2, strides=[layer.size] * 2)
        case schema.AvgPool2D():
            return graph.add("AveragePool", x, kernel_shape=[layer.size] * 2, strides=[layer.size] * 2)
        case schema.GlobalAvgPool2D():
            return graph.add("ReduceMean", x, axes=[2, 3], keepdims=0)
        case schema.Upsample2D():
            scales = graph.constant(f"{trained.name}.scales", [1, 1, layer.size, layer.size])
            nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
            return graph.add("Resize", x, "", scales, **nearest)
        case schema.Flatten():
            return _flatten(graph, x, trained.before)
        case schema.Reshape():
            x = _flatten(graph, x, trained.before)
            return graph.transpose(graph.reshape(x, trained.after), _TO_ONNX)
        case schema.Dropout():
            return x
        case _:
            assert_never(layer)


def _add_convolution(
    graph: Graph,
    trained: TrainedLayer,
    layer: schema.Conv2D | schema.Conv2DTranspose,
    x: str,
    operator: str,
    axes: tuple[int, ...],
    **attributes: Any,
) -> str:
    """A convolution whose kernel has its axes in ONNX's order."""
    tensors = {"weight": trained.tensors["weight"].transpose(axes), "bias": trained.tensors["bias"]}
    return graph.add(
        operator,
        x,
        *_weights(graph, trained, ("weight", "bias"), tensors),
        kernel_shape=[layer.kernel] * 2,
        strides=[layer.stride] * 2,
        pads=zeros_around(layer, trained.before, trained.after),
        **attributes,
    )


def _weights(
    graph: Graph, trained: TrainedLayer, names: Sequence[str], tensors: Mapping[str, Array] | None = None
) -> list[str]:
    arrays = trained.tensors if tensors is None else tensors
    return [graph.constant(f"{trained.name}.{name}", arrays[name]) for name in names]


def _layer_norm(graph: Graph, x: str, trained: TrainedLayer, layer: schema.LayerNorm) -> str:
    """Composed of simpler operators: ``LayerNormalization`` has no scale for each channel of an image."""
    count = len(trained.before)
    axes = list(range(1, count + 1))
    channels = (-1,) if count == 1 else (-1, 1, 1)
    shaped = {name: tensor.reshape(channels) for name, tensor in trained.tensors.items()}
    scale, shift = _weights(graph, trained, ("scale", "shift"), shaped)
    centred = graph.add("Sub", x, graph.add("ReduceMean", x, axes=axes))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes=axes)
    epsilon = graph.constant(f"{trained.name}.epsilon", layer.epsilon)
    deviation = graph.add("Sqrt", graph.add("Add", variance, epsilon))
    return graph.add("Add", graph.add("Mul", graph.add("Div", centred, deviation), scale), shift)


def _gelu(graph: Graph, x: str) -> str:
    """Composed by its formula with tanh, which is a single operator only from opset 20 on."""
    half, one = graph.shared("half", 0.5), graph.shared("one", 1)
    cube = graph.add("Mul", graph.add("Mul", x, x), x)
    argument = graph.add("Add", x, graph.add("Mul", cube, graph.shared("gelu_cubic", GELU_CUBIC)))
    tanh = graph.add("Tanh", graph.add("Mul", argument, graph.shared("gelu_scale", GELU_SCALE)))
    return graph.add("Mul", x, graph.add("Mul", half, graph.add("Add", one, tanh)))


def _activate(graph: Graph, x: str, layer: Activated) -> str:
    match layer.activation:
        case Activation.LINEAR:
            return x
        case Activation.SIGMOID:
            return graph.add("Sigmoid", x)
        case Activation.TANH:
            return graph.add("Tanh", x)
        case Activation.RELU:
            return graph.add("Relu", x)
        case Activation.LEAKY_RELU:
            return graph.add("LeakyRelu", x, alpha=layer.negative_slope)
        case Activation.SOFTMAX:
            return graph.add("Softmax", x, axis=1)
        case Activation.GELU:
            return _gelu(graph, x)
        case Activation.SILU:
            return graph.add("Mul", x, graph.add("Sigmoid", x))
        case Activation.ELU:
            return graph.add("Elu", x, alpha=1.0)
        case Activation.SOFTPLUS:
            return graph.add("Softplus", x)
        case _:
            assert_never(layer.activation)
