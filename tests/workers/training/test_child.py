"""A child that trains several jobs in turn: each has the bits, limits and measurements of a fresh child."""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from service.jobs import actions
from service.runtime.settings import ChildLimits
from service.spec.presets.definitions import PRESETS
from service.states import Status
from tests.faults.harness import FEW, few_digits
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness, children_of, open_migrated_harness, open_worker_harness
from workers.training.child import Lifetime

TINY: dict[str, Any] = {
    "kind": "classifier",
    "dataset": {"name": "few"},
    "epochs": 1,
    "batch_size": 50,
    "layers": [{"units": 16, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
    "samples": {"count": 4},
}
UNLIKE_PRESETS: dict[str, Any] = TINY | {
    "dtype": "float64",
    "layers": [{"type": "conv2d", "filters": 2, "activation": "relu"}, {"type": "flatten"}, TINY["layers"][-1]],
}
"""A job whose layers and precision differ from those of the presets."""


@pytest.fixture
def sqlite_workers(sqlite_url: str, tmp_path: Path) -> Iterator[WorkerHarness]:
    with open_migrated_harness(sqlite_url, tmp_path / "home", data=few_digits()) as harness:
        harness.train_count = FEW
        yield harness


def open_harness(home: Path) -> WorkerHarness:
    harness = open_worker_harness(home, f"sqlite:///{home.parent / f'{home.name}.db'}", data=few_digits())
    harness.train_count = FEW
    return harness


def training_pids(harness: WorkerHarness) -> list[int]:
    """The process ID of the child of each training, in order."""
    lines = (harness.home / "workers.log").read_text().splitlines()
    return [entry["child"] for line in lines if '"child":' in line for entry in [json.loads(line)]]


def preset_spec(kind: str, name: str) -> dict[str, Any]:
    dataset = "diabetes" if kind == "regressor" else "iris" if name == "table" else "few"
    short_run = {"epochs": 2, "batch_size": 50, "samples": {"count": 4}}
    return {"kind": kind, "preset": name, "dataset": {"name": dataset}, **short_run} | (
        {"health": {"samples": 100}} if kind == "gan" else {}
    )


@pytest.mark.stack
@pytest.mark.timeout(400)
def test_every_preset_has_the_same_digest_in_a_reused_child_as_in_a_fresh_one(tmp_path: Path) -> None:
    specs = [
        UNLIKE_PRESETS,
        *(preset_spec(kind, name) for kind, names in PRESETS.items() for name in names),
        UNLIKE_PRESETS,
    ]
    digests, pids = {}, {}
    for name, jobs in (("reused", "100"), ("fresh", "1")):
        with closing(open_harness(tmp_path / name)) as harness:
            ids = [harness.store(spec) for spec in specs]
            harness.start(TAPELINE_CHILD_JOBS=jobs)
            finished_jobs = [harness.until_end(job_id, 120) for job_id in ids]
            assert [job.status for job in finished_jobs] == [Status.SUCCEEDED] * len(specs)
            digests[name], pids[name] = [job.result_digest for job in finished_jobs], training_pids(harness)
    assert len(set(pids["reused"])) == 1, "all jobs were trained by one child"
    assert len(set(pids["fresh"])) == len(specs)
    assert digests["reused"] == digests["fresh"]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("limits", "jobs_per_child"),
    [
        ({"TAPELINE_CHILD_JOBS": "2"}, [2, 2, 1]),
        pytest.param({"TAPELINE_CHILD_S": "0"}, [1] * 5, marks=pytest.mark.nightly),
        pytest.param({"TAPELINE_CHILD_MEMORY": "1000000"}, [1] * 5, marks=pytest.mark.nightly),
        ({}, [5]),
    ],
)
def test_a_child_is_replaced_at_each_limit(
    sqlite_workers: WorkerHarness, limits: dict[str, str], jobs_per_child: list[int]
) -> None:
    ids = [sqlite_workers.store(TINY) for _ in range(5)]
    sqlite_workers.start(**limits)
    for job_id in ids:
        assert sqlite_workers.until_end(job_id).status == Status.SUCCEEDED
    pids = training_pids(sqlite_workers)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == jobs_per_child


@pytest.mark.stack
def test_a_child_is_not_reused_after_a_failed_or_cancelled_job(sqlite_workers: WorkerHarness) -> None:
    failing = sqlite_workers.store(TINY | {"dataset": {"name": "gone"}})
    cancelled = sqlite_workers.store(TINY | {"epochs": 5000})
    last = sqlite_workers.store(TINY)
    sqlite_workers.start()
    assert sqlite_workers.until_end(failing).status == Status.FAILED
    sqlite_workers.until(cancelled, lambda job: job.epoch >= 1)
    actions.cancel(sqlite_workers.database, cancelled)
    assert sqlite_workers.until_end(cancelled).status == Status.CANCELLED
    assert sqlite_workers.until_end(last).status == Status.SUCCEEDED
    assert len(set(training_pids(sqlite_workers))) == 3


@pytest.mark.nightly
def test_limits_and_measurements_of_a_reused_child_are_per_job(sqlite_workers: WorkerHarness) -> None:
    """The memory limit is lifted after each job, and peak memory does not include that of an earlier job."""
    wide = [{"units": 4000, "activation": "relu"}] * 2 + [TINY["layers"][-1]]
    large, small = sqlite_workers.store(TINY | {"layers": wide}), sqlite_workers.store(TINY)
    worker = sqlite_workers.start()
    large_job, small_job = (sqlite_workers.until_end(job_id) for job_id in (large, small))
    (pid,) = set(training_pids(sqlite_workers))
    assert large_job.peak_memory_bytes is not None
    assert small_job.peak_memory_bytes is not None
    assert large_job.peak_memory_bytes > small_job.peak_memory_bytes + 60e6
    assert large_job.cpu_seconds is not None
    assert small_job.cpu_seconds is not None
    assert large_job.cpu_seconds > small_job.cpu_seconds
    process = psutil.Process(pid)
    wait_until(lambda: process.rlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY, "the end of the limit")
    assert pid in children_of(worker.pid), "it waits for its next command"


LATE_STOP_PROGRAM = """
import multiprocessing, os, time
from service.jobs.leases import Claim
from service.states import Request
from workers.messages import ChildEndpoint, Stop, Train, encode

commands, sender = multiprocessing.Pipe(duplex=False)
endpoint = ChildEndpoint(commands, multiprocessing.Pipe(duplex=False)[1])
train = Train(Claim(job_id="job_1", lease=1, token="", lease_s=15.0))

def send_stop(request):
    sender.send_bytes(encode(Stop(request)))
    while not endpoint.stopping:
        time.sleep(0.01)

sender.send_bytes(encode(train))
assert endpoint.next_command() == train
send_stop(Request.CANCEL)
sender.send_bytes(encode(train))
assert endpoint.next_command() == train
assert (endpoint.stopping, endpoint.request) == (False, None)
send_stop(None)
os._exit(0)
"""


@pytest.mark.stack
def test_a_stop_that_crosses_the_end_of_its_job_does_not_stop_the_next_job() -> None:
    """In a separate process, which the endpoint exits at the end of the command pipe."""
    subprocess.run([sys.executable, "-c", LATE_STOP_PROGRAM], check=True, timeout=60)


def test_a_process_is_reused_only_while_its_state_is_that_before_the_first_job(
    request: pytest.FixtureRequest,
) -> None:
    request.addfinalizer(gc.unfreeze)
    lifetime = Lifetime(ChildLimits(memory_bytes=2**50))
    assert lifetime.clear_up()
    with np.errstate(over="raise"):
        assert not lifetime.clear_up()
    assert lifetime.clear_up()
    np.random.random()  # noqa: NPY002 - no code here should do this
    assert not lifetime.clear_up()
