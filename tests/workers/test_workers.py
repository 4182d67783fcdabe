"""Workers as a user sees them: jobs end correctly, no matter what happens to the processes."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import redis
import safetensors.numpy
from sqlalchemy import text

from service.access import audit_seals
from service.access.audit_chain import verify
from service.datasets.cache import load
from service.datasets.formats.array_folders import ArrayCache
from service.jobs import actions, worker_registry
from service.jobs.queries import lookup
from service.states import Drain, Status
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database, now_ms
from service.storage.stores import ArtifactFolder
from service.storage.tables import AuditEntry, Job, Upload, Worker
from tests import brokers
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness, children_of, is_alive, open_migrated_harness, parent_of


def training_child(worker_pid: int) -> int:
    """The child that has used the most CPU time; the other one is the spare."""

    def ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    return max(children_of(worker_pid), key=ticks)


@pytest.mark.stack
@pytest.mark.parametrize(
    ("spec", "keep_last"),
    [
        ({}, 1),
        ({"keep_last": 3}, 3),
        ({"keep_last": 4}, 4),
    ],
)
def test_a_succeeded_job_keeps_its_best_and_as_many_latest_checkpoints_as_its_spec_asks(
    running: WorkerHarness, spec: dict[str, int], keep_last: int
) -> None:
    job_id = running.submit(epochs=4, checkpoint=spec)
    job = running.until_end(job_id)
    with running.database.read() as session:
        files = lookup.artifacts(session, job_id)
    epochs = {row.epoch for row in files if row.kind == ArtifactKind.CHECKPOINT}
    assert epochs == {4, 3, 2, 1} - set(range(1, 5 - keep_last)) | {job.best_epoch}
    folder = running.settings.artifacts
    listed_files = {row.path for row in files}

    def on_disk() -> dict[str, int]:
        paths = [path for path in folder.glob(f"{job_id}/*/*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}

    wait_until(lambda: on_disk().keys() == listed_files, "the deletion of the files, which follows that of the rows")
    assert job.size_bytes == sum(on_disk().values())


def test_a_job_produces_metrics_samples_and_checkpoints(running: WorkerHarness) -> None:
    job_id = running.submit(epochs=3, checkpoint={"keep_last": 1}, name="private-name", tags=["private-tag"])
    job = running.until_end(job_id)
    assert (job.status, job.epoch, job.error) == (Status.SUCCEEDED, 3, None)
    assert job.step == job.steps == 3 * 170
    assert job.result_digest is not None
    assert job.provenance is not None
    assert job.provenance["threads"] == 1
    with running.database.read() as session:
        epochs = lookup.epochs(session, job_id)
        files = lookup.artifacts(session, job_id)
        latest = lookup.checkpoint(session, job, "latest")
    assert [row.epoch for row in epochs] == [1, 2, 3]
    assert {row.epoch for row in files if row.kind == ArtifactKind.SAMPLE} == {1, 2, 3}
    assert {row.epoch for row in files if row.kind == ArtifactKind.CHECKPOINT} == {3, job.best_epoch}
    kinds = [event.type for event in running.log(job_id)]
    assert kinds == ["status", "status", *["metrics", "checkpoint", "sample"] * 3, "status", "end"]

    # safetensors alone can read the checkpoint, and NumPy alone reproduces the reported accuracy from it.
    content = (running.settings.artifacts / latest.path).read_bytes()
    assert b"private-" not in content, "whoever shares a model shares neither the job's name nor its tags"
    weights = safetensors.numpy.load(content)
    data = load("mnist-10k", running.home, cache=ArrayCache(running.home / "cache"))
    x = data.validation.inputs.reshape(-1, 784).astype(np.float32) / 255
    hidden = np.maximum(x @ weights["layers.0.weight"] + weights["layers.0.bias"], 0)
    logits = hidden @ weights["layers.2.weight"] + weights["layers.2.bias"]
    accuracy = np.mean(logits.argmax(axis=1) == data.validation.labels)
    assert accuracy == pytest.approx(job.metrics["val_accuracy"], abs=1e-3)


@pytest.mark.stack
def test_an_early_stopped_job_succeeds_and_keeps_the_files_of_its_last_epoch(running_on_sqlite: WorkerHarness) -> None:
    early_stopping = {"metric": "val_accuracy", "patience": 1, "min_delta": 1}
    rare_files = {"checkpoint": {"every_epochs": 9}, "samples": {"every_epochs": 9, "count": 9}}
    job_id = running_on_sqlite.submit(early_stopping=early_stopping, **rare_files)
    job = running_on_sqlite.until_end(job_id)
    assert (job.status, job.epoch, job.epochs) == (Status.SUCCEEDED, 2, 6)
    assert job.step == job.steps == 2 * 170
    assert job.stopped_early is not None
    assert (job.stopped_early["metric"], job.stopped_early["best_epoch"]) == ("val_accuracy", 1)
    with running_on_sqlite.database.read() as session:
        files = {(row.kind, row.epoch) for row in lookup.artifacts(session, job_id)}
    assert {(ArtifactKind.CHECKPOINT, 2), (ArtifactKind.SAMPLE, 2)} <= files
    assert [event.data["code"] for event in running_on_sqlite.log(job_id) if event.type == "log"] == ["stopped_early"]


@pytest.mark.stack
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children are not forked")
def test_the_fork_server_is_forked_from_the_worker_with_the_hash_seed_of_children(
    sqlite_workers: WorkerHarness, undisturbed_job: Job
) -> None:
    """A random seed is replaced."""
    worker = sqlite_workers.start(PYTHONHASHSEED="random")
    job = sqlite_workers.until_end(sqlite_workers.submit())
    assert job.result_digest == undisturbed_job.result_digest
    (fork_server,) = {parent_of(pid) for pid in children_of(worker.pid)}
    assert psutil.Process(fork_server).cmdline() == psutil.Process(worker.pid).cmdline()
    assert psutil.Process(worker.pid).environ()["PYTHONHASHSEED"] == "0"
    sqlite_workers.stop()
    wait_until(lambda: not is_alive(fork_server), "the end of the fork server")


@pytest.mark.stack
def test_a_killed_child_changes_no_bit_of_the_result(running: WorkerHarness, undisturbed_job: Job) -> None:
    job_id = running.submit()
    (worker,) = running.processes
    running.until(job_id, lambda job: job.epoch >= 1)
    os.kill(training_child(worker.pid), signal.SIGKILL)
    job = running.until_end(job_id)
    assert (job.status, job.attempt) == (Status.SUCCEEDED, 2)
    assert job.result_digest == undisturbed_job.result_digest
    assert not [event for event in running.log(job_id) if event.type == "log"]


@pytest.mark.nightly
@pytest.mark.parametrize("has_broker", [False, True])
def test_after_sigusr1_a_worker_finishes_its_job_and_claims_no_other(
    sqlite_workers: WorkerHarness, tmp_path: Path, has_broker: bool
) -> None:
    """Celery has a handler of its own, which it installs when it starts."""
    with brokers.serve(tmp_path / "broker") if has_broker else nullcontext() as broker:
        running, waiting = sqlite_workers.submit(), sqlite_workers.submit()
        worker = sqlite_workers.start(**({"TAPELINE_BROKER_URL": broker.url} if broker else {}))
        if broker is not None:
            with redis.Redis(unix_socket_path=str(broker.socket)) as client:
                wait_until(lambda: len(client.client_list()) > 1, "Celery to connect")
        sqlite_workers.until(running, lambda job: job.step > 0)
        worker.send_signal(signal.SIGUSR1)
        assert sqlite_workers.until_end(running).status == Status.SUCCEEDED
        wait_until(lambda: registered(sqlite_workers, worker.pid).draining, "its heartbeat")
        assert sqlite_workers.job(waiting).lease == 0
        assert sqlite_workers.job(running).lease == 1
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0


@pytest.mark.nightly
@pytest.mark.parametrize("running", [Drain.RELEASE, Drain.FINISH])
def test_a_drained_worker_releases_or_finishes_its_job_and_claims_again_once_it_is_undrained(
    sqlite_workers: WorkerHarness, undisturbed_job: Job, running: Drain
) -> None:
    job_id, waiting = sqlite_workers.submit(), sqlite_workers.submit(epochs=1)
    worker = sqlite_workers.start()
    sqlite_workers.until(job_id, lambda job: job.epoch >= 1)
    row = registered(sqlite_workers, worker.pid)
    worker_registry.drain(sqlite_workers.database, row.id, running)
    if running is Drain.RELEASE:
        job = sqlite_workers.until(job_id, lambda job: job.status == Status.QUEUED)
        assert [event.data["reason"] for event in sqlite_workers.log(job_id) if event.type == "status"][
            -1
        ] == "released"
    else:
        job = sqlite_workers.until_end(job_id)
    assert (job.attempt, job.lease) == (1, 1)
    wait_until(lambda: registered(sqlite_workers, worker.pid).running == 0, "its next heartbeat")
    assert registered(sqlite_workers, worker.pid).draining
    assert sqlite_workers.job(waiting).lease == 0
    worker_registry.undrain(sqlite_workers.database, row.id)
    assert sqlite_workers.until_end(waiting).status == Status.SUCCEEDED
    job = sqlite_workers.until_end(job_id)
    assert (job.result_digest, job.lease) == (undisturbed_job.result_digest, 2 if running is Drain.RELEASE else 1)
    assert not registered(sqlite_workers, worker.pid).draining
    assert worker.poll() is None


def registered(workers: WorkerHarness, pid: int) -> Worker:
    with workers.database.read() as session:
        return next(row for row in worker_registry.live_workers(session) if row.pid == pid)


@pytest.mark.stack
def test_the_child_of_a_killed_worker_exits_and_another_worker_continues(
    sqlite_workers: WorkerHarness, undisturbed_job: Job
) -> None:
    sqlite_workers.lease_s = 3
    job_id = sqlite_workers.submit()
    worker = sqlite_workers.start()
    sqlite_workers.until(job_id, lambda job: job.epoch >= 1)
    children = children_of(worker.pid)
    worker.kill()
    worker.wait()
    wait_until(lambda: not any(map(is_alive, children)), "the end of all children")
    assert sqlite_workers.job(job_id).status == Status.RUNNING, "a child trained to the end"
    sqlite_workers.start("workers.scheduler")
    sqlite_workers.until(job_id, lambda job: job.status == Status.QUEUED)
    sqlite_workers.start()
    job = sqlite_workers.until_end(job_id)
    assert (job.attempt, job.lease) == (2, 2)
    assert job.result_digest == undisturbed_job.result_digest


@pytest.mark.nightly
def test_the_scheduler_seals_the_audit_log(sqlite_workers: WorkerHarness) -> None:
    with sqlite_workers.database.write() as session:
        session.add(AuditEntry(at_ms=now_ms() - 60_000, action="submit", detail={}))
    sqlite_workers.start("workers.scheduler")
    wait_until(lambda: not verify(audit_seals.items(sqlite_workers.database)).unsealed, "the seal", 60)
    verification = verify(audit_seals.items(sqlite_workers.database))
    assert (verification.fault, verification.entries, verification.unsealed) == (None, 1, 0)


@pytest.mark.stack
def test_a_stopped_worker_hands_its_job_back_at_once(sqlite_workers: WorkerHarness, undisturbed_job: Job) -> None:
    job_id = sqlite_workers.submit()
    worker = sqlite_workers.start()
    sqlite_workers.until(job_id, lambda job: job.epoch >= 1)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    log = (sqlite_workers.home / "workers.log").read_text()
    assert '"outcome": "released"' in log, "the child did not stop by itself"
    job = sqlite_workers.job(job_id)
    assert (job.status, job.attempt) == (Status.QUEUED, 1)
    sqlite_workers.start()
    job = sqlite_workers.until_end(job_id)
    assert (job.attempt, job.lease) == (1, 2)
    assert job.result_digest == undisturbed_job.result_digest


@pytest.mark.stack
def test_a_pause_takes_effect_before_the_end_and_changes_no_bit(
    running_on_sqlite: WorkerHarness, undisturbed_job: Job
) -> None:
    job_id = running_on_sqlite.submit()
    running_on_sqlite.until(job_id, lambda job: job.epoch >= 1)
    actions.pause(running_on_sqlite.database, job_id)
    running_on_sqlite.until(job_id, lambda job: job.status == Status.PAUSED)
    actions.resume(running_on_sqlite.database, job_id)
    job = running_on_sqlite.until_end(job_id)
    assert job.result_digest == undisturbed_job.result_digest


@pytest.mark.stack
def test_a_cancelled_job_keeps_its_latest_checkpoint(running_on_sqlite: WorkerHarness) -> None:
    job_id = running_on_sqlite.submit(epochs=500)
    running_on_sqlite.until(job_id, lambda job: job.epoch >= 1)
    actions.cancel(running_on_sqlite.database, job_id)
    job = running_on_sqlite.until(job_id, lambda job: job.status == Status.CANCELLED)
    assert job.epoch < 500
    with running_on_sqlite.database.read() as session:
        assert lookup.checkpoint(session, job, "latest").epoch == job.epoch


DIVERGING: dict[str, Any] = {
    "layers": [{"units": 50, "activation": "relu"}, {"units": 10, "activation": "linear"}],
    "loss": {"name": "squared_error", "reduction": "sum"},
    "optimizer": {"name": "sgd", "learning_rate": 1.0},
    "schedule": {"name": "one_cycle", "warmup_fraction": 0.9, "start_factor": 1e-5},
    "epochs": 10,
}


@pytest.mark.stack
def test_a_non_finite_loss_fails_the_job_with_a_hint(running_on_sqlite: WorkerHarness) -> None:
    job_id = running_on_sqlite.submit(**DIVERGING)
    job = running_on_sqlite.until_end(job_id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "diverged"
    assert job.error["epoch"] == job.epoch + 1
    assert job.error["last_good_checkpoint"] == (job.epoch or None)
    assert "learning rate" in job.error["hint"]
    assert "retry" not in actions.actions_of(job)
    if job.epoch:
        with running_on_sqlite.database.read() as session:
            assert lookup.checkpoint(session, job, "latest").epoch == job.epoch


def test_a_job_without_its_dataset_fails_with_the_name_and_a_remedy(running_on_sqlite: WorkerHarness) -> None:
    """The dataset is unknown, or it is an upload whose folder was lost."""
    shape = {"image_rows": 28, "image_columns": 28, "classes": 10, "train_count": 8500, "validation_count": 1500}
    lost = Upload(id="ds_lost", owner="", name="lost", sha256="sha256:1", size_bytes=1, created_ms=1, **shape)
    with running_on_sqlite.database.write() as session:
        session.add(lost)
    pinned = {"mnits": None, "lost": "ds_lost"}
    job_ids = [running_on_sqlite.submit(dataset={"name": name}, upload_id=pinned[name]) for name in pinned]
    jobs = [running_on_sqlite.until_end(job_id) for job_id in job_ids]
    with running_on_sqlite.database.write() as session:
        session.delete(lost)
    assert {job.status for job in jobs} == {Status.FAILED}
    unknown, unreadable = (job.error or {} for job in jobs)
    assert unknown["code"] == "dataset_not_found"
    assert unknown["message"].startswith("there is no dataset 'mnits'. Did you mean 'mnist'? Available: ")
    assert {"mnist", "lost"} <= set(unknown["message"].partition("Available: ")[2].split(", "))
    assert unreadable["code"] == "dataset_unavailable"
    assert "the dataset 'lost' is not available: the files of this upload cannot be read" in unreadable["message"]
    assert unreadable["message"].endswith("Restore its files, or delete the dataset and upload it again")


@pytest.mark.nightly
def test_a_job_with_a_damaged_checkpoint_resumes_from_the_previous_one(
    sqlite_workers: WorkerHarness, undisturbed_job: Job
) -> None:
    job_id = sqlite_workers.submit()
    worker = sqlite_workers.start(COMMITS_EACH_EPOCH="1")
    sqlite_workers.until(job_id, lambda job: job.epoch >= 2)
    actions.pause(sqlite_workers.database, job_id)
    sqlite_workers.until(job_id, lambda job: job.status == Status.PAUSED)
    with sqlite_workers.database.read() as session:
        rows = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
    damaged = ArtifactFolder(sqlite_workers.settings.artifacts).root / rows[-1].path
    damaged.write_bytes(damaged.read_bytes()[:-100])
    actions.resume(sqlite_workers.database, job_id)
    job = sqlite_workers.until_end(job_id)
    assert worker.poll() is None
    assert job.result_digest == undisturbed_job.result_digest
    codes = [event.data["code"] for event in sqlite_workers.log(job_id) if event.type == "log"]
    assert codes == ["checkpoint_damaged"]


@pytest.mark.nightly  # tests/service/jobs/test_leases.py counts the losses
def test_a_job_fails_after_its_training_process_was_lost_three_times(sqlite_workers: WorkerHarness) -> None:
    wide = {"units": 2000, "activation": "relu"}
    job_id = sqlite_workers.submit(epochs=1, batch_size=1, layers=[wide, wide, {"units": 10, "activation": "softmax"}])
    worker = sqlite_workers.start()
    for lease in (1, 2, 3):
        sqlite_workers.until(job_id, lambda job, lease=lease: job.lease == lease and job.step > 0)  # type: ignore[misc]  # mypy infers no type for a default
        os.kill(training_child(worker.pid), signal.SIGKILL)
    job = sqlite_workers.until_end(job_id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"


@pytest.mark.nightly
def test_a_connection_dropped_by_the_database_changes_no_bit(
    tmp_path: Path, private_postgres_url: str, undisturbed_job: Job
) -> None:
    with open_migrated_harness(private_postgres_url, tmp_path / "home") as workers:
        job_id = workers.submit()
        workers.start()
        workers.until(job_id, lambda job: job.epoch >= 1)
        with workers.database.write() as session:
            terminate = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'tapeline-worker' AND datname = current_database()"
            )
            assert session.execute(text(terminate)).all()
        job = workers.until_end(job_id)
    assert (job.status, job.error) == (Status.SUCCEEDED, None)
    assert job.result_digest == undisturbed_job.result_digest


@pytest.mark.nightly
def test_a_worker_that_cannot_start_a_child_claims_no_job(sqlite_workers: WorkerHarness, tmp_path: Path) -> None:
    (tmp_path / "threadpoolctl.py").write_text("raise ImportError('broken')\n")
    job_id = sqlite_workers.submit()
    sqlite_workers.start(PYTHONPATH=str(tmp_path))
    log = sqlite_workers.home / "workers.log"
    wait_until(lambda: "before it was ready" in log.read_text(), "the end of a child", 60)
    assert (sqlite_workers.job(job_id).status, sqlite_workers.job(job_id).lease) == (Status.QUEUED, 0)


@pytest.mark.stack
def test_no_child_process_is_left_after_a_worker_stops(sqlite_workers: WorkerHarness) -> None:
    sqlite_workers.submit(epochs=500)
    worker = sqlite_workers.start()
    wait_until(lambda: len(children_of(worker.pid)) >= 2, "the training child and the spare one", 60)
    children = children_of(worker.pid)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert not any(map(is_alive, children))


def test_a_running_worker_is_registered_with_its_slots(running_on_sqlite: WorkerHarness) -> None:
    wait_until(lambda: registered_slots(running_on_sqlite.database), "its registration", 60)
    assert registered_slots(running_on_sqlite.database) == [1]


def registered_slots(database: Database) -> list[int]:
    with database.read() as session:
        return [worker.slots for worker in worker_registry.live_workers(session)]


@pytest.mark.nightly
def test_a_job_that_runs_out_of_memory_fails_and_nothing_else_does(
    sqlite_workers: WorkerHarness, tmp_path: Path
) -> None:
    failpoints = tmp_path / "failpoints"
    failpoints.mkdir()
    (failpoints / "epoch_trained.5").write_text("hoard")  # after the checks of the child below
    job_id, next_id = sqlite_workers.submit(), sqlite_workers.submit(epochs=1)
    worker = sqlite_workers.start(TESTING_FAILPOINTS=str(failpoints))
    sqlite_workers.until(job_id, lambda job: job.epoch >= 1)
    child = training_child(worker.pid)
    assert int(Path(f"/proc/{child}/oom_score_adj").read_text()) == 500
    assert os.getpriority(os.PRIO_PROCESS, child) >= 5
    job = sqlite_workers.until_end(job_id)
    assert (job.status, (job.error or {})["code"]) == (Status.FAILED, "out_of_memory")
    assert job.attempt == 1
    assert sqlite_workers.until_end(next_id).status == Status.SUCCEEDED
    assert worker.poll() is None
