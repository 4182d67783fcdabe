"""Memory of the service's processes, at rest and under load."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil

from benchmarks.service.figures import KINDS, Figures, client
from benchmarks.service.service_under_test import ServiceLauncher

CHILD = "child"
TRAINED: dict[str, Any] = {"kind": "classifier", "epochs": 40}
"""Preset ``fast`` on ``mnist-10k``."""


def memory(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """Proportional memory of each kind of process, and RSS; bare: RSS of a process with the engine alone; one round."""
    return [row for kind in KINDS for row in _measure(launcher, kind)]


def _measure(launcher: ServiceLauncher, kind: str) -> list[Figures]:
    with launcher.open(kind) as service:
        web = psutil.Process(service.serve().pid)
        worker = psutil.Process(service.work(2).pid)
        scheduler = psutil.Process(service.start("-m", "workers.scheduler").pid)
        # Unpacks the dataset, and lets the children train once.
        service.wait_until_ended(service.submit(**TRAINED | {"epochs": 1}))
        time.sleep(5)

        def roles() -> dict[str, list[psutil.Process]]:
            children = worker.children()  # the fork server, which forks those that train, and Python's resource tracker
            return {
                "web, all processes": [web, *web.children(recursive=True)],
                "worker, all but children": [worker, *children],
                CHILD: [child for process in children for child in process.children()],
                "scheduler": [scheduler, *scheduler.children(recursive=True)],
            }

        at_rest = {role: _memory_mb(role, processes) for role, processes in roles().items()}
        following = service.submit(**TRAINED)
        service.submit(**TRAINED)
        streams = client("stream", service.port, clients=100, seconds=8, job=following)
        assert streams.stdout is not None
        assert streams.stdout.readline() == "open\n"
        load = client("post", service.port, clients=16, seconds=6)
        peak = at_rest
        while load.poll() is None:
            time.sleep(0.2)  # reading the figures also takes time
            current = {role: _memory_mb(role, processes) for role, processes in roles().items()}
            peak = {role: tuple(map(max, zip(peak[role], current[role], strict=True))) for role in peak}
        assert json.loads(load.communicate()[0])["failures"] == 0
        assert json.loads(streams.communicate()[0])["refused"] == 0
        bare_mb = service.run_bare(TRAINED, "--memory")
    return [
        {
            "database": kind,
            "process": role,
            "rest_mb": round(at_rest[role][0], 1),
            "load_mb": round(peak[role][0], 1),
            "load_rss_mb": round(peak[role][1], 1),
            "bare": round(bare_mb, 1) if role == CHILD else "",
        }
        for role in at_rest
    ]


def _memory_mb(role: str, processes: Sequence[psutil.Process]) -> tuple[float, ...]:
    """The proportional and the resident memory of the processes, in megabytes; for children, that of the largest."""
    measurements = [(0.0, 0.0)]
    for process in processes:
        with suppress(psutil.Error):  # the process has ended
            usage = process.memory_full_info()
            measurements.append((usage.pss / 2**20, usage.rss / 2**20))
    return tuple((max if role == CHILD else sum)(column) for column in zip(*measurements, strict=True))
