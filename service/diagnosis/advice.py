"""Advice for each finding: settings that the spec does not have yet and that fit its data.

Advice contains its settings as data, so that they are checked before they are shown: what the service would
reject (a shift of a table's rows, a penalty for a discriminator with batch normalization) is omitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.errors import SpecError
from service.schema.findings import Advice
from service.schema.layer_shapes import Shape
from service.spec.dataset_checks import check_fit, table_faults
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

_STABLE: Final = "stable"
_FULL_MNIST: Final = "mnist"
_DEEP_LAYERS: Final = 4
"""More layers than this may be too many if gradients vanish."""
_GAN_BETA1: Final = 0.5
"""Adam's momentum for a GAN."""
_TOGETHER: Final = "together: neither is enough alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A training that needs advice."""

    spec: Any
    """A ``Spec`` of the kind that the advice is for."""
    is_stuck: bool
    """Whether the generator's gradient has vanished, so that it hardly moves."""
    is_fork: bool


def suggestions(
    code: FindingCode, spec: Spec, shape: Shape, *, is_stuck: bool = False, is_fork: bool = False
) -> list[Advice]:
    """The advice for a finding, best first. All settings are valid for a new job with this spec and data.

    Args:
        is_stuck: whether a GAN's generator hardly moves.
        is_fork: whether the first weights are those of a checkpoint: no initializer is suggested then.
    """
    case = _Case(spec=spec, is_stuck=is_stuck, is_fork=is_fork)
    advice = _ADVICE[Kind(spec.kind), code](case)
    return [
        item for item in advice if not (is_fork and "initializer" in item.settings) and _is_valid(item, spec, shape)
    ]


def _is_valid(advice: Advice, spec: Spec, shape: Shape) -> bool:
    settings = document(advice.settings)
    if not settings or "preset" in settings or "dataset" in settings:  # other data has another shape
        return True
    try:
        changed_spec = overlaid(spec, settings)
        check_fit(changed_spec, shape)
    except SpecError:
        return False
    return shape.kind is not DatasetKind.TABLE or not table_faults(changed_spec, settings, shape.task)


