"""The presets of all kinds. A field of a spec overrides that of its preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service import kinds
from service.kinds import rooms
from service.schema.preset_info import PresetInfo
from service.spec.schema import Kind

_SPECS: Final = {Kind(kind.name): rooms.specs(kind.name) for kind in kinds.TRAINED}
DEFAULT_PRESET: Final = {kind: specs.default_preset for kind, specs in _SPECS.items()}
PRESETS: Final[dict[Kind, Mapping[str, dict[str, Any]]]] = {kind: specs.presets for kind, specs in _SPECS.items()}
PRESET_INFO: Final[dict[Kind, Mapping[str, PresetInfo]]] = {kind: specs.preset_info for kind, specs in _SPECS.items()}

FORMER_NAMES: Final = {"seed": "classic"}


def current_name(preset: str) -> str:
    """The name of a preset, whose former name is accepted, too."""
    return FORMER_NAMES.get(preset, preset)


def first_name(preset: str) -> str:
    """The name by which a preset was introduced, which digests of sweeps hold."""
    return next((former for former, current in FORMER_NAMES.items() if current == preset), preset)
