"""What the rooms of features export that the web process loads."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint
from sqlalchemy.orm import Session

from service import declarations
from service.access.shares import Shared
from service.declarations import Entries, Room, extended
from service.errors import TokenRefused
from service.storage.tables import Job
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
class JobPart:
    """What a feature adds to the page of a job."""

    template: str
    """With the macros ``button(checkpoints)``, ``note(found)`` and ``dialog()``."""
    read: Callable[[Session, Job], object]
    """What ``note`` shows about a job. Share links show none: it may be of other objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The pages of a feature."""

    blueprint: Blueprint | None = None
    linked: tuple[Page, ...] = ()
    actions: str = ""
    """A template with the macros ``button()`` and ``dialog(path, noun)``, for pages of jobs, sweeps and comparisons."""
    of_job: JobPart | None = None
    navigation: Entries[str] | None = None
    """Names in the navigation, by the addresses of lists, whose objects have pages below them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Links with which people without a key may read: the room ``gate``."""

    pattern: re.Pattern[str]
    """Of their tokens."""
    find: Callable[[Session, str, Collection[str]], Shared]
    """The valid link of a token, given the owners of the keys in the settings, which have no rows. It raises
    ``refused``."""
    refused: type[TokenRefused]
    """The error for a token that is not valid, or whose link does not show what is asked for; without arguments."""
    cookie: str
    """With the tokens of the links that a browser has opened, separated by dots."""
    max_opened: int = 8
    """Links that a browser remembers; the oldest is forgotten."""

    def opened(self, cookie: str | None) -> list[str]:
        """The tokens of the links that a browser has opened last."""
        return [token for token in (cookie or "").split(".")[-self.max_opened :] if self.pattern.fullmatch(token)]


_NAVIGATION: Final = {
    "/": ("Jobs", ""),
    "/ui/new": ("New job", "changes"),
    "/ui/sweeps": ("Sweeps", ""),
    "/ui/datasets": ("Datasets", ""),
    "/ui/workers": ("Workers", ""),
    "/ui/usage": ("Usage", ""),
    "/ui/keys": ("Keys", "admin"),
    "/ui/learn": ("Learn", ""),
    "/docs": ("API", ""),
}
"""Names in the navigation, and what a key must permit for them, by the addresses of pages."""
_LISTS: Final = ("/ui/datasets", "/ui/sweeps", "/docs")
"""Those with pages below them."""


def navigation(of_features: Sequence[Pages]) -> dict[str, Any]:
    """What templates need to know of them."""
    pages = [page for item in of_features for page in item.linked]

    def section_of(path: str) -> str:
        """The address of the entry in the navigation for a path."""
        return next((page.below for page in pages if path.startswith(page.address)), path)

    def pages_below(address: str) -> list[Page]:
        return [page for page in pages if page.below == address]

    lists = [item.navigation for item in of_features if item.navigation is not None]
    added = (Entries(item.after, {address: (name, "") for address, name in item.items.items()}) for item in lists)
    shown = [(address, name, needs) for address, (name, needs) in extended(_NAVIGATION, added).items()]
    actions = tuple(item.actions for item in of_features if item.actions)
    on_jobs = tuple(item.of_job.template for item in of_features if item.of_job is not None)
    return {
        "navigation": shown,
        "lists": {*_LISTS, *(address for item in lists for address in item.items)},
        "section_of": section_of,
        "pages_below": pages_below,
        "actions_of_features": actions,
        "features_on_jobs": on_jobs,
    }


def read_for_job(session: Session, job: Job) -> dict[str, object]:
    """What features show about a job, by their templates."""
    of_features = declarations.load(Room.PAGES, Pages)
    return {item.of_job.template: item.of_job.read(session, job) for item in of_features if item.of_job is not None}
