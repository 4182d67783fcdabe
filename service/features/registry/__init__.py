"""The registry of models: named versions of jobs' checkpoints, and aliases that move under gates."""

from __future__ import annotations

from typing import Final

from service.declarations import Entries, Feature, Room, problems_of
from service.features.registry.errors import JobRegistered

FEATURE: Final = Feature(
    name="registry",
    rooms=(Room.TABLES, Room.HOOKS, Room.OPERATIONS, Room.PAGES, Room.COMMANDS),
    worker_privileges={
        "model_versions": "SELECT (model_id, version, job_id, epoch)",  # a commit keeps the checkpoints of versions
    },
    commands=Entries("export", {"models": "List models; register versions, and move aliases under gates."}),
    problems=Entries("version_in_use", problems_of(JobRegistered)),
)
