"""Advice for findings: settings that the spec does not have yet. What fits its data is checked before it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.schema.findings import Advice
from service.schema.layers import Activation, Layer, Uniform
from service.schema.optimizers import Optimizer
from service.schema.specs import BaseSpec

TOGETHER: Final = "together: neither is enough alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A training that needs advice."""

    spec: Any
    """A ``Spec`` of the kind that the advice is for."""
    is_stuck: bool
    """Whether the generator's gradient has vanished, so that it hardly moves."""
    is_fork: bool


def divergence(case: Case) -> Iterable[Advice]:
    """Smaller steps."""
    spec = case.spec
    if spec.loss.reduction == "sum":
        yield Advice({"loss.reduction": "mean"})
    if spec.schedule.name == "constant":
        yield Advice({"schedule": "one_cycle"})
    for path, optimizer in optimizers(spec).items():
        yield lower_rate(path, optimizer, 10)


def dead_or_saturated_units(case: Case) -> Iterable[Advice]:
    """Smaller steps, other first weights, and other activations."""
    spec = case.spec
    for path, optimizer in optimizers(spec).items():
        yield lower_rate(path, optimizer, 10)
    yield from initializers(spec, "tanh and sigmoid")
    settings: dict[str, Any] = {}
    for path, layers in layers_of(spec).items():
        if any(activation_of(layer) not in (None, Activation.LEAKY_RELU) for layer in layers[:-1]):
            settings[path] = replace_activations(layers, "leaky_relu")
    if settings:
        yield Advice(settings, "leaky_relu in the hidden layers")


def initializers(spec: BaseSpec, flat: str) -> Iterable[Advice]:
    """The initializers for certain activations, except the one that the spec has."""
    suited = {"he": "relu", "glorot": flat}
    for name, activations in suited.items():
        if name != spec.initializer.name:
            yield Advice({"initializer": name}, f"for {activations}")


def lower_rate(path: str, optimizer: Optimizer, factor: int) -> Advice:
    """A learning rate that is lower by a factor."""
    return rate(path, optimizer, optimizer.learning_rate / factor)


def rate(path: str, optimizer: Optimizer, rate: float) -> Advice:
    """Another learning rate."""
    return Advice({f"{path}.learning_rate": float(f"{rate:.2g}")}, f"it is {optimizer.learning_rate:g}")


def optimizers(spec: BaseSpec) -> dict[str, Optimizer]:
    """The optimizers by path in the spec, in the order of the networks."""
    return {
        f"{network.path if network.has_own_optimizer else ''}optimizer": network.optimizer
        for network in spec.trained_networks
    }


def layers_of(spec: BaseSpec) -> dict[str, Sequence[Layer]]:
    """The layers by path in the spec, in the same order."""
    return {f"{network.path}layers": network.layers for network in spec.trained_networks}


def short(layer: Layer) -> dict[str, Any]:
    """A layer as a user writes it: without defaults."""
    given = {"type", *layer.model_dump(exclude_defaults=True)}
    fields = {name: value for name, value in layer.model_dump(mode="json").items() if name in given}
    return {name: value for name, value in fields.items() if (name, value) != ("type", "dense")}


def replace_activations(layers: Sequence[Layer], activation: str) -> list[dict[str, Any]]:
    """The layers, with another activation in the hidden ones, except linear ones, which precede a
    normalization."""
    changed = [short(layer) for layer in layers]
    for layer in changed[:-1]:
        if layer.get("activation", "linear") != "linear":
            layer["activation"] = activation
            layer.pop("negative_slope", None)
    return changed


def activation_of(layer: Layer) -> Activation | None:
    """The activation of a layer, unless it has none or a linear one."""
    activation = getattr(layer, "activation", None)
    return activation if isinstance(activation, Activation) and activation is not Activation.LINEAR else None


def is_tiny(spec: BaseSpec) -> bool:
    """Whether the first weights are so small that they suppress the signal."""
    return isinstance(spec.initializer, Uniform) and spec.initializer.scale < 0.02
