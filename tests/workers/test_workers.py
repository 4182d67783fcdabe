"""Workers as seen by a user: jobs end correctly, whatever happens to the processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from sqlalchemy import text

from service.access import audit_seals
from service.access.audit_chain import verify
from service.datasets.cache import load
from service.jobs import actions, worker_registry
from service.jobs.queries import lookup
from service.states import Status
from service.storage.artifacts import ArtifactFolder, ArtifactKind
from service.storage.database import Database, now_ms
from service.storage.tables import AuditEntry, Job
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness, children_of, is_alive, open_worker_harness


def training_child(worker_pid: int) -> int:
    """The child that has used the most processor time; the other one is the spare."""

    def ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    return max(children_of(worker_pid), key=ticks)


def all_end(pids: list[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_alive, pids))


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ({}, 1),
        pytest.param({"keep_last": 3}, 3, marks=pytest.mark.slow),
        pytest.param({"keep_last": 4}, 4, marks=pytest.mark.slow),
    ],
)
def test_a_job_that_succeeded_keeps_as_many_checkpoints_as_its_spec_says_or_the_best_and_the_latest(
    running: WorkerHarness, spec: dict[str, int], kept: int
) -> None:
    job_id = running.submit(epochs=4, checkpoint=spec)
    job = running.until_end(job_id)
    with running.database.read() as session:
        files = lookup.artifacts(session, job_id)
    epochs = {row.epoch for row in files if row.kind == ArtifactKind.CHECKPOINT}
    assert epochs == {4, 3, 2, 1} - set(range(1, 5 - kept)) | {job.best_epoch}
    folder = running.settings.artifacts
    kept_files = {row.path for row in files}

    def on_disk() -> dict[str, int]:
        found = [path for path in folder.glob(f"{job_id}/*/*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}

    wait_until(lambda: on_disk().keys() == kept_files, "the removal of the files, which go after the rows")
    assert job.size_bytes == sum(on_disk().values())


def test_a_job_leaves_metrics_samples_and_checkpoints(running: WorkerHarness) -> None:
    job_id = running.submit(epochs=3, checkpoint={"keep_last": 1})
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

    # The checkpoint opens with nothing but safetensors, and NumPy alone gives the reported accuracy.
    weights = safetensors.numpy.load((running.settings.artifacts / latest.path).read_bytes())
    data = load("mnist-10k", running.home, cache_root=running.home / "cache")
    x = data.validation.inputs.reshape(-1, 784).astype(np.float32) / 255
    hidden = np.maximum(x @ weights["layers.0.weight"] + weights["layers.0.bias"], 0)
    logits = hidden @ weights["layers.2.weight"] + weights["layers.2.bias"]
    accuracy = np.mean(logits.argmax(axis=1) == data.validation.labels)
    assert accuracy == pytest.approx(job.metrics["val_accuracy"], abs=1e-3)


def test_a_job_that_stops_early_succeeds_with_its_last_epoch_kept(running_light: WorkerHarness) -> None:
    never = {"metric": "val_accuracy", "patience": 1, "min_delta": 1}
    rarely = {"checkpoint": {"every_epochs": 9}, "samples": {"every_epochs": 9, "count": 9}}
    job_id = running_light.submit(early_stopping=never, **rarely)
    job = running_light.until_end(job_id)
    assert (job.status, job.epoch, job.epochs) == (Status.SUCCEEDED, 2, 6)
    assert job.step == job.steps == 2 * 170
    assert job.stopped_early is not None
    assert (job.stopped_early["metric"], job.stopped_early["best_epoch"]) == ("val_accuracy", 1)
    with running_light.database.read() as session:
        files = {(row.kind, row.epoch) for row in lookup.artifacts(session, job_id)}
    assert {(ArtifactKind.CHECKPOINT, 2), (ArtifactKind.SAMPLE, 2)} <= files
    assert [event.data["code"] for event in running_light.log(job_id) if event.type == "log"] == ["stopped_early"]


def test_a_killed_child_changes_nothing_not_one_bit(running: WorkerHarness, undisturbed: Job) -> None:
    job_id = running.submit()
    (worker,) = running.processes
    running.until(job_id, lambda job: job.epoch >= 1)
    os.kill(training_child(worker.pid), signal.SIGKILL)
    job = running.until_end(job_id)
    assert (job.status, job.attempt) == (Status.SUCCEEDED, 2)
    assert job.result_digest == undisturbed.result_digest
    assert not [event for event in running.log(job_id) if event.type == "log"]


@pytest.mark.slow
def test_the_child_of_a_killed_worker_ends_and_another_worker_continues(light: WorkerHarness, undisturbed: Job) -> None:
    light.lease_s = 3
    job_id = light.submit()
    worker = light.start()
    light.until(job_id, lambda job: job.epoch >= 1)
    children = children_of(worker.pid)
    worker.kill()
    worker.wait()
    assert all_end(children, within_s=2)
    light.start("workers.reconcile")
    light.until(job_id, lambda job: job.status == Status.QUEUED, light.lease_s + 5)
    light.start()
    job = light.until_end(job_id)
    assert (job.attempt, job.lease) == (2, 2)
    assert job.result_digest == undisturbed.result_digest


@pytest.mark.slow
def test_the_scheduler_seals_the_audit_log(light: WorkerHarness) -> None:
    with light.database.write() as session:
        session.add(AuditEntry(at_ms=now_ms() - 60_000, action="submit", detail={}))
    light.start("workers.reconcile")
    deadline = time.monotonic() + 60
    while (found := verify(audit_seals.items(light.database))).unsealed and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (found.fault, found.entries, found.unsealed) == (None, 1, 0)


@pytest.mark.slow
def test_a_stopped_worker_hands_its_job_back_at_once(light: WorkerHarness, undisturbed: Job) -> None:
    job_id = light.submit()
    worker = light.start()
    light.until(job_id, lambda job: job.epoch >= 1)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert time.monotonic() - began < 10
    job = light.job(job_id)
    assert (job.status, job.attempt) == (Status.QUEUED, 1)
    light.start()
    job = light.until_end(job_id)
    assert (job.attempt, job.lease) == (1, 2)
    assert job.result_digest == undisturbed.result_digest


def test_a_pause_is_obeyed_within_a_second_and_costs_no_bit(running_light: WorkerHarness, undisturbed: Job) -> None:
    job_id = running_light.submit()
    running_light.until(job_id, lambda job: job.epoch >= 1)
    actions.pause(running_light.database, job_id)
    began = time.monotonic()
    running_light.until(job_id, lambda job: job.status == Status.PAUSED)
    assert time.monotonic() - began < 4  # a second, and some more for a busy machine
    actions.resume(running_light.database, job_id)
    job = running_light.until_end(job_id)
    assert job.result_digest == undisturbed.result_digest


def test_a_cancelled_job_keeps_what_it_has(running_light: WorkerHarness) -> None:
    job_id = running_light.submit(epochs=500)
    running_light.until(job_id, lambda job: job.epoch >= 1)
    actions.cancel(running_light.database, job_id)
    job = running_light.until(job_id, lambda job: job.status == Status.CANCELLED, 5)
    with running_light.database.read() as session:
        assert lookup.checkpoint(session, job, "latest").epoch == job.epoch


DIVERGING: dict[str, Any] = {
    "layers": [{"units": 50, "activation": "relu"}, {"units": 10, "activation": "linear"}],
    "loss": {"name": "squared_error", "reduction": "sum"},
    "optimizer": {"name": "sgd", "learning_rate": 1.0},
    "schedule": {"name": "one_cycle", "warmup_fraction": 0.9, "start_factor": 1e-5},
    "epochs": 10,
}


def test_a_loss_that_is_not_finite_fails_the_job_with_advice(running_light: WorkerHarness) -> None:
    job_id = running_light.submit(**DIVERGING)
    job = running_light.until_end(job_id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "diverged"
    assert job.error["epoch"] == job.epoch + 1
    assert job.error["last_good_checkpoint"] == (job.epoch or None)
    assert "learning rate" in job.error["hint"]
    assert "retry" not in actions.actions_of(job)
    if job.epoch:
        with running_light.database.read() as session:
            assert lookup.checkpoint(session, job, "latest").epoch == job.epoch


def test_data_that_cannot_be_had_fail_the_job_and_say_what_to_do(running_light: WorkerHarness) -> None:
    job_id = running_light.submit(dataset={"name": "gone"})
    job = running_light.until_end(job_id)
    assert job.error is not None
    assert job.error["code"] in ("dataset_not_found", "dataset_unavailable")
    assert job.error["message"]


@pytest.mark.slow
def test_a_damaged_checkpoint_falls_back_to_the_one_before(light: WorkerHarness, undisturbed: Job) -> None:
    job_id = light.submit()
    worker = light.start()
    light.until(job_id, lambda job: job.epoch >= 2)
    actions.pause(light.database, job_id)
    light.until(job_id, lambda job: job.status == Status.PAUSED)
    with light.database.read() as session:
        rows = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
    damaged = ArtifactFolder(light.settings.artifacts).root / rows[-1].path
    damaged.write_bytes(damaged.read_bytes()[:-100])
    actions.resume(light.database, job_id)
    job = light.until_end(job_id)
    assert worker.poll() is None
    assert job.result_digest == undisturbed.result_digest
    codes = [event.data["code"] for event in light.log(job_id) if event.type == "log"]
    assert codes == ["checkpoint_damaged"]


@pytest.mark.slow
def test_a_job_that_kills_its_worker_is_given_up_after_three(light: WorkerHarness) -> None:
    wide = {"units": 2000, "activation": "relu"}
    job_id = light.submit(epochs=1, batch_size=1, layers=[wide, wide, {"units": 10, "activation": "softmax"}])
    worker = light.start()
    for lease in (1, 2, 3):
        light.until(job_id, lambda job, lease=lease: job.lease == lease and job.step > 0)  # type: ignore[misc]  # mypy infers no type for a default
        os.kill(training_child(worker.pid), signal.SIGKILL)
    job = light.until_end(job_id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"


@pytest.mark.slow
def test_a_connection_that_the_database_drops_costs_no_bit(tmp_path: Path, postgres_url: str, undisturbed: Job) -> None:
    workers = open_worker_harness(tmp_path / "home", postgres_url)
    job_id = workers.submit()
    workers.start()
    workers.until(job_id, lambda job: job.epoch >= 1)
    with workers.database.write() as session:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tapeline-child'"
        assert session.execute(text(cut)).all()
    job = workers.until_end(job_id)
    workers.stop()
    workers.database.close()
    assert (job.status, job.error) == (Status.SUCCEEDED, None)
    assert job.result_digest == undisturbed.result_digest


def test_a_worker_that_cannot_start_a_child_claims_nothing(light: WorkerHarness, tmp_path: Path) -> None:
    (tmp_path / "threadpoolctl.py").write_text("raise ImportError('broken')\n")
    job_id = light.submit()
    light.start(PYTHONPATH=str(tmp_path))
    deadline = time.monotonic() + 60
    while "before it was ready" not in (light.home / "workers.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (light.job(job_id).status, light.job(job_id).lease) == (Status.QUEUED, 0)


@pytest.mark.slow
def test_no_process_is_left_after_a_stop(light: WorkerHarness) -> None:
    light.submit(epochs=500)
    worker = light.start()
    deadline = time.monotonic() + 60  # two processes start, on a machine that may be busy
    while len(children := children_of(worker.pid)) < 2:  # the one that trains, and the spare
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert not any(map(is_alive, children))


def test_a_worker_checks_in(running_light: WorkerHarness) -> None:
    deadline = time.monotonic() + 60
    while not workers_of(running_light.database):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert workers_of(running_light.database) == [1]


def workers_of(database: Database) -> list[int]:
    with database.read() as session:
        return [worker.slots for worker in worker_registry.live_workers(session)]


@pytest.mark.slow
def test_a_job_that_wants_too_much_memory_fails_and_nothing_else(light: WorkerHarness, tmp_path: Path) -> None:
    struck = tmp_path / "failpoints"
    struck.mkdir()
    (struck / "epoch_trained.5").write_text("hoard")  # later than what is asked of the child below
    job_id, next_id = light.submit(), light.submit(epochs=1)
    worker = light.start(TESTING_FAILPOINTS=str(struck))
    light.until(job_id, lambda job: job.epoch >= 1)
    child = training_child(worker.pid)
    assert int(Path(f"/proc/{child}/oom_score_adj").read_text()) == 500
    assert os.getpriority(os.PRIO_PROCESS, child) >= 5
    job = light.until_end(job_id)
    assert (job.status, (job.error or {})["code"]) == (Status.FAILED, "out_of_memory")
    assert job.attempt == 1
    assert light.until_end(next_id).status == Status.SUCCEEDED
    assert worker.poll() is None
