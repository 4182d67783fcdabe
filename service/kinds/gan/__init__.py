"""Generative adversarial networks."""

from __future__ import annotations

from typing import Final

from service.kinds.gan import metrics
from service.kinds.kind import Ability, KindOfJob
from service.states import FindingCode, JobKind

GAN: Final = KindOfJob(
    name=JobKind.GAN.value,
    label="GAN",
    verb="generate",
    purpose="generates images",
    abilities=frozenset({Ability.EXPORT, Ability.GENERATE}),
    metrics=metrics.METRICS,
    key_metrics=("frechet_distance", "g_loss", "d_loss"),
    live_metrics=("g_loss", "d_loss", "frechet_distance"),
    findings=(
        FindingCode.MODE_COLLAPSE,
        FindingCode.DISCRIMINATOR_WINS,
        FindingCode.VANISHING_GRADIENT,
        FindingCode.DIVERGING,
        FindingCode.DEAD_UNITS,
        FindingCode.SATURATION,
    ),
    plots=("curves",),
    result_plots=("curves",),
    shows_best=False,
    shares_samples=True,
    has_reference_classifier=True,
    example={"epochs": 20, "name": "digits", "tags": ["demo"]},
    use_command="generate {}",
    client_call="generate_picture()",
    next_commands=("generate {}",),
)
