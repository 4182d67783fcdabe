"""The activations that a layer can end with, by name."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, assert_never

from engine import ops
from engine.errors import SettingError


class Activation(StrEnum):
    """The activations a layer can end with."""

    SIGMOID = "sigmoid"
    TANH = "tanh"
    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    SOFTMAX = "softmax"
    GELU = "gelu"
    SILU = "silu"
    ELU = "elu"
    SOFTPLUS = "softplus"


def as_activation(activation: Activation | str | None) -> Activation | None:
    """An activation by its name.

    Raises:
        SettingError: there is none of that name.
    """
    try:
        return None if activation is None else Activation(activation)
    except ValueError:
        names = ", ".join(Activation)
        raise SettingError(f"unknown activation {activation!r}; known are {names}", setting="activation") from None


def activation_function(activation: Activation | None, negative_slope: float = 0.2) -> Callable[[Any], Any]:
    """The primitive of an activation, or what leaves all as it is.

    Raises:
        SettingError: ``negative_slope``, of leaky_relu, is not in [0, 1].
    """
    if not 0 <= negative_slope <= 1:
        raise SettingError(f"negative_slope {negative_slope} is not in [0, 1]", setting="negative_slope")
    match activation:
        case None:
            return lambda logits: logits
        case Activation.SIGMOID:
            return ops.sigmoid
        case Activation.TANH:
            return ops.tanh
        case Activation.RELU:
            return ops.relu
        case Activation.LEAKY_RELU:
            return lambda logits: ops.leaky_relu(logits, negative_slope=negative_slope)
        case Activation.SOFTMAX:
            return ops.softmax
        case Activation.GELU:
            return ops.gelu
        case Activation.SILU:
            return ops.silu
        case Activation.ELU:
            return ops.elu
        case Activation.SOFTPLUS:
            return ops.softplus
        case _:
            assert_never(activation)
