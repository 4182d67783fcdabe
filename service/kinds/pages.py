"""What each kind of job has on its pages: the room ``page`` of its folder, with its own templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from service import kinds
from service.kinds import rooms


def _no_values(job: Any) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOfKind:
    """The parts of pages that a kind brings with it. Names of templates begin with that of the kind."""

    template: str = "jobs/job.html"
    """The page of a job."""
    values: Callable[[Any], Mapping[str, Any]] = _no_values
    """Values of this template, besides those of all jobs."""
    results: Sequence[str] = ()
    """Sections before the confusion matrix."""
    evaluation: Sequence[str] = ()
    """Sections about the model that is shown, before the samples."""
    examples: Sequence[str] = ()
    """Sections beside the samples."""
    importance: str = ""
    """What the importance of a column is; empty: there is none."""
    curves_term: str = "overfitting"
    """The term that explains the curves."""
    samples_term: str = ""
    play_link: str = ""
    """What leads to the Play page; empty: it depends on the data, and so do the following ones."""
    play_title: str = ""
    play_script: str = ""
    play: str = ""
    """The contents of the Play page."""
    lesson: Callable[[Any, Any], Mapping[str, Any]] | None = None
    """What a job of the reader shows on the Learn page, read in a session."""


_UNKNOWN: Final = PageOfKind()


def page_of(kind: str) -> PageOfKind:
    """What a kind has on its pages."""
    return cast(PageOfKind, rooms.room(kind, "page").PAGE) if kinds.is_known(kind) else _UNKNOWN
