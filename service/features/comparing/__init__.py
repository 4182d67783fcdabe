"""Comparing: groups of jobs, two jobs, and the epochs of one."""

from __future__ import annotations

from typing import Final

from service.declarations import Feature, Room

FEATURE: Final = Feature(name="comparing", rooms=(Room.OPERATIONS,))
