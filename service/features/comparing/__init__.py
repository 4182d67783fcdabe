"""Comparing: groups of jobs, two jobs, and the epochs of one."""

from __future__ import annotations

from typing import Final

from service.declarations import Entries, Feature, Room

FEATURE: Final = Feature(
    name="comparing",
    rooms=(Room.OPERATIONS, Room.PAGES, Room.COMMANDS),
    commands=Entries(
        "residuals",
        {
            "compare": "Show jobs side by side: metrics, and settings that differ.",
            "why": "Compare two jobs, down to the first different batch and tensor.",
            "bisect": "Find the epoch from which a metric is too low or too high.",
        },
    ),
)
