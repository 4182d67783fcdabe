"""The epoch from which a metric is bad, found by halving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """The first bad epoch after a good one, and how it was found."""

    metric: str
    epoch: int
    value: float
    before: tuple[int, float] | None
    """The epoch before it, which is good, and its value; ``None``: it is the first."""
    probes: list[tuple[int, float]]
    """Epochs that were looked at, with their values, in order."""
    times: int
    """How often the metric turned from good to bad."""
    checkpoint: int | None
    """The last kept checkpoint before it, to fork from."""


def find(
    measured: Sequence[tuple[int, float]],
    kept: Sequence[int],
    *,
    metric: str,
    below: float | None = None,
    above: float | None = None,
) -> Bisection:
    """Halve the epochs between a good and a bad one; the last one must be bad.

    Args:
        measured: epochs and values, in order.
        kept: epochs of the kept checkpoints.

    Raises:
        ValueError: the last epoch is good, or there is none.
    """

    def is_bad(value: float) -> bool:
        return value < below if below is not None else above is not None and value > above

    limit = f"below {below:g}" if below is not None else f"above {above:g}"
    if not measured:
        raise ValueError(f"{metric} was not measured in any epoch")
    if not is_bad(measured[-1][1]):
        epoch, value = measured[-1]
        raise ValueError(f"{metric} is {value:g} in the last epoch that measured it ({epoch}), which is not {limit}")
    low, high, probes = 0, len(measured) - 1, list[tuple[int, float]]()
    while low < high:
        middle = (low + high) // 2
        probes.append(measured[middle])
        if is_bad(measured[middle][1]):
            high = middle
        else:
            low = middle + 1
    epoch, value = measured[high]
    bad = [is_bad(one) for _, one in measured]
    return Bisection(
        metric=metric,
        epoch=epoch,
        value=value,
        before=measured[high - 1] if high else None,
        probes=probes,
        times=sum(now and not before for before, now in zip([False, *bad], bad, strict=False)),
        checkpoint=max((at for at in kept if at < epoch), default=None),
    )
