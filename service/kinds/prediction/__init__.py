"""Predictions of whole datasets with a trained model."""

from __future__ import annotations

from typing import Final

from service.kinds.kind import KindOfJob
from service.states import Action, JobKind

PREDICTION: Final = KindOfJob(
    name=JobKind.PREDICTION.value,
    trains=False,
    remedies={None: "it has no model; the one that predicts is {job.resolved[model][job]}"},
    # It starts again after each interruption, so a pause would keep nothing.
    excluded_actions=frozenset({Action.FORK, Action.REPRODUCE, Action.PAUSE}),
    summary="{kind} of {dataset[name]} ({dataset[part]}) by {model[job]}, epoch {model[checkpoint]}",
    uses_model="named as {model[reference]}, SHA-256 {model[sha256]}",
)
