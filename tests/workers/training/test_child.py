"""Children that train one job after the other: with the bits, the limits and the figures of a child of its own."""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
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
from tests.workers.conftest import WorkerHarness, children_of, on_migrated, open_worker_harness
from workers.training.child import Lifetime

TINY: dict[str, Any] = {
    "kind": "classifier",
    "dataset": {"name": "few"},
    "epochs": 1,
    "batch_size": 50,
    "layers": [{"units": 16, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
    "samples": {"count": 4},
}
FIRST: dict[str, Any] = TINY | {
    "dtype": "float64",
    "layers": [{"type": "conv2d", "filters": 2, "activation": "relu"}, {"type": "flatten"}, TINY["layers"][-1]],
}
"""A job with other layers and another precision than those of the presets."""


@pytest.fixture
def light(sqlite_url: str, tmp_path: Path) -> Iterator[WorkerHarness]:
    with on_migrated(sqlite_url, tmp_path / "home", data=few_digits()) as made:
        made.train_count = FEW
        yield made


def opened(home: Path) -> WorkerHarness:
    made = open_worker_harness(home, f"sqlite:///{home.parent / f'{home.name}.db'}", data=few_digits())
    made.train_count = FEW
    return made


def children(harness: WorkerHarness) -> list[int]:
    """The process of each training, in order."""
    lines = (harness.home / "workers.log").read_text().splitlines()
    return [entry["child"] for line in lines if '"child":' in line for entry in [json.loads(line)]]


def preset(kind: str, name: str) -> dict[str, Any]:
    dataset = "iris" if name == "table" else "few"
    short = {"epochs": 2, "batch_size": 50, "samples": {"count": 4}}
    return {"kind": kind, "preset": name, "dataset": {"name": dataset}, **short} | (
        {"health": {"samples": 100}} if kind == "gan" else {}
    )


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_a_job_of_every_preset_has_the_digest_of_a_child_of_its_own_in_a_reused_child(tmp_path: Path) -> None:
    specs = [FIRST, *(preset(kind, name) for kind, names in PRESETS.items() for name in names), FIRST]
    digests, pids = {}, {}
    for name, jobs in (("reused", "100"), ("fresh", "1")):
        harness = opened(tmp_path / name)
        ids = [harness.store(spec) for spec in specs]
        harness.start(TAPELINE_CHILD_JOBS=jobs)
        ended = [harness.until_end(job_id, 120) for job_id in ids]
        assert [job.status for job in ended] == [Status.SUCCEEDED] * len(specs)
        digests[name], pids[name] = [job.result_digest for job in ended], children(harness)
        harness.stop()
        harness.database.close()
    assert len(set(pids["reused"])) == 1, "all jobs were trained by one child"
    assert len(set(pids["fresh"])) == len(specs)
    assert digests["reused"] == digests["fresh"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "jobs_per_child"),
    [
        ({"TAPELINE_CHILD_JOBS": "2"}, [2, 2, 1]),
        ({"TAPELINE_CHILD_S": "0"}, [1] * 5),
        ({"TAPELINE_CHILD_MEMORY": "1000000"}, [1] * 5),
        ({}, [5]),
    ],
)
def test_a_child_is_replaced_at_each_limit(
    light: WorkerHarness, limits: dict[str, str], jobs_per_child: list[int]
) -> None:
    ids = [light.store(TINY) for _ in range(5)]
    light.start(**limits)
    for job_id in ids:
        assert light.until_end(job_id).status == Status.SUCCEEDED
    pids = children(light)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == jobs_per_child


def test_a_child_whose_job_failed_or_was_cancelled_gets_no_other(light: WorkerHarness) -> None:
    failing = light.store(TINY | {"dataset": {"name": "gone"}})
    cancelled = light.store(TINY | {"epochs": 5000})
    last = light.store(TINY)
    light.start()
    assert light.until_end(failing).status == Status.FAILED
    light.until(cancelled, lambda job: job.epoch >= 1)
    actions.cancel(light.database, cancelled)
    assert light.until_end(cancelled).status == Status.CANCELLED
    assert light.until_end(last).status == Status.SUCCEEDED
    assert len(set(children(light))) == 3


@pytest.mark.slow
def test_limits_and_figures_are_those_of_the_job(light: WorkerHarness) -> None:
    """The memory limit is lifted after each job, and the peak of memory is not that of an earlier job."""
    wide = [{"units": 4000, "activation": "relu"}] * 2 + [TINY["layers"][-1]]
    large, small = light.store(TINY | {"layers": wide}), light.store(TINY)
    worker = light.start()
    more, less = (light.until_end(job_id) for job_id in (large, small))
    (pid,) = set(children(light))
    assert more.peak_memory_bytes is not None
    assert less.peak_memory_bytes is not None
    assert more.peak_memory_bytes > less.peak_memory_bytes + 60e6
    assert more.cpu_seconds is not None
    assert less.cpu_seconds is not None
    assert more.cpu_seconds > less.cpu_seconds
    process = psutil.Process(pid)
    wait_until(lambda: process.rlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY, "the end of the limit")
    assert pid in children_of(worker.pid), "it waits for its next command"


CROSSING = """
import multiprocessing, os, time
from service.jobs.leases import Claim
from service.states import Request
from workers.messages import ChildEndpoint, Stop, Train, encode

commands, sender = multiprocessing.Pipe(duplex=False)
endpoint = ChildEndpoint(commands, multiprocessing.Pipe(duplex=False)[1])
train = Train(Claim(job_id="job_1", lease=1, lease_s=15.0))

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


def test_a_stop_that_crosses_the_end_of_a_job_does_not_stop_the_next_one() -> None:
    """In a process of its own, since it exits at the end of its commands."""
    subprocess.run([sys.executable, "-c", CROSSING], check=True, timeout=60)


def test_a_process_is_used_again_as_long_as_its_state_is_that_before_the_first_job(
    request: pytest.FixtureRequest,
) -> None:
    request.addfinalizer(gc.unfreeze)
    lifetime = Lifetime(ChildLimits(memory_bytes=2**50))
    assert lifetime.clear_up()
    with np.errstate(over="raise"):
        assert not lifetime.clear_up()
    assert lifetime.clear_up()
    np.random.random()  # noqa: NPY002 - what no code here should do
    assert not lifetime.clear_up()
