"""The names of models and aliases."""

from __future__ import annotations

import re
from typing import Final

NAME_PATTERN: Final = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
NAME: Final = re.compile(NAME_PATTERN)
"""Names of models and aliases."""
_NUMBER: Final = re.compile(r"v?\d+")
LATEST: Final = "latest"
"""An alias that nobody sets: it is always the newest version."""


def is_reserved(alias: str) -> bool:
    """Whether an alias could be taken for the newest version, or for a number."""
    return alias == LATEST or _NUMBER.fullmatch(alias) is not None
