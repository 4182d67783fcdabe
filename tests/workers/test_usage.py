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
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness, children_of
from workers.usage import ChildMeter, OwnMeter

CLAIM = Claim(job_id="job_1", lease=2, token="", lease_s=15.0, cpu_seconds=100.0)


@pytest.mark.stack
def test_a_job_reports_resources_in_total_and_per_epoch(running: WorkerHarness) -> None:
    job_id = running.submit(epochs=3)
    job = running.until_end(job_id)
    with running.database.read() as session:
        epochs = lookup.epochs(session, job_id)
    cpu_seconds = [row.cpu_seconds or 0.0 for row in epochs]
    assert all(0 < seconds <= row.seconds + 0.5 for seconds, row in zip(cpu_seconds, epochs, strict=True))
    assert job.cpu_seconds is not None
    assert sum(cpu_seconds) <= job.cpu_seconds < 60
    # NumPy and the dataset alone take more than 20 MB, and nothing here takes a gigabyte.
    assert all(20e6 < (row.memory_bytes or 0) < 1e9 for row in epochs)
    assert job.peak_memory_bytes is not None
    assert max(row.memory_bytes or 0 for row in epochs) <= job.peak_memory_bytes < 1e9
    metric_events = [event.data for event in running.log(job_id) if event.type == "metrics"]
    assert [item["cpu_seconds"] for item in metric_events] == cpu_seconds
    assert [item["memory_bytes"] for item in metric_events] == [row.memory_bytes for row in epochs]
    assert "cpu_seconds" not in job.metrics


@pytest.mark.nightly
def test_a_job_that_needs_more_memory_reports_a_higher_peak(workers: WorkerHarness) -> None:
    small = workers.submit(epochs=1)
    large = workers.submit(
        epochs=1,
        batch_size=4000,
        layers=[{"units": 4000, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
    )
    workers.start()
    small_peak, large_peak = (workers.until_end(job_id).peak_memory_bytes for job_id in (small, large))
    assert small_peak is not None
    assert large_peak is not None
    # Weights and activations, each with a gradient: 2 x (4000 x 784 + 4000 x 4000) four-byte numbers.
    assert large_peak > small_peak + 60e6


@pytest.mark.nightly
def test_cpu_time_still_accumulates_after_the_child_was_killed(workers: WorkerHarness) -> None:
    job_id = workers.submit(epochs=100)
    worker = workers.start()
    before = workers.until(job_id, lambda job: job.epoch >= 2 and (job.cpu_seconds or 0) > 0)
    training_pid = max(children_of(worker.pid), key=lambda pid: psutil.Process(pid).cpu_times().user)
    os.kill(training_pid, signal.SIGKILL)
    after = workers.until(job_id, lambda job: job.attempt == 2 and job.epoch > before.epoch + 1)
    assert after.cpu_seconds is not None
    assert before.cpu_seconds is not None
    with workers.database.read() as session:
        rows = lookup.epochs(session, job_id)
    first_lease_seconds = sum(row.cpu_seconds or 0 for row in rows if row.lease == 1)
    second_lease_seconds = sum(row.cpu_seconds or 0 for row in rows if row.lease == 2 and row.epoch <= after.epoch)
    assert first_lease_seconds > 0
    assert second_lease_seconds > 0
    # CPU time after the supervisor's last sample of the killed child, at most a second, is lost.
    assert workers.job(job_id).cpu_seconds >= first_lease_seconds + second_lease_seconds - 1.5
    workers.stop()


@pytest.mark.stack
def test_a_supervisor_measures_the_cpu_time_and_memory_of_another_process() -> None:
    burn = "import time; held = bytearray(80_000_000); held[::4096] = b'x' * len(held[::4096])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", burn]) as child:
        try:
            meter = ChildMeter(CLAIM, child.pid)

            def has_grown() -> bool:
                used = meter.sample()
                return used.cpu_seconds >= 100.3 and used.peak_memory_bytes >= 80_000_000

            wait_until(has_grown, "its CPU time and memory")
            used = meter.sample()
        finally:
            child.kill()
    # After the process has exited, the last sample remains.
    assert meter.sample().cpu_seconds >= used.cpu_seconds
    assert meter.sample().peak_memory_bytes >= used.peak_memory_bytes


@pytest.mark.stack
def test_a_process_that_exited_before_it_was_measured_adds_no_usage() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    used = ChildMeter(CLAIM, child.pid).sample()
    assert (used.cpu_seconds, used.peak_memory_bytes) == (100.0, 0)


def test_a_child_adds_its_own_cpu_time_to_that_of_earlier_leases() -> None:
    meter = OwnMeter(CLAIM)
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
    assert OwnMeter(CLAIM).total().peak_memory_bytes == pytest.approx(int(line.split()[1]) * 1024, rel=0.1)
