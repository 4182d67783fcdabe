"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import SettingError, check_fraction
from engine.optim.optimizer import Optimizer

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum: heavy ball (Polyak 1964) or Nesterov (Sutskever et al. 2013).

    ``g`` is the gradient, ``v`` starts at zero, and a step is, as in PyTorch::

        g = g + weight_decay * p
        v = momentum * v + g
        p = p - learning_rate * (g + momentum * v  if nesterov else  v)

    So the decay is the gradient of ``weight_decay / 2 * |p|**2`` (coupled L2: momentum includes it). Nesterov takes the
    gradient at the point to which momentum leads; as in Bengio et al. 2012 (arXiv:1212.0901), ``p`` is that point.

    Args:
        weight_decay: not negative.
        decay_biases: False excludes parameters with one axis: biases, and scale and shift of normalization layers.
        clip_norm: clip gradients first, see :func:`clip_by_global_norm`; None: no clipping.

    Raises:
        SettingError: a learning rate or clip norm that is not positive, a negative decay, a momentum outside [0, 1),
            Nesterov without momentum.
    """

    sums = ("velocity",)

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, decay_biases=decay_biases, clip_norm=clip_norm)
        check_fraction(momentum=momentum)
        if nesterov and not momentum:
            raise SettingError("nesterov needs a momentum above 0", setting="nesterov")
        self.momentum = momentum
        self.nesterov = nesterov

    @property
    def _used_sums(self) -> tuple[str, ...]:
        return self.sums if self.momentum else ()

    def _update(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        for decay, (p, g, *velocity) in self._operands(parameters, gradients):
            if not velocity:
                if decay:  # without momentum, coupled and decoupled decay are equal
                    np.multiply(p, 1 - learning_rate * decay, out=p)
                np.multiply(g, learning_rate, out=g)
                np.subtract(p, g, out=p)
                continue
            (v,) = velocity
            if decay:
                g += np.multiply(p, decay)
            np.multiply(v, self.momentum, out=v)
            np.add(v, g, out=v)
            if self.nesterov:
                np.multiply(g, learning_rate, out=g)
                np.subtract(p, g, out=p)
                np.multiply(v, learning_rate * self.momentum, out=g)
            else:
                np.multiply(v, learning_rate, out=g)
            np.subtract(p, g, out=p)
