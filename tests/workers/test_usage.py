"""CPU time and memory of jobs, measured by real workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from service.jobs.leases import Claim
from service.jobs.queries import lookup
from tests.workers.conftest import WorkerHarness, children_of
from workers.usage import ChildMeter, OwnMeter

HELD = Claim(job_id="job_1", lease=2, lease_s=15.0, cpu_seconds=100.0)


@pytest.mark.slow
def test_a_job_reports_resources_in_total_and_per_epoch(running: WorkerHarness) -> None:
    job_id = running.submit(epochs=3)
    job = running.until_end(job_id)
    with running.database.read() as session:
        epochs = lookup.epochs(session, job_id)
    each = [row.cpu_seconds or 0.0 for row in epochs]
    assert all(0 < seconds <= row.seconds + 0.5 for seconds, row in zip(each, epochs, strict=True))
    assert job.cpu_seconds is not None
    assert sum(each) <= job.cpu_seconds < 60
    # NumPy and the dataset alone take more than 20 MB, and nothing here takes a gigabyte.
    assert all(20e6 < (row.memory_bytes or 0) < 1e9 for row in epochs)
    assert job.peak_memory_bytes is not None
    assert max(row.memory_bytes or 0 for row in epochs) <= job.peak_memory_bytes < 1e9
    news = [event.data for event in running.log(job_id) if event.type == "metrics"]
    assert [item["cpu_seconds"] for item in news] == each
    assert [item["memory_bytes"] for item in news] == [row.memory_bytes for row in epochs]
    assert "cpu_seconds" not in job.metrics


@pytest.mark.slow
def test_a_job_that_needs_more_memory_shows_more(workers: WorkerHarness) -> None:
    small = workers.submit(epochs=1)
    large = workers.submit(
        epochs=1,
        batch_size=4000,
        layers=[{"units": 4000, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
    )
    workers.start()
    less, more = (workers.until_end(job_id).peak_memory_bytes for job_id in (small, large))
    assert less is not None
    assert more is not None
    # Its weights and activations, each with a gradient: 2 x (4000 x 784 + 4000 x 4000) numbers of four bytes.
    assert more > less + 60e6


@pytest.mark.slow
def test_a_job_continues_to_count_resources_after_its_child_was_killed(workers: WorkerHarness) -> None:
    job_id = workers.submit(epochs=100)
    worker = workers.start()
    before = workers.until(job_id, lambda job: job.epoch >= 2 and (job.cpu_seconds or 0) > 0)
    trains = max(children_of(worker.pid), key=lambda pid: psutil.Process(pid).cpu_times().user)
    os.kill(trains, signal.SIGKILL)
    after = workers.until(job_id, lambda job: job.attempt == 2 and job.epoch > before.epoch + 1)
    assert after.cpu_seconds is not None
    assert before.cpu_seconds is not None
    with workers.database.read() as session:
        rows = lookup.epochs(session, job_id)
    first = sum(row.cpu_seconds or 0 for row in rows if row.lease == 1)
    second = sum(row.cpu_seconds or 0 for row in rows if row.lease == 2 and row.epoch <= after.epoch)
    assert first > 0
    assert second > 0
    # What the first child did after the supervisor's last look, a second at most, is lost with it.
    assert workers.job(job_id).cpu_seconds >= first + second - 1.5
    workers.stop()


def test_a_supervisor_sees_the_processor_time_and_memory_of_another_process() -> None:
    burn = "import time; held = bytearray(80_000_000); held[::4096] = b'x' * len(held[::4096])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", burn]) as child:
        try:
            meter = ChildMeter(HELD, child.pid)
            deadline = time.monotonic() + 30
            while (used := meter.sample()).cpu_seconds < 100.3 or used.peak_memory_bytes < 80_000_000:
                assert time.monotonic() < deadline, used
                time.sleep(0.05)
        finally:
            child.kill()
    # Of a process that is gone, the last sample stays.
    assert meter.sample().cpu_seconds >= used.cpu_seconds
    assert meter.sample().peak_memory_bytes >= used.peak_memory_bytes


def test_a_process_that_is_gone_at_once_has_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    used = ChildMeter(HELD, child.pid).sample()
    assert (used.cpu_seconds, used.peak_memory_bytes) == (100.0, 0)


def test_a_child_counts_from_its_order_on_top_of_earlier_leases() -> None:
    meter = OwnMeter(HELD)
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 100.05 < meter.total().cpu_seconds < 101
    assert 0.05 < meter.epoch_seconds() < 1
    meter.begin_epoch()
    assert meter.epoch_seconds() < 0.05
    assert meter.total().peak_memory_bytes >= meter.memory_bytes() * 0.9 > 10e6


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_peak_memory_is_in_bytes() -> None:
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith("VmHWM")]
    assert OwnMeter(HELD).total().peak_memory_bytes == pytest.approx(int(line.split()[1]) * 1024, rel=0.1)
