"""The documents list every setting as declared, and compose passes it on to the services that read it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from service.runtime.settings import SETTINGS
from tests.deploy.settings_documents import BY_THE_SERVICES, LISTS, PASSED, ROOT, updated


@pytest.mark.parametrize("file", LISTS)
def test_each_list_of_settings_is_the_declared_one(file: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == updated(file), "run `make settings`"


@pytest.mark.parametrize("service", ["web", "worker", "s3-worker", "scheduler", "migrate", "backup"])
def test_each_setting_reaches_the_service_or_is_fixed_for_a_reason(service: str) -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    passed = {name for name in services[service]["environment"] if name.startswith("TAPELINE_")}
    assert set(PASSED) <= passed <= set(SETTINGS)
    assert {f"TAPELINE_{name}" for name in BY_THE_SERVICES} == set(SETTINGS) - set(PASSED)
