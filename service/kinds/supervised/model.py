"""The network of a classifier or regressor, built with the engine."""

from __future__ import annotations

from collections.abc import Sequence

import engine
from engine.nn.initializers import Initializer
from service.kinds.supervised.spec import SupervisedSpec
from service.models.networks import build_network
from service.schema.layer_shapes import picture_size


def network(
    spec: SupervisedSpec, input_shape: Sequence[int], initializer: Initializer, classes: int = 0
) -> engine.Sequential:
    """The network of a classifier or regressor, with weights drawn by the initializer.

    Args:
        input_shape: (rows, columns), or (rows, columns, 3); of a table, (1, inputs).
    """
    return build_network(spec.layers, picture_size(spec.layers, input_shape), spec, initializer, purpose="init")
