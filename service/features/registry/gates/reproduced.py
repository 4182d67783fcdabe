"""The job was reproduced bit for bit."""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import select

from service.features.registry.gates.kinds import Checked, Document, Finding, Form, GateKind, Remedy
from service.jobs.actions import refutes
from service.schema.base import StrictModel
from service.states import TERMINAL, Status
from service.storage.tables import Job


class Fields(StrictModel):
    """Its fields."""

    reproduced: Literal[True] | None = None
    """The job must have been reproduced with the same bits."""


def _check(checked: Checked, gate: Document) -> Finding:
    """Whether a reproduction of the job ended with the same bits, and none with others."""
    job = checked.job
    query = select(Job).where(Job.parent_id == job.id, Job.reproduction.is_not(None)).order_by(Job.created_ms, Job.id)
    rows = [row for row in checked.session.scalars(query) if row.reproduction is not None]
    matches = {row.id: (row.reproduction or {}).get("match") for row in rows}
    equal = [job_id for job_id, match in matches.items() if match]
    different = [row for row in rows if refutes(row)]
    open_ids = [row.id for row in rows if matches[row.id] is None and row.status not in TERMINAL]
    remedies: list[Remedy] = []
    if not job.reusable:
        sentence = (
            f"the bits of job {job.id} are in doubt: it went on in another environment, or an epoch that was trained "
            "again or a reproduction had others; register another job"
        )
    elif different:
        first = (different[0].reproduction or {}).get("first_difference") or {}
        sentence = f"{different[0].id} did not reproduce job {job.id}: epoch {first.get('epoch')} differs"
    elif equal:
        sentence = f"{equal[0]} reproduced job {job.id} with the same bits"
    elif open_ids:
        sentence = f"{open_ids[0]} is reproducing job {job.id}, and has not ended"
    elif job.status != Status.SUCCEEDED:
        sentence = f"job {job.id} is {job.status}: only a succeeded job can be reproduced"
    else:
        sentence = f"job {job.id} has not been reproduced"
        remedies = [Remedy(method="POST", path=f"/jobs/{job.id}/reproduce")]
    passed = bool(equal) and not different and job.reusable
    return Finding(gate=gate, passed=passed, sentence=sentence, evidence={"reproductions": matches}, remedies=remedies)


KIND: Final = GateKind(
    key="reproduced",
    fields=Fields,
    check=_check,
    text=lambda gate: "reproduced bit for bit",
    form=Form(
        name="Reproduced",
        begins={"reproduced": True},
        text="Its job was reproduced with the same bits",
        remedy="Reproduce the job",
    ),
    example={"reproduced": True},
)
