"""Moving averages of a network's weights over the steps of a run, which are less noisy and often better than the last
weights.

Polyak & Juditsky 1992; with exponential weights for the generator of a GAN: Yazici et al. 2019 (arXiv:1806.04498).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from engine.autograd.graph import Array
from engine.errors import check_fraction
from engine.nn.containers import Sequential
from engine.optim.optimizer import blocks

_PREFIX = "training."


class AveragedWeights:
    """An exponential moving average of a network's weights. Training continues with the weights themselves.

    After step t, counted from 0: ``average = d * average + (1 - d) * weights``, where ``d`` is the smaller of ``decay``
    and ``(1 + t) / (10 + t)``, so that the influence of the initial weights fades quickly. Running statistics of batch
    norms belong to the weights, and are averaged in the same way.

    Args:
        network: the network whose weights are averaged. It has the training weights, except within :meth:`in_use`.
        decay: in [0, 1); the average covers about ``1 / (1 - decay)`` steps. None: no average, and :meth:`in_use`
            changes nothing.

    Raises:
        SettingError: the decay is out of range.
    """

    def __init__(self, network: Sequential, decay: float | None) -> None:
        check_fraction(average_decay=decay or 0)
        self.network = network
        self.decay = decay
        arrays = [] if decay is None else [*network.parameters, *network.buffers]
        self._weights = [np.asarray(array) for array in arrays]
        self._averages = [weights.copy() for weights in self._weights]

    @property
    def arrays(self) -> list[Array]:
        """The arrays that :meth:`load_state_dict` changes: weights, running statistics, and the averages of both."""
        return [*self.network.parameters, *self.network.buffers, *self._averages]

    def update(self, step: int) -> None:
        """Update the averages after ``step``, counted from 0 over the whole run."""
        if self.decay is None:
            return
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for pair in zip(self._averages, self._weights, strict=True):
            for average, weights in blocks(*pair):
                difference = np.subtract(weights, average)
                difference *= weight
                average += difference

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside the block, the network has the averages as its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, weights in zip(self._averages, self._weights, strict=True):
            training_weights = weights.copy()
            np.copyto(weights, average)
            np.copyto(average, training_weights)

    def state_dict(self) -> dict[str, Array]:
        """The averages, named like the network's weights, and the training weights, with the prefix ``training.``.

        So inference reads the same names with and without averaging.
        """
        if self.decay is None:
            return self.network.state_dict()
        training = {_PREFIX + name: array for name, array in self.network.state_dict().items()}
        with self.in_use():
            return self.network.state_dict() | training

    def load_state_dict(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        """Load such a state, or that of a network without averages. All names begin with ``prefix``.

        Raises:
            CheckpointError: the tensors do not fit the network.
        """
        self.network.load_state_dict(tensors, prefix)
        for average, weights in zip(self._averages, self._weights, strict=True):
            np.copyto(average, weights)
        training = prefix + _PREFIX
        if self.decay is not None and any(name.startswith(training) for name in tensors):
            self.network.load_state_dict(tensors, training)
