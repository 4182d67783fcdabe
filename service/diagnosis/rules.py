"""Rules that recognize training failures from the metrics of the epochs so far.

A tracker is a fold over the epochs: a worker that takes a job over replays the stored epochs and gets the same
findings. Rules prefer silence to false alarms: they report only trainings that are failing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from service.diagnosis.advice import suggestions
from service.schema.findings import Finding
from service.schema.layer_shapes import Shape
from service.spec.schema import Kind, Spec
from service.states import FindingCode, Severity

WINDOW_EPOCHS: Final = 3
"""Consecutive epochs for which a rule must hold to raise a finding (unless the rule says otherwise), and must not hold
to clear it."""

_COLLAPSED_DIVERSITY: Final = 0.1
"""Samples with less of the diversity of real images than this for two epochs are nearly the same image."""
_LOW_DIVERSITY: Final = 0.25
"""Samples with less for ``WINDOW_EPOCHS`` epochs, at the end not more than at the start, vary too little. A generator
that learns is above it from its first epochs on, or its diversity rises."""
_COVERAGE_LIMITS: Final = ((0.1, 5, 0.95), (0.2, 5, 0.98), (0.5, 10, 0.95))
"""A share of the classes that is too little after so many epochs if the Fréchet distance stays above this part of what
it was. With one or two classes of ten, five epochs decide; half of them may take longer."""

Metrics = Mapping[str, float | None]
Evidence = tuple[str, dict[str, float]]
"""A sentence, and the values that it is based on."""


@dataclass(slots=True)
class MetricHistory:
    """The metrics that the rules need. Its size does not grow with the number of epochs."""

    recent: deque[Metrics] = field(default_factory=lambda: deque(maxlen=WINDOW_EPOCHS + 1))
    evaluated: deque[tuple[int, Metrics]] = field(default_factory=lambda: deque(maxlen=_COVERAGE_LIMITS[-1][1] + 1))
    """The latest epochs of a GAN that the reference classifier scored, with their numbers."""
    first: Metrics = field(default_factory=dict)
    best: Metrics = field(default_factory=dict)
    """The epoch with the lowest validation loss."""
    lowest_loss: float = math.inf
    """The lowest training loss."""
    leak: str | None = None
    """What is known of columns that alone predict the class."""

    def add(self, number: int, epoch: Metrics) -> None:
        """Add the next epoch."""
        self.first = self.first or epoch
        self.recent.append(epoch)
        if epoch.get("mode_coverage") is not None:
            self.evaluated.append((number, epoch))
        if not self.best or _value(epoch, "val_loss") < _value(self.best, "val_loss"):
            self.best = epoch
        if _value(epoch, "train_loss") < self.lowest_loss:
            self.lowest_loss = _value(epoch, "train_loss")

    @property
    def score(self) -> str:
        """The metric of what has been learned: the accuracy, or a regressor's share of the variance."""
        return "val_r2" if "val_r2" in self.first else "val_accuracy"

    def last(self, name: str, count: int = WINDOW_EPOCHS) -> list[float]:
        """The values of the last ``count`` epochs; empty unless all have one."""
        values = [value for epoch in list(self.recent)[-count:] if (value := epoch.get(name)) is not None]
        return values if len(values) == count else []


