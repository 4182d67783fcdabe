"""What the rooms of features export that the web process loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
class Page:
    """A page of a feature that another page links to, and whose entry in the navigation is its own."""

    address: str
    label: str
    below: str
    """The address of the other page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The pages of a feature."""

    blueprint: Blueprint
    linked: tuple[Page, ...] = ()


def navigation(pages: Sequence[Page]) -> dict[str, Callable[..., Any]]:
    """What templates need to know of them."""

    def section_of(path: str) -> str:
        """The address of the entry in the navigation for a path."""
        return next((page.below for page in pages if path.startswith(page.address)), path)

    def pages_below(address: str) -> list[Page]:
        return [page for page in pages if page.below == address]

    return {"section_of": section_of, "pages_below": pages_below}
