"""Sweeps: many jobs as one experiment. The rules by which the kernel decides on trials are in ``service/sweeps``."""

from __future__ import annotations

from typing import Final

from service.declarations import Entries, Feature, Room

FEATURE: Final = Feature(
    name="sweeps",
    rooms=(Room.OPERATIONS, Room.PAGES, Room.COMMANDS),
    commands=Entries(
        "residuals",
        {
            "sweep": "Start a sweep: many jobs as one experiment.",
            "sweeps": "List sweeps, or show, pause, resume, cancel or delete one.",
        },
    ),
)
