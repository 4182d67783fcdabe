"""How failures of GANs are recognized, and what helps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from service.kinds.advice import (
    TOGETHER,
    Case,
    dead_or_saturated_units,
    divergence,
    initializers,
    is_tiny,
    lower_rate,
    optimizers,
    rate,
)
from service.kinds.gan.spec import GanSpec
from service.kinds.rules import (
    DEAD,
    MAX_SCORED,
    SATURATED,
    WINDOW_EPOCHS,
    Diagnosis,
    Evidence,
    MetricHistory,
    Rule,
    value,
)
from service.schema.findings import Advice
from service.schema.optimizers import Optimizer
from service.states import FindingCode, Severity

_COLLAPSED_DIVERSITY: Final = 0.1
"""Samples with less of the diversity of real images than this for two epochs are nearly the same image."""
_LOW_DIVERSITY: Final = 0.25
"""Samples with less for ``WINDOW_EPOCHS`` epochs, at the end not more than at the start, vary too little. A generator
that learns is above it from its first epochs on, or its diversity rises."""
_COVERAGE_LIMITS: Final = ((0.1, 5, 0.95), (0.2, 5, 0.98), (0.5, MAX_SCORED, 0.95))
"""A share of the classes that is too little after so many epochs if the Fréchet distance stays above this part of what
it was. With one or two classes of ten, five epochs decide; half of them may take longer."""
_STABLE: Final = "stable"
_BETA1: Final = 0.5
"""Adam's momentum for a GAN."""


def _mode_collapse(history: MetricHistory) -> Evidence | None:
    """Samples that are nearly identical or vary little, or with a reference classifier samples of few classes."""
    spread, recent = history.last("sample_diversity", 2), history.last("sample_diversity")
    numbers = {"sample_diversity": spread[-1]} if spread else {}
    if history.evaluated:
        number, latest = history.evaluated[-1]
        numbers |= {name: value(latest, name) for name in ("mode_coverage", "frechet_distance")}
    if spread and max(spread) < _COLLAPSED_DIVERSITY:
        text = f"the generator makes nearly the same image for all inputs: its samples have {spread[-1]:.1%} of the"
        return f"{text} diversity of real images", numbers
    if recent and max(recent) < _LOW_DIVERSITY and recent[-1] <= recent[0]:
        text = f"the samples are much alike: they have {recent[-1]:.0%} of the diversity of real images"
        return f"{text}, and it does not rise", numbers
    for limit, epochs, falling in _COVERAGE_LIMITS if history.evaluated else ():
        before = [index for index, (earlier, _) in enumerate(history.evaluated) if earlier <= number - epochs]
        since = [metrics for _, metrics in list(history.evaluated)[before[-1] :]] if before else []
        distances = [value(metrics, "frechet_distance") for metrics in since]
        covers_few = all(value(metrics, "mode_coverage") <= limit for metrics in since)
        # A generator in its first epochs also covers few classes, but its distance still decreases.
        if since and covers_few and distances[-1] > falling * distances[0]:
            text = f"the samples cover only {numbers['mode_coverage']:.0%} of the classes, and the Fréchet distance to"
            return f"{text} real images no longer decreases", numbers
    return None


def _discriminator_wins(history: MetricHistory) -> Evidence | None:
    real, fake, loss = (history.last(name) for name in ("d_real", "d_fake", "g_loss"))
    if real and fake and loss and min(real) > 0.8 and max(fake) < 0.02:
        text = f"the discriminator rates real images {real[-1]:.0%} real and generated ones {fake[-1]:.1%}"
        numbers = {"d_real": real[-1], "d_fake": fake[-1], "g_loss": loss[-1]}
        return f"{text}: the generator gets no useful gradient", numbers
    return None


def _vanishing_generator_gradient(history: MetricHistory, epochs: int = WINDOW_EPOCHS) -> Evidence | None:
    generator, discriminator = history.last("g_grad_norm", epochs), history.last("d_grad_norm", epochs)
    if generator and discriminator and all(g < 0.01 * d for g, d in zip(generator, discriminator, strict=True)):
        numbers = {"g_grad_norm": generator[-1], "d_grad_norm": discriminator[-1]}
        text = "the gradient norm of the generator is {g_grad_norm:.2g}, that of the discriminator {d_grad_norm:.2g}"
        return f"{text.format(**numbers)}: the generator hardly learns", numbers
    return None


