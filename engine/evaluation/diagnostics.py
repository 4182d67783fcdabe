"""Diagnostics of a training: gradient norms, dead and saturated units, diversity of samples.

Measuring draws no random numbers and changes nothing, so training has the same bits with and without it. It is cheap,
because gradients are measured only in a few steps of an epoch, and activations on a few images after it.
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
"""Number of images on which activations are measured, the same ones after every epoch."""

_MEASURED_STEPS = 8
"""Number of evenly spaced steps of an epoch in which gradients are measured."""
_SATURATION_THRESHOLD = 0.05
"""A sigmoid or tanh output is saturated if the slope is below this fraction of the maximum slope."""


class GradientNorms:
    """Norms of a network's gradients, averaged over a few steps of one epoch.

    The gradients are those of the mean loss over a batch, for any reduction of the loss, so that runs are comparable.

    Args:
        network: the network to which the gradients belong, one per parameter.
        steps: number of steps of the epoch.
    """

    def __init__(self, network: Sequential, steps: int) -> None:
        # A composite layer is measured as a whole.
        self._layers = [".".join(name.split(".")[:2]) for name in network.named_parameters()]
        self._due = [(2 * i + 1) * steps // (2 * _MEASURED_STEPS) for i in range(_MEASURED_STEPS)]
        self._sums = dict.fromkeys(self._layers, 0.0)
        self._total = 0.0
        self._count = 0

    def is_due(self, step: int) -> bool:
        """Whether to measure in this step of the epoch, counted from 0, or in the next one that has gradients."""
        return self._count < _MEASURED_STEPS and step >= self._due[self._count]

    def add(self, gradients: Sequence[Array], scale: float = 1.0) -> None:
        """Measure gradients. Call it before the optimizer, which overwrites them. ``scale`` converts them to gradients
        of the mean loss."""
        squares = dict.fromkeys(self._layers, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            for layer, gradient in zip(self._layers, gradients, strict=True):
                flat = gradient.ravel()
                squares[layer] += float(np.dot(flat, flat))
        for layer, square in squares.items():
            self._sums[layer] += scale * math.sqrt(square)
        self._total += scale * math.sqrt(sum(squares.values()))
        self._count += 1

    def metrics(self, network_prefix: str = "", layer_prefix: str = "") -> dict[str, float]:
        """``grad_norm`` of the whole network, and ``grad_norm/layers.0`` and so on; nothing if nothing was measured.

        Args:
            network_prefix, layer_prefix: prefixes of the names of the network and of its layers.
        """
        if not self._count:
            return {}
        network_norm = {f"{network_prefix}grad_norm": self._total / self._count}
        return network_norm | {
            f"grad_norm/{layer_prefix}{layer}": total / self._count for layer, total in self._sums.items()
        }


def activations(network: Sequential, x: Array) -> list[Array]:
    """The output of each layer for ``x`` (n, inputs) at inference, the last one with its activation."""
    with np.errstate(over="ignore", invalid="ignore"):
        return [np.asarray(output) for output in network.layer_outputs(x)]


def activation_metrics(
    network: Sequential, outputs: Sequence[Array], network_prefix: str = "", layer_prefix: str = ""
) -> dict[str, float]:
    """The fractions of dead and saturated hidden units in these :func:`activations`.

    ``dead_units`` is the fraction of relu and leaky_relu units that are never above zero: such a relu learns nothing,
    and a leaky one is linear. ``saturation`` is the fraction of sigmoid and tanh outputs with a slope below 5% of the
    maximum (as in Glorot & Bengio 2010). Both are computed for the whole network and for each layer
    (``dead_units/layers.0``), if there are such units. The last layer is not included, because saturated outputs
    are its purpose.
    """
    by_network: dict[str, tuple[int, int]] = {}
    by_layer: dict[str, tuple[int, int]] = {}
    for number, (layer, y) in enumerate(zip(network.layers[:-1], outputs[:-1], strict=True)):
        counted = _count(getattr(layer, "activation", None), y)
        if counted is not None:
            name, count, total = counted
            by_layer[f"{name}/{layer_prefix}layers.{number}"] = (count, total)
            previous = by_network.get(f"{network_prefix}{name}", (0, 0))
            by_network[f"{network_prefix}{name}"] = (previous[0] + count, previous[1] + total)
    return {name: count / total for name, (count, total) in (by_network | by_layer).items()}


def _count(activation: Activation | None, y: Array) -> tuple[str, int, int] | None:
    """The metric that applies to the outputs (n, ..., units) of an activation, its count, and the total.

    A filter of a convolution is one unit; it is dead if it is never above zero at any position.
    """
    match activation:
        case Activation.RELU | Activation.LEAKY_RELU:
            return "dead_units", int(np.count_nonzero(~(y > 0).any(axis=tuple(range(y.ndim - 1))))), y.shape[-1]
        case Activation.TANH:
            return "saturation", int(np.count_nonzero(1 - y * y < _SATURATION_THRESHOLD)), y.size
        case Activation.SIGMOID:
            return "saturation", int(np.count_nonzero(4 * y * (1 - y) < _SATURATION_THRESHOLD)), y.size
        case _:
            return None


def probe(data: Examples) -> Array:
    """Indices of the images on which activations are measured, spread over all in case they are sorted by class."""
    return np.linspace(0, len(data) - 1, min(PROBE_IMAGES, len(data))).astype(np.int64)


def sample_diversity(generated: Array, real: Array) -> float:
    """The variation of generated images (n, pixels), relative to that of real ones.

    The standard deviation of the pixels around the mean image, divided by that of real images: near 0 if all images are
    equal, near 1 if they vary as much as real ones.
    """
    return float(np.sqrt(generated.var(axis=0).sum() / max(float(real.var(axis=0).sum()), 1e-12)))
