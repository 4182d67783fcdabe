"""Suggestions for each finding: settings that the spec does not have yet and that fit its data.

A suggestion contains its settings as data, so that they are checked before they are shown: one that the
service would reject (a shift of a table's rows, label smoothing of a loss without a target) is omitted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.errors import SpecError
from service.spec.dataset_checks import check_fit, table_faults
from service.spec.estimation.layer_shapes import Shape
from service.spec.schema import (
    Activation,
    ClassifierSpec,
    Conv2D,
    Dense,
    Dropout,
    GanSpec,
    Kind,
    Layer,
    Optimizer,
    Spec,
    SupervisedSpec,
    Uniform,
)
from service.spec.validation import overlaid
from service.states import DatasetKind, FindingCode

_ADAM: Final = {"name": "adam", "learning_rate": 0.001}
_STABLE: Final = "stable"
_FULL_MNIST: Final = "mnist"
_DEEP_LAYERS: Final = 4
"""More layers than this may be too many if gradients vanish."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change of the spec to try.

    Attributes:
        settings: fields of a spec that make the change; ``None`` if the text names only a direction.
    """

    text: str
    settings: Mapping[str, Any] | None


def suggestions(code: FindingCode, spec: Spec, shape: Shape) -> list[Suggestion]:
    """The suggestions for a finding. All settings are valid for a job with this spec and data."""
    return [suggestion for suggestion in _ADVICE[Kind(spec.kind), code](spec) if _is_valid(suggestion, spec, shape)]


def _is_valid(suggestion: Suggestion, spec: Spec, shape: Shape) -> bool:
    settings = suggestion.settings
    if settings is None or "preset" in settings or "dataset" in settings:  # other data has another shape
        return True
    try:
        changed_spec = overlaid(spec, settings)
        check_fit(changed_spec, shape)
    except SpecError:
        return False
    return shape.kind is not DatasetKind.TABLE or not table_faults(changed_spec, settings, shape.task)


def _collapse(spec: GanSpec) -> Iterable[Suggestion]:
    path, optimizer = [*_optimizers(spec).items()][-1]
    if spec.preset != _STABLE:
        yield _set("preset", _STABLE)
    if _is_tiny(spec):
        yield _set("initializer", {"name": "glorot"}, "with such small weights, all noise gives the same image")
    if optimizer.name == "sgd":
        yield _set(path, _ADAM | {"beta1": 0.5})
    yield from _discriminator_dropout(spec)
    yield from _smoothing(spec)
    yield _suggest_lower_rate(path, optimizer, 3)


def _strong_discriminator(spec: GanSpec) -> Iterable[Suggestion]:
    yield from _discriminator_dropout(spec)
    yield from _smoothing(spec)
    if spec.discriminator.skip_every is None:
        yield _set("discriminator.skip_every", 3)
    yield _suggest_lower_rate(*[*_optimizers(spec).items()][-1], 3)


def _vanishing(spec: Spec) -> Iterable[Suggestion]:
    layers_path, layers = next(iter(_layers(spec).items()))
    optimizer_path, optimizer = next(iter(_optimizers(spec).items()))
    found = []
    if _is_tiny(spec):
        found.append(_set("initializer", {"name": "glorot"}, "such small weights suppress the signal"))
    if any(_activation(layer) is Activation.SIGMOID for layer in layers[:-1]):
        text = 'activation: "relu" instead of "sigmoid" in the hidden layers, with initializer {"name": "he"}'
        settings = _nested(layers_path, _replace_activations(layers, "relu")) | {"initializer": {"name": "he"}}
        found.append(Suggestion(text, settings))
    if optimizer.name == "sgd":
        found.append(_set(optimizer_path, _ADAM, "its steps do not depend on the gradient's size"))
    if len(layers) > _DEEP_LAYERS:
        found.append(Suggestion(f"fewer layers than {len(layers)}", None))
    rate = _suggest_rate(optimizer_path, optimizer, 3 * optimizer.learning_rate)
    return found or [*_initializers(spec, "tanh"), rate]


def _overfitting(spec: SupervisedSpec) -> Iterable[Suggestion]:
    if not _has_dropout(spec.layers):
        text = "layers: dropout with rate 0.2 to 0.5 after each hidden layer"
        yield from _dropout("layers", spec.layers, 0.3, text)
    if isinstance(spec, ClassifierSpec) and not spec.augmentation.max_shift:
        yield _set("augmentation", {"max_shift": 2}, 'for photos also {"flip": true}', separator=", ")
    if spec.dataset.name == "mnist-10k":
        text = f'dataset.name: "{_FULL_MNIST}" has seven times the images'
        yield Suggestion(text, {"dataset": {"name": _FULL_MNIST}})
    if spec.early_stopping is None:
        yield _set("early_stopping", {"metric": "val_loss", "patience": 5})
    yield Suggestion("fewer units or layers", None)


def _divergence(spec: Spec) -> Iterable[Suggestion]:
    if spec.loss.reduction == "sum":
        yield _set("loss.reduction", "mean")
    if spec.schedule.name == "constant":
        yield _set("schedule", {"name": "one_cycle"})
    for path, optimizer in _optimizers(spec).items():
        yield _suggest_lower_rate(path, optimizer, 10)


def _dead_or_saturated_units(spec: Spec) -> Iterable[Suggestion]:
    for path, optimizer in _optimizers(spec).items():
        yield _suggest_lower_rate(path, optimizer, 10)
    yield from _initializers(spec, "tanh and sigmoid")
    settings: dict[str, Any] = {}
    for path, layers in _layers(spec).items():
        if any(_activation(layer) not in (None, Activation.LEAKY_RELU) for layer in layers[:-1]):
            settings |= _nested(path, _replace_activations(layers, "leaky_relu"))
    if settings:
        yield Suggestion('activation: "leaky_relu" in the hidden layers', settings)


def _leak(spec: SupervisedSpec) -> Iterable[Suggestion]:
    yield Suggestion(
        "if a row to be predicted has no such value, upload the table again with the type ignore for the column", None
    )


_OF_SUPERVISED: Final[dict[FindingCode, Callable[[Any], Iterable[Suggestion]]]] = {
    FindingCode.DIVERGING: _divergence,
    FindingCode.VANISHING_GRADIENT: _vanishing,
    FindingCode.OVERFITTING: _overfitting,
    FindingCode.DEAD_UNITS: _dead_or_saturated_units,
    FindingCode.SATURATION: _dead_or_saturated_units,
    FindingCode.LEAK: _leak,
}
_ADVICE: Final[dict[tuple[Kind, FindingCode], Callable[[Any], Iterable[Suggestion]]]] = {
    **{(kind, code): advice for kind in (Kind.CLASSIFIER, Kind.REGRESSOR) for code, advice in _OF_SUPERVISED.items()},
    (Kind.GAN, FindingCode.MODE_COLLAPSE): _collapse,
    (Kind.GAN, FindingCode.DISCRIMINATOR_WINS): _strong_discriminator,
    (Kind.GAN, FindingCode.VANISHING_GRADIENT): _vanishing,
    (Kind.GAN, FindingCode.DIVERGING): _divergence,
    (Kind.GAN, FindingCode.DEAD_UNITS): _dead_or_saturated_units,
    (Kind.GAN, FindingCode.SATURATION): _dead_or_saturated_units,
}


def _smoothing(spec: GanSpec) -> Iterable[Suggestion]:
    if not spec.discriminator.label_smoothing:
        yield _set("discriminator.label_smoothing", 0.1)


def _discriminator_dropout(spec: GanSpec) -> Iterable[Suggestion]:
    layers = spec.discriminator.layers
    if not _has_dropout(layers):
        text = "discriminator.layers: dropout with rate 0.3 after each hidden layer"
        yield from _dropout("discriminator.layers", layers, 0.3, text)


def _dropout(path: str, layers: Sequence[Layer], rate: float, text: str) -> Iterable[Suggestion]:
    hidden = [index for index, layer in enumerate(layers[:-1]) if isinstance(layer, Dense | Conv2D)]
    if not hidden:
        return
    with_dropout: list[dict[str, Any]] = []
    for index, layer in enumerate(layers):
        with_dropout.append(layer.model_dump(mode="json"))
        if index in hidden:
            with_dropout.append({"type": "dropout", "rate": rate})
    yield Suggestion(text, _nested(path, with_dropout))


def _initializers(spec: Spec, flat: str) -> Iterable[Suggestion]:
    """The initializers for certain activations, except the one that the spec has."""
    suited = {"he": "relu", "glorot": flat}
    others = {name: activations for name, activations in suited.items() if name != spec.initializer.name}
    for name, activations in others.items():
        yield Suggestion(f'initializer: {{"name": "{name}"}} for {activations}', {"initializer": {"name": name}})


def _suggest_lower_rate(path: str, optimizer: Optimizer, factor: int) -> Suggestion:
    return _suggest_rate(path, optimizer, optimizer.learning_rate / factor)


def _suggest_rate(path: str, optimizer: Optimizer, rate: float) -> Suggestion:
    value = float(f"{rate:.2g}")
    settings = _nested(path, {"name": optimizer.name, "learning_rate": value})
    return Suggestion(f"{path}.learning_rate: {value:g} (it is {optimizer.learning_rate:g})", settings)


def _optimizers(spec: Spec) -> dict[str, Optimizer]:
    """The optimizers by path in the spec: of the classifier, or of the generator and then of the discriminator."""
    if isinstance(spec, SupervisedSpec):
        return {"optimizer": spec.optimizer}
    own = {"generator.optimizer": spec.generator.optimizer, "discriminator.optimizer": spec.discriminator.optimizer}
    return dict((path, optimizer) if optimizer else ("optimizer", spec.optimizer) for path, optimizer in own.items())


def _layers(spec: Spec) -> dict[str, Sequence[Layer]]:
    """The layers by path in the spec, in the same order."""
    if isinstance(spec, SupervisedSpec):
        return {"layers": spec.layers}
    return {"generator.layers": spec.generator.layers, "discriminator.layers": spec.discriminator.layers}


def _set(path: str, value: Any, reason: str = "", *, separator: str = "; ") -> Suggestion:
    text = f"{path}: {json.dumps(value)}"
    return Suggestion(f"{text}{separator}{reason}" if reason else text, _nested(path, value))


def _nested(path: str, value: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _replace_activations(layers: Sequence[Layer], activation: str) -> list[dict[str, Any]]:
    """The layers, with another activation in the hidden ones, except linear ones, which precede a
    normalization."""
    changed = [layer.model_dump(mode="json", exclude={"negative_slope"}) for layer in layers]
    for layer in changed[:-1]:
        if layer.get("activation", "linear") != "linear":
            layer["activation"] = activation
    return changed


def _activation(layer: Layer) -> Activation | None:
    activation = getattr(layer, "activation", None)
    return activation if isinstance(activation, Activation) and activation is not Activation.LINEAR else None


def _is_tiny(spec: Spec) -> bool:
    return isinstance(spec.initializer, Uniform) and spec.initializer.scale < 0.02


def _has_dropout(layers: Sequence[Layer]) -> bool:
    return any(isinstance(layer, Dropout) for layer in layers)