def _gan_diverges(history: MetricHistory) -> Evidence | None:
    d_loss, g_loss = history.last("d_loss", 2), history.last("g_loss", 2)
    # A generator's loss that has no upper limit can be large in a healthy training.
    has_penalty = bool(history.last("d_penalty"))
    if d_loss and g_loss and (min(d_loss) > 2 or (min(g_loss) > 15 and not has_penalty)):
        text = f"the losses diverge: discriminator {d_loss[-1]:.3g}, generator {g_loss[-1]:.3g}"
        text += "; both are 0.69 when neither network has learned anything"
        return text, {"d_loss": d_loss[-1], "g_loss": g_loss[-1]}
    return None


def _collapse(case: Case) -> Iterable[Advice]:
    spec: GanSpec = case.spec
    yield from _stable_preset(case)
    if case.is_stuck or is_tiny(spec) or _sgd_paths(spec):
        yield from _start_generator(case)
        return
    yield from _bounded_slope(spec)
    yield from _calm_adam(spec)
    if spec.discriminator.pack == 1:
        yield Advice({"discriminator.pack": 2}, "several images at once show a lack of variety")
    yield lower_rate(*_discriminator_optimizer(spec), 3)


def _strong_discriminator(case: Case) -> Iterable[Advice]:
    yield from _bounded_slope(case.spec)
    yield from _calm_adam(case.spec)
    yield lower_rate(*_discriminator_optimizer(case.spec), 3)


def _stuck_generator(case: Case) -> Iterable[Advice]:
    yield from _stable_preset(case)
    yield from _start_generator(case)


def _stable_preset(case: Case) -> Iterable[Advice]:
    if case.spec.preset != _STABLE:
        reason = "enough alone" if is_tiny(case.spec) or _sgd_paths(case.spec) else ""
        if case.is_fork:
            reason = "a new training: a fork keeps the weights of its checkpoint"
        yield Advice({"preset": _STABLE}, reason)


def _start_generator(case: Case) -> Iterable[Advice]:
    """What lets a generator move whose first weights are tiny, or whose steps are as small as its gradient."""
    spec: GanSpec = case.spec
    if is_tiny(spec) and case.is_fork:
        return  # the weights stay tiny, whatever the optimizer
    settings: dict[str, Any] = {"initializer": "glorot"} if is_tiny(spec) else {}
    for path in _sgd_paths(spec):
        settings |= {f"{path}.name": "adam", f"{path}.beta1": _BETA1}
    if settings:
        yield Advice(settings, TOGETHER if "initializer" in settings and len(settings) > 1 else "")
    else:
        path, optimizer = next(iter(optimizers(spec).items()))
        yield from initializers(spec, "tanh")
        yield rate(path, optimizer, 3 * optimizer.learning_rate)


def _bounded_slope(spec: GanSpec) -> Iterable[Advice]:
    network = spec.discriminator
    if not network.r1 and not network.gradient_penalty:
        yield Advice({"discriminator.r1": 1}, "the strongest single cure: it limits the discriminator's slope")


def _calm_adam(spec: GanSpec) -> Iterable[Advice]:
    path, optimizer = _discriminator_optimizer(spec)
    if getattr(optimizer, "beta1", 0.0) > _BETA1:
        yield Advice({f"{path}.beta1": _BETA1}, "Adam's momentum for classifiers makes a GAN overshoot")


def _discriminator_optimizer(spec: GanSpec) -> tuple[str, Optimizer]:
    return [*optimizers(spec).items()][-1]


def _sgd_paths(spec: GanSpec) -> list[str]:
    return [path for path, optimizer in optimizers(spec).items() if optimizer.name == "sgd"]


DIAGNOSIS: Final = Diagnosis(
    rules=(
        Rule(FindingCode.MODE_COLLAPSE, Severity.ERROR, _mode_collapse),
        Rule(FindingCode.DISCRIMINATOR_WINS, Severity.ERROR, _discriminator_wins),
        Rule(FindingCode.VANISHING_GRADIENT, Severity.ERROR, _vanishing_generator_gradient),
        Rule(FindingCode.DIVERGING, Severity.ERROR, _gan_diverges),
        Rule(FindingCode.DEAD_UNITS, Severity.WARNING, DEAD),
        Rule(FindingCode.SATURATION, Severity.WARNING, SATURATED),
    ),
    advice={
        FindingCode.MODE_COLLAPSE: _collapse,
        FindingCode.DISCRIMINATOR_WINS: _strong_discriminator,
        FindingCode.VANISHING_GRADIENT: _stuck_generator,
        FindingCode.DIVERGING: divergence,
        FindingCode.DEAD_UNITS: dead_or_saturated_units,
        FindingCode.SATURATION: dead_or_saturated_units,
    },
    is_stuck=lambda history: _vanishing_generator_gradient(history, 1) is not None,
)
