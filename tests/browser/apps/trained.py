"""Jobs that are trained once for all processes of a test run; each process uses its own copy of the state folder."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from service.local import LocalStack
from service.runtime.settings import Settings

_RETENTION: Final = {"checkpoint": {"keep_last": 100}}
_SPECS: Final[dict[str, dict[str, Any]]] = {
    "reader": {"kind": "classifier", "name": "reader", "epochs": 6, "tags": ["kept", "pair"], **_RETENTION},
    "other": {"kind": "classifier", "name": "other", "epochs": 3, "seed": 7, "tags": ["pair"], **_RETENTION},
    "painter": {"kind": "gan", "name": "painter", "epochs": 3, "samples": {"count": 16}, **_RETENTION},
}
"""Two classifiers of digits and a GAN."""
_DOCUMENTS: Final = "jobs.json"


def local_settings(home: Path, **environ: str) -> Settings:
    return Settings.from_env({"TAPELINE_HOME": str(home), "TAPELINE_PORT": "0", **environ}, cores=2)


def finish(http: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait until a job has succeeded."""
    http.get(job["urls"]["stream"])
    ended: dict[str, Any] = http.get(job["urls"]["self"]).json()
    assert ended["status"] == "succeeded", ended["error"]
    return ended


def train_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a service that has trained the jobs. The first process that needs it creates it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the other processes have their folders there, too
    home = folder / "trained"
    with (folder / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            unfinished = tmp_path_factory.mktemp("training")
            _train(unfinished)
            unfinished.rename(home)
    return home


def read_jobs(home: Path) -> dict[str, dict[str, Any]]:
    """The trained jobs, as the service describes them."""
    jobs: dict[str, dict[str, Any]] = json.loads((home / _DOCUMENTS).read_text())
    return jobs


def _train(home: Path) -> None:
    with LocalStack(local_settings(home, TAPELINE_WORKERS="2")) as stack, httpx.Client(base_url=stack.url) as http:
        http.timeout = 90
        submitted = {name: http.post("/jobs", json=spec).raise_for_status().json() for name, spec in _SPECS.items()}
        jobs = {name: finish(http, job) for name, job in submitted.items()}
    (home / _DOCUMENTS).write_text(json.dumps(jobs))
