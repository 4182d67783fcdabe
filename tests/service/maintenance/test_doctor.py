"""Every fault that the doctor detects, produced for real: the doctor names it and the remedy."""

from __future__ import annotations

import json
import re
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

from migrations.upgrade import config, exclusively, head, upgrade
from service.access import audit_seals
from service.cli import main
from service.jobs import leases, worker_registry
from service.local.broker import Broker
from service.maintenance import doctor, scheduler_heartbeat, store_id
from service.maintenance.doctor import Diagnosis
from service.runtime.settings import Settings
from service.storage.artifacts import ID_FILE
from service.storage.database import Database, now_ms
from service.storage.stores import ArtifactFolder, open_store
from service.storage.tables import AuditEntry, Worker
from tests import brokers, object_servers


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": database.url}
    return Settings.from_env(environ, cores=1)


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    with brokers.serve(settings.home) as broker:
        yield broker


def examine(settings: Settings, broker_url: str | None = None) -> dict[str, Diagnosis]:
    with closing(Database(settings.database_url)) as database:
        return {diagnosis.name: diagnosis for diagnosis in doctor.examine(settings, database, broker_url=broker_url)}


def failed_checks(diagnoses: dict[str, Diagnosis]) -> set[str]:
    for diagnosis in diagnoses.values():
        assert diagnosis.ok or diagnosis.advice, diagnosis
    return {name for name, diagnosis in diagnoses.items() if not diagnosis.ok}


@pytest.mark.stack
def test_a_healthy_service_passes_every_check(settings: Settings, database: Database, broker: Broker) -> None:
    worker_registry.record_heartbeat(database, Worker(id="w1", host="here", pid=7, slots=2, running=1, draining=False))
    scheduler_heartbeat.beat(database)
    diagnoses = examine(replace(settings, keep_jobs_days=7.0), broker.url)
    assert failed_checks(diagnoses) == set()
    assert set(diagnoses) == {
        *(
            "database",
            "schema",
            "workers",
            "scheduler",
            "audit log",
            "clocks",
            "broker",
            "artifacts",
            "files",
            "disk",
            "settings",
        )
    }
    assert diagnoses["settings"].detail.endswith("TAPELINE_KEEP_JOBS_DAYS")
    assert "1 of 2 slots" in diagnoses["workers"].detail


def test_a_machine_with_a_fault_and_a_folder_of_another_database_are_reported(
    settings: Settings, database: Database
) -> None:
    fault = {"reason": "store", "message": "[Errno 28] No space left on device"}
    worker = Worker(id="w2", host="node-7", pid=1, slots=2, running=0, draining=False, blocked=fault)
    worker_registry.record_heartbeat(database, worker)
    store_id.verify(database, ArtifactFolder(settings.artifacts))
    (settings.artifacts / ID_FILE).write_text("str_of_another_service")
    diagnoses = examine(settings)
    assert {"workers", "artifacts"} <= failed_checks(diagnoses)
    assert diagnoses["workers"].detail == "node-7: [Errno 28] No space left on device"
    assert "free disk space" in str(diagnoses["workers"].advice)
    assert "the store str_of_another_service" in diagnoses["artifacts"].detail


def test_a_missing_worker_and_an_unreachable_broker_are_reported(settings: Settings) -> None:
    diagnoses = examine(settings, "redis://127.0.0.1:1/0")
    assert failed_checks(diagnoses) == {"workers", "scheduler", "broker"}
    assert "docker compose up -d worker" in str(diagnoses["workers"].advice)


def test_a_stopped_scheduler_is_reported_although_no_lease_has_expired(settings: Settings, database: Database) -> None:
    assert examine(settings)["scheduler"].detail.startswith("no scheduler of this version has run. Lost workers")
    scheduler_heartbeat.beat(database)
    assert examine(settings)["scheduler"].ok
    with database.write() as session:
        session.execute(text("UPDATE scheduler_heartbeat SET seen_ms = seen_ms - 60000"))
    stopped = examine(settings)["scheduler"]
    assert re.match(r"\S+ was last seen 6\d s ago\. Lost workers are not noticed", stopped.detail)
    assert "docker compose up -d scheduler" in str(stopped.advice)


def test_a_schema_that_is_behind_or_ahead_is_reported(settings: Settings, database: Database) -> None:
    with exclusively(database) as connection:
        command.downgrade(config(connection), "base")
    diagnoses = examine(settings)
    assert {"schema"} <= failed_checks(diagnoses)
    assert "revision none" in diagnoses["schema"].detail
    assert "migrations.upgrade" in str(diagnoses["schema"].advice)
    upgrade(database)
    set_revision = text("UPDATE alembic_version SET version_num = :revision")
    with database.engine.begin() as connection:
        connection.execute(set_revision, {"revision": "9999"})
    assert "newer version" in str(examine(settings)["schema"].advice)
    with database.engine.begin() as connection:  # the database may be shared with other tests
        connection.execute(set_revision, {"revision": head()})


