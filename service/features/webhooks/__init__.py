"""Webhooks: signed messages to the addresses that owners register, about what happens to their objects."""

from __future__ import annotations

from typing import Final

from service.runtime.features import Feature, Room

FEATURE: Final = Feature(name="webhooks", rooms=tuple(Room))
