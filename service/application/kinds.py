"""How jobs of a kind that trains nothing are submitted: the room ``submission`` of its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from service.application.specs import Forecast, SpecChecks
from service.jobs.submissions import Submission
from service.kinds import rooms


class Checked(Protocol):
    """A job that can be submitted."""

    @property
    def dataset(self) -> str:
        """The name of its dataset."""

    def submission(self, document: Any, owner: str | None) -> Submission:
        """What is stored of it.

        Args:
            document: the spec as sent.
        """

    def forecast(self, notes_on_data: Sequence[str]) -> Forecast:
        """The response to a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionOfKind:
    """The submissions of a kind."""

    check: Callable[[SpecChecks, Mapping[str, Any], str | None], Checked]
    """Check a spec of an owner completely. Raises ``SpecError``, which lists every fault."""


def check(specs: SpecChecks, document: Mapping[str, Any], owner: str | None) -> Checked:
    """Check a spec by its kind.

    Raises:
        SpecError: lists every fault.
    """
    submission = cast(SubmissionOfKind, rooms.room(document["kind"], "submission").SUBMISSION)
    return submission.check(specs, document, owner)
