"""Converts the columns of a table to the inputs of a network. A fitted preprocessing is plain data.

A *preprocessing* is a JSON object, ``{"format": 1, "columns": [...]}``, with an entry for each column, in the
order of the stored array:

    {"name": "age", "type": "number", "mean": 39.5, "scale": 12.25, "indicator": true}
    {"name": "since", "type": "date", "format": "iso", "mean": 19000.0, "scale": 365.2, "indicator": false}
    {"name": "city", "type": "category", "categories": ["Bergen", "Oslo"], "indicator": false}

Each column becomes inputs of the network, in this order:

- ``number`` and ``date`` (days since 1970-01-01): ``(value - mean) / scale``, clipped to ±1,000,000; 0 if the
  value is missing;
- ``category``: one-hot: one input per item of ``categories``; all 0 if the value is missing or unknown;
- with ``indicator``, a further input: 1 if the value is missing, else 0.

``mean`` and ``scale`` (the standard deviation, or 1 if all numbers are equal) are those of the training part.
Inputs are computed in float64, then rounded to the network's precision.

A regressor's has ``"target": {"name": "price", "mean": 250.0, "scale": 80.0}``, too: the network's output is
``(price - mean) / scale``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.info import DatasetInfo
from service.datasets.tables.analysis.moments import moments
from service.spec.estimation.features import features_of
from service.states import Task

FORMAT: Final = 1
CLIP_LIMIT: Final = 1e6
"""Inputs are clipped to this absolute value, so that products in single precision do not overflow."""

_MIN_SCALE: Final = 1e-140
"""A smaller standard deviation is the root of squares that a float rounds, or that are too small for one."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """A fitted preprocessing.

    Attributes:
        columns: the entries of its document.
        target: of a regressor.
    """

    columns: tuple[Mapping[str, Any], ...]
    target: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, info: DatasetInfo, inputs: Array, labels: Array) -> Preprocessing:
        """Fit to the training part of a dataset: its rows, and their classes or the numbers to predict."""
        if info.task is Task.CLASSIFICATION:
            return cls.fit(info.columns, inputs)
        return cls.fit(info.columns, inputs, target=info.target, targets=labels)

    @classmethod
    def fit(
        cls,
        columns: Sequence[Mapping[str, Any]],
        inputs: Array,
        *,
        target: str | None = None,
        targets: Array | None = None,
    ) -> Preprocessing:
        """Fit to the training part.

        Args:
            columns: see ``DatasetInfo.columns``.
            inputs: float64 (rows, columns), NaN for missing values.
            target, targets: the name and the values of the column that a regressor predicts.
        """
        entries = tuple(_fit_column(column, inputs[:, index]) for index, column in enumerate(columns))
        if targets is None:
            return cls(entries)
        return cls(entries, {"name": target, **_mean_and_scale(np.asarray(targets, np.float64))})

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Preprocessing:
        """Read from its JSON document.

        Raises:
            ValueError: unknown format.
        """
        if document.get("format") != FORMAT or not isinstance(document.get("columns"), list):
            raise ValueError(f"a preprocessing of format {document.get('format')!r}; this version reads {FORMAT}")
        return cls(tuple(document["columns"]), document.get("target"))

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        columns = {"format": FORMAT, "columns": [dict(column) for column in self.columns]}
        return columns if self.target is None else columns | {"target": dict(self.target)}

    @property
    def width(self) -> int:
        """Number of network inputs."""
        return features_of(self.columns)

    def to_targets(self, outputs: Array) -> Array:
        """The predictions of a regressor in the unit of its target, float64, from the outputs of its network."""
        if self.target is None:
            raise ValueError("the preprocessing of a classifier has no target")
        return np.asarray(self.target["mean"] + self.target["scale"] * np.asarray(outputs, np.float64))

    def apply(self, inputs: Array, columns: Sequence[Mapping[str, Any]] | None = None) -> Array:
        """The inputs of a network, float64 (rows, ``width``).

        Args:
            inputs: float64 (rows, columns), NaN for missing values.
            columns: descriptions of the columns of ``inputs``, if the order of categories may differ; by default,
                those to which the preprocessing was fitted.
        """
        features = np.zeros((len(inputs), self.width))
        offset = 0
        for index, column in enumerate(self.columns):
            values = np.asarray(inputs[:, index], np.float64)
            if "categories" in column:
                if columns is not None and columns[index]["categories"] != column["categories"]:
                    values = _recode(values, columns[index]["categories"], column["categories"])
                present = np.flatnonzero(~np.isnan(values))
                features[present, offset + values[present].astype(np.int64)] = 1
                offset += len(column["categories"])
            else:
                with np.errstate(over="ignore"):
                    scaled = (values - column["mean"]) / column["scale"]
                features[:, offset] = np.clip(np.nan_to_num(scaled, nan=0.0), -CLIP_LIMIT, CLIP_LIMIT)
                offset += 1
            if column["indicator"]:
                features[:, offset] = np.isnan(values)
                offset += 1
        return features


def _fit_column(column: Mapping[str, Any], values: Array) -> dict[str, Any]:
    copied = ("name", "type", "format", "decimal", "group", "percent", "currency", "categories")
    entry = {name: column[name] for name in copied if name in column}
    if "categories" not in column:
        entry |= _mean_and_scale(np.asarray(values[~np.isnan(values)], np.float64))
    return entry | {"indicator": bool(column["missing"])}


def _mean_and_scale(present: Array) -> dict[str, float]:
    if not present.size:
        return {"mean": 0.0, "scale": 1.0}
    if present.min() == present.max():  # the standard deviation of equal decimals is not exactly 0
        return {"mean": float(present[0]), "scale": 1.0}
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = float(present.mean()), float(present.std())
    if not np.isfinite(mean) or not np.isfinite(scale):  # values near the largest float
        mean, scale = 0.0, float(np.abs(present).max())
    elif scale < _MIN_SCALE:  # squares that are too small for a float
        mean, scale = moments(present)
    return {"mean": mean, "scale": scale if scale > 0 else float(present.max() - present.min())}


def _recode(values: Array, old_categories: Sequence[str], new_categories: Sequence[str]) -> Array:
    code_of_text = {text: float(code) for code, text in enumerate(new_categories)}
    table = np.array([*(code_of_text.get(text, np.nan) for text in old_categories), np.nan])
    codes = np.where(np.isnan(values), len(old_categories), values).astype(np.int64)
    return np.asarray(table[codes])
