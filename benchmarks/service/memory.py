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
    return [row for kind in KINDS for row in _of(launcher, kind)]


def _of(launcher: ServiceLauncher, kind: str) -> list[Figures]:
    with launcher.open(kind) as service:
        web = psutil.Process(service.serve().pid)
        worker = psutil.Process(service.work(2).pid)
        scheduler = psutil.Process(service.start("-m", "workers.reconcile").pid)
        # Unpacks the dataset, and lets the children train once.
        service.until_end(service.submit(**TRAINED | {"epochs": 1}))
        time.sleep(5)

        def roles() -> dict[str, list[psutil.Process]]:
            below = worker.children()  # one of them forks the children, the other is Python's resource tracker
            return {
                "web, all processes": [web, *web.children(recursive=True)],
                "worker, all but children": [worker, *below],
                CHILD: [child for one in below for child in one.children()],
                "scheduler": [scheduler, *scheduler.children(recursive=True)],
            }

        rest = {role: _of_each(role, processes) for role, processes in roles().items()}
        following = service.submit(**TRAINED)
        service.submit(**TRAINED)
        streams = client("stream", service.port, clients=100, seconds=8, job=following)
        assert streams.stdout is not None
        assert streams.stdout.readline() == "open\n"
        load = client("post", service.port, clients=16, seconds=6)
        peak = rest
        while load.poll() is None:
            time.sleep(0.2)  # reading the figures takes time, too
            found = {role: _of_each(role, processes) for role, processes in roles().items()}
            peak = {role: tuple(map(max, zip(peak[role], found[role], strict=True))) for role in peak}
        assert json.loads(load.communicate()[0])["failures"] == 0
        assert json.loads(streams.communicate()[0])["refused"] == 0
        alone = service.run_bare(TRAINED, "--memory")
    return [
        {
            "database": kind,
            "process": role,
            "rest_mb": round(rest[role][0], 1),
            "load_mb": round(peak[role][0], 1),
            "load_rss_mb": round(peak[role][1], 1),
            "bare": round(alone, 1) if role == CHILD else "",
        }
        for role in rest
    ]


def _of_each(role: str, processes: Sequence[psutil.Process]) -> tuple[float, ...]:
    """The proportional and the resident memory of the processes, in megabytes; of children, that of the largest."""
    found = [(0.0, 0.0)]
    for process in processes:
        with suppress(psutil.Error):  # it ends
            used = process.memory_full_info()
            found.append((used.pss / 2**20, used.rss / 2**20))
    return tuple((max if role == CHILD else sum)(column) for column in zip(*found, strict=True))
