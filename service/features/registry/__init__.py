"""The registry of models: named versions of jobs' checkpoints. Its endpoints and rules are still in ``web/models``,
``application`` and ``models/registry``."""

from __future__ import annotations

from typing import Final

from service.declarations import Entries, Feature, Room, problems_of
from service.features.registry.errors import JobRegistered

FEATURE: Final = Feature(
    name="registry",
    rooms=(Room.HOOKS, Room.OPERATIONS, Room.PAGES),
    worker_privileges={
        "model_versions": "SELECT (model_id, version, job_id, epoch)",  # a commit keeps the checkpoints of versions
    },
    problems=Entries("version_in_use", problems_of(JobRegistered)),
)
