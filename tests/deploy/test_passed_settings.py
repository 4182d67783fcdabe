"""The compose files pass every setting on to the services that read it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.runtime.settings import VARIABLES

ROOT = Path(__file__).parents[2]
SOURCES = {
    "web": ("service/web", "service/application", "service/access"),
    "worker": ("workers/__main__.py", "workers/supervisor", "workers/training", "service/datasets", "service/jobs"),
    "scheduler": ("workers/reconcile.py", "service/maintenance"),
    "migrate": ("migrations",),
}
"""The code of each service that reads settings."""
FIELDS = {
    "TAPELINE_CHILD_JOBS": "child_limits",
    "TAPELINE_CHILD_S": "child_limits",
    "TAPELINE_CHILD_MEMORY": "child_limits",
    "TAPELINE_OWNER_RUNNING": "quotas.running",
}
"""Where ``Settings`` has a variable, unless the field has the name of the variable."""
IN_THE_IMAGE = {
    "TAPELINE_HOME": "the image sets it",
    "TAPELINE_ARTIFACTS": "a volume is mounted at the default",
    "TAPELINE_DATA": "a volume is mounted at the default",
}
NOT_PASSED = {
    "docker-compose.yml": IN_THE_IMAGE | {"TAPELINE_PORT": "the port in the container; .env has the published one"},
    "deploy/worker.yml": IN_THE_IMAGE,
}
"""Settings that a compose file leaves out although its services read them, with the reason."""


@cache
def services(file: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["services"]
    return found


def field_of(variable: str) -> str:
    name = variable.removeprefix("TAPELINE_").lower()
    return FIELDS.get(variable, f"quotas.{name.removeprefix('owner_')}" if name.startswith("owner_") else name)


def settings_read_by(service: str) -> set[str]:
    """The settings whose field, or the object that has it, is read in the code of a service."""
    paths = [
        path
        for name in SOURCES[service]
        for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    read = set()
    for variable in VARIABLES:
        whole, _, _ = field_of(variable).partition(".")
        if re.search(rf"settings\.{re.escape(field_of(variable))}\b|settings\.{whole}\b(?!\.)", text):
            read.add(variable)
    return read


def test_the_code_of_a_worker_reads_what_it_is_known_to_read() -> None:
    expected = {"WORKERS", "WORKER_NAME", "LEASE_S", "CHILD_JOBS", "VERIFY_REUSED", "PORTABLE_BITS", "OWNER_RUNNING"}
    assert {f"TAPELINE_{name}" for name in expected} <= settings_read_by("worker")
    assert "TAPELINE_PROXIES" not in settings_read_by("worker")


@pytest.mark.parametrize(
    ("file", "service"),
    [*(("docker-compose.yml", service) for service in SOURCES), ("deploy/worker.yml", "worker")],
)
def test_each_setting_reaches_the_services_that_read_it(file: str, service: str) -> None:
    passed = {name for name in services(file)[service]["environment"] if name.startswith("TAPELINE_")}
    assert passed <= set(VARIABLES)
    assert sorted(settings_read_by(service) - passed - set(NOT_PASSED[file])) == []


@pytest.mark.parametrize("file", NOT_PASSED)
def test_no_setting_is_left_out_without_need(file: str) -> None:
    read = set.union(*(settings_read_by(service) for service in services(file) if service in SOURCES))
    passed = {name for service in services(file).values() for name in service.get("environment", {})}
    assert set(NOT_PASSED[file]) <= read - passed


def test_each_declared_setting_is_passed_to_a_service_or_left_out_for_a_reason() -> None:
    passed = {name for service in services("docker-compose.yml").values() for name in service.get("environment", {})}
    assert set(VARIABLES) - passed == set(NOT_PASSED["docker-compose.yml"])
