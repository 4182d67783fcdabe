"""Diagnostics of a training: gradient norms, dead and saturated units, diversity of samples.

Measuring draws no random number and writes nothing: the training has the same bits with and without. It is cheap
because gradients are measured in a few steps of an epoch, and activations on a few images after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.autograd.graph import Array
from engine.data import Examples
from engine.nn.activations import Activation
from engine.nn.containers import Sequential

PROBE_IMAGES = 64
"""Images that activations are measured on: the same ones after every epoch."""

_MEASURED_STEPS = 8
"""Steps of an epoch whose gradients are measured, evenly spaced."""
_FLAT_SLOPE_SHARE = 0.05
"""A sigmoid or tanh is saturated where its slope is below this share of its steepest."""


class GradientNorms:
    """Norms of a network's gradients in a few steps of one epoch, as means over these steps.

    Norms are those of the mean loss over a batch, whatever the loss's reduction, so that runs can be compared.

    Args:
        network: whose gradients are given, one for each of its parameters.
        steps: of the epoch.
    """

    def __init__(self, network: Sequential, steps: int) -> None:
        # Of a layer made of layers the whole is measured.
        self._layers = [".".join(name.split(".")[:2]) for name in network.named_parameters()]
        self._due = [(2 * i + 1) * steps // (2 * _MEASURED_STEPS) for i in range(_MEASURED_STEPS)]
        self._sums = dict.fromkeys(self._layers, 0.0)
        self._total = 0.0
        self._count = 0

    def is_due(self, step: int) -> bool:
        """Whether to measure in this step of the epoch, counted from 0, or in the next one that has gradients."""
        return self._count < _MEASURED_STEPS and step >= self._due[self._count]

    def add(self, gradients: Sequence[Array], scale: float = 1.0) -> None:
        """Measure, before an optimizer uses the gradients up; ``scale`` makes them those of the mean loss."""
        squares = dict.fromkeys(self._layers, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            for layer, gradient in zip(self._layers, gradients, strict=True):
                flat = gradient.ravel()
                squares[layer] += float(np.dot(flat, flat))
        for layer, square in squares.items():
            self._sums[layer] += scale * math.sqrt(square)
        self._total += scale * math.sqrt(sum(squares.values()))
        self._count += 1

    def metrics(self, who: str = "", where: str = "") -> dict[str, float]:
        """``grad_norm`` of the whole network, and ``grad_norm/layers.0`` and so on; nothing if nothing was measured.

        Args:
            who, where: stand before the names of the network and of its layers.
        """
        if not self._count:
            return {}
        whole = {f"{who}grad_norm": self._total / self._count}
        return whole | {f"grad_norm/{where}{layer}": total / self._count for layer, total in self._sums.items()}


def activations(network: Sequential, x: Array) -> list[Array]:
    """The output of each layer for ``x`` (n, inputs) at inference, the last one with its activation."""
    with np.errstate(over="ignore", invalid="ignore"):
        return [np.asarray(output) for output in network.layer_outputs(x)]


def activation_metrics(
    network: Sequential, outputs: Sequence[Array], who: str = "", where: str = ""
) -> dict[str, float]:
    """How many hidden units have gone silent, or cannot move any more, in these :func:`activations`.

    ``dead_units`` is the share of relu and leaky_relu units that are never above zero: such a relu learns nothing,
    and a leaky one is linear. ``saturation`` is the share of a sigmoid's or tanh's outputs where its slope is
    below 5% of the steepest (Glorot & Bengio 2010 watch the same). Each comes for the whole network and layer by
    layer (``dead_units/layers.0``); a network without such units has none. The last layer is left out: to end at
    0 or 1 is its task.
    """
    whole: dict[str, tuple[int, int]] = {}
    each: dict[str, tuple[int, int]] = {}
    for number, (layer, y) in enumerate(zip(network.layers[:-1], outputs[:-1], strict=True)):
        found = _count(getattr(layer, "activation", None), y)
        if found is not None:
            name, count, of = found
            each[f"{name}/{where}layers.{number}"] = (count, of)
            before = whole.get(f"{who}{name}", (0, 0))
            whole[f"{who}{name}"] = (before[0] + count, before[1] + of)
    return {name: count / of for name, (count, of) in (whole | each).items()}


def _count(activation: Activation | None, y: Array) -> tuple[str, int, int] | None:
    """What there is to count in the outputs (n, ..., units) of an activation, how many are so, and of how many.

    A filter of a convolution is one unit: it is dead where it is never above zero, wherever it looks.
    """
    match activation:
        case Activation.RELU | Activation.LEAKY_RELU:
            return "dead_units", int(np.count_nonzero(~(y > 0).any(axis=tuple(range(y.ndim - 1))))), y.shape[-1]
        case Activation.TANH:
            return "saturation", int(np.count_nonzero(1 - y * y < _FLAT_SLOPE_SHARE)), y.size
        case Activation.SIGMOID:
            return "saturation", int(np.count_nonzero(4 * y * (1 - y) < _FLAT_SLOPE_SHARE)), y.size
        case _:
            return None


def probe(data: Examples) -> Array:
    """Indices of the images that activations are measured on: spread over all, in case they lie sorted by class."""
    return np.linspace(0, len(data) - 1, min(PROBE_IMAGES, len(data))).astype(np.int64)


def sample_diversity(made: Array, real: Array) -> float:
    """How much made images (n, pixels) differ from each other, beside how much real ones do.

    The deviation of the pixels around their mean image, over that of the real ones: near 0 where all images are the
    same, near 1 where they vary as real ones do.
    """
    return float(np.sqrt(made.var(axis=0).sum() / max(float(real.var(axis=0).sum()), 1e-12)))