class DiagnosticsTracker:
    """Tracks the findings of a training, epoch by epoch.

    Args:
        shape: of the dataset: advice must fit it.
        leak: what is known of columns of the dataset that alone predict the class.
        is_fork: whether the first weights are those of a checkpoint, so that another initializer changes nothing.
    """

    def __init__(self, spec: Spec, shape: Shape, leak: str | None = None, *, is_fork: bool = False) -> None:
        self._spec, self._shape, self._is_fork = spec, shape, is_fork
        self._history = MetricHistory(leak=leak)
        self._open: dict[FindingCode, Finding] = {}
        self._epochs_without_evidence: dict[FindingCode, int] = {}

    @property
    def findings(self) -> list[Finding]:
        """The current findings, oldest first."""
        return list(self._open.values())

    def add(self, epoch: int, metrics: Metrics) -> None:
        """Apply the rules to the next epoch. Epochs must be added in order."""
        self._history.add(epoch, {name: _finite(value) for name, value in metrics.items()})
        for rule in _RULES[Kind(self._spec.kind)]:
            if rule.persists is not None and rule.code in self._open:
                if not rule.persists(self._history):
                    del self._open[rule.code]
                continue
            evidence = rule.evidence(self._history)
            if evidence is None:
                self._epochs_without_evidence[rule.code] = self._epochs_without_evidence.get(rule.code, 0) + 1
                if self._epochs_without_evidence[rule.code] >= WINDOW_EPOCHS:
                    self._open.pop(rule.code, None)
                continue
            self._epochs_without_evidence[rule.code] = 0
            if rule.code not in self._open:
                message, numbers = evidence
                self._open[rule.code] = Finding(
                    code=rule.code,
                    severity=rule.severity,
                    epoch=epoch,
                    message=message,
                    numbers=numbers,
                    advice=suggestions(
                        rule.code,
                        self._spec,
                        self._shape,
                        is_stuck=_vanishing_generator_gradient(self._history, 1) is not None,
                        is_fork=self._is_fork,
                    ),
                )


@dataclass(frozen=True, slots=True)
class _Rule:
    code: FindingCode
    severity: Severity
    evidence: Callable[[MetricHistory], Evidence | None]
    persists: Callable[[MetricHistory], bool] | None = None
    """Whether an open finding stays open, if ``WINDOW_EPOCHS`` epochs without evidence do not decide this."""


def _mode_collapse(history: MetricHistory) -> Evidence | None:
    """Samples that are nearly identical or vary little, or with a reference classifier samples of few classes."""
    spread, recent = history.last("sample_diversity", 2), history.last("sample_diversity")
    numbers = {"sample_diversity": spread[-1]} if spread else {}
    if history.evaluated:
        number, latest = history.evaluated[-1]
        numbers |= {name: _value(latest, name) for name in ("mode_coverage", "frechet_distance")}
    if spread and max(spread) < _COLLAPSED_DIVERSITY:
        text = f"the generator makes nearly the same image for all inputs: its samples have {spread[-1]:.1%} of the"
        return f"{text} diversity of real images", numbers
    if recent and max(recent) < _LOW_DIVERSITY and recent[-1] <= recent[0]:
        text = f"the samples are much alike: they have {recent[-1]:.0%} of the diversity of real images"
        return f"{text}, and it does not rise", numbers
    for limit, epochs, falling in _COVERAGE_LIMITS if history.evaluated else ():
        before = [index for index, (earlier, _) in enumerate(history.evaluated) if earlier <= number - epochs]
        since = [metrics for _, metrics in list(history.evaluated)[before[-1] :]] if before else []
        distances = [_value(metrics, "frechet_distance") for metrics in since]
        covers_few = all(_value(metrics, "mode_coverage") <= limit for metrics in since)
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


def _vanishing_gradient(history: MetricHistory) -> Evidence | None:
    """Gradients that vanish towards the first layer, in a network whose loss does not decrease."""
    loss = history.last("train_loss", WINDOW_EPOCHS + 1)
    accuracy = history.last(history.score.replace("val_", "train_"))
    names = [name for name in history.recent[-1] if name.startswith("grad_norm/")]
    norms = [history.last(name) for name in names]
    if len(norms) < 2 or not all(norms) or not loss or not accuracy or loss[-1] < 0.99 * loss[0] or accuracy[-1] > 0.9:
        return None
    largest = [max(values) for values in zip(*norms, strict=True)]
    if all(first < 1e-3 * maximum for first, maximum in zip(norms[0], largest, strict=True)):
        text = f"the gradient norm of the first layer is {norms[0][-1]:.2g}, the largest one {largest[-1]:.2g}"
        numbers = {names[0]: norms[0][-1], "largest": largest[-1], "train_loss": loss[-1]}
        return f"{text}: the lower layers do not learn, and the loss does not decrease", numbers
    return None


