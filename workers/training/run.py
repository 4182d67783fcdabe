"""The child: it loads, trains, records and stores one job, then ends."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import structlog

from engine import BatchDone, CheckpointError, DivergedError, EpochDone, GanTrainer, checkpoint
from service.datasets import Dataset, DatasetError
from service.datasets.repository import DatasetRepository
from service.errors import LeaseLost
from service.jobs import commits, leases
from service.jobs.leases import Claim
from service.jobs.queries import lookup
from service.runtime import logs
from service.runtime.failpoints import reach
from service.runtime.settings import Settings
from service.spec.estimation import costs
from service.spec.findings import Finding
from service.spec.validation import Shape, read_resolved
from service.states import ErrorCode
from service.storage.artifacts import ArtifactDamaged, ArtifactFolder, ArtifactUnreadable
from service.storage.database import Database
from service.storage.tables import Epoch, Job
from workers import calibrate, limits
from workers.messages import ChildEndpoint
from workers.provenance import machine, provenance
from workers.retry import NO_ANSWER, retry_on_outage
from workers.training import build, forks
from workers.training.build import Trainer
from workers.training.epochs import commit_epoch, weights_digest
from workers.training.health import TrainingDiagnostics
from workers.training.session import Run, Stopped
from workers.usage import OwnMeter

log = structlog.get_logger()


class _CannotStart(Exception):
    """What a fork begins with is gone: from random weights it would be another job."""


class _Unhealthy(Exception):
    """The spec wants the job to stop on what was found."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def main(orders: ChildEndpoint) -> int:
    """Wait for an order, train, end."""
    logs.configure("child")
    limits.lower_priority()
    settings = Settings.from_env(os.environ, cores=1)
    database = Database(settings.database_url, application="tapeline-child")
    orders.ready()
    _warm_up(database)
    order = orders.first()
    if "calibrate" in order:
        orders.calibrated(calibrate.measure())
        return 0
    orders.preparing()  # from here on, this process's death is the job's
    held = Claim(**order)
    structlog.contextvars.bind_contextvars(job=held.job_id, lease=held.lease, attempt=held.attempt)
    try:
        orders.done(_train(settings, database, held, orders))
    except LeaseLost as error:
        log.warning("the lease is lost", error=str(error))
        orders.done("lease lost")
    except NO_ANSWER as error:
        log.warning("given up: the database does not answer", error=str(error))
        orders.give_up("the child got no answer from the database")
    return 0


def _warm_up(database: Database) -> None:
    """Ask once what every job asks, of one that does not exist: so the connection and the statements are there when an
    order comes, which is then followed in half the time."""
    nobody = Claim(job_id="", lease=0, lease_s=0)
    where_we_are = machine()
    for ask in (
        lambda: _read_job(database, nobody),
        lambda: leases.begin(database, nobody, where_we_are),
        lambda: commits.checkpoints(database, nobody),
        lambda: _read_epochs(database, nobody),
    ):
        with contextlib.suppress(Exception):  # whatever is wrong will be told of the first real job
            ask()


def _read_job(database: Database, held: Claim) -> Job:
    with database.read() as session:
        return lookup.get(session, held.job_id)


def _read_epochs(database: Database, held: Claim) -> Sequence[Epoch]:
    with database.read() as session:
        return lookup.epochs(session, held.job_id)


