"""What GANs say about specs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.errors import Fault
from service.kinds.gan import presets
from service.kinds.gan.diagnosis import DIAGNOSIS
from service.kinds.gan.networks import adapt, discriminator_end, networks
from service.kinds.gan.spec import Discriminator, GanLossName, GanSpec, Generator
from service.kinds.last_layers import check_activation, check_last_layer
from service.kinds.specs import SpecsOfKind
from service.schema.layer_shapes import Network, Shape
from service.schema.layers import BatchNorm, Residual

_UNSMOOTHED: Final = (GanLossName.HINGE, GanLossName.WASSERSTEIN)
"""Losses without a target, to which label smoothing does not apply."""


def _faults(spec: GanSpec, networks: Sequence[Network], shape: Shape) -> list[Fault]:
    generator, discriminator = networks
    reason = f"one for each {'pixel' if shape.channels == 1 else 'colour of each pixel'} of {spec.dataset.name}"
    faults = check_last_layer(generator, (shape.pixels,), shape.picture, reason)
    faults += check_last_layer(discriminator, (1,), (1, 1, 1), "the output of a discriminator")
    faults += check_activation(discriminator, discriminator_end(spec.loss.name), f"required by {spec.loss.name}")
    return faults + _discriminator_faults(spec)


def _discriminator_faults(spec: GanSpec) -> list[Fault]:
    """Discriminator settings that exclude or require each other."""
    discriminator, faults = spec.discriminator, []

    def fault(name: str, detail: str, suggestion: str | None = None) -> None:
        pointer = f"#/discriminator/{name}"
        faults.append(Fault(pointer=pointer, detail=detail, code="unsuitable", suggestion=suggestion))

    if discriminator.label_smoothing and spec.loss.name in _UNSMOOTHED:
        fault("label_smoothing", f"must be 0: {spec.loss.name} has no target to smooth", "0")
    if discriminator.critic_steps > 1 and discriminator.skip_every is not None:
        fault(
            "critic_steps",
            "cannot be combined with skip_every: they skip updates of different networks",
            "1",
        )
    bounded = discriminator.gradient_penalty or discriminator.spectral_norm
    if spec.loss.name is GanLossName.WASSERSTEIN and not bounded:
        fault("gradient_penalty", "must be above 0 for wasserstein (10 is usual), or set spectral_norm", "10")
    penalty = "gradient_penalty" if discriminator.gradient_penalty else "r1" if discriminator.r1 else None
    for index, layer in enumerate(discriminator.layers):
        inner_layers = [layer, *layer.layers] if isinstance(layer, Residual) else [layer]
        if penalty and any(isinstance(inner, BatchNorm) for inner in inner_layers):
            detail = f"cannot be combined with {penalty}: slopes would depend on the whole batch; use layer_norm"
            fault(f"layers/{index}/type", detail, "layer_norm")
    return faults


SPECS: Final = SpecsOfKind[GanSpec](
    model=GanSpec,
    parts=(Generator, Discriminator),
    presets=presets.PRESETS,
    preset_info=presets.INFO,
    networks=networks,
    faults=_faults,
    adapt=adapt,
    diagnosis=DIAGNOSIS,
)
