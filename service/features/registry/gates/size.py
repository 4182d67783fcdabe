"""A checkpoint that is not too large."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from service.features.registry.gates.kinds import Checked, Document, Finding, Form, GateKind
from service.schema.base import StrictModel
from service.spec.metric_info import size


class Fields(StrictModel):
    """Its fields."""

    max_bytes: Annotated[int, Field(ge=1, le=2**62)] | None = None
    """The largest size of the checkpoint."""


def _check(checked: Checked, gate: Document) -> Finding:
    found, most = checked.version.size_bytes, gate["max_bytes"]
    sentence = f"the checkpoint has {size(found)}; at most {size(most)} are allowed"
    return Finding(gate=gate, passed=found <= most, sentence=sentence, evidence={"size_bytes": found})


KIND: Final = GateKind(
    key="max_bytes",
    fields=Fields,
    check=_check,
    text=lambda gate: f"checkpoint of at most {size(gate['max_bytes'])}",
    form=Form(name="Size", begins={"max_bytes": 1_000_000}, labels={"max_bytes": "Checkpoint of at most (bytes)"}),
    example={"max_bytes": 1_000_000},
)
