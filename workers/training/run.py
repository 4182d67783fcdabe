"""Trains one job under its lease: loads, trains, commits epochs, ends the lease."""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import asdict
from typing import Final

import structlog

from engine import BatchDone, CheckpointError, EpochDone, checkpoint
from engine.checkpoint import State
from engine.trainers.trainer import Trainer
from service.datasets.cache import Dataset
from service.datasets.shapes import shape_of
from service.datasets.tables.preprocessing import Preprocessing
from service.errors import LeaseLost, WrongStore
from service.jobs import commits, leases
from service.jobs.leases import Claim
from service.jobs.reuse.reused_epochs import Outcome
from service.kinds import of as kind_of
from service.runtime import tracing
from service.runtime.failpoints import failpoint
from service.runtime.settings import Settings
from service.schema import costs
from service.spec.estimation.networks import networks
from service.spec.validation import read_resolved
from service.states import DatasetKind, MachineFaultReason
from service.storage.artifacts import ArtifactDamaged, ArtifactUnreadable
from service.storage.stores import open_store
from service.storage.tables import Job
from workers.lease_session import LeaseSession
from workers.messages import ChildEndpoint, MachineFault, Progress, StopRequested
from workers.training import build, failures, fork_state, kinds, limits
from workers.training.diagnostics import TrainingDiagnostics
from workers.training.earlier_jobs import reuse
from workers.training.earlier_jobs.investigation import investigate
from workers.training.epochs.snapshot import commit, size_of, store_files, succeed, take_snapshot, weights_digest
from workers.training.epochs.writer import EpochWriter
from workers.training.failures import InitialCheckpointLost, Needs, StopOnFinding
from workers.training.final_scores import test_scores
from workers.training.provenance import base_provenance, provenance
from workers.training.training_run import Budget, JobRun, TrainingRun, load_data
from workers.usage import OwnMeter

log = structlog.get_logger()

SUCCEEDED: Final = "succeeded"
PAUSED_BY_SWEEP: Final = Outcome.PAUSED_BY_SWEEP.value


def train(settings: Settings, claim: Claim, endpoint: ChildEndpoint, *, meter: OwnMeter | None = None) -> str:
    """Train a job from its last checkpoint; an error in the training itself fails the job.

    Args:
        meter: measures this process from the command on; by default, from now on.

    Returns:
        How the lease ended: ``SUCCEEDED``, ``PAUSED_BY_SWEEP``, or another text for the log (an investigation trains
        two jobs under one memory limit, so its child is not used again).
    """
    meter = meter or OwnMeter(claim)
    lease = LeaseSession(endpoint, claim, max_owner_bytes=settings.quotas.artifacts)
    artifacts = open_store(settings)
    needs = Needs(store=artifacts.address)
    try:
        run = JobRun(lease=lease.interruptible(), artifacts=artifacts, endpoint=endpoint, meter=meter)
        return _work(settings, Job(**claim.row), run, needs)
    except StopRequested:
        lease.call(leases.release_lease, endpoint.request, used=meter.total())
        failpoint("released")
        return "released"
    except LeaseLost:
        raise  # not the training's fault: the next lease continues from the last checkpoint
    except WrongStore as error:
        # No fault of the machine that counts: after a migration, many workers may meet one job.
        endpoint.send(MachineFault(MachineFaultReason.STORE, str(error), artifacts.address))
        lease.call(leases.release_lease, None, used=meter.total())
        return f"released: {error}"
    except Exception as error:  # noqa: BLE001 - each has a meaning for the job
        failure = failures.explain(error, needs, functools.partial(_latest_checkpoint, lease))
    if failure.fault is None:
        log.warning("the job failed", **failure.error)
        lease.call(commits.fail, failure.error, used=meter.total())
        return "failed"
    endpoint.send(failure.fault)  # first: this machine must not claim the job again
    has_failed = lease.call(
        leases.release_for_fault,
        failure.fault.reason,
        failure.error,
        store_timeout_s=settings.store_timeout_s,
        used=meter.total(),
    )
    return "failed" if has_failed else f"released: {failure.fault.message}"


