"""The number of network inputs of a table. Imports no other module, to keep the import sandbox small."""

from collections.abc import Mapping, Sequence
from typing import Any


def features_of(columns: Sequence[Mapping[str, Any]]) -> int:
    """Number of network inputs for the columns of a dataset or of a fitted preprocessing: one per number and date
    column and per category value, and one more per column with missing values."""
    return sum(
        len(column.get("categories", " ")) + bool(column.get("indicator", column.get("missing"))) for column in columns
    )