def _train(settings: Settings, database: Database, held: Claim, orders: ChildEndpoint) -> str:
    """Train a job from where it stands; whatever goes wrong in the training itself fails the job."""

    meter = OwnMeter(held)

    def fail(error: dict[str, Any]) -> str:
        log.warning("the job failed", **error)
        retry_on_outage(lambda: commits.fail(database, held, error, used=meter.total()), patience_s=held.lease_s)
        return "failed"

    try:
        job = retry_on_outage(lambda: _read_job(database, held), patience_s=held.lease_s)
        resolved = read_resolved(job.resolved)
        artifacts = ArtifactFolder(settings.artifacts)
        run = Run(
            database=database,
            artifacts=artifacts,
            held=held,
            orders=orders,
            spec=resolved,
            meter=meter,
        )
        dataset = _load_data(run, settings, job)
        limits.limit_memory(costs.peak_bytes(resolved, _shape(dataset)))
        return _loop(run, build.trainer(resolved, dataset), dataset)
    except Stopped:
        retry_on_outage(
            lambda: leases.hand_back(database, held, orders.request, used=meter.total()), patience_s=held.lease_s
        )
        reach("handed_back")
        return "handed back"
    except (LeaseLost, *NO_ANSWER):
        raise  # not the training's fault: the next lease goes on from the last checkpoint
    except DivergedError as error:
        return fail(_diverged(run, error))
    except _Unhealthy as error:
        return fail(_unhealthy(run, error.finding))
    except DatasetError as error:
        return fail({"code": error.code, "message": str(error)})
    except _CannotStart as error:
        hint = "fork the parent once more, or put the file back and retry"
        return fail({"code": ErrorCode.STORAGE, "message": str(error), "hint": hint})
    except MemoryError as error:
        limits.lift_memory_limit()
        hint = "make the networks or the batch smaller, or give the worker more memory"
        return fail({"code": ErrorCode.OUT_OF_MEMORY, "message": str(error) or "out of memory", "hint": hint})
    except (OSError, ArtifactUnreadable) as error:
        hint = "free space or mend the folder of the artifacts, then retry: the last checkpoint is kept"
        return fail({"code": ErrorCode.STORAGE, "message": str(error), "hint": hint})
    except Exception as error:  # noqa: BLE001 - the boundary: a fault of ours must not look like a lost worker
        traceback.print_exc(file=sys.stderr)
        return fail({"code": ErrorCode.INTERNAL, "message": f"{type(error).__name__}: {error}"})


def _shape(dataset: Dataset) -> Shape:
    rows, columns = dataset.info.image_shape
    return Shape(rows=rows, columns=columns, classes=dataset.info.classes, train_count=dataset.info.train_count)


def _load_data(run: Run, settings: Settings, job: Job) -> Dataset:
    """Load the dataset; where it is downloaded first, the job's log tells how far it is."""
    told = 0.0

    def progress(received: int, total: int | None) -> None:
        nonlocal told
        run.obey()
        now = time.monotonic()
        if now - told > 2:
            told = now
            run.orders.preparing()
            of = f" of {total / 1e6:.1f}" if total else ""
            message = f"downloading {run.spec.dataset.name}: {received / 1e6:.1f}{of} MB"
            run.retry_on_outage(lambda: commits.log(run.database, run.held, "info", "downloading", message))

    shelf = DatasetRepository(settings, run.database)
    dataset = shelf.load(shelf.of_job(job), progress=progress)
    run.obey()
    return dataset


def _loop(run: Run, trainer: Trainer, dataset: Dataset) -> str:
    where = provenance(dataset, judged=isinstance(trainer, GanTrainer))
    job = run.retry_on_outage(lambda: leases.begin(run.database, run.held, where))
    reach("began")
    _restore(run, trainer, job.start_epoch)
    reach("restored")
    watch = _watch(run, trainer, dataset)
    steps, began = 0, time.monotonic()
    run.meter.begin_epoch()
    for report in trainer.run():
        match report:
            case BatchDone():
                steps = report.steps
                run.obey()
                run.orders.progress(report.step, report.steps)
                reach("batch_done", report.epoch)
            case EpochDone():
                done = watch.look(trainer, report)
                now = time.monotonic()
                reach("epoch_trained", report.epoch)
                names = dataset.info.class_names
                commit_epoch(run, trainer, done, watch, steps=steps, seconds=now - began, class_names=names)
                _stop_where_asked(watch)
                began = time.monotonic()
                run.meter.begin_epoch()
    weights, stopped = weights_digest(trainer.state_dict()), trainer.stopped_early
    why = asdict(stopped) if stopped else None
    digest = run.retry_on_outage(lambda: commits.digest(run.database, run.held, weights))
    used = run.meter.total()
    # Without a word on it in the spec, a job that can only be looked at and forked needs its two ends.
    keep_last = 1 if run.spec.checkpoint.keep_last is None else None
    unnamed = run.retry_on_outage(
        lambda: commits.succeed(run.database, run.held, digest, stopped_early=why, used=used, keep_last=keep_last)
    )
    reach("succeeded")
    run.discard(unnamed)
    return "succeeded"


