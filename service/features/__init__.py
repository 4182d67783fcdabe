"""Features: what can be removed without the kernel noticing, a folder and a line of this list each.

A feature may use those below it. The kernel calls them in this order.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from service.declarations import Feature

_NAMES: Final = (
    "registry",
    "sweeps",
    "sharing",
    "webhooks",
    "comparing",
)  # fmt: skip
FEATURES: Final[tuple[Feature, ...]] = tuple(import_module(f"{__name__}.{name}").FEATURE for name in _NAMES)
