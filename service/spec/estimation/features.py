"""How wide a table is for a network. It needs no other module: the import sandbox loads few."""

from collections.abc import Mapping, Sequence
from typing import Any


def features_of(columns: Sequence[Mapping[str, Any]]) -> int:
    """How many inputs of a network these columns become, of a dataset or of a preprocessing fitted to it: one for each
    number, date and category, and one more where values are missing."""
    return sum(
        len(column.get("categories", " ")) + bool(column.get("indicator", column.get("missing"))) for column in columns
    )
