"""Gradient accumulation: one update from the gradients of several batches, to save memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from engine.autograd.graph import Array
from engine.errors import check_positive
from engine.nn.losses import Reduction


class Accumulation:
    """Sums of gradients per network.

    Args:
        batches: number of batches per update. The last update of an epoch uses the remaining batches.
        reduction: ``mean`` weights each batch by its size, so that the sum is the gradient of the mean over all images.

    Raises:
        SettingError: ``batches`` is not positive.
    """

    def __init__(self, batches: int, reduction: Reduction) -> None:
        check_positive(accumulate=batches)
        self.batches = batches
        self.reduction = reduction
        self._sums: dict[Hashable, tuple[list[Array], int]] = {}

    def update_of(self, step: int, steps_per_epoch: int) -> int:
        """The number of the update to which ``step`` belongs; both count from 0 over the whole run."""
        epoch, position = divmod(step, steps_per_epoch)
        return epoch * -(-steps_per_epoch // self.batches) + position // self.batches

    def completes(self, step: int, steps_per_epoch: int) -> bool:
        """Whether this step completes an update."""
        position = step % steps_per_epoch + 1
        return position % self.batches == 0 or position == steps_per_epoch

    def clear(self) -> None:
        """Discard gradients that were added and not yet returned."""
        self._sums.clear()

    def add(self, network: Hashable, gradients: Sequence[Array], count: int) -> None:
        """Add the gradients of a batch of ``count`` images."""
        if self.batches == 1:
            self._sums[network] = (list(gradients), count)
            return
        weight = count if self.reduction == "mean" else 1
        sums, previous_count = self._sums.get(network, ([np.zeros_like(gradient) for gradient in gradients], 0))
        for total, gradient in zip(sums, gradients, strict=True):
            total += np.multiply(gradient, weight)
        self._sums[network] = (sums, previous_count + count)

    def take(self, network: Hashable) -> list[Array]:
        """The sums of the gradients added since the previous call; empty if there are none."""
        sums, count = self._sums.pop(network, ([], 0))
        if self.batches > 1 and self.reduction == "mean":
            for total in sums:
                total *= 1 / count
        return sums