def _work(settings: Settings, job: Job, job_run: JobRun, needs: Needs) -> str:
    """Do what the job is for; ``needs`` gets what becomes known of it."""
    if not kind_of(job.kind).trains:
        work = kinds.work(job.kind)
        needs.kept, needs.smaller = "", work.smaller
        dataset = load_data(job_run, settings, job)
        needs.peak_bytes = work.peak_bytes(job)
        limits.limit_memory(needs.peak_bytes)
        work.run(job_run, settings, job, dataset)
        return SUCCEEDED
    spec = read_resolved(job.resolved)
    needs.learning_rate = spec.optimizer.learning_rate
    run = TrainingRun.of(job_run, spec)
    if job.investigation is not None:
        run.lease.call(leases.begin, base_provenance())
        failpoint("began")
        investigate(run, functools.partial(load_data, run, settings))
        return "investigated"
    dataset = load_data(run, settings, job)
    shape = shape_of(dataset.info)
    all_networks = networks(spec, shape)
    needs.peak_bytes = costs.peak_bytes(spec, all_networks, shape)
    needs.checkpoint_bytes = costs.checkpoint_bytes(spec, all_networks)
    limits.limit_memory(needs.peak_bytes)
    read: dict[str, State] = {}
    preprocessing = _load_preprocessing(run, job, dataset, read)
    return _train_loop(run, settings, build.trainer(spec, dataset, preprocessing), dataset, preprocessing, read)


def _load_preprocessing(run: TrainingRun, job: Job, dataset: Dataset, read: dict[str, State]) -> Preprocessing | None:
    """The preprocessing of a table: that of the checkpoint from which the training continues, or fitted to the training
    part. ``_restore`` handles damaged checkpoints.

    Args:
        read: gets that checkpoint, by its path.
    """
    if dataset.info.kind is not DatasetKind.TABLE:
        return None
    for row in run.lease.call(commits.checkpoints) if _may_have_checkpoints(job) else ():
        with contextlib.suppress(ArtifactDamaged, CheckpointError, ValueError):
            loaded = checkpoint.loads(run.artifacts.read(row.path, row.sha256))
            if "preprocessing" in loaded.state:
                preprocessing = Preprocessing.read(loaded.state["preprocessing"])
                read[row.path] = loaded
                return preprocessing
    return Preprocessing.of(dataset.info, dataset.train.inputs, dataset.train.labels)


def _train_loop(
    run: TrainingRun,
    settings: Settings,
    trainer: Trainer,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    read: dict[str, State],
) -> str:
    job_provenance = provenance(dataset, evaluated=kind_of(run.spec.kind).has_reference_classifier)
    if preprocessing is not None:
        job_provenance["preprocessing"] = preprocessing.document()
    job = run.lease.call(leases.begin, job_provenance)
    failpoint("began")
    outcome = reuse.take_over(run, job, job_provenance, dataset, preprocessing, verified_share=settings.verify_reused)
    if outcome in (Outcome.SUCCEEDED, Outcome.PAUSED_BY_SWEEP):
        return outcome.value
    if outcome is Outcome.GOES_ON or _may_have_checkpoints(job):
        _restore(run, trainer, job.start_epoch, read)
    failpoint("restored")
    diagnostics = _restore_diagnostics(run, trainer, dataset, is_fork=job.start_epoch > 0)
    steps, started_at = 0, time.monotonic()
    budget = Budget(run, job)
    run.meter.begin_epoch()
    with EpochWriter(functools.partial(store_files, run), functools.partial(commit, run), size_of) as writer:
        for report in trainer.run():
            match report:
                case BatchDone():
                    steps = report.steps
                    writer.check()
                    run.endpoint.check_stop()
                    budget.check()
                    run.endpoint.report_progress(Progress(report.step, report.steps))
                    failpoint("batch_done", report.epoch)
                    if writer.is_busy:
                        failpoint("overlapping", report.epoch)
                case EpochDone():
                    done = diagnostics.evaluate(trainer, report)
                    now = time.monotonic()
                    writer.wait()  # epochs are committed in order, and only one snapshot is in memory
                    failpoint("epoch_trained", report.epoch)
                    epoch = take_snapshot(
                        run,
                        trainer,
                        done,
                        diagnostics,
                        steps=steps,
                        seconds=now - started_at,
                        class_names=dataset.info.class_names,
                        preprocessing=preprocessing,
                        hold_epoch=job.hold_epoch,
                    )
                    left = 0 if done.is_last else run.spec.epochs - report.epoch
                    with tracing.span("epoch", {"tapeline.epoch": report.epoch}, since=started_at):
                        writer.start(epoch, ends_in_s=left * epoch.record.seconds)
                    failpoint("handed_over", report.epoch)
                    if epoch.is_paused_by_sweep:
                        return PAUSED_BY_SWEEP
                    del epoch  # the writer's snapshot is the only one
                    _stop_on_finding(diagnostics)
                    started_at = time.monotonic()
                    run.meter.begin_epoch()
        weights, last, stopped = weights_digest(trainer.state_dict()), trainer.epoch, trainer.stopped_early
        scores = test_scores(run, trainer, dataset, preprocessing, commit_epochs=writer.flush)
        failpoint("tested")
        why = asdict(stopped) if stopped else None
        succeed(run, writer.take(), weights, epoch=last, test_scores=scores, stopped_early=why)
    return SUCCEEDED


