"""A job takes over epochs and files of an earlier one, bit for bit, even if processes die meanwhile."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from service.jobs import actions
from service.jobs.queries import lookup
from service.jobs.reuse import reused_epochs
from service.jobs.reuse.sources import Source
from service.states import Status
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Epoch, Event, Job
from tests.faults.conftest import InProcessHarness, replace_operation
from tests.faults.reproducibility.results import result
from workers.training import code_digest, provenance


@pytest.fixture(autouse=True)
def _no_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, one reused result in a hundred is verified."""
    monkeypatch.setenv("TAPELINE_VERIFY_REUSED", "0")


def train(process: InProcessHarness, **spec: Any) -> Job:
    job_id = process.submit(**{"schedule": {"name": "constant"}} | spec)
    assert process.train() == "succeeded"
    return process.workers.job(job_id)


def trained_epochs(process: InProcessHarness, job: Job) -> int:
    with process.database.read() as session:
        query = select(func.count()).select_from(Epoch).where(Epoch.job_id == job.id, Epoch.epoch > job.reused_epochs)
        return session.scalar(query) or 0


@pytest.mark.parametrize("reuse", ["exact", "prefix"])
def test_an_equal_job_takes_over_the_whole_result(process: InProcessHarness, reuse: str) -> None:
    first = train(process)
    again = train(process, reuse=reuse, name="another name", tags=["a"])
    assert (again.reused_from, again.reused_epochs) == (first.id, 3)
    assert result(process, again) == result(process, first)
    log = process.workers.log(again.id)
    assert [event.type for event in log if event.type in ("status", "end")] == ["status"] * 3 + ["end"]
    assert log[-1].data["result_digest"] == first.result_digest
    process.check(None)


def test_without_the_reuse_field_all_epochs_are_trained(process: InProcessHarness) -> None:
    train(process)
    assert train(process).reused_from is None


def test_epochs_of_shorter_jobs_are_not_trained_again(process: InProcessHarness) -> None:
    lengths = [2, 4, 6]
    alone = [train(process, epochs=epochs, seed=1) for epochs in lengths]
    for job in alone:
        disable_reuse(process, job)
    together = [train(process, epochs=epochs, seed=1, reuse="prefix") for epochs in lengths]
    assert [trained_epochs(process, job) for job in together] == [2, 2, 2]
    assert [job.reused_from for job in together] == [None, together[0].id, together[1].id]
    assert [result(process, job) for job in together] == [result(process, job) for job in alone]
    process.check(None)


@pytest.mark.parametrize(
    "overrides",
    [
        {"schedule": {"name": "step", "at_epochs": [2], "factor": 0.5}},
        {"early_stopping": {"metric": "train_loss", "patience": 1, "min_delta": 0.2}, "epochs": 2},
        {"average_decay": 0.9, "optimizer": {"name": "adam", "learning_rate": 0.001}},
        {"accumulate": 2, "checkpoint": {}},
    ],
)
def test_a_continued_job_is_bit_identical_to_one_trained_from_the_start(
    process: InProcessHarness, overrides: dict[str, Any]
) -> None:
    longer = overrides | {"epochs": 5}
    alone = train(process, **longer)
    disable_reuse(process, alone)
    short = train(process, **overrides)
    job = train(process, **longer, reuse="prefix")
    assert (job.reused_from, job.reused_epochs) == (short.id, short.epoch)
    assert result(process, job)[:-2] == result(process, alone)[:-2]


GAN: dict[str, Any] = {
    "kind": "gan",
    "dataset": {"name": "few", "scale": [-1, 1]},
    "batch_size": 85,
    "latent": {"dim": 8},
    "generator": {"layers": [{"units": 16, "activation": "relu"}, {"units": 784, "activation": "tanh"}]},
    "discriminator": {"layers": [{"units": 16, "activation": "relu"}, {"units": 1, "activation": "sigmoid"}]},
    "schedule": {"name": "constant"},
    "samples": {"count": 4},
}


@pytest.mark.parametrize(("every_epochs", "reused"), [(1, 2), (5, 0)])
def test_a_gan_continues_only_from_an_epoch_whose_scores_were_due(
    process: InProcessHarness, every_epochs: int, reused: int
) -> None:
    spec = GAN | {"health": {"every_epochs": every_epochs}}
    jobs = []
    for overrides in ({"epochs": 4}, {"epochs": 2}, {"epochs": 4, "reuse": "prefix"}):
        process.accepted.append(process.workers.store(spec | overrides))
        assert process.train() == "succeeded"
        jobs.append(process.workers.job(process.accepted[-1]))
        if overrides == {"epochs": 4}:
            disable_reuse(process, jobs[0])
    alone, _, job = jobs
    assert job.reused_epochs == reused
    assert result(process, job)[:-2] == result(process, alone)[:-2]


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_a_schedule_over_the_whole_run_prevents_prefix_reuse(process: InProcessHarness, name: str) -> None:
    train(process, epochs=2, schedule={"name": name})
    assert train(process, epochs=3, schedule={"name": name}, reuse="prefix").reused_from is None


