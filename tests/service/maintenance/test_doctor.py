"""Every fault that the doctor detects, produced for real: the doctor names it and the remedy."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from click.testing import CliRunner
from sqlalchemy import text

from migrations.upgrade import config, exclusively, upgrade
from service.access import audit_seals
from service.cli import main
from service.jobs import leases, worker_registry
from service.local.broker import Broker
from service.maintenance import doctor
from service.maintenance.doctor import Diagnosis
from service.maintenance.rows import current_schema
from service.runtime.settings import Settings
from service.storage.database import Database, now_ms
from service.storage.tables import AuditEntry, Worker


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": database.url}
    return Settings.from_env(environ, cores=1)


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    made = Broker(settings.home, log=settings.home / "broker.log", environ=os.environ)
    made.prepare()
    made.child.start()
    made.wait_until_ready()
    yield made
    made.child.terminate()
    made.child.end(5)


def examine(settings: Settings, broker_url: str | None = None) -> dict[str, Diagnosis]:
    with closing(Database(settings.database_url)) as database:
        return {found.name: found for found in doctor.examine(settings, database, broker_url=broker_url)}


def wrong(found: dict[str, Diagnosis]) -> set[str]:
    for item in found.values():
        assert item.ok or item.advice, item
    return {name for name, item in found.items() if not item.ok}


def test_a_service_that_is_well_is_said_to_be_well(settings: Settings, database: Database, broker: Broker) -> None:
    worker_registry.record_heartbeat(database, Worker(id="w1", host="here", pid=7, slots=2, running=1, draining=False))
    found = examine(settings, broker.url)
    assert wrong(found) == set()
    assert set(found) == {
        *("database", "schema", "workers", "scheduler", "audit log", "clocks", "broker", "artifacts", "disk")
    }
    assert "1 of 2 slots" in found["workers"].detail


def test_no_worker_and_no_broker_are_named(settings: Settings) -> None:
    found = examine(settings, "redis://127.0.0.1:1/0")
    assert wrong(found) == {"workers", "broker"}
    assert "docker compose up -d worker" in str(found["workers"].advice)


def test_a_schema_that_is_behind_or_ahead_is_named(settings: Settings, database: Database) -> None:
    with exclusively(database) as connection:
        command.downgrade(config(connection), "base")
    found = examine(settings)
    assert {"schema"} <= wrong(found)
    assert "revision none" in found["schema"].detail
    assert "migrations.upgrade" in str(found["schema"].advice)
    upgrade(database)
    revision = text("UPDATE alembic_version SET version_num = :revision")
    with database.engine.begin() as connection:
        connection.execute(revision, {"revision": "9999"})
    assert "newer version" in str(examine(settings)["schema"].advice)
    with database.engine.begin() as connection:  # the database may serve other tests too
        connection.execute(revision, {"revision": current_schema()})


def test_running_jobs_with_expired_leases_are_listed(settings: Settings, database: Database) -> None:
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO jobs (id, kind, tags, priority, spec, resolved, spec_hash, status, attempt, deaths, lease,"
                " lease_expires_ms, epoch, epochs, step, steps, metrics, health, last_seq, created_ms, queued_ms)"
                " VALUES ('job_1', 'gan', '[]', 5, '{}', '{}', '', 'running', 1, 0, 1,"
                " 1, 0, 1, 0, 1, '{}', '[]', 0, 1, 1)"
            )
        )
    assert "scheduler" in wrong(examine(settings))


def test_clocks_apart_are_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = leases.clock
    monkeypatch.setattr(leases, "clock", lambda database: real(database) + 5000)
    found = examine(settings)
    assert "clocks" in wrong(found)
    assert "5.0 s ahead" in found["clocks"].detail


def test_artifacts_that_cannot_be_written_and_a_full_disk_are_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.artifacts.write_text("a file where a folder should be")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100 * 10**9, 99_500_000_000, 500_000_000))
    found = examine(settings)
    assert {"artifacts", "disk"} <= wrong(found)
    assert "tapeline gc" in str(found["disk"].advice)


def test_an_unavailable_database_is_reported_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    url = "postgresql+psycopg://tapeline:secret@127.0.0.1:1/tapeline"
    found = examine(Settings.from_env({"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": url}, cores=1))
    assert {"database", "broker"} <= wrong(found)
    assert "secret" not in found["database"].detail
    assert found["artifacts"].ok
    assert "schema" not in found


def test_the_command_prints_text_or_json_and_creates_no_database(tmp_path: Path) -> None:
    environ = {"TAPELINE_HOME": str(tmp_path)}
    told = CliRunner().invoke(main, ["doctor"], env=environ)
    assert told.exit_code == 1
    assert f"FAIL database: file {tmp_path / 'tapeline.db'} does not exist" in told.output
    assert "tapeline up" in told.output
    answer = CliRunner().invoke(main, ["doctor", "--json"], env=environ)
    assert answer.exit_code == 1
    document = json.loads(answer.output)
    assert document["ok"] is False
    assert {check["name"] for check in document["checks"] if not check["ok"]} == {"database", "broker"}
    assert not (tmp_path / "tapeline.db").exists()


def test_a_log_that_is_not_sealed_is_wrong(settings: Settings, database: Database) -> None:
    def add(seconds_ago: int) -> None:
        with database.write() as session:
            session.add(AuditEntry(at_ms=now_ms() - 1000 * seconds_ago, action="submit", detail={}))

    assert "nothing is sealed yet; kept forever" in examine(settings)["audit log"].detail
    add(60)
    audit_seals.seal(database)
    with closing(Database(settings.database_url)) as opened:
        kept = replace(settings, keep_audit_days=365.0)
        found = {item.name: item for item in doctor.examine(kept, opened, broker_url=None)}
    assert "sealed up to entry" in found["audit log"].detail
    assert "kept for 365 days" in found["audit log"].detail
    add(600)
    assert "audit log" in wrong(examine(settings))
    assert "for 10 minutes" in examine(settings)["audit log"].detail