def _may_have_checkpoints(job: Job) -> bool:
    """Whether a job may have checkpoints that it did not take over under this lease."""
    return job.epoch > 0 or job.start_epoch > 0


def _restore(run: TrainingRun, trainer: Trainer, start_epoch: int, read: dict[str, State]) -> None:
    """Load the newest readable checkpoint; without one, start from scratch.

    Args:
        read: checkpoints that are in memory already, by path; they do not stay there.

    Raises:
        InitialCheckpointLost: the job is a fork, and its initial checkpoint is damaged or missing.
        ArtifactUnreadable: the folder cannot be read; checkpoints that may be intact are not dropped.
    """
    for row in run.lease.call(commits.checkpoints):
        try:
            state = read.pop(row.path, None) or checkpoint.loads(run.artifacts.read(row.path, row.sha256))
            if row.epoch == start_epoch:
                state, reset = fork_state.adapt(state, run.spec)
                message = f"continues after epoch {start_epoch} of its parent"
                message += "; the optimizer differs, so its state is reset" if reset else ""
                run.lease.call(commits.log, "info", "forked", message)
            trainer.load_state_dict(state)
        except ArtifactUnreadable:
            raise
        except (ArtifactDamaged, CheckpointError) as error:
            if row.epoch == start_epoch:
                raise InitialCheckpointLost(f"the initial checkpoint of this job cannot be used: {error}") from error
            log.warning("checkpoint dropped", epoch=row.epoch, error=str(error))
            run.lease.call(commits.drop_checkpoint, row, str(error))
        else:
            log.info("resumed", epoch=row.epoch)
            return
    if start_epoch:
        raise InitialCheckpointLost("the initial checkpoint of this job is missing")


def _restore_diagnostics(run: TrainingRun, trainer: Trainer, dataset: Dataset, *, is_fork: bool) -> TrainingDiagnostics:
    """The diagnostics, restored to the epoch from which the training continues."""
    diagnostics = TrainingDiagnostics.of(run.spec, dataset, is_fork=is_fork)
    if trainer.epoch:
        diagnostics.replay([row for row in run.lease.call(commits.finished_epochs) if row.epoch <= trainer.epoch])
    _stop_on_finding(diagnostics)  # the previous child may have died between commit and stop
    return diagnostics


def _stop_on_finding(diagnostics: TrainingDiagnostics) -> None:
    if diagnostics.reason_to_stop is not None:
        raise StopOnFinding(diagnostics.reason_to_stop)


def _latest_checkpoint(lease: LeaseSession) -> int | None:
    """The epoch of the latest checkpoint."""
    checkpoints = lease.call(commits.checkpoints)
    return checkpoints[0].epoch if checkpoints else None