def test_a_job_does_not_continue_from_a_last_epoch_with_extra_samples(process: InProcessHarness) -> None:
    """The last epoch of the shorter job has samples, which that epoch of the longer job would not have."""
    settings = {"samples": {"count": 4, "every_epochs": 2}, "checkpoint": {"keep_last": 9}}
    alone = train(process, epochs=5, **settings)
    disable_reuse(process, alone)
    train(process, epochs=3, **settings)
    job = train(process, epochs=5, reuse="prefix", **settings)
    assert job.reused_epochs == 2
    assert job.result_digest == alone.result_digest


def test_a_cancelled_job_can_be_continued_even_with_a_cosine_schedule(process: InProcessHarness) -> None:
    cosine = {"schedule": {"name": "cosine"}}
    alone = train(process, **cosine)
    disable_reuse(process, alone)
    stopped = process.submit(**cosine)
    process.die_at("epoch_committed.2")
    actions.cancel(process.database, stopped)
    job = train(process, reuse="prefix", **cosine)
    assert (job.reused_from, job.reused_epochs) == (stopped, 2)
    assert result(process, job)[:-1] == result(process, alone)[:-1]


def disable_reuse(process: InProcessHarness, job: Job) -> None:
    with process.database.write() as session:
        session.execute(update(Job).where(Job.id == job.id).values(reusable=False))


