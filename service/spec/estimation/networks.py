"""The networks of a spec, with the shapes of their layers."""

from __future__ import annotations

from service.kinds import rooms
from service.schema.layer_shapes import Network, Shape
from service.spec.schema import Spec


def networks(spec: Spec, shape: Shape) -> list[Network]:
    """The networks of a spec for a dataset of this shape, in the order of ``Spec.trained_networks``."""
    return rooms.specs(spec.kind).networks(spec, shape)
