"""CPU time and memory of a training process, measured by its supervisor and by the process itself.

The supervisor samples the child with each renewal of its lease, so that the usage of a child that hangs or is killed is
also counted. The child measures itself exactly, at each epoch and at its end. Both count from the child's command on,
and add the job's usage under earlier leases; totals never decrease.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Final

import psutil

from service.jobs.leases import Claim, Usage

_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""The unit of ``ru_maxrss``, in bytes."""


class ChildMeter:
    """Measures a child from its supervisor. Create it before the child gets its command."""

    def __init__(self, claim: Claim, pid: int) -> None:
        self._earlier_cpu_s = claim.cpu_seconds
        self._last = Usage(cpu_seconds=claim.cpu_seconds, peak_memory_bytes=0)
        self._process: psutil.Process | None = None
        try:
            self._process = psutil.Process(pid)
            self._start_s = _cpu_seconds(self._process)
        except psutil.Error:  # the child has ended, which the supervisor will notice
            self._process = None

    def sample(self) -> Usage:
        """The job's usage so far; after the child's end, the last sample."""
        if self._process is not None:
            try:
                with self._process.oneshot():
                    cpu_s = self._earlier_cpu_s + _cpu_seconds(self._process) - self._start_s
                    memory = int(self._process.memory_info().rss)
            except psutil.Error:
                return self._last
            peak = max(memory, self._last.peak_memory_bytes)
            self._last = Usage(cpu_seconds=max(cpu_s, self._last.cpu_seconds), peak_memory_bytes=peak)
        return self._last


class OwnMeter:
    """Measures the current process. Create it when the process gets its command.

    Args:
        is_first: whether the process has trained no other job, whose memory peak would be included.
    """

    def __init__(self, claim: Claim, *, is_first: bool = True) -> None:
        self._earlier_cpu_s = claim.cpu_seconds
        self._start_s = _own_cpu_seconds()
        self._epoch_s = time.thread_time()
        self._process = psutil.Process(os.getpid())
        self._has_own_peak = is_first or _reset_peak()
        self._peak = 0

    def total(self) -> Usage:
        """The job's usage so far."""
        # The kernel updates the peak in steps: it may lag a few pages behind the resident memory.
        self._peak = max(self._peak, self.memory_bytes())
        if self._has_own_peak:
            self._peak = max(self._peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT)
        return Usage(cpu_seconds=self.cpu_seconds(), peak_memory_bytes=self._peak)

    def cpu_seconds(self) -> float:
        """The job's CPU time so far."""
        return self._earlier_cpu_s + _own_cpu_seconds() - self._start_s

    def begin_epoch(self) -> None:
        """Start to measure the CPU time of an epoch. Only this thread counts: another one may still commit the last
        epoch."""
        self._epoch_s = time.thread_time()

    def epoch_seconds(self) -> float:
        """CPU time of this thread since the epoch began."""
        return time.thread_time() - self._epoch_s

    def memory_bytes(self) -> int:
        """Current resident memory."""
        return int(self._process.memory_info().rss)


def _reset_peak() -> bool:
    """Reset the kernel's memory peak of this process to its current resident memory; false if that is not possible."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _own_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
