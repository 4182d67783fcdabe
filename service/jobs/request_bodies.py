"""Request bodies other than specs: forks, changes of a job, keys, and sign-in."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, StringConstraints, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from service.access.keys import MAX_OVERLAP_S, OVERLAP_S, OWNER, Scope
from service.owner_limits import arranged
from service.schema.base import with_fields_of
from service.spec.schema import JobBudget, Label, PlainText, StrictModel
from service.states import Drain

DEFAULT_PRIORITY: Final = 5


def _which(value: Any) -> str:
    """Validate ``best``, ``latest`` or an epoch number; returns it as text."""
    if value in ("best", "latest") or (type(value) is int and 1 <= value < 10**9):
        return str(value)
    raise PydanticCustomError("checkpoint_name", 'must be "best", "latest" or the number of an epoch')


Which = Annotated[
    str,
    PlainValidator(_which),
    WithJsonSchema({"anyOf": [{"enum": ["best", "latest"]}, {"type": "integer", "minimum": 1}]}),
]


Note = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f]*$")]
"""Multi-line text, without control characters except the newline."""


class ForkRequest(StrictModel):
    """A fork: the checkpoint to continue from, and the settings to change."""

    checkpoint: Which = "latest"
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Fields of a spec; objects merge with the parent's field by field, lists replace."""


class Investigation(StrictModel):
    """Two jobs to retrain side by side, to find where they diverge."""

    a: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]*$")]
    """A job's id, a trial (`swp_…:3`), or a sweep, for its best trial."""
    b: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00-\x1f\x7f]*$")]
    """Another one."""


class SignIn(StrictModel):
    """A key, to be exchanged for a session cookie."""

    key: Annotated[str, Field(min_length=1, max_length=200)]


class KeyRequest(StrictModel):
    """A key to create."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
    """A description for people, such as the program that uses the key."""
    owner: Annotated[str, Field(pattern=f"^{OWNER.pattern}$")]
    """The owner whose jobs and datasets the key gives access to. An owner may have several keys."""
    scope: Scope = Scope.SUBMIT
    lifetime_days: Annotated[float, Field(gt=0, le=3650)] | None = None
    """Days until the key expires; null: never."""


class DrainRequest(StrictModel):
    """How to drain a worker."""

    running: Drain = Drain.RELEASE
    """What happens to its running jobs: other workers continue them (`release`), or they end first (`finish`)."""


class DatasetPatch(StrictModel):
    """A change of a dataset."""

    shared: bool
    """Whether all owners can use it."""


_ORDER: Final = ("weight", "running_jobs", "max_priority", "queued_jobs", "requests_per_minute", "streams")


def _limit_fields() -> dict[str, Any]:
    """Their fields, by name."""
    return {
        limit.name: (
            Annotated[limit.kind, Field(ge=limit.low, le=limit.high)] | None,
            Field(None, description=limit.change or None),
        )
        for limit in arranged(_ORDER)
    }


class _Named(StrictModel):
    display_name: PlainText | None = None
    """A name for people, in any script."""


@with_fields_of(_Named, create_model("_Limits", __base__=StrictModel, **_limit_fields()))
class OwnerPatch(StrictModel):
    """Changes of an owner's settings, as a merge patch (RFC 7396): null sets the default again."""


class KeyRotation(StrictModel):
    """How to rotate a key."""

    overlap_s: Annotated[float, Field(ge=0, le=MAX_OVERLAP_S)] = OVERLAP_S
    """How long the old key stays valid, in seconds, but not beyond its own expiry; 0: it expires at once."""


class JobPatch(StrictModel):
    """Changes of a job that are possible in any state, as a merge patch (RFC 7396): null clears a field."""

    name: PlainText | None = None
    tags: Annotated[list[Label], Field(max_length=20)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    """0 to 5: the order of the owner's jobs; 6 to 9: before those of all owners. A change affects the job the next time
    it is queued."""
    budget: JobBudget | None = None
    """What the job may use before it pauses; null: no limit. For a job that runs, a change counts at once."""
    starred: bool | None = None
    """Whether the job is marked with a star."""
    note: Note | None = None
    """Free text, up to 2,000 characters in any number of lines."""
