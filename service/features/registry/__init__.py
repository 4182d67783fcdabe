"""The registry of models: named versions of jobs' checkpoints, and aliases that move under gates."""

from __future__ import annotations

from typing import Final

from service.declarations import Entries, Feature, Room, problems_of
from service.features.registry.actions import ModelAction
from service.features.registry.errors import GateFailed, JobRegistered, NoEarlierVersion, NotApprovable, VersionInUse

FEATURE: Final = Feature(
    name="registry",
    rooms=(Room.TABLES, Room.HOOKS, Room.OPERATIONS, Room.PAGES, Room.COMMANDS),
    worker_privileges={
        "model_versions": "SELECT (model_id, version, job_id, epoch)",  # a commit keeps the checkpoints of versions
    },
    commands=Entries("export", {"models": "List models; register versions, and move aliases under gates."}),
    audit_actions=Entries("invite_worker", {action.value: action.name for action in ModelAction}),
    problems=Entries(
        "illegal_transition", problems_of(GateFailed, VersionInUse, JobRegistered, NoEarlierVersion, NotApprovable)
    ),
)
