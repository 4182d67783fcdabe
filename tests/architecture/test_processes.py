"""The import rules also hold at run time: no process has a forbidden module in its ``sys.modules``."""

from __future__ import annotations

import subprocess
import sys

import pytest

SANDBOX = {"flask", "celery", "sqlalchemy", "pydantic", "redis", "matplotlib", "engine", "workers", "service.storage"}
SANDBOX |= {"structlog", "rich", "httpx"}  # one process per upload, and they would take a third of its startup time
SUPERVISOR = {"numpy", "flask", "matplotlib", "engine", "service.pictures"}
CORE = {"flask", "celery", "numpy", "matplotlib", "engine", "workers", "migrations"}

FORBIDDEN = {
    "service.spec.validation": CORE | {"sqlalchemy"},
    "service.storage.database": CORE,
    "service.access.keys": CORE,
    "service.jobs.actions": CORE,
    "service.features": CORE | {"sqlalchemy", "pydantic", "click"},
    "service.hooks": CORE | {"httpx", "cryptography"},
    "service.sweeps.decisions": CORE,
    "service.datasets.sandbox": SANDBOX,
    "service.local.stack": {"flask", "celery", "numpy", "sqlalchemy", "matplotlib", "engine", "workers"},
    "service.maintenance.doctor": {"flask", "celery", "numpy", "matplotlib", "engine", "workers"},
    "tapeline": {"httpx", "service"},
    "tapeline.client": {"flask", "celery", "numpy", "sqlalchemy", "PIL", "engine", "workers", "migrations", "service"},
    "workers.supervisor.supervisor": SUPERVISOR,
    "workers.supervisor.job_monitor": SUPERVISOR,
    "workers.supervisor.worker": SUPERVISOR,
    "workers.scheduler": {"numpy", "flask", "matplotlib", "engine"},
    "workers.training.child": {"flask", "celery", "matplotlib"},
    "engine": {"flask", "celery", "sqlalchemy", "pydantic", "matplotlib", "PIL", "service", "workers"},
    "service.application.jobs": CORE,
    "service.application.datasets": CORE,
    "service.features.sweeps.use_cases": CORE,
    "service.jobs.differences.explanation": CORE,
    "service.application.models": CORE | {"onnx", "tensorboardX", "mlflow"},
    "service.web.app": {"workers", "engine", "matplotlib", "onnx", "tensorboardX", "google.protobuf", "mlflow"},
    "service.cli": {"numpy", "matplotlib", "celery", "flask", "sqlalchemy", "onnx", "mlflow"},
}


LOADING = {"service.hooks": "service.hooks.load(), service.hooks.expired()"}
"""What a process loads by name."""


# Modules without a process of their own: another case loads them, and must forbid at least the same modules.
LOADED_BY = {
    "service.storage.database": "service.jobs.actions",
    "workers.supervisor.supervisor": "workers.supervisor.worker",
    "workers.supervisor.job_monitor": "workers.supervisor.worker",
}


@pytest.mark.stack
@pytest.mark.parametrize("module", [module for module in FORBIDDEN if module not in LOADED_BY])
def test_a_process_loads_no_forbidden_module(module: str) -> None:
    code = f"import sys, {module}; {LOADING.get(module, 'pass')}; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    # obstore does not survive a fork: it is imported at the first access to a bucket.
    assert (FORBIDDEN[module] | {"obstore", "boto3"}) & set(loaded) == set()
    loaded_cases = {name for name, loader in LOADED_BY.items() if loader == module}
    assert loaded_cases <= set(loaded)
    assert all(FORBIDDEN[name] <= FORBIDDEN[module] for name in loaded_cases)
