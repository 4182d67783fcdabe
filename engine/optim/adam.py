"""Adam, and AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import CheckpointError, check_fraction, check_positive
from engine.optim.optimizer import Optimizer

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam, Algorithm 1 of Kingma & Ba 2015 (arXiv:1412.6980), optionally with decoupled weight decay (AdamW, Algorithm
    2 of Loshchilov & Hutter 2019, arXiv:1711.05101).

    Before Adam's step, ``p = p - learning_rate * weight_decay * p`` with the scheduled learning rate, as in PyTorch.
    The decay does not enter the moments.

    Args:
        weight_decay: not negative.
        decay_biases: False excludes parameters with one axis: biases, and scale and shift of normalization layers.
        clip_norm: clip gradients first, see :func:`clip_by_global_norm`; None: no clipping.

    Raises:
        SettingError: a learning rate, epsilon or clip norm that is not positive, a beta outside [0, 1), a negative
            decay.
    """

    sums = ("first_sum", "second_sum")
    """The moments divided by ``1 - beta1`` and ``1 - beta2``."""

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, decay_biases=decay_biases, clip_norm=clip_norm)
        check_fraction(beta1=beta1, beta2=beta2)
        check_positive(epsilon=epsilon)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon

    def _update(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        # The efficient order from the last paragraph of section 2, which turns both bias corrections into scalars. The
        # moments are stored as sums, which turns the factors 1 - beta into scalars too: ten passes instead of twelve.
        root = ((1 - self.beta2**self._steps) / (1 - self.beta2)) ** 0.5
        rate = learning_rate * root * (1 - self.beta1) / (1 - self.beta1**self._steps)
        epsilon = self.epsilon * root
        for decay, (p, g, m, v) in self._operands(parameters, gradients):
            np.multiply(m, self.beta1, out=m)
            np.add(m, g, out=m)  # m = beta1 m + g
            np.multiply(g, g, out=g)
            np.multiply(v, self.beta2, out=v)
            np.add(v, g, out=v)  # v = beta2 v + g^2
            np.sqrt(v, out=g)
            np.add(g, epsilon, out=g)
            np.divide(m, g, out=g)
            np.multiply(g, rate, out=g)
            if decay:
                np.multiply(p, 1 - learning_rate * decay, out=p)
            np.subtract(p, g, out=p)

    def _check_sums(self, steps: int, sums: Sequence[Sequence[Array]]) -> None:
        first, second = sums
        for number, moment in enumerate(second):
            if moment.size and np.min(moment) < 0:
                name = f"second_sum.{number}"
                raise CheckpointError(f"{name} is a sum of squares, but negative in the checkpoint", tensor=name)
        if (steps > 0) != bool(first) or bool(first) != bool(second):
            raise CheckpointError("the optimizer's step count and moments are inconsistent", tensor="steps")


AdamW = partial(Adam, weight_decay=0.01)
"""Adam with a weight decay by default."""
