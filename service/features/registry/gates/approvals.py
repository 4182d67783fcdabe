"""Other people have looked at it."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from service.features.registry import queries
from service.features.registry.gates.kinds import Checked, Document, Finding, Form, GateKind, Remedy
from service.schema.base import StrictModel
from service.wording import counted


class Fields(StrictModel):
    """Its fields."""

    approvals: Annotated[int, Field(ge=1, le=100)] | None = None
    """Number of keys that must have approved the version: of the owner, or of admins, but not the one that registered
    it."""


def _check(checked: Checked, gate: Document) -> Finding:
    rows = queries.approvals(checked.session, checked.model.id, [checked.version.version])
    needed = gate["approvals"]
    by = [{"owner": row.owner, "key": row.key_id, "note": row.note} for row in rows]
    path = f"/models/{checked.model.name}/versions/{checked.version.version}/approvals"
    sentence = f"{checked.reference} has {counted(len(rows), 'approval')}; it needs {needed}"
    remedies = [] if len(rows) >= needed else [Remedy(method="POST", path=path, body={})]
    return Finding(gate=gate, passed=not remedies, sentence=sentence, evidence={"approvals": by}, remedies=remedies)


KIND: Final = GateKind(
    key="approvals",
    fields=Fields,
    check=_check,
    text=lambda gate: f"approved by {counted(gate['approvals'], 'other key')}",
    form=Form(
        name="Approvals",
        begins={"approvals": 1},
        labels={"approvals": "Approved by this many other keys"},
        remedy="Approve it",
    ),
    example={"approvals": 1},
)
