"""Sharing: links with which anybody may read a job, a sweep or a comparison."""

from __future__ import annotations

from typing import Final

from service.declarations import Entries, Feature, Room, problems_of
from service.features.sharing.actions import ShareAction
from service.features.sharing.errors import ShareNotFound

FEATURE: Final = Feature(
    name="sharing",
    rooms=(Room.TABLES, Room.GATE, Room.OPERATIONS, Room.PAGES, Room.COMMANDS),
    problems=Entries("worker_not_found", problems_of(ShareNotFound)),
    audit_actions=Entries("change_owner", {action.value: action.name for action in ShareAction}),
    commands=Entries(
        "owners",
        {
            "share": "Print a link to a job, a sweep or a comparison that needs no key.",
            "shares": "List your share links, or revoke one.",
        },
    ),
)
