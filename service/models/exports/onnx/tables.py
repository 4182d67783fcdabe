"""The preprocessing of a table as ONNX nodes, with one input per column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.models.exports.onnx.nodes import INTERNAL, Graph
from service.models.exports.trained_network import TrainedModel

ML_OPSET: Final = 3
_RESULT: Final = "probabilities"


def columns_as_inputs(model: TrainedModel) -> list[onnx.ValueInfoProto]:
    """The inputs of the graph: texts for categories, float64 for numbers and dates, each (N,)."""
    return [
        helper.make_tensor_value_info(
            input_name(column), TensorProto.STRING if "categories" in column else TensorProto.DOUBLE, ["N"]
        )
        for column in model.columns
    ]


def input_name(column: Mapping[str, Any]) -> str:
    """The column's name, with an underscore appended if it is the name of an output."""
    name = str(column["name"])
    return name + "_" if name.rstrip("_") == _RESULT or name.startswith(INTERNAL) or not name else name


def features(graph: Graph, model: TrainedModel) -> str:
    """The inputs of the network, (N, features), computed in float64 and then rounded, like ``Preprocessing.apply``."""
    outputs: list[str] = []
    for index, column in enumerate(model.columns):
        value = graph.reshape(input_name(column), (1,))
        encode = _encode_category if "categories" in column else _encode_number
        outputs += encode(graph, index, value, column)
    joined = graph.add("Concat", *outputs, axis=1) if len(outputs) > 1 else outputs[0]
    return graph.add("Cast", joined, to=TensorProto.FLOAT)


def _encode_number(graph: Graph, index: int, value: str, column: Mapping[str, Any]) -> list[str]:
    missing = graph.add("IsNaN", value)
    mean = graph.constant(f"columns.{index}.mean", column["mean"], np.float64)
    scale = graph.constant(f"columns.{index}.scale", column["scale"], np.float64)
    zero = graph.constant(f"columns.{index}.zero", 0, np.float64)
    standardized = graph.add("Where", missing, zero, graph.add("Div", graph.add("Sub", value, mean), scale))
    return [standardized, *_indicator(graph, missing, column)]


def _encode_category(graph: Graph, index: int, value: str, column: Mapping[str, Any]) -> list[str]:
    categories = list(column["categories"])
    if not categories:  # the training part contains none
        all_missing = graph.add("Equal", _category_codes(graph, value, [""]), _category_codes(graph, value, [""]))
        return _indicator(graph, all_missing, column)
    codes = _category_codes(graph, value, categories)
    indices = graph.constant(f"columns.{index}.places", [range(len(categories))], np.int64)
    one_hot = graph.add("Cast", graph.add("Equal", codes, indices), to=TensorProto.DOUBLE)
    zero = graph.constant(f"columns.{index}.none", 0, np.int64)
    return [one_hot, *_indicator(graph, graph.add("Less", codes, zero), column)]


def _category_codes(graph: Graph, value: str, categories: list[str]) -> str:
    """The index of each category; -1 for an empty text or an unknown category."""
    return graph.add(
        "LabelEncoder",
        value,
        domain="ai.onnx.ml",
        keys_strings=categories,
        values_int64s=list(range(len(categories))),
        default_int64=-1,
    )


def _indicator(graph: Graph, missing: str, column: Mapping[str, Any]) -> list[str]:
    return [graph.add("Cast", missing, to=TensorProto.DOUBLE)] if column["indicator"] else []