def _restore(run: Run, trainer: Trainer, start_epoch: int) -> None:
    """Go on from the newest checkpoint that can be read; from the start where there is none.

    Raises:
        _CannotStart: the job is a fork, and what it began with cannot be read.
        ArtifactUnreadable: the folder cannot be read now; a checkpoint that may be whole is not dropped.
    """
    for row in run.retry_on_outage(lambda: commits.checkpoints(run.database, run.held)):
        try:
            state = checkpoint.loads(run.artifacts.read(row.path, row.sha256))
            if row.epoch == start_epoch:
                state, anew = forks.adapt(state, run.spec)
                told = f"goes on after epoch {start_epoch} of its parent"
                told += "; another optimizer, which begins anew" if anew else ""
                run.retry_on_outage(functools.partial(commits.log, run.database, run.held, "info", "forked", told))
            trainer.load_state_dict(state)
        except ArtifactUnreadable:
            raise
        except (ArtifactDamaged, CheckpointError) as error:
            if row.epoch == start_epoch:
                raise _CannotStart(f"the checkpoint that this job begins with cannot be used: {error}") from error
            log.warning("checkpoint dropped", epoch=row.epoch, error=str(error))
            run.retry_on_outage(functools.partial(commits.drop_checkpoint, run.database, run.held, row, str(error)))
        else:
            log.info("resumed", epoch=row.epoch)
            return
    if start_epoch:
        raise _CannotStart("the checkpoint that this job begins with is gone")


def _watch(run: Run, trainer: Trainer, dataset: Dataset) -> TrainingDiagnostics:
    """The watch over this training, as it was after the epoch that it goes on from."""
    watch = TrainingDiagnostics(run.spec, build.judge(dataset) if isinstance(trainer, GanTrainer) else None)
    finished = run.retry_on_outage(lambda: _read_epochs(run.database, run.held))
    watch.recall([row for row in finished if row.epoch <= trainer.epoch])
    _stop_where_asked(watch)  # it may have died between the commit and the stop
    return watch


def _stop_where_asked(watch: TrainingDiagnostics) -> None:
    if watch.reason_to_stop is not None:
        raise _Unhealthy(watch.reason_to_stop)


def _diverged(run: Run, error: DivergedError) -> dict[str, Any]:
    rate = run.spec.optimizer.learning_rate
    return {
        "code": ErrorCode.DIVERGED,
        "message": str(error),
        "epoch": error.epoch,
        "step": error.step,
        "last_good_checkpoint": _last_good_checkpoint(run),
        "hint": f"the same spec would diverge again: try a learning rate of {rate / 10:g} (it was {rate:g}), "
        'loss.reduction "mean", or the adam optimizer',
    }


def _unhealthy(run: Run, finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code.value,
        "message": finding.message,
        "epoch": finding.epoch,
        "numbers": dict(finding.numbers),
        "last_good_checkpoint": _last_good_checkpoint(run),
        "hint": "stopped as health.stop_on asks; try " + "; or ".join(finding.advice),
    }


def _last_good_checkpoint(run: Run) -> int | None:
    """Its epoch; asked for although the job is told to stop, since this is its last word."""
    kept = retry_on_outage(lambda: commits.checkpoints(run.database, run.held), patience_s=run.held.lease_s)
    return kept[0].epoch if kept else None
