"""The alerting rules use existing metrics, and fire when they should."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from service.storage.database import Database, now_ms
from service.storage.tables import Job
from service.web.core.core import EXTENSION
from service.web.core.metrics import Metrics
from service.web.core.publisher import Publisher
from tests import prometheus
from tests.service.web.conftest import SimulatedWorker

pytestmark = pytest.mark.usefixtures("no_requests_yet")

ROOT = Path(__file__).parents[4]
RULES = ROOT / "deploy" / "alerts.yml"
NOT_METRICS = {"tapeline_app", "tapeline_owner", "tapeline_secrets"}  # database roles and a volume
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}


def sample_names(text: str) -> set[str]:
    """All sample names that a rule can use, including those of metrics that have no sample yet."""
    return {family.name + suffix for family in text_string_to_metric_families(text) for suffix in SUFFIXES[family.type]}


@pytest.fixture
def exposed(either_app: Flask) -> str:
    core = either_app.extensions[EXTENSION]
    metrics = Metrics(
        core.database, publisher=Publisher("redis://127.0.0.1:1/0"), artifacts=core.settings.artifacts.parent
    )
    return metrics.page(with_owners=True).decode()


@pytest.mark.parametrize("name", ["deploy/alerts.yml", "deploy/alerts_test.yml", "docs/operations.md"])
def test_every_metric_that_is_mentioned_is_exposed(exposed: str, name: str) -> None:
    exposed_names = sample_names(exposed)
    # The document's table names families.
    family_names = {re.sub(r"_(bucket|count|sum)$", "", sample_name) for sample_name in exposed_names}
    text = (ROOT / name).read_text()
    mentioned = set(re.findall(r"\btapeline_(?:[a-z]+_)*[a-z]+", text)) - NOT_METRICS
    assert len(mentioned) > 8
    assert sorted(mentioned - exposed_names - family_names) == []


def test_every_metric_is_documented(exposed: str) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    families = {family.name for family in text_string_to_metric_families(exposed)}
    assert sorted(name for name in families if f"`{name}" not in text) == []


@pytest.mark.stack  # make processes downloads it
@pytest.mark.skipif(prometheus.program("promtool") is None, reason=prometheus.WHY_SKIPPED)
@pytest.mark.parametrize("command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_accepts_the_rules_and_their_tests(command: tuple[str, ...]) -> None:
    program = str(prometheus.program("promtool"))
    result = subprocess.run([program, *command], cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def alerts() -> dict[str, dict[str, Any]]:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return {rule["alert"]: rule for rule in rules}


def test_every_alert_fires_in_its_test_and_clears() -> None:
    cleared = set()
    for test in yaml.safe_load((RULES.parent / "alerts_test.yml").read_text())["tests"]:
        fired: set[str] = set()
        for query in test["promql_expr_test"]:  # in the order of time
            texts = [sample["labels"] for sample in query.get("exp_samples", ())]
            firing = set(re.findall(r'alertname="(\w+)"', " ".join(texts)))
            cleared |= fired - firing
            fired |= firing
    assert len(alerts()) > 16
    assert sorted(alerts().keys() - cleared) == []


@pytest.mark.parametrize("name", alerts())
def test_every_alert_links_to_its_entry_in_the_runbook(name: str) -> None:
    annotations = alerts()[name]["annotations"]
    document, _, anchor = annotations["runbook"].partition("#")
    assert anchor == name.lower()
    entry = (ROOT / document).read_text().partition(f"\n#### {name}\n\n")[2].partition("\n##")[0]
    meaning, _, steps = entry.partition("\n\n")
    assert len(meaning) > 40
    first, remedy = steps.strip().partition("\n- ")[::2]
    assert first.startswith("- First: ")
    assert f"`{annotations['first']}`" in first
    assert len(remedy) > 40


def test_no_entry_of_the_runbook_is_left_over() -> None:
    entries = re.findall(r"^#### (Tapeline\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert entries == [name for name in entries if name in alerts()]
    assert len(entries) == len(alerts())


def read(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.page().decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_the_age_of_an_expired_lease_is_measured(
    either_app: Flask, make_worker: Callable[[Flask], SimulatedWorker], submit: Callable[..., str]
) -> None:
    database: Database = either_app.extensions[EXTENSION].database
    metrics = Metrics(database)
    submit(either_app.test_client())
    make_worker(either_app).claim()
    assert read(metrics)["tapeline_expired_lease_seconds"] == 0
    with database.write() as session:
        session.execute(update(Job).values(lease_expires_ms=now_ms() - 90_000))
    assert 90 <= read(metrics)["tapeline_expired_lease_seconds"] < 120


def test_broker_and_disk_are_measured_if_configured(sqlite_url: str, tmp_path: Path) -> None:
    with closing(Database(sqlite_url)) as database:
        configured = read(Metrics(database, publisher=Publisher("redis://127.0.0.1:1/0"), artifacts=tmp_path))
        unconfigured = read(Metrics(database, publisher=Publisher(None), artifacts=tmp_path / "missing"))
    assert configured["tapeline_broker_up"] == 0
    assert 0 < configured["tapeline_disk_free_bytes"] < configured["tapeline_disk_size_bytes"]
    assert unconfigured.keys() & {"tapeline_broker_up", "tapeline_disk_free_bytes"} == set()
