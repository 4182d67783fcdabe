"""How presets are described: a summary, and measured results, to help users select one.

The ``presets`` of each kind are the only place for the measured numbers that the page shows. Update them after new
measurements:

- ``mnist``, ``fashion-mnist`` and GANs: medians of ``benchmarks/results/presets.json`` (a test compares them);
- classifiers on ``mnist-10k``: ``python -m benchmarks.presets.training``, median of seeds 0 to 2 (``classic``: seed 0);
- ``table``: ``benchmarks/results/tabular.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True)
class ReachedItem:
    """What a preset reaches at its last epoch."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    dataset: str
    metric: str
    value: float
    """Median of several seeds."""
    seconds: float
    """Training time on one core."""


@dataclass(frozen=True, slots=True)
class PresetInfo:
    """Summary and results of a preset."""

    summary: str
    reaches: tuple[ReachedItem, ...]
