"""The sweeps of a life, and what becomes of them if nothing disturbs them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select

from service.jobs import epoch_commits, leases
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Position
from service.states import DatasetKind
from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.storage.tables import Job
from service.sweeps import actions, decisions, trials
from service.sweeps.actions import NewSweep
from tests.simulation.parts.trainings import METRIC, expected_result, key_of, state_after

_LAYERS: Final = [{"units": 10, "activation": "softmax"}]
_BASE: Final = {"kind": "classifier", "epochs": 3, "layers": _LAYERS, "checkpoint": {"keep_last": 1}}
_COMMON: Final[dict[str, Any]] = {
    "name": None,
    "base": _BASE,
    "seeds": [0],
    "space": {"/optimizer/learning_rate": {"log": [0.003, 0.3]}},
    "objective": {"metric": METRIC, "goal": "maximize", "over_seeds": "mean"},
    "max_failed": None,
    "reuse": "never",
    "budget": None,
    "rungs": [1, 3],
}
SWEEPS: Final[tuple[dict[str, Any], ...]] = (
    _COMMON
    | {
        "search": {"name": "random", "trials": 3, "seed": 7},
        "halving": {"min_epochs": 1, "factor": 2, "mode": "asynchronous"},
        "parallel": 2,
    },
    _COMMON
    | {
        "search": {"name": "random", "trials": 4, "seed": 3},
        "halving": {"min_epochs": 1, "factor": 2, "mode": "synchronous"},
        "parallel": 3,
    },
)
"""As the API stores them, with all defaults: asynchronous and synchronous halving."""
_DATA: Final = {
    "shape": {"rows": 28, "columns": 28, "kind": DatasetKind.IMAGES.value, "classes": 10, "train_count": 60},
    "upload_id": None,
    "sha256": "sha256:data",
}


def new_sweep(number: int) -> NewSweep:
    """A sweep to be stored."""
    resolved = SWEEPS[number]
    return NewSweep(
        name=None,
        kind="classifier",
        spec={"sweep": number},
        resolved=resolved,
        data=_DATA,
        trials=resolved["search"]["trials"],
        owner=None,
    )


def undisturbed_digest(database: Database, number: int) -> str:
    """The digest of the decisions if one worker trains one job after the other."""
    actions.submit(database, new_sweep(number), idempotency=None, represent=lambda sweep: {})
    while (held := leases.claim(database, "alone", 600.0)) is not None:
        leases.begin(database, held, {})
        job = Job(**held.row)
        key = key_of(job.resolved)
        metrics, _ = expected_result(key, job.epochs)
        for epoch in range(job.epoch + 1, job.epochs + 1):
            record = EpochRecord(
                epoch=epoch,
                position=Position(step=epoch, steps=job.epochs),
                metrics=metrics[epoch - 1],
                confusion=None,
                samples_digest=None,
                seconds=1.0,
                is_best=False,
                files=(),
                goes_on=epoch < job.epochs,
            )
            epoch_commits.commit(database, held, [record], keep_last=1, then=decisions.after_result)
            if record.is_paused_by_sweep(job.hold_epoch):
                break
        else:
            weights = state_after(key, job.epochs)
            epoch_commits.succeed(database, held, weights, epoch=job.epochs, then=decisions.after_result)
    with database.read() as session:
        sweep = session.scalars(select(Sweep)).one()
        assert sweep.sweep_digest is not None, sweep.error
        return sweep.sweep_digest


_resolve = trials.resolve


def resolve(spec: Mapping[str, Any], shape: Any) -> Any:
    """``trials.resolve``, once for each spec: it takes longer than a trial."""
    return _resolve_once(json.dumps(spec, sort_keys=True), shape)


@functools.cache
def _resolve_once(text: str, shape: Any) -> Any:
    return _resolve(json.loads(text), shape)
