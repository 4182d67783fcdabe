"""The modules that each process actually loads, checked from inside, so that import rules hold at run time."""

from __future__ import annotations

import subprocess
import sys

import pytest

SANDBOX = {"flask", "celery", "sqlalchemy", "pydantic", "redis", "matplotlib", "engine", "workers", "service.storage"}
SANDBOX |= {"structlog", "rich"}  # a process for each upload, and they take a third of its start
CORE = {"flask", "celery", "numpy", "matplotlib", "engine", "workers", "migrations"}

CASES = {
    "service.spec.validation": CORE | {"sqlalchemy"},
    "service.storage.database": CORE,
    "service.access.keys": CORE,
    "service.jobs.actions": CORE,
    "service.sweeps.decisions": CORE,
    "service.datasets.sandbox": SANDBOX,
    "service.datasets.image_sandbox": SANDBOX,
    "service.local.stack": {"flask", "celery", "numpy", "sqlalchemy", "matplotlib", "engine", "workers"},
    "service.maintenance.doctor": {"flask", "celery", "numpy", "matplotlib", "engine", "workers", "service.datasets"},
    "tapeline": {"flask", "celery", "numpy", "sqlalchemy", "PIL", "engine", "workers", "migrations"},
    "workers.supervisor.supervisor": {"numpy", "flask", "matplotlib", "engine", "service.datasets", "service.pictures"},
    "workers.supervisor.job_monitor": {
        "numpy",
        "flask",
        "matplotlib",
        "engine",
        "service.datasets",
        "service.pictures",
    },
    "workers.__main__": {"numpy", "flask", "matplotlib", "engine", "service.datasets", "service.pictures"},
    "workers.reconcile": {"numpy", "flask", "matplotlib", "engine"},
    "workers.training.child": {"flask", "celery", "matplotlib"},
    "engine": {"flask", "celery", "sqlalchemy", "pydantic", "matplotlib", "PIL", "service", "workers"},
    "service.application.jobs": CORE,
    "service.application.datasets": CORE,
    "service.application.sweeps": CORE,
    "service.application.reuse": CORE,
    "service.application.experiments.differences": CORE,
    "service.application.exports": CORE | {"onnx", "tensorboardX", "mlflow"},
    "service.web.app": {"workers", "engine", "matplotlib", "onnx", "tensorboardX", "google.protobuf", "mlflow"},
    "service.cli": {"numpy", "matplotlib", "celery", "flask", "sqlalchemy", "onnx", "mlflow"},
}


# What another case loads too, and must not load more of.
CONTAINED = {
    "service.storage.database": "service.jobs.actions",
    "workers.supervisor.supervisor": "workers.__main__",
    "workers.supervisor.job_monitor": "workers.__main__",
}


@pytest.mark.slow
@pytest.mark.parametrize("module", CASES)
def test_a_process_loads_nothing_that_is_not_its_own(module: str) -> None:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert CASES[module] & set(loaded) == set()
    contained = {name for name, other in CONTAINED.items() if other == module}
    assert contained <= set(loaded)
    assert all(CASES[name] <= CASES[module] for name in contained)
