"""The metrics of GANs."""

from __future__ import annotations

from typing import Final

from service.schema.metrics import Goal, MetricInfo

METRICS: Final = {
    "d_loss": MetricInfo(
        "discriminator loss",
        "Loss of the discriminator on real and generated images.",
        series=1,
        can_be_negative=True,
    ),
    "g_loss": MetricInfo(
        "generator loss", "Loss of the generator against the discriminator.", series=2, can_be_negative=True
    ),
    "d_real": MetricInfo(
        "D(real)",
        "Mean output of the discriminator for real images: the probability of being real.",
        percent=True,
        series=3,
    ),
    "d_fake": MetricInfo(
        "D(fake)",
        "Mean output of the discriminator for generated images: the probability of being real.",
        percent=True,
        series=4,
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
    ),
    "mode_coverage": MetricInfo(
        "mode coverage",
        "Fraction of the classes that the samples cover.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=3,
        sparse=True,
    ),
    "min_class_share": MetricInfo(
        "rarest class",
        "Fraction of the samples that belong to the rarest class.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=2,
        sparse=True,
    ),
    "class_entropy": MetricInfo(
        "class entropy",
        "Entropy of the predicted class distribution, relative to the uniform one; 100%: all equal.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=6,
        sparse=True,
    ),
    "confidence": MetricInfo(
        "confidence",
        "Mean probability that the reference classifier gives the predicted class.",
        percent=True,
        series=4,
        sparse=True,
    ),
    "sample_diversity": MetricInfo(
        "sample diversity",
        "How much samples differ from each other, relative to real images.",
        percent=True,
        series=5,
        can_exceed_one=True,
    ),
    "d_grad_norm": MetricInfo("discriminator gradient norm", "Mean norm of the discriminator's gradient.", series=1),
    "g_grad_norm": MetricInfo("generator gradient norm", "Mean norm of the generator's gradient.", series=2),
    "d_dead_units": MetricInfo(
        "discriminator dead units", "Dead units of the discriminator.", percent=True, goal=Goal.MINIMIZE, series=1
    ),
    "g_dead_units": MetricInfo(
        "generator dead units", "Dead units of the generator.", percent=True, goal=Goal.MINIMIZE, series=4
    ),
    "d_saturation": MetricInfo(
        "discriminator saturation", "Saturated outputs in the discriminator.", percent=True, series=6
    ),
    "g_saturation": MetricInfo("generator saturation", "Saturated outputs in the generator.", percent=True, series=2),
}
