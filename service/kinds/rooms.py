"""The rooms of kinds that need libraries. Each has a fixed name in the folder of its kind, and is loaded when a process
first needs it: a worker loads no page, and the command line no specs."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any, cast

from service.kinds.specs import SpecsOfKind


def specs(kind: str) -> SpecsOfKind[Any]:
    """What a kind of training says about specs."""
    return cast(SpecsOfKind[Any], room(kind, "checks").SPECS)


@functools.cache
def room(kind: str, name: str) -> Any:
    """The module of a room. The layer that asks says what it has: ``models.kinds``, ``workers.training.kinds``."""
    return import_module(f"{__package__}.{kind}.{name}")