def test_running_jobs_with_expired_leases_fail_the_scheduler_check_and_are_counted(
    settings: Settings, database: Database
) -> None:
    expired_long_ago, expired_just_now = 1, leases.clock(database) - int(2 * settings.lease_s * 1000)
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO jobs (id, kind, tags, priority, spec, resolved, spec_hash, status, attempt, deaths, lease,"
                " lease_expires_ms, epoch, epochs, step, steps, metrics, health, last_seq, created_ms, queued_ms)"
                " VALUES (:id, 'gan', '[]', 5, '{}', '{}', '', :status, 1, 0, 1,"
                " :expires, 0, 1, 0, 1, '{}', '[]', 0, 1, 1)"
            ),
            [
                {"id": "job_1", "status": "running", "expires": expired_long_ago},
                {"id": "job_2", "status": "running", "expires": expired_long_ago},
                {"id": "job_3", "status": "running", "expires": expired_just_now},
                {"id": "job_4", "status": "queued", "expires": expired_long_ago},
            ],
        )
    scheduler_heartbeat.beat(database)
    diagnoses = examine(settings)
    assert "scheduler" in failed_checks(diagnoses)
    assert diagnoses["scheduler"].detail.endswith("runs, but running jobs have an expired lease: 2")
    assert "docker compose logs scheduler" in str(diagnoses["scheduler"].advice)


def test_a_difference_between_clocks_is_reported(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real_clock = leases.clock
    monkeypatch.setattr(leases, "clock", lambda database: real_clock(database) + 5000)
    diagnoses = examine(settings)
    assert "clocks" in failed_checks(diagnoses)
    assert "5.0 s ahead" in diagnoses["clocks"].detail


def test_an_unwritable_artifact_folder_and_a_full_disk_are_reported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.artifacts.write_text("a file where a folder should be")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100 * 10**9, 99_500_000_000, 500_000_000))
    diagnoses = examine(settings)
    assert {"artifacts", "disk"} <= failed_checks(diagnoses)
    assert "tapeline gc" in str(diagnoses["disk"].advice)


def test_a_bucket_is_checked_and_its_errors_name_a_remedy(
    moto: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_servers.credentials().items():
        monkeypatch.setenv(name, value)
    in_bucket = replace(settings, store=f"s3://{object_servers.BUCKET}/doctor", store_endpoint=moto)
    detail = examine(in_bucket)["artifacts"].detail
    # moto has no lock: a race for a name may have several winners
    assert re.match(rf"s3://{object_servers.BUCKET}/doctor is writable: \d+ ms to store a small object, \d+ to", detail)
    assert list(open_store(in_bucket).stored()) == []
    in_another = examine(replace(in_bucket, store="s3://another"))["artifacts"]
    assert not in_another.ok
    assert "cannot write to s3://another: there is no such bucket: create it" in in_another.detail


def test_an_unavailable_database_is_reported_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    url = "postgresql+psycopg://tapeline:secret@127.0.0.1:1/tapeline"
    diagnoses = examine(Settings.from_env({"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": url}, cores=1))
    assert {"database", "broker"} <= failed_checks(diagnoses)
    assert "secret" not in diagnoses["database"].detail
    assert diagnoses["artifacts"].ok
    assert "schema" not in diagnoses


def test_the_command_prints_text_or_json_and_creates_no_database(tmp_path: Path) -> None:
    environ = {"TAPELINE_HOME": str(tmp_path)}
    as_text = CliRunner().invoke(main, ["doctor"], env=environ)
    assert as_text.exit_code == 1
    place = f"Examined: folder {tmp_path}, database sqlite:///{tmp_path / 'tapeline.db'}; not the service at http://"
    assert as_text.output.startswith(place)
    assert f"FAIL database: file {tmp_path / 'tapeline.db'} does not exist" in as_text.output
    assert "tapeline up" in as_text.output
    as_json = CliRunner().invoke(main, ["doctor", "--json"], env=environ)
    assert as_json.exit_code == 1
    document = json.loads(as_json.output)
    assert document["ok"] is False
    assert {check["name"] for check in document["checks"] if not check["ok"]} == {"database", "broker"}
    assert not (tmp_path / "tapeline.db").exists()


def test_an_audit_log_that_is_not_sealed_is_reported(settings: Settings, database: Database) -> None:
    def add(seconds_ago: int) -> None:
        with database.write() as session:
            session.add(AuditEntry(at_ms=now_ms() - 1000 * seconds_ago, action="submit", detail={}))

    assert "nothing is sealed yet; kept forever" in examine(settings)["audit log"].detail
    add(60)
    audit_seals.seal(database)
    with closing(Database(settings.database_url)) as second_database:
        with_retention = replace(settings, keep_audit_days=365.0)
        diagnoses = {
            diagnosis.name: diagnosis for diagnosis in doctor.examine(with_retention, second_database, broker_url=None)
        }
    assert "sealed up to entry" in diagnoses["audit log"].detail
    assert "kept for 365 days" in diagnoses["audit log"].detail
    add(600)
    assert "audit log" in failed_checks(examine(settings))
    assert "for 10 minutes" in examine(settings)["audit log"].detail
