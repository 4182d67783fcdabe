"""What a feature declares, and the features that are installed.

The kernel knows no feature by name: it asks for what all of them have declared, and loads the rooms that a process
needs, modules with fixed names in the folder of a feature, so that no worker imports Flask. A declaration imports
nothing but ``service.errors`` and ``service.runtime.setting``.

The list `service.features` and the rooms are imported by their names, so that no process can forget to install
features. The type of what a room exports is checked when it is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Generic, TypeVar

from service.errors import ProblemKind, ServiceError

FOLDER: Final = "service.features"
"""The package that lists the features as ``FEATURES``."""
T = TypeVar("T")


class Room(StrEnum):
    """A module with a fixed name in the folder of a feature, which some processes import. All but ``tables`` and
    ``commands`` export a constant with their name in upper case."""

    TABLES = "tables"
    """All processes with a database."""
    HOOKS = "hooks"
    """Called inside transactions: all processes that write rows."""
    UPKEEP = "upkeep"
    """Periodic work and expired data: the scheduler, and commands for operators."""
    OPERATIONS = "operations"
    """Endpoints: the web process."""
    PAGES = "pages"
    """Pages, with the folders ``templates`` and ``static``: the web process."""
    GATE = "gate"
    """Links with which people without a key may read: the web process."""
    COMMANDS = "commands"
    """Commands of ``tapeline``, a ``click.Command`` with the name of each: loaded when one is run."""


@dataclass(frozen=True, slots=True)
class Entries(Generic[T]):
    """What a feature adds to a table of the kernel.

    Attributes:
        after: the entry that they follow where the table is listed.
    """

    after: str
    items: Mapping[str, T]


_NOTHING: Final[Entries[Any]] = Entries("", {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """The declaration of a feature, ``FEATURE`` in the package of its folder."""

    name: str
    """Of the folder."""
    rooms: tuple[Room, ...]
    worker_privileges: Mapping[str, str] = field(default_factory=dict)
    """What workers on other machines may do with its tables, as in GRANT: only what its hooks need."""
    problems: Entries[ProblemKind] = _NOTHING
    """By their codes."""
    audit_actions: Entries[str] = _NOTHING
    """Names of constants by what is recorded."""
    failpoints: Entries[str] = _NOTHING
    """The state of the system at each."""
    settings: type[Any] | None = None
    """A dataclass of settings, which ``Settings.of`` returns."""
    commands: Entries[str] = _NOTHING
    """Their lines in the list of commands."""

    def module(self, room: Room) -> str:
        """The name of the module of a room."""
        return f"{FOLDER}.{self.name}.{room}"

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return Path(str(import_module(f"{FOLDER}.{self.name}").__file__)).parent


def problems_of(*errors: type[ServiceError]) -> dict[str, ProblemKind]:
    """The kinds of the problems of errors, by their codes."""
    return {error.code: error.kind for error in errors if error.kind is not None}


@functools.cache
def installed() -> tuple[Feature, ...]:
    """All features, in the order in which the kernel calls them."""
    features: tuple[Feature, ...] = import_module(FOLDER).FEATURES
    return features


def extended(table: Mapping[str, T], added: Iterable[Entries[T]]) -> dict[str, T]:
    """A table of the kernel with what features add to it.

    Raises:
        ValueError: two entries have one name.
    """
    found = dict(table)
    for entries in added:
        if twice := found.keys() & entries.items.keys():
            raise ValueError(f"declared twice: {', '.join(sorted(twice))}")
        names = [*found]
        place = names.index(entries.after) + 1 if entries.after in found else len(names)
        later = {name: found.pop(name) for name in names[place:]}
        found |= {**entries.items, **later}
    return found


def modules(room: Room) -> list[ModuleType]:
    """This room of each feature that has it."""
    return [import_module(item.module(room)) for item in installed() if room in item.rooms]


def load(room: Room, kind: type[T]) -> tuple[T, ...]:
    """What this room of each feature exports.

    Raises:
        TypeError: it is of another type.
    """
    found = [getattr(module, room.name) for module in modules(room)]
    for item in found:
        if not isinstance(item, kind):
            raise TypeError(f"{item!r} is no {kind.__name__}")
    return tuple(found)
