"""The metrics of GANs."""

from __future__ import annotations

from typing import Final

from service.schema.metrics import DEAD_UNITS, GRADIENT_NORMS, Chart, Goal, MetricInfo, Place

_LOSSES: Final = Chart("GAN losses", Place.MAIN)
_OUTPUTS: Final = Chart("discriminator outputs", Place.MAIN)
_QUALITY: Final = Chart("quality of the samples", Place.MAIN)
METRICS: Final = {
    "d_loss": MetricInfo(
        "discriminator loss",
        "Loss of the discriminator on real and generated images.",
        series=1,
        can_be_negative=True,
        chart=_LOSSES,
        tile=12,
    ),
    "g_loss": MetricInfo(
        "generator loss",
        "Loss of the generator against the discriminator.",
        series=2,
        can_be_negative=True,
        chart=_LOSSES,
        tile=11,
    ),
    "d_real": MetricInfo(
        "D(real)",
        "Mean output of the discriminator for real images: the probability of being real.",
        percent=True,
        series=3,
        chart=_OUTPUTS,
        tile=13,
    ),
    "d_fake": MetricInfo(
        "D(fake)",
        "Mean output of the discriminator for generated images: the probability of being real.",
        percent=True,
        series=4,
        chart=_OUTPUTS,
        tile=14,
    ),
    "d_penalty": MetricInfo(
        "discriminator penalty", "Weighted penalties on the slope of the discriminator.", goal=Goal.MINIMIZE, series=6
    ),
    "frechet_distance": MetricInfo(
        "Fréchet distance",
        "Distance between generated and real images in the features of the reference classifier; 0: no difference.",
        goal=Goal.MINIMIZE,
        series=1,
        sparse=True,
        chart=Chart("Fréchet distance", Place.MAIN),
        tile=8,
    ),
    "mode_coverage": MetricInfo(
        "mode coverage",
        "Fraction of the classes that the samples cover.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=3,
        sparse=True,
        chart=_QUALITY,
        line=4,
        tile=9,
    ),
    "min_class_share": MetricInfo(
        "rarest class",
        "Fraction of the samples that belong to the rarest class.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=2,
        sparse=True,
        chart=_QUALITY,
        line=3,
    ),
    "class_entropy": MetricInfo(
        "class entropy",
        "Entropy of the predicted class distribution, relative to the uniform one; 100%: all equal.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=6,
        sparse=True,
        chart=_QUALITY,
        line=2,
    ),
    "confidence": MetricInfo(
        "confidence",
        "Mean probability that the reference classifier gives the predicted class.",
        percent=True,
        series=4,
        sparse=True,
        chart=_QUALITY,
        line=1,
    ),
    "sample_diversity": MetricInfo(
        "sample diversity",
        "How much samples differ from each other, relative to real images.",
        percent=True,
        series=5,
        can_exceed_one=True,
        chart=_QUALITY,
        tile=10,
    ),
    "d_grad_norm": MetricInfo(
        "discriminator gradient norm", "Mean norm of the discriminator's gradient.", series=1, chart=GRADIENT_NORMS
    ),
    "g_grad_norm": MetricInfo(
        "generator gradient norm", "Mean norm of the generator's gradient.", series=2, chart=GRADIENT_NORMS
    ),
    "d_dead_units": MetricInfo(
        "discriminator dead units",
        "Dead units of the discriminator.",
        percent=True,
        goal=Goal.MINIMIZE,
        series=1,
        chart=DEAD_UNITS,
        line=3,
    ),
    "g_dead_units": MetricInfo(
        "generator dead units",
        "Dead units of the generator.",
        percent=True,
        goal=Goal.MINIMIZE,
        series=4,
        chart=DEAD_UNITS,
        line=5,
    ),
    "d_saturation": MetricInfo(
        "discriminator saturation",
        "Saturated outputs in the discriminator.",
        percent=True,
        series=6,
        chart=DEAD_UNITS,
        line=2,
    ),
    "g_saturation": MetricInfo(
        "generator saturation", "Saturated outputs in the generator.", percent=True, series=2, chart=DEAD_UNITS, line=4
    ),
}
