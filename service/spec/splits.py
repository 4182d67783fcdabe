"""The split of a dataset into training and validation examples, as a spec defines it.

The *pool* is the training part followed by the validation part; the test part is never split. ``cache.divide`` computes
the split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A split of a pool: a fraction for validation, or one of several folds."""

    seed: int
    fraction: float | None = None
    folds: int | None = None
    fold: int = 0

    @classmethod
    def of(cls, resolved: Mapping[str, Any]) -> Split | None:
        """The split of a resolved spec; ``None`` to keep the dataset's own parts."""
        data = resolved["dataset"]
        fraction, folds, fold, seed = (
            data.get(name) for name in ("validation_fraction", "folds", "fold", "split_seed")
        )
        if fraction is None and folds is None:
            return None
        return cls(
            seed=resolved["seed"] if seed is None else seed,
            fraction=fraction if folds is None else None,
            folds=folds,
            fold=fold or 0,
        )

    def validation_count(self, pool: int) -> int:
        """Number of validation examples in a pool of this size."""
        if self.folds is not None:
            return len(range(min(self.fold, self.folds - 1), pool, self.folds))
        return max(1, min(round(pool * (self.fraction or 0.0)), pool - 1))
