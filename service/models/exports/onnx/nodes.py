"""A graph of ONNX nodes under construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INTERNAL: Final = "tapeline."
"""Prefix of the names inside the graph, so that they do not collide with the columns of a table."""


class Graph:
    """Nodes in order, each with one output that is named after its operator."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        output = name or f"{INTERNAL}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant array; returns its name."""
        name = INTERNAL + name
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype, order="C"), name))
        return name

    def shared(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Like ``constant``, but reuses a constant that already has this name."""
        full_name = INTERNAL + name
        return (
            full_name
            if any(tensor.name == full_name for tensor in self.weights)
            else self.constant(name, values, dtype)
        )

    def reshape(self, x: str, size: Sequence[int]) -> str:
        """``x`` as (N, *size)."""
        shape = self.shared("shape_" + "x".join(map(str, size)), [-1, *size], np.int64)
        return self.add("Reshape", x, shape)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """``x`` with its axes in another order."""
        return self.add("Transpose", x, perm=order)
