"""The parts of pages that GANs bring with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.orm import Session

from service.jobs.queries import lookup
from service.kinds.pages import PageOfKind
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Job


def _lesson(session: Session, job: Job) -> Mapping[str, Any]:
    values = {row.epoch: row.metrics.get("frechet_distance") for row in lookup.epochs(session, job.id)}
    distances = {epoch: value for epoch, value in values.items() if value is not None}
    has_samples = bool(lookup.artifact_epochs(session, [job.id], ArtifactKind.SAMPLE))
    return {"distances": distances if len(distances) > 1 else None, "samples": has_samples}


PAGE: Final = PageOfKind(
    curves_term="gan",
    samples_term="latent-space",
    play_link="Explore the latent space",
    play_title="Latent space",
    play_script="play/latent.js",
    play="gan/latent.html",
    lesson=_lesson,
)
