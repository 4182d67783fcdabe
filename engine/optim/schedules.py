"""Learning rate schedules: pure functions of the position in a run, so that a resumed run needs no state.

``schedule(step, steps_per_epoch, total_steps)`` returns the factor for the 0-based ``step``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from engine.errors import SettingError, check_fraction, check_positive

Schedule: TypeAlias = Callable[[int, int, int], float]


def constant() -> Schedule:
    """Always 1."""
    return lambda step, steps_per_epoch, total_steps: 1.0


def step(at_epochs: Sequence[int], factor: float) -> Schedule:
    """Multiply by ``factor`` once at each of these counts of finished epochs.

    Raises:
        SettingError: ``factor`` is not positive.
    """
    check_positive("step schedule: ", factor=factor)
    milestones = tuple(at_epochs)

    def schedule(step: int, steps_per_epoch: int, total_steps: int) -> float:
        finished = step // steps_per_epoch
        return float(factor ** sum(milestone <= finished for milestone in milestones))

    return schedule


def one_cycle(warmup: float = 0.3, start: float = 1 / 25, end: float = 1 / 250_000) -> Schedule:
    """Half a cosine from ``start`` up to 1 over the first ``warmup`` fraction of the steps, then one down to ``end``.

    Smith & Topin 2017 (arXiv:1708.07120), with the cosines and defaults of PyTorch's ``OneCycleLR``.

    Raises:
        SettingError: ``warmup`` is not in (0, 1).
    """
    if not 0 < warmup < 1:
        raise SettingError(f"one-cycle schedule: warmup {warmup} is not in (0, 1)", setting="warmup")

    def schedule(step: int, steps_per_epoch: int, total_steps: int) -> float:
        top, last = warmup * total_steps - 1, total_steps - 1
        if step <= top:
            return _cosine(start, 1.0, step / top if top > 0 else 1.0)
        return _cosine(1.0, end, (step - top) / (last - top))

    return schedule


def cosine(warmup: float = 0.0, start: float = 1 / 25, end: float = 0.0) -> Schedule:
    """Half a cosine from 1 down to ``end``, after a linear rise from ``start`` to 1 over the first ``warmup`` fraction.

    Equation 5 of Loshchilov & Hutter 2017 (arXiv:1608.03983), without restarts. The factor is ``end`` at the step after
    the last one, as in PyTorch's ``CosineAnnealingLR`` over the remaining steps; the rise is its ``LinearLR``.

    Raises:
        SettingError: ``warmup`` is not in [0, 1), ``start`` not in (0, 1], or ``end`` not in [0, 1].
    """
    check_fraction("cosine schedule: ", warmup=warmup)
    if not 0 < start <= 1:
        raise SettingError(f"cosine schedule: start {start} is not in (0, 1]", setting="start")
    if not 0 <= end <= 1:
        raise SettingError(f"cosine schedule: end {end} is not in [0, 1]", setting="end")

    def schedule(step: int, steps_per_epoch: int, total_steps: int) -> float:
        top = int(warmup * total_steps)
        if step < top:
            return start + (1 - start) * step / top
        return _cosine(1.0, end, (step - top) / (total_steps - top))

    return schedule


def _cosine(first: float, last: float, fraction: float) -> float:
    """The value at ``fraction`` of half a cosine from ``first`` to ``last``."""
    return last + (first - last) / 2 * (1 + math.cos(math.pi * fraction))
