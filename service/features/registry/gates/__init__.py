"""Gates of an alias: what a version must meet before the alias moves to it. A kind of gate is a module and a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy.orm import Session

from service.features.registry.gates import approvals, better, certificate, metric, reproduced, size
from service.features.registry.gates.kinds import Checked, Document, Finding, GateKind
from service.features.registry.tables import Model, ModelVersion
from service.jobs.queries import lookup
from service.schema.base import StrictModel, with_fields_of
from service.storage.artifacts import ArtifactStore
from service.wording import listed

KINDS: Final = (metric.KIND, better.KIND, reproduced.KIND, certificate.KIND, size.KIND, approvals.KIND)
MAX_GATES: Final = 20


def _kind_of(names: Mapping[str, Any]) -> GateKind | None:
    """The kind of a gate, by its fields; those that share fields with others are below them. ``None``: it has fields
    that no kind of this version has."""
    return next((kind for kind in reversed(KINDS) if kind.key in names and names.keys() <= kind.names), None)


_NOUNS: Final = [kind.noun or f"`{kind.key}`" for kind in KINDS]


@with_fields_of(*(kind.fields for kind in KINDS), description=f"One condition: {listed(_NOUNS, 'or')}.")
class Gate(StrictModel):
    """One condition."""

    @model_validator(mode="after")
    def _is_one_condition(self) -> Self:
        given = self.model_dump(exclude_none=True)
        kind = _kind_of(given)
        if kind is None:
            kinds = listed([kind.named or f"`{kind.key}`" for kind in KINDS], "or")
            raise PydanticCustomError("not_one_condition", "must be one condition: {kinds}", {"kinds": kinds})
        kind.valid(self)
        return self

    def document(self) -> dict[str, Any]:
        """As JSON: the fields that apply, with their defaults."""
        given = self.model_dump(mode="json", exclude_none=True)
        kind = _kind_of(given)
        return {**(kind.defaults if kind else {}), **given}


class GatesRequest(StrictModel):
    """What a version must meet before an alias moves to it."""

    EXAMPLES: ClassVar = {
        "gates": {
            "gates": [
                {"metric": "val_accuracy", "min": 0.97},
                {"better_than": "@champion", "metric": "val_accuracy", "seeds": 5, "confidence": 0.95},
                {"reproduced": True},
            ]
        }
    }

    gates: Annotated[list[Gate], Field(max_length=MAX_GATES)]
    """An empty list: nothing."""


def check(
    session: Session,
    artifacts: ArtifactStore,
    model: Model,
    version: ModelVersion,
    gates: Sequence[Document],
    *,
    owner: str | None,
) -> list[Finding]:
    """What each gate, as stored, finds about a version."""
    job = lookup.get(session, version.job_id)
    checked = Checked(session=session, artifacts=artifacts, owner=owner, model=model, version=version, job=job)
    return [_check(checked, gate) for gate in gates]


def _check(checked: Checked, gate: Document) -> Finding:
    kind = _kind_of(gate)
    if kind is None:  # of a newer version of the service
        sentence = f"this version of the service cannot check it: {gate_text(gate)}"
        return Finding(gate=gate, passed=False, sentence=sentence, evidence={})
    return kind.check(checked, gate)


def gate_text(gate: Document) -> str:
    """What a gate requires: ``val accuracy at least 97.00%``; of a kind that is not known here, its fields."""
    kind = _kind_of(gate)
    if kind is None:
        return ", ".join(name if value is True else f"{name} {value}" for name, value in gate.items())
    return kind.text(gate)


def examples(*, is_markdown: bool, with_defaults: bool) -> list[str]:
    """A gate of each kind, for a sentence.

    Args:
        with_defaults: also with the fields that may be left out.
    """
    return [kind.in_words(is_markdown=is_markdown, with_defaults=with_defaults) for kind in KINDS]


def forms() -> list[dict[str, Any]]:
    """How the page edits gates of each kind: ``Form``, the key, and the names of all fields."""
    return [{"key": kind.key, "names": sorted(kind.names), **asdict(kind.form)} for kind in KINDS]
