"""What each kind of training says about specs: the room ``checks`` of its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.errors import Fault
from service.kinds.rules import Diagnosis
from service.schema.base import StrictModel
from service.schema.layer_shapes import Network, Shape
from service.schema.preset_info import PresetInfo
from service.schema.specs import BaseSpec

S = TypeVar("S", bound=BaseSpec)


def _no_faults(spec: BaseSpec, document: Mapping[str, Any]) -> list[Fault]:
    return []


@dataclass(frozen=True, kw_only=True)  # no slots: ``SpecsOfKind[...](...)`` sets an attribute
class SpecsOfKind(Generic[S]):
    """The specs of a kind of training."""

    model: type[S]
    parts: Sequence[type[StrictModel]] = ()
    """Objects of the spec with networks of their own."""
    presets: Mapping[str, dict[str, Any]]
    preset_info: Mapping[str, PresetInfo]
    """What each reaches; the first is the default."""
    networks: Callable[[S, Shape], list[Network]]
    """The networks of a spec for a dataset of this shape."""
    faults: Callable[[S, Sequence[Network], Shape], list[Fault]]
    """Faults of its networks, losses and other settings of its own."""
    table_faults: Callable[[S, Mapping[str, Any]], list[Fault]] = _no_faults
    """Settings of its own that the document as sent asks for and that do not apply to a table."""
    adapt: Callable[[S, Mapping[str, Any], Shape], S]
    """A spec adapted to a dataset of another shape, apart from the fields of the document as sent."""
    diagnosis: Diagnosis
    """How failures are recognized, and what helps."""

    @property
    def default_preset(self) -> str:
        """The preset of a spec that names none."""
        return next(iter(self.preset_info))
