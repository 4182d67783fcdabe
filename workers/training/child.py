"""The main function of a child process: it trains one job after the other, as long as each ends properly."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import threading
import time
from typing import Any, Final

import numpy as np
import structlog
import threadpoolctl

from service.errors import LeaseLost
from service.jobs.leases import Claim
from service.runtime import logs, tracing
from service.runtime.failpoints import failpoint
from service.runtime.settings import ChildLimits, Settings
from service.storage.stores import open_store
from workers.messages import ChildEndpoint, ChildReady, Done, Preparing
from workers.training import limits, run
from workers.training.provenance import base_provenance
from workers.usage import OwnMeter

REUSABLE_OUTCOMES: Final = frozenset({run.SUCCEEDED, run.PAUSED_BY_SWEEP})
"""Outcomes after which a child may train another job. After all others it exits."""

log = structlog.get_logger()


def main(endpoint: ChildEndpoint) -> int:
    """Execute commands until a job does not end properly, or a limit of reuse is reached."""
    logs.configure("child")
    limits.lower_priority()
    settings = Settings.from_env(os.environ, cores=1)
    endpoint.send(ChildReady(base_provenance()))
    with contextlib.suppress(OSError):  # reported for the first real job
        open_store(settings).prepare()
    lifetime = Lifetime(settings.child_limits)
    while True:
        claim = endpoint.next_command().claim
        failpoint("commanded")
        endpoint.send(Preparing())  # from now on, the death of this process counts against the job
        structlog.contextvars.bind_contextvars(**claim.log_fields)
        with tracing.below(claim.trace, endpoint.send, claim.span_attributes):
            report = _run_job(settings, claim, endpoint, lifetime)
        endpoint.send(report)
        if not isinstance(report, Done) or not report.is_reusable:
            return 0
        structlog.contextvars.clear_contextvars()
        failpoint("reported")


def _run_job(settings: Settings, claim: Claim, endpoint: ChildEndpoint, lifetime: Lifetime) -> Done:
    """Train a job, and clean up after it; returns the report of its end."""
    meter = OwnMeter(claim, is_first=lifetime.jobs == 0)
    try:
        outcome = run.train(settings, claim, endpoint, meter=meter)
    except LeaseLost as error:
        log.warning("the lease is lost", error=str(error))
        return Done("lease lost")
    if outcome not in REUSABLE_OUTCOMES:
        return Done(outcome)
    is_reusable = lifetime.clear_up()
    failpoint("cleaned")
    return Done(outcome, is_reusable)


class Lifetime:
    """Decides whether this process may train another job, as if it had trained none before.

    A job leaves nothing behind that could change the bits of the next one, or its limits: its objects are freed, its
    memory limit is lifted, and the state of the process that it could have changed is compared with the state before
    the first job. Create it before the first job.
    """

    def __init__(self, child_limits: ChildLimits) -> None:
        self._limits = child_limits
        self._started_at = time.monotonic()
        self._threads = threadpoolctl.ThreadpoolController()
        self._initial_state = self._state()
        self.jobs = 0
        """Number of jobs that ended properly."""
        gc.collect()
        gc.freeze()  # loaded modules stay: the collection after each job scans only the job's objects

    def clear_up(self) -> bool:
        """Free the memory of the last job; returns whether this process may train another one."""
        self.jobs += 1
        if self.jobs >= self._limits.jobs or time.monotonic() - self._started_at >= self._limits.age_s:
            return False
        gc.collect()
        limits.lift_memory_limit()
        state = self._state()
        if changed := sorted(name for name, value in self._initial_state.items() if state[name] != value):
            log.warning("this process is not used again: a job has changed its state", changed=changed)
            return False
        return limits.resident_bytes() <= self._limits.memory_bytes

    def _state(self) -> dict[str, Any]:
        """The state of the process that a job could change and on which the next one could depend."""
        numpy_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 - the generator that no code here should use
        return {
            "floating-point errors": (np.geterr(), np.geterrcall()),
            "random numbers of NumPy": (numpy_state["pos"], numpy_state["key"].tobytes()),
            "random numbers of Python": random.getstate(),
            "BLAS threads": [pool["num_threads"] for pool in self._threads.info()],
            "threads": threading.active_count(),
            "working folder": os.getcwd(),
            "environment": dict(os.environ),
        }
