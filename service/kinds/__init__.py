"""The kinds of jobs, each a folder. Outside this package, nothing asks which kind a job has: it asks the kind.

A process loads the other rooms of a kind where it needs them (``rooms``).
"""

from __future__ import annotations

from typing import Any, Final

from service.kinds.classifier import CLASSIFIER
from service.kinds.gan import GAN
from service.kinds.kind import KindOfJob
from service.kinds.prediction import PREDICTION
from service.kinds.regressor import REGRESSOR
from service.states import Task

ALL: Final = (CLASSIFIER, REGRESSOR, GAN, PREDICTION)
"""In the order in which they are listed everywhere."""
TRAINED: Final = tuple(kind for kind in ALL if kind.trains)
_BY_NAME: Final = {kind.name: kind for kind in ALL}


def of(name: str) -> KindOfJob:
    """The kind with this name. Of one that only a newer release knows, nothing else is known."""
    return _BY_NAME.get(name) or KindOfJob(name=name)


def is_known(name: str) -> bool:
    """Whether there is a kind with this name."""
    return name in _BY_NAME


def documents() -> dict[str, dict[str, Any]]:
    """What scripts of pages know of each kind."""
    facts = ("title", "trains", "verb", "shows_best", "task")
    return {kind.name: {name: getattr(kind, name) for name in facts} for kind in ALL}


def for_task(task: Task) -> KindOfJob:
    """The kind that learns a task."""
    return next(kind for kind in ALL if kind.task is task)
