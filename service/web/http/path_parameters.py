"""Parameters of paths: each name means the same everywhere, and is declared once, beside its subject."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute

Values = Mapping[str, str]
"""The values of a path's parameters."""
ID: Final = re.compile(r"[a-z]{1,8}_[0-9A-Za-z]{1,30}")
"""What an id looks like, of whatever it is."""
_DECLARED: Final[dict[str, PathParameter]] = {}


@dataclass(frozen=True, slots=True)
class PathParameter:
    """A parameter of paths. To create one declares it.

    Raises:
        ValueError: another one has the name.
    """

    name: str
    text: str
    """What it is, a sentence."""
    example: str
    _: KW_ONLY
    not_found: Callable[[Values], Exception] | None = None
    """The error for a value that no id can be, given those of the path; ``None``: the view judges it."""
    form: re.Pattern[str] = ID
    sign: str = ""
    """What may stand before it where people write it."""
    owner: tuple[InstrumentedAttribute[str], InstrumentedAttribute[str | None]] | None = None
    """The columns with the ids and their owners, if an admin reads what is named as its owner."""

    def __post_init__(self) -> None:
        if self.name in _DECLARED:
            raise ValueError(f"the path parameter {self.name} is declared twice")
        _DECLARED[self.name] = self


@dataclass(frozen=True, slots=True)
class NamedObject:
    """An object that a path names, which an admin reads as its owner."""

    id: str
    query: Select[Any]
    """Selects its ``owner``; no row: there is no such object."""


def named_object(values: Values) -> NamedObject | None:
    """What a path names of an owner's; ``None``: nothing that an admin reads as its owner."""
    for name, value in values.items():
        if (item := _DECLARED.get(name)) is not None and item.owner is not None:
            id_, owner = item.owner
            return NamedObject(value, select(owner).where(id_ == value))
    return None


def parameter(name: str) -> PathParameter:
    """The parameter with this name.

    Raises:
        KeyError: it was not declared.
    """
    return _DECLARED[name]


def examples() -> dict[str, str]:
    """The example of each parameter."""
    return {name: item.example for name, item in _DECLARED.items()}


def check(values: Values) -> None:
    """Raise the error of the first malformed id: without a query, because a database may reject such text."""
    for name, value in values.items():
        item = _DECLARED.get(name)
        if item is not None and item.not_found is not None and not item.form.fullmatch(value):
            raise item.not_found(values)
