"""Numbers, counts and lists as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

GROUPED_FROM: Final = 1e4
SCIENTIFIC_FROM: Final = 1e7


def counted(number: int, noun: str) -> str:
    """``1 job``, ``2,000 jobs``, ``2 entries``."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("try") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def listed(items: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; empty parts are left out."""
    *others, last = [item for item in items if item] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def rounded(value: float) -> str:
    """To four digits, without rounding an integer part: ``0.1235``, ``13,608``, but ``1.2e-05`` and ``1.235e+07``.

    The page's ``dom.js`` rounds in the same way.
    """
    short = f"{value:.4g}"
    return f"{value:,.0f}" if GROUPED_FROM <= abs(float(short)) < SCIENTIFIC_FROM else short
