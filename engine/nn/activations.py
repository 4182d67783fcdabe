"""The activation functions of layers, by name."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from engine import ops
from engine.errors import SettingError

__all__ = ["Activation"]

_Named = TypeVar("_Named", bound=StrEnum)


class Activation(StrEnum):
    """The activation functions that a layer can apply to its output."""

    SIGMOID = "sigmoid"
    TANH = "tanh"
    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    SOFTMAX = "softmax"
    GELU = "gelu"
    SILU = "silu"
    ELU = "elu"
    SOFTPLUS = "softplus"


def by_name(kind: type[_Named], name: str, setting: str) -> _Named:
    """The member of ``kind`` with this name.

    Raises:
        SettingError: unknown name.
    """
    try:
        return kind(name)
    except ValueError:
        raise SettingError(f"unknown {setting} {name!r}; known are {', '.join(kind)}", setting=setting) from None


def activation_function(activation: Activation | None, negative_slope: float = 0.2) -> Callable[[Any], Any]:
    """The function of an activation; the identity for None.

    Raises:
        SettingError: the ``negative_slope`` of leaky_relu is not in [0, 1].
    """
    if not 0 <= negative_slope <= 1:
        raise SettingError(f"negative_slope {negative_slope} is not in [0, 1]", setting="negative_slope")
    if activation is None:
        return lambda logits: logits
    if activation is Activation.LEAKY_RELU:
        return lambda logits: ops.leaky_relu(logits, negative_slope=negative_slope)
    function: Callable[[Any], Any] = getattr(ops, activation)  # each activation is a primitive of the same name
    return function
