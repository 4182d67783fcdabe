"""How settings are declared: as fields of frozen dataclasses, of the kernel or of a feature."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import EnumType
from pathlib import Path
from typing import Any, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A declared setting: the field ``name`` of ``Settings`` or, with a ``group``, of its quotas, its child limits, or
    what a feature declares."""

    group: str
    name: str
    kind: Any
    fixed_default: Any
    meaning: str
    """One line for docs/configuration.md; ``{default}`` stands for the default."""
    suffix: str = ""
    """Of the variable, if it is not the name of the field."""
    low: float = 0.0
    high: float = 2.0**53
    valid: Callable[[Any], object] = lambda value: True
    rule: str = ""
    """What a variable must do whose value is not ``valid``."""
    after: str = ""
    """Of a feature: the variable that it follows in documents; empty: the feature's one before."""
    otherwise: Callable[[Mapping[str, Any]], Any] | None = None
    """The default, from ``cores`` and the values that are declared before."""

    def default(self, found: Mapping[str, Any]) -> Any:
        """The value of a variable that is not set, given the values that are declared before."""
        return self.otherwise(found) if self.otherwise else self.fixed_default

    @property
    def default_text(self) -> str:
        """The default as a variable; empty if it depends on others."""
        return "" if self.fixed_default is MISSING else text_of(self.fixed_default)

    def parse(self, text: str) -> Any:
        """Convert a text that is not empty; a ValueError says what the variable must do."""
        if self.kind is bool or isinstance(self.kind, EnumType):
            choices = ["0", "1"] if self.kind is bool else list(self.kind)
            if text not in choices:
                raise ValueError(f"be {' or '.join(choices)}, not {text!r}")
            return text == "1" if self.kind is bool else self.kind(text)
        if self.kind in (int, float):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not self.low <= value <= self.high:
                raise ValueError(f"be a number from {self.low:g} to {self.high:g}, not {text!r}")
            return self.kind(value)
        if self.kind in (Path, Path | None):
            return Path(text).expanduser().absolute()
        if self.kind == tuple[str, ...]:
            return tuple(entry.strip() for entry in text.split(",") if entry.strip())
        return text


def setting(meaning: str, default: Any = MISSING, **options: Any) -> Any:
    """The field of a setting; ``options`` are fields of ``Setting``."""
    return field(default=default, metadata={"meaning": meaning, **options})


def text_of(value: Any) -> str:
    """A value as its variable has it."""
    match value:
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case float():
            return str(value).removesuffix(".0")
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


def declared(owner: Any, prefix: str = "", group: str = "") -> Iterator[tuple[str, Setting]]:
    """The settings that are fields of a class, by their variables."""
    kinds = get_type_hints(owner)
    for item in fields(owner):
        name, kind, options = item.name, kinds[item.name], dict(item.metadata)
        if "prefix" in options:
            yield from declared(kind, options["prefix"], name)
        elif "meaning" in options:
            options.pop("limit", None)  # of owners, see owner_limits
            options["meaning"] = options["meaning"].format(default=text_of(item.default))
            found = Setting(group=group, name=name, kind=kind, fixed_default=item.default, **options)
            yield f"TAPELINE_{prefix}{found.suffix or name.upper()}", found