def test_a_different_numpy_cpu_thread_count_or_code_prevents_reuse(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(process)
    machine = dict(provenance.machine())
    for other in ({"numpy": "0.0.1"}, {"simd": []}, {"blas": ["none"]}, {"threads": 7}):
        with monkeypatch.context() as patched:
            patched.setattr(provenance, "machine", lambda changed=machine | other: changed)
            assert train(process, reuse="prefix").reused_from is None
    changed = code_digest.digest_of(edited_tree(process.workers.home))
    with monkeypatch.context() as patched:
        patched.setattr(code_digest, "digest", lambda: changed)
        assert train(process, reuse="prefix").reused_from is None
    assert train(process, reuse="prefix").reused_from is not None


def test_another_libc_prevents_reuse_and_is_named(process: InProcessHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new base image has another libm, whose log1p and expm1 may have other last digits."""
    # Not the cached result: a test before this one may have asked for it with another number of BLAS threads.
    monkeypatch.setattr(provenance, "machine", provenance.machine.__wrapped__)
    train(process, reuse="prefix")
    unfinished = process.submit()
    process.die_at("epoch_committed.2")
    with monkeypatch.context() as patched:
        patched.setattr(platform, "libc_ver", lambda: ("glibc", "2.17"))
        assert process.train() == "succeeded"
        assert train(process, reuse="prefix").reused_from is None
    mixed = [event.data for event in process.workers.log(unfinished) if event.data.get("code") == "mixed_provenance"]
    assert ["(libc)" in data["message"] for data in mixed] == [True]


def test_a_result_from_before_the_libc_was_recorded_is_not_reused(process: InProcessHarness) -> None:
    recorded = dict(train(process).provenance or {})
    assert recorded.pop("libc")
    with process.database.write() as session:
        session.execute(update(Job).values(provenance=recorded))
    assert train(process, reuse="prefix").reused_from is None


def edited_tree(home: Path) -> Path:
    """A copy of the code, with a line added to the engine."""
    root = Path(code_digest.__file__).parents[2]
    for path in code_digest.files(root):
        target = home / "tree" / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    sgd = home / "tree" / "engine/optim/sgd.py"
    sgd.write_text(sgd.read_text() + "\n\nEDITED = 1\n")
    return home / "tree"


def test_different_data_another_owner_or_a_fork_prevents_reuse(process: InProcessHarness) -> None:
    first = train(process)
    with process.database.write() as session:
        row = session.get_one(Job, first.id)
        row.provenance = {**(row.provenance or {}), "dataset": "sha256:other"}
    assert train(process, reuse="exact").reused_from is None
    second = train(process, seed=1)
    with process.database.write() as session:
        session.get_one(Job, second.id).owner = "somebody"
    assert train(process, seed=1, reuse="exact").reused_from is None
    third = train(process, seed=2)
    with process.database.write() as session:
        session.get_one(Job, third.id).start_epoch = 1
    assert train(process, seed=2, reuse="exact").reused_from is None


def test_a_job_stays_complete_after_its_source_is_deleted(process: InProcessHarness) -> None:
    first = train(process)
    expected = result(process, first)
    again = train(process, reuse="exact")
    actions.remove(process.database, first.id)
    process.artifacts.remove_folder(first.id)
    process.accepted.remove(first.id)
    assert result(process, process.workers.job(again.id)) == expected
    third = train(process, reuse="exact")
    assert third.reused_from == again.id
    process.check(None)


@pytest.mark.parametrize("verified", [0, 1])
def test_a_job_is_trained_if_its_source_is_deleted_during_the_takeover(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, verified: int
) -> None:
    """The source is found, but deleted before its epochs are read."""
    first = train(process)
    find = reused_epochs.find

    def find_and_delete(*arguments: Any) -> Source | None:
        source = find(*arguments)
        assert source is not None
        actions.remove(process.database, first.id)
        process.artifacts.remove_folder(first.id)
        process.accepted.remove(first.id)
        return source

    monkeypatch.setenv("TAPELINE_VERIFY_REUSED", str(verified))
    replace_operation(monkeypatch, reused_epochs.find, find_and_delete)
    again = train(process, reuse="exact")
    assert (again.reused_from, again.result_digest) == (None, first.result_digest)
    process.check(None)


def test_a_source_with_a_damaged_file_is_not_reused(process: InProcessHarness) -> None:
    first = train(process)
    with process.database.read() as session:
        file = lookup.artifacts(session, first.id, ArtifactKind.CHECKPOINT)[-1]
    path = process.artifacts.root / file.path
    path.write_bytes(path.read_bytes()[:-1])
    again = train(process, reuse="exact")
    assert (again.reused_from, again.result_digest) == (None, first.result_digest)


@pytest.mark.parametrize("place", ["file_renamed.sample", "reuse_stored", "reusing", "reused"])
@pytest.mark.parametrize("epochs", [3, 4])
def test_a_child_that_dies_during_the_takeover_does_not_change_the_result(
    process: InProcessHarness, place: str, epochs: int
) -> None:
    alone = train(process, epochs=epochs)
    if epochs > 3:
        disable_reuse(process, alone)
        train(process)
    job_id = process.submit(epochs=epochs, reuse="prefix", schedule={"name": "constant"})
    process.die_at(place)
    if process.workers.job(job_id).status == Status.QUEUED:
        assert process.train() == "succeeded"
    job = process.workers.job(job_id)
    assert job.reused_epochs == 3
    assert result(process, job) == result(process, alone)
    process.check(None)


def test_a_reuse_selected_for_verification_is_logged_as_verified(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(process)
    monkeypatch.setenv("TAPELINE_VERIFY_REUSED", "1")
    again = train(process, reuse="exact")
    assert again.reused_from == first.id
    assert "verified" in log_codes(process, again.id)


@pytest.mark.parametrize("damaged", ["metrics", "samples", "weights"])
def test_a_source_with_an_unrepeatable_epoch_is_disabled(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    first = train(process)
    expected = first.result_digest
    copied = train(process, reuse="exact")
    with process.database.write() as session:
        row = session.get_one(Epoch, (first.id, 3))
        if damaged == "metrics":
            row.metrics = {**row.metrics, "train_loss": row.metrics["train_loss"] + 1e-9}
        if damaged == "samples":
            row.samples_digest = "sha256:other"
    if damaged == "weights":
        flip_a_bit(process, first.id, 3)
    disable_reuse(process, copied)
    with process.database.write() as session:
        session.execute(update(Job).where(Job.id == copied.id).values(reusable=True, prefix_hash="another"))
    monkeypatch.setenv("TAPELINE_VERIFY_REUSED", "1")
    again = train(process, reuse="exact")
    assert (again.reused_from, again.result_digest) == (None, expected)
    assert "determinism_violation" in log_codes(process, again.id)
    assert "determinism_violation" in log_codes(process, first.id)
    assert not process.workers.job(first.id).reusable
    assert not process.workers.job(copied.id).reusable
    assert process.workers.job(again.id).reusable
    assert train(process, reuse="exact").reused_from == again.id


def test_jobs_that_reuse_a_disabled_job_indirectly_are_disabled_too(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [train(process, epochs=epochs, reuse="prefix") for epochs in (1, 2, 3)]
    assert [job.reused_from for job in jobs] == [None, jobs[0].id, jobs[1].id]
    with process.database.write() as session:
        row = session.get_one(Epoch, (jobs[0].id, 1))
        row.metrics = {**row.metrics, "train_loss": row.metrics["train_loss"] + 1e-9}
        # so that only the first job is found as a source
        session.execute(update(Job).where(Job.id != jobs[0].id).values(prefix_hash="another"))
    monkeypatch.setenv("TAPELINE_VERIFY_REUSED", "1")
    train(process, epochs=1, reuse="exact")
    assert [process.workers.job(job.id).reusable for job in jobs] == [False] * 3


def log_codes(process: InProcessHarness, job_id: str) -> list[str]:
    with process.database.read() as session:
        query = select(Event.data["code"].as_string()).where(Event.job_id == job_id, Event.type == "log")
        return list(session.scalars(query))


def flip_a_bit(process: InProcessHarness, job_id: str, epoch: int) -> None:
    """Flip the lowest bit of a weight in an otherwise valid checkpoint."""
    with process.database.write() as session:
        (row,) = [row for row in lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT) if row.epoch == epoch]
        path = process.artifacts.root / row.path
        data = bytearray(path.read_bytes())
        data[-4] ^= 1
        path.write_bytes(data)
        row.sha256 = hashlib.sha256(data).hexdigest()
