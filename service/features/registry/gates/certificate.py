"""The checkpoint has a certificate that verifies."""

from __future__ import annotations

from typing import Final, Literal

from service.errors import ArtifactNotFound
from service.features.registry.gates.kinds import Checked, Document, Finding, Form, GateKind, Remedy
from service.jobs.queries import lookup
from service.models.certificates import evidence as certificates
from service.schema.base import StrictModel


class Fields(StrictModel):
    """Its fields."""

    certificate: Literal[True] | None = None
    """The checkpoint must have a certificate that verifies with a key of this service."""


def _check(checked: Checked, gate: Document) -> Finding:
    """Whether the checkpoint has a certificate, which is verified now."""
    path = f"/jobs/{checked.job.id}/certificate?checkpoint={checked.version.epoch}"
    try:
        checkpoint = lookup.checkpoint(checked.session, checked.job, str(checked.version.epoch))
    except ArtifactNotFound as error:
        return Finding(gate=gate, passed=False, sentence=str(error), evidence={"certified": False})
    found = certificates.state(checked.session, checked.artifacts, checked.job, checkpoint)
    evidence = {"certified": found.certified, "kid": found.kid, "signed_at": found.signed_at}
    sentence = f"{checked.reference}: {found.reason}"
    remedies = [Remedy(method="GET", path=path)] if found.request is not None else []
    return Finding(gate=gate, passed=found.certified, sentence=sentence, evidence=evidence, remedies=remedies)


KIND: Final = GateKind(
    key="certificate",
    fields=Fields,
    check=_check,
    text=lambda gate: "certified",
    form=Form(
        name="Certified",
        begins={"certificate": True},
        text="Its checkpoint has a certificate that verifies with a key of this service",
        remedy="Certify it",
    ),
    example={"certificate": True},
)