def _overfitting(history: MetricHistory) -> Evidence | None:
    """A validation loss well above its best while the training loss fell, without a gain in accuracy."""
    best, latest, score = history.best, history.recent[-1], history.score
    loss, accuracy = history.last("val_loss"), history.last(score)
    lowest, train_loss_at_best = _value(best, "val_loss"), _value(best, "train_loss")
    latest_train_loss = _value(latest, "train_loss")
    if not loss or not accuracy or min(loss) < 1.2 * lowest or latest_train_loss > 0.8 * train_loss_at_best:
        return None
    if max(accuracy) - _value(best, score) < 0.002:
        text = f"the validation loss has risen from {lowest:.3g} to {loss[-1]:.3g}, while the training loss fell from"
        text += f" {train_loss_at_best:.3g} to {latest_train_loss:.3g}: the network memorizes the training data"
        numbers = {"val_loss": loss[-1], "lowest_val_loss": lowest, "train_loss": latest_train_loss}
        return text, numbers | {score: accuracy[-1]}
    return None


def _still_overfitting(history: MetricHistory) -> bool:
    """Whether some recent epoch has not recovered, and some has not gained accuracy: with few examples, one good
    epoch may be chance."""
    loss, accuracy = history.last("val_loss"), history.last(history.score)
    has_recovered = bool(loss) and max(loss) < 1.2 * _value(history.best, "val_loss")
    has_gained = bool(accuracy) and min(accuracy) - _value(history.best, history.score) >= 0.002
    return not has_recovered and not has_gained


def _loss_diverges(history: MetricHistory) -> Evidence | None:
    loss, first, lowest = history.last("train_loss", 2), _value(history.first, "train_loss"), history.lowest_loss
    if loss and min(loss) > max(first, 2 * lowest):
        text = f"the training loss has risen to {loss[-1]:.3g}, from {lowest:.3g} at its best"
        numbers = {"train_loss": loss[-1], "lowest_train_loss": lowest, "first_train_loss": first}
        return f"{text} and {first:.3g} in the first epoch", numbers
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


def _unit_share(metric: str, condition: str) -> Callable[[MetricHistory], Evidence | None]:
    def evidence(history: MetricHistory) -> Evidence | None:
        for name in history.recent[-1]:
            shares = history.last(name) if name.startswith(f"{metric}/") else []
            if shares and min(shares) >= 0.9:
                return f"{shares[-1]:.0%} of {name.partition('/')[2]} {condition}", {name: shares[-1]}
        return None

    return evidence


_dead = _unit_share("dead_units", "are zero for every probe example")
_saturated = _unit_share(
    "saturation", "is saturated: its outputs are near their limits, where the slope is nearly zero"
)


def _leak(history: MetricHistory) -> Evidence | None:
    return (history.leak, {}) if history.leak is not None else None


_OF_SUPERVISED: Final = (
    _Rule(FindingCode.DIVERGING, Severity.ERROR, _loss_diverges),
    _Rule(FindingCode.VANISHING_GRADIENT, Severity.ERROR, _vanishing_gradient),
    _Rule(FindingCode.OVERFITTING, Severity.WARNING, _overfitting, _still_overfitting),
    _Rule(FindingCode.DEAD_UNITS, Severity.WARNING, _dead),
    _Rule(FindingCode.SATURATION, Severity.WARNING, _saturated),
    _Rule(FindingCode.LEAK, Severity.WARNING, _leak),
)
_RULES: Final[dict[Kind, tuple[_Rule, ...]]] = {
    Kind.CLASSIFIER: _OF_SUPERVISED,
    Kind.REGRESSOR: _OF_SUPERVISED,
    Kind.GAN: (
        _Rule(FindingCode.MODE_COLLAPSE, Severity.ERROR, _mode_collapse),
        _Rule(FindingCode.DISCRIMINATOR_WINS, Severity.ERROR, _discriminator_wins),
        _Rule(FindingCode.VANISHING_GRADIENT, Severity.ERROR, _vanishing_generator_gradient),
        _Rule(FindingCode.DIVERGING, Severity.ERROR, _gan_diverges),
        _Rule(FindingCode.DEAD_UNITS, Severity.WARNING, _dead),
        _Rule(FindingCode.SATURATION, Severity.WARNING, _saturated),
    ),
}


def _value(epoch: Metrics, name: str) -> float:
    value = epoch.get(name)
    return math.nan if value is None else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