def document(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name as the part of a spec that they make up."""
    nested: dict[str, Any] = {}
    for setting, value in settings.items():
        *path, leaf = setting.split(".")
        node = nested
        for name in path:
            node = node.setdefault(name, {})
        node[leaf] = value
    return nested


def _collapse(case: _Case) -> Iterable[Advice]:
    spec: GanSpec = case.spec
    yield from _stable_preset(case)
    if case.is_stuck or _is_tiny(spec) or _sgd_paths(spec):
        yield from _start_generator(case)
        return
    yield from _bounded_slope(spec)
    yield from _calm_adam(spec)
    if spec.discriminator.pack == 1:
        yield Advice({"discriminator.pack": 2}, "several images at once show a lack of variety")
    yield _lower_rate(*_discriminator_optimizer(spec), 3)


def _strong_discriminator(case: _Case) -> Iterable[Advice]:
    yield from _bounded_slope(case.spec)
    yield from _calm_adam(case.spec)
    yield _lower_rate(*_discriminator_optimizer(case.spec), 3)


def _stuck_generator(case: _Case) -> Iterable[Advice]:
    yield from _stable_preset(case)
    yield from _start_generator(case)


def _stable_preset(case: _Case) -> Iterable[Advice]:
    if case.spec.preset != _STABLE:
        reason = "enough alone" if _is_tiny(case.spec) or _sgd_paths(case.spec) else ""
        if case.is_fork:
            reason = "a new training: a fork keeps the weights of its checkpoint"
        yield Advice({"preset": _STABLE}, reason)


def _start_generator(case: _Case) -> Iterable[Advice]:
    """What lets a generator move whose first weights are tiny, or whose steps are as small as its gradient."""
    spec: GanSpec = case.spec
    if _is_tiny(spec) and case.is_fork:
        return  # the weights stay tiny, whatever the optimizer
    settings: dict[str, Any] = {"initializer": "glorot"} if _is_tiny(spec) else {}
    for path in _sgd_paths(spec):
        settings |= {f"{path}.name": "adam", f"{path}.beta1": _GAN_BETA1}
    if settings:
        yield Advice(settings, _TOGETHER if "initializer" in settings and len(settings) > 1 else "")
    else:
        path, optimizer = next(iter(_optimizers(spec).items()))
        yield from _initializers(spec, "tanh")
        yield _rate(path, optimizer, 3 * optimizer.learning_rate)


def _bounded_slope(spec: GanSpec) -> Iterable[Advice]:
    network = spec.discriminator
    if not network.r1 and not network.gradient_penalty:
        yield Advice({"discriminator.r1": 1}, "the strongest single cure: it limits the discriminator's slope")


def _calm_adam(spec: GanSpec) -> Iterable[Advice]:
    path, optimizer = _discriminator_optimizer(spec)
    if getattr(optimizer, "beta1", 0.0) > _GAN_BETA1:
        yield Advice({f"{path}.beta1": _GAN_BETA1}, "Adam's momentum for classifiers makes a GAN overshoot")


def _vanishing(case: _Case) -> Iterable[Advice]:
    spec: SupervisedSpec = case.spec
    optimizer = spec.optimizer
    found = []
    if _is_tiny(case.spec):
        found.append(Advice({"initializer": "glorot"}, "such small weights suppress the signal"))
    if any(_activation(layer) is Activation.SIGMOID for layer in spec.layers[:-1]):
        settings = {"layers": _replace_activations(spec.layers, "relu"), "initializer": "he"}
        found.append(Advice(settings, "relu instead of sigmoid in the hidden layers, with the initializer for it"))
    if optimizer.name == "sgd":
        found.append(Advice({"optimizer": "adam"}, "its steps do not depend on the gradient's size"))
    if len(spec.layers) > _DEEP_LAYERS:
        found.append(Advice({}, f"fewer layers than {len(spec.layers)}"))
    rate = _rate("optimizer", optimizer, 3 * optimizer.learning_rate)
    return found or [*_initializers(case.spec, "tanh"), rate]


def _overfitting(case: _Case) -> Iterable[Advice]:
    spec: SupervisedSpec = case.spec
    if not _has_dropout(spec.layers):
        yield from _dropout(spec.layers, 0.3)
    if isinstance(spec, ClassifierSpec) and not spec.augmentation.max_shift:
        yield Advice({"augmentation.max_shift": 2}, "for photos also augmentation.flip=true")
    if spec.dataset.name == "mnist-10k":
        yield Advice({"dataset.name": _FULL_MNIST}, "it has seven times the images")
    if spec.early_stopping is None:
        yield Advice({"early_stopping.metric": "val_loss", "early_stopping.patience": 5})
    yield Advice({}, "fewer units or layers")


def _divergence(case: _Case) -> Iterable[Advice]:
    spec: Spec = case.spec
    if spec.loss.reduction == "sum":
        yield Advice({"loss.reduction": "mean"})
    if spec.schedule.name == "constant":
        yield Advice({"schedule": "one_cycle"})
    for path, optimizer in _optimizers(spec).items():
        yield _lower_rate(path, optimizer, 10)


def _dead_or_saturated_units(case: _Case) -> Iterable[Advice]:
    spec: Spec = case.spec
    for path, optimizer in _optimizers(spec).items():
        yield _lower_rate(path, optimizer, 10)
    yield from _initializers(spec, "tanh and sigmoid")
    settings: dict[str, Any] = {}
    for path, layers in _layers(spec).items():
        if any(_activation(layer) not in (None, Activation.LEAKY_RELU) for layer in layers[:-1]):
            settings[path] = _replace_activations(layers, "leaky_relu")
    if settings:
        yield Advice(settings, "leaky_relu in the hidden layers")


def _leak(case: _Case) -> Iterable[Advice]:
    yield Advice(
        {}, "if a row to be predicted has no such value, upload the table again with the type ignore for the column"
    )


_OF_SUPERVISED: Final[dict[FindingCode, Callable[[_Case], Iterable[Advice]]]] = {
    FindingCode.DIVERGING: _divergence,
    FindingCode.VANISHING_GRADIENT: _vanishing,
    FindingCode.OVERFITTING: _overfitting,
    FindingCode.DEAD_UNITS: _dead_or_saturated_units,
    FindingCode.SATURATION: _dead_or_saturated_units,
    FindingCode.LEAK: _leak,
}
_ADVICE: Final[dict[tuple[Kind, FindingCode], Callable[[_Case], Iterable[Advice]]]] = {
    **{(kind, code): advice for kind in (Kind.CLASSIFIER, Kind.REGRESSOR) for code, advice in _OF_SUPERVISED.items()},
    (Kind.GAN, FindingCode.MODE_COLLAPSE): _collapse,
    (Kind.GAN, FindingCode.DISCRIMINATOR_WINS): _strong_discriminator,
    (Kind.GAN, FindingCode.VANISHING_GRADIENT): _stuck_generator,
    (Kind.GAN, FindingCode.DIVERGING): _divergence,
    (Kind.GAN, FindingCode.DEAD_UNITS): _dead_or_saturated_units,
    (Kind.GAN, FindingCode.SATURATION): _dead_or_saturated_units,
}


def _dropout(layers: Sequence[Layer], rate: float) -> Iterable[Advice]:
    hidden = [index for index, layer in enumerate(layers[:-1]) if isinstance(layer, Dense | Conv2D)]
    if not hidden:
        return
    with_dropout: list[dict[str, Any]] = []
    for index, layer in enumerate(layers):
        with_dropout.append(_short(layer))
        if index in hidden:
            with_dropout.append({"type": "dropout", "rate": rate})
    yield Advice({"layers": with_dropout}, f"dropout with rate {rate} after each hidden layer")


def _initializers(spec: Spec, flat: str) -> Iterable[Advice]:
    """The initializers for certain activations, except the one that the spec has."""
    suited = {"he": "relu", "glorot": flat}
    for name, activations in suited.items():
        if name != spec.initializer.name:
            yield Advice({"initializer": name}, f"for {activations}")


def _lower_rate(path: str, optimizer: Optimizer, factor: int) -> Advice:
    return _rate(path, optimizer, optimizer.learning_rate / factor)


def _rate(path: str, optimizer: Optimizer, rate: float) -> Advice:
    return Advice({f"{path}.learning_rate": float(f"{rate:.2g}")}, f"it is {optimizer.learning_rate:g}")


def _discriminator_optimizer(spec: GanSpec) -> tuple[str, Optimizer]:
    return [*_optimizers(spec).items()][-1]


def _sgd_paths(spec: GanSpec) -> list[str]:
    return [path for path, optimizer in _optimizers(spec).items() if optimizer.name == "sgd"]


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


def _short(layer: Layer) -> dict[str, Any]:
    """A layer as a user writes it: without defaults."""
    given = {"type", *layer.model_dump(exclude_defaults=True)}
    fields = {name: value for name, value in layer.model_dump(mode="json").items() if name in given}
    return {name: value for name, value in fields.items() if (name, value) != ("type", "dense")}


def _replace_activations(layers: Sequence[Layer], activation: str) -> list[dict[str, Any]]:
    """The layers, with another activation in the hidden ones, except linear ones, which precede a
    normalization."""
    changed = [_short(layer) for layer in layers]
    for layer in changed[:-1]:
        if layer.get("activation", "linear") != "linear":
            layer["activation"] = activation
            layer.pop("negative_slope", None)
    return changed


def _activation(layer: Layer) -> Activation | None:
    activation = getattr(layer, "activation", None)
    return activation if isinstance(activation, Activation) and activation is not Activation.LINEAR else None


def _is_tiny(spec: Spec) -> bool:
    return isinstance(spec.initializer, Uniform) and spec.initializer.scale < 0.02


def _has_dropout(layers: Sequence[Layer]) -> bool:
    return any(isinstance(layer, Dropout) for layer in layers)
