"""ONNX: the network with its preprocessing as one graph of standard operators.

Images inside the graph are (N, channels, rows, columns), as ONNX operators require. The engine's are (N, rows, columns,
channels), so flatten and reshape convert to that order. Weights are float32, because onnxruntime supports convolutions
only in float32.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, assert_never

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.datasets.tables.preprocessing import CLIP_LIMIT
from service.models.exports import photos
from service.models.exports.creation import JobFacts, Pictures
from service.models.exports.trained_network import (
    GELU_CUBIC,
    GELU_SCALE,
    Array,
    Size,
    TrainedLayer,
    TrainedModel,
    trailing_rows,
    zeros_around,
)
from service.models.networks import Activated
from service.spec import schema
from service.spec.schema import Activation

_OPSET, _IR_VERSION = 17, 8
"""From 2022, so that runtimes that are several years old can read it."""
_TEXT_OPSET, _TEXT_IR_VERSION = 20, 9
"""From 2023, for tables with categories: no earlier operator can take a text without the spaces around it."""
_SPACES: Final = "[" + "".join(rf"\x{{{ord(sign):x}}}" for sign in map(chr, range(0x3001)) if sign.isspace()) + "]*"
"""What ``str.strip`` removes, as a pattern of RE2."""
_NOTHING: Final = r"\b\B"
"""Matches no text: of a column without a category in the training part."""
_INTERNAL: Final = "tapeline."
"""Prefix of the names inside the graph, so that they do not collide with the columns of a table."""

_OUTPUT: Final = "probabilities"
_PREDICTION: Final = "prediction"
_LIMITS: Final = {"lowest": -CLIP_LIMIT, "highest": CLIP_LIMIT}
"""The output of a regressor."""
_OPERATORS: Final[Mapping[Activation, tuple[str, Mapping[str, Any]]]] = {
    Activation.SIGMOID: ("Sigmoid", {}),
    Activation.TANH: ("Tanh", {}),
    Activation.RELU: ("Relu", {}),
    Activation.SOFTMAX: ("Softmax", {"axis": 1}),
    Activation.ELU: ("Elu", {"alpha": 1.0}),
    Activation.SOFTPLUS: ("Softplus", {}),
}
"""Activations that are one operator, with its attributes."""
_TO_ENGINE, _TO_ONNX = [0, 2, 3, 1], [0, 3, 1, 2]


class Graph:
    """Nodes in order, each with one output that is named after its operator.

    Args:
        opset: the version of the operators.
    """

    def __init__(self, opset: int = _OPSET) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        output = name or f"{_INTERNAL}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant array; returns its name."""
        name = _INTERNAL + name
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype, order="C"), name))
        return name

    def shared(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Like ``constant``, but reuses a constant that already has this name."""
        full_name = _INTERNAL + name
        return (
            full_name
            if any(tensor.name == full_name for tensor in self.weights)
            else self.constant(name, values, dtype)
        )

    def reshape(self, x: str, size: Sequence[int]) -> str:
        """``x`` as (N, *size)."""
        shape = self.shared("shape_" + "x".join(map(str, size)), [-1, *size], np.int64)
        return self.add("Reshape", x, shape)

    def mean(self, x: str, axes: Sequence[int], *, keepdims: int = 1) -> str:
        """The mean of ``x`` over these axes."""
        if self.opset < 18:
            return self.add("ReduceMean", x, axes=axes, keepdims=keepdims)
        name = self.shared("axes_" + "_".join(map(str, axes)), axes, np.int64)
        return self.add("ReduceMean", x, name, keepdims=keepdims)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """``x`` with its axes in another order."""
        return self.add("Transpose", x, perm=order)


def to_onnx(model: TrainedModel, facts: JobFacts, pictures: Pictures | None = None) -> bytes:
    """The bytes of an ONNX model; equal models produce equal bytes."""
    has_texts = any("categories" in column for column in model.columns)
    graph = Graph(_TEXT_OPSET if has_texts else _OPSET)
    if model.is_table:
        inputs = _columns_as_inputs(model)
        output = _add_network(graph, _features(graph, model), model)
        if model.target is not None:
            output = _target(graph, output, model.target)
            result = helper.make_tensor_value_info(output, TensorProto.DOUBLE, ["N"])
        else:
            output = _probabilities(graph, output, model)
            result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", math.prod(model.layers[-1].after)])
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
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=_TEXT_IR_VERSION if has_texts else _IR_VERSION,
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
    if model.target is not None:
        result = "prediction: the number in the column that metadata has as target, in its unit."
    if model.is_table:
        missing = "missing: NaN, infinity, or an empty text"
        return f"One input for each column; {missing}. Dates: days since 1970-01-01. {result}"
    photo_text = f" Photos are prepared as {photos.NAME} says." if model.photos is not None else ""
    return f"images: uint8 levels 0 to 255, 0 is black.{photo_text} {result}"


def metadata(model: TrainedModel, facts: JobFacts) -> dict[str, str]:
    """The metadata entries of the file, about its origin."""
    entries = {
        "job_id": facts.job.id,
        "job_name": facts.job.name or "",
        "spec_hash": facts.job.spec_hash,
        "epoch": str(facts.checkpoint_epoch),
        "dataset": str(facts.job.resolved["dataset"]["name"]),
        "dataset_sha256": facts.job.dataset_sha256 or "",
    }
    if model.target is not None:
        entries["target"] = str(model.target["name"])
    elif not model.generates or model.classes:
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
    return graph.add("Clip", outputs, graph.shared("zero", 0), graph.shared("one", 1), name=_OUTPUT)


def _target(graph: Graph, outputs: str, target: Mapping[str, Any]) -> str:
    """The predictions (N,) in the unit of the target, in double precision: its mean may be large."""
    x = graph.add("Cast", graph.reshape(outputs, ()), to=TensorProto.DOUBLE)
    x = graph.add("Mul", x, graph.constant("target_scale", target["scale"], np.float64))
    return graph.add("Add", x, graph.constant("target_mean", target["mean"], np.float64), name=_PREDICTION)


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
        case schema.Conv2D():
            y = _add_convolution(graph, trained, layer, x, "Conv", (3, 2, 0, 1))
        case schema.Conv2DTranspose():
            attributes = {"output_padding": [trailing_rows(layer)] * 2}
            y = _add_convolution(graph, trained, layer, x, "ConvTranspose", (2, 3, 0, 1), **attributes)
        case schema.LayerNorm():
            y = _layer_norm(graph, x, trained, layer)
        case schema.Residual():
            y = x
            for inner in trained.inner:
                y = _add_layer(graph, y, inner)
            y = graph.add("Add", x, y)
        case schema.BatchNorm():
            names = _weights(graph, trained, ("scale", "shift", "running_mean", "running_variance"))
            y = graph.add("BatchNormalization", x, *names, epsilon=layer.epsilon)
        case schema.MaxPool2D() | schema.AvgPool2D():
            operator = "MaxPool" if isinstance(layer, schema.MaxPool2D) else "AveragePool"
            return graph.add(operator, x, kernel_shape=[layer.size] * 2, strides=[layer.size] * 2)
        case schema.GlobalAvgPool2D():
            return graph.mean(x, [2, 3], keepdims=0)
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
    return _activate(graph, y, layer)


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
    centred = graph.add("Sub", x, graph.mean(x, axes))
    variance = graph.mean(graph.add("Mul", centred, centred), axes)
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
        case Activation.LEAKY_RELU:
            return graph.add("LeakyRelu", x, alpha=layer.negative_slope)
        case Activation.GELU:
            return _gelu(graph, x)
        case Activation.SILU:
            return graph.add("Mul", x, graph.add("Sigmoid", x))
        case simple:
            operator, attributes = _OPERATORS[simple]
            return graph.add(operator, x, **attributes)


def _columns_as_inputs(model: TrainedModel) -> list[onnx.ValueInfoProto]:
    """The inputs of the graph: texts for categories, float64 for numbers and dates, each (N,)."""
    return [
        helper.make_tensor_value_info(
            _input_name(column, model), TensorProto.STRING if "categories" in column else TensorProto.DOUBLE, ["N"]
        )
        for column in model.columns
    ]


def _input_name(column: Mapping[str, Any], model: TrainedModel) -> str:
    """The column's name, with an underscore appended if it is the name of the output."""
    name, output = str(column["name"]), _OUTPUT if model.target is None else _PREDICTION
    return name + "_" if name.rstrip("_") == output or name.startswith(_INTERNAL) or not name else name


def _features(graph: Graph, model: TrainedModel) -> str:
    """The inputs of the network, (N, features), computed in float64 and then rounded, like ``Preprocessing.apply``."""
    outputs: list[str] = []
    for index, column in enumerate(model.columns):
        value = graph.reshape(_input_name(column, model), (1,))
        encode = _encode_category if "categories" in column else _encode_number
        outputs += encode(graph, index, value, column)
    joined = graph.add("Concat", *outputs, axis=1) if len(outputs) > 1 else outputs[0]
    return graph.add("Cast", joined, to=TensorProto.FLOAT)


def _encode_number(graph: Graph, index: int, value: str, column: Mapping[str, Any]) -> list[str]:
    missing = graph.add("Or", graph.add("IsNaN", value), graph.add("IsInf", value))  # as in a cell of text
    mean = graph.constant(f"columns.{index}.mean", column["mean"], np.float64)
    scale = graph.constant(f"columns.{index}.scale", column["scale"], np.float64)
    zero = graph.constant(f"columns.{index}.zero", 0, np.float64)
    limits = (graph.constant(f"columns.{index}.{name}", limit, np.float64) for name, limit in _LIMITS.items())
    standardized = graph.add("Clip", graph.add("Div", graph.add("Sub", value, mean), scale), *limits)
    return [graph.add("Where", missing, zero, standardized), *_indicator(graph, missing, column)]


def _encode_category(graph: Graph, index: int, value: str, column: Mapping[str, Any]) -> list[str]:
    """One-hot; all 0 for an empty text or an unknown category. As in a cell, spaces around a text do not count."""
    patterns = [f"{_SPACES}{re.escape(category)}{_SPACES}" for category in column["categories"]] or [_NOTHING]
    equal = [
        graph.add("Cast", graph.add("RegexFullMatch", value, pattern=pattern), to=TensorProto.DOUBLE)
        for pattern in patterns
    ]
    one_hot = graph.add("Concat", *equal, axis=1)
    one = graph.constant(f"columns.{index}.one", 1, np.float64)
    found = graph.add("ReduceSum", one_hot, graph.shared("axes_1", [1], np.int64))
    missing = graph.add("Less", found, one)
    return [*([one_hot] if column["categories"] else []), *_indicator(graph, missing, column)]


def _indicator(graph: Graph, missing: str, column: Mapping[str, Any]) -> list[str]:
    return [graph.add("Cast", missing, to=TensorProto.DOUBLE)] if column["indicator"] else []
