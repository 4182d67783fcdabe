"""How failures of classifiers and regressors are recognized, and what helps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from service.kinds.advice import (
    Case,
    activation_of,
    dead_or_saturated_units,
    divergence,
    initializers,
    is_tiny,
    rate,
    replace_activations,
    short,
)
from service.kinds.rules import DEAD, SATURATED, WINDOW_EPOCHS, Diagnosis, Evidence, MetricHistory, Rule, value
from service.kinds.supervised.spec import SupervisedSpec
from service.schema.findings import Advice
from service.schema.layers import Activation, Conv2D, Dense, Dropout, Layer
from service.states import FindingCode, Severity

_FULL_MNIST: Final = "mnist"
_DEEP_LAYERS: Final = 4
"""More layers than this may be too many if gradients vanish."""


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


def _overfits(history: MetricHistory) -> Evidence | None:
    """A validation loss well above its best while the training loss fell, without a gain in accuracy."""
    best, latest, score = history.best, history.recent[-1], history.score
    loss, accuracy = history.last("val_loss"), history.last(score)
    lowest, train_loss_at_best = value(best, "val_loss"), value(best, "train_loss")
    latest_train_loss = value(latest, "train_loss")
    if not loss or not accuracy or min(loss) < 1.2 * lowest or latest_train_loss > 0.8 * train_loss_at_best:
        return None
    if max(accuracy) - value(best, score) < 0.002:
        text = f"the validation loss has risen from {lowest:.3g} to {loss[-1]:.3g}, while the training loss fell from"
        text += f" {train_loss_at_best:.3g} to {latest_train_loss:.3g}: the network memorizes the training data"
        numbers = {"val_loss": loss[-1], "lowest_val_loss": lowest, "train_loss": latest_train_loss}
        return text, numbers | {score: accuracy[-1]}
    return None


def _still_overfitting(history: MetricHistory) -> bool:
    """Whether some recent epoch has not recovered, and some has not gained accuracy: with few examples, one good
    epoch may be chance."""
    loss, accuracy = history.last("val_loss"), history.last(history.score)
    has_recovered = bool(loss) and max(loss) < 1.2 * value(history.best, "val_loss")
    has_gained = bool(accuracy) and min(accuracy) - value(history.best, history.score) >= 0.002
    return not has_recovered and not has_gained


def _loss_diverges(history: MetricHistory) -> Evidence | None:
    loss, first, lowest = history.last("train_loss", 2), value(history.first, "train_loss"), history.lowest_loss
    if loss and min(loss) > max(first, 2 * lowest):
        text = f"the training loss has risen to {loss[-1]:.3g}, from {lowest:.3g} at its best"
        numbers = {"train_loss": loss[-1], "lowest_train_loss": lowest, "first_train_loss": first}
        return f"{text} and {first:.3g} in the first epoch", numbers
    return None


def _leaks(history: MetricHistory) -> Evidence | None:
    return (history.leak, {}) if history.leak is not None else None


def _vanishing(case: Case) -> Iterable[Advice]:
    spec: SupervisedSpec = case.spec
    optimizer = spec.optimizer
    found = []
    if is_tiny(case.spec):
        found.append(Advice({"initializer": "glorot"}, "such small weights suppress the signal"))
    if any(activation_of(layer) is Activation.SIGMOID for layer in spec.layers[:-1]):
        settings = {"layers": replace_activations(spec.layers, "relu"), "initializer": "he"}
        found.append(Advice(settings, "relu instead of sigmoid in the hidden layers, with the initializer for it"))
    if optimizer.name == "sgd":
        found.append(Advice({"optimizer": "adam"}, "its steps do not depend on the gradient's size"))
    if len(spec.layers) > _DEEP_LAYERS:
        found.append(Advice({}, f"fewer layers than {len(spec.layers)}"))
    faster = rate("optimizer", optimizer, 3 * optimizer.learning_rate)
    return found or [*initializers(case.spec, "tanh"), faster]


def overfitting(case: Case, *, augmentation: Iterable[Advice] = ()) -> Iterable[Advice]:
    """Settings against overfitting; those of the data come after dropout."""
    spec: SupervisedSpec = case.spec
    if not _has_dropout(spec.layers):
        yield from _dropout(spec.layers, 0.3)
    yield from augmentation
    if spec.dataset.name == "mnist-10k":
        yield Advice({"dataset.name": _FULL_MNIST}, "it has seven times the images")
    if spec.early_stopping is None:
        yield Advice({"early_stopping.metric": "val_loss", "early_stopping.patience": 5})
    yield Advice({}, "fewer units or layers")


def _leak(case: Case) -> Iterable[Advice]:
    yield Advice(
        {}, "if a row to be predicted has no such value, upload the table again with the type ignore for the column"
    )


def _dropout(layers: Sequence[Layer], rate: float) -> Iterable[Advice]:
    hidden = [index for index, layer in enumerate(layers[:-1]) if isinstance(layer, Dense | Conv2D)]
    if not hidden:
        return
    with_dropout: list[dict[str, Any]] = []
    for index, layer in enumerate(layers):
        with_dropout.append(short(layer))
        if index in hidden:
            with_dropout.append({"type": "dropout", "rate": rate})
    yield Advice({"layers": with_dropout}, f"dropout with rate {rate} after each hidden layer")


def _has_dropout(layers: Sequence[Layer]) -> bool:
    return any(isinstance(layer, Dropout) for layer in layers)


DIAGNOSIS: Final = Diagnosis(
    rules=(
        Rule(FindingCode.DIVERGING, Severity.ERROR, _loss_diverges),
        Rule(FindingCode.VANISHING_GRADIENT, Severity.ERROR, _vanishing_gradient),
        Rule(FindingCode.OVERFITTING, Severity.WARNING, _overfits, _still_overfitting),
        Rule(FindingCode.DEAD_UNITS, Severity.WARNING, DEAD),
        Rule(FindingCode.SATURATION, Severity.WARNING, SATURATED),
        Rule(FindingCode.LEAK, Severity.WARNING, _leaks),
    ),
    advice={
        FindingCode.DIVERGING: divergence,
        FindingCode.VANISHING_GRADIENT: _vanishing,
        FindingCode.OVERFITTING: overfitting,
        FindingCode.DEAD_UNITS: dead_or_saturated_units,
        FindingCode.SATURATION: dead_or_saturated_units,
        FindingCode.LEAK: _leak,
    },
)
