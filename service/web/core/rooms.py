"""What the rooms of features export that the web process loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flask import Blueprint

from service.web.core.core import Core


def _nothing(core: Core) -> Sequence[object]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The endpoints of a feature."""

    blueprint: Blueprint
    provide: Callable[[Core], Sequence[object]] = _nothing
    """Makes the objects of one service, for ``provided``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The pages of a feature."""

    blueprint: Blueprint
