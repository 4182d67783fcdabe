"""Whole services at older schemas are upgraded: everything is still served, and can be taken back."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from flask import Flask
from sqlalchemy import make_url, select, text

from migrations.upgrade import head, is_current, upgrade
from service.datasets.uploads import UploadFiles
from service.local import LocalStack
from service.maintenance.backups.backup import restore
from service.maintenance.backups.backup_format import BackupError
from service.maintenance.backups.rows import _reflect, tables_of
from service.runtime.settings import Settings
from service.storage.database import Database
from service.storage.tables import Base
from service.web.app import create_app
from tapeline import Client
from tests.conftest import create_database
from tests.migrations.test_roles import set_up
from tests.service.web.apps import shut_down_app
from tests.waiting import wait_until
from workers.training import code_digest

STATES = Path(__file__).parent / "states"
BRIDGED, CHAINED = "0007", "0020"
STABLE = {
    *("id", "job", "seq", "type", "kind", "name", "tags", "status", "attempt", "lease", "epoch", "epochs", "step"),
    *("metrics", "series", "best_epoch", "result_digest", "sweep_digest", "parent_id", "start_epoch", "spec_hash"),
    *("size_bytes", "sha256", "code", "level", "match", "trials", "trial", "value", "classes", "created_at", "owner"),
    *("data", "progress", "error", "reproduction", "train_count", "validation_count"),
}
"""Fields of answers that keep their names and values, whatever version gives them."""


@dataclass
class State:
    """An unpacked fixture, in a database and a state folder of its own."""

    home: Path
    database_url: str
    revision: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.home / "state.json").read_text())
        return facts

    @property
    def settings(self) -> Settings:
        environ = {
            "TAPELINE_HOME": str(self.home),
            "TAPELINE_DATABASE_URL": self.database_url,
            "TAPELINE_AUTH": "keys",
            "TAPELINE_PORT": "0",
        }
        return Settings.from_env(environ, cores=1)

    def migrate(self, *arguments: str) -> list[dict[str, Any]]:
        """Run the product's command; returns its log."""
        environ = os.environ | self.settings.to_env()
        command = [sys.executable, "-m", "migrations.upgrade", *arguments]
        process = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        return [json.loads(line) for line in process.stderr.splitlines()]

    def rows(self) -> dict[str, list[str]]:
        """The rows of each table, and the names of its columns."""
        with closing(Database(self.database_url)) as database, database.engine.connect() as connection:
            return {
                name: sorted(
                    json.dumps(dict(row), sort_keys=True) for row in connection.execute(select(table)).mappings()
                )
                for name, table in _reflect(connection).items()
            }


@pytest.fixture
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    revision, kind = request.param
    with tarfile.open(STATES / f"{revision}.tar.xz") as archive:
        members = [member for member in archive if member.name.startswith(f"{kind}/")]
        archive.extractall(tmp_path, members, filter="data")
    home = tmp_path / kind
    dump = (home / "dump.sql").read_text()
    if kind == "sqlite":
        url = f"sqlite:///{home / 'tapeline.db'}"
        with closing(sqlite3.connect(home / "tapeline.db")) as connection:
            connection.executescript(dump)
    else:
        url = create_database(request.getfixturevalue("postgres_server"))
        with psycopg.connect(url.replace("+psycopg", "")) as server:
            server.execute(dump)
    return State(home, url, revision)


both_chains = pytest.mark.parametrize(
    "state",
    [
        (BRIDGED, "sqlite"),
        (CHAINED, "postgresql"),
        pytest.param((BRIDGED, "postgresql"), marks=pytest.mark.nightly),
        pytest.param((CHAINED, "sqlite"), marks=pytest.mark.nightly),
    ],
    indirect=True,
)
this_chain = pytest.mark.parametrize("state", [(CHAINED, kind) for kind in ("sqlite", "postgresql")], indirect=True)
on_sqlite = pytest.mark.parametrize(
    "state", [(BRIDGED, "sqlite"), pytest.param((CHAINED, "sqlite"), marks=pytest.mark.nightly)], indirect=True
)


def differences(recorded: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where an answer differs from an earlier one in what is stable."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name in recorded.keys() & (STABLE if path else recorded.keys()) & found.keys():
            yield from differences(recorded[name], found[name], f"{path}/{name}")
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for index, (before, after) in enumerate(zip(recorded, found, strict=True)):
            yield from differences(before, after, f"{path}/{index}")
    elif recorded != found:
        yield f"{path}: was {recorded!r:.200}, is {found!r:.200}"


def check_answers(app: Flask, facts: Mapping[str, Any]) -> None:
    """Everything is served to its owner as before, and to nobody else."""
    client = app.test_client()
    bearer = {"Authorization": f"Bearer {facts['keys']['ann']}"}
    listed = client.get("/jobs?limit=100", headers=bearer).json["data"]
    assert {job_id for name, job_id in facts["jobs"].items() if name != "sweep"} <= {job["id"] for job in listed}
    assert client.get("/jobs", headers={"Authorization": f"Bearer {facts['keys']['root']}"}).json["data"] == []
    assert client.get("/jobs").status_code == 401
    assert len(facts["answers"]) > 40
    for path, recorded in facts["answers"].items():
        response = client.get(path, headers=bearer, buffered=True)
        assert response.status_code == 200, f"{path}: {response.text[:500]}"
        found = hashlib.sha256(response.data).hexdigest() if isinstance(recorded, str) else response.json
        assert list(differences({"answer": recorded}, {"answer": found})) == [], path
    trained = facts["jobs"]["succeeded"]
    image = {"images": [[[column % 2 for column in range(8)] for _ in range(8)]]}
    predicted = client.post(f"/jobs/{trained}/predict", json=image, headers=bearer)
    assert predicted.status_code == 200, predicted.text


@pytest.mark.stack
@both_chains
def test_after_an_upgrade_everything_is_served_as_before(state: State) -> None:
    log = state.migrate()
    assert [(line["event"], line["revision_before"], line["revision_after"]) for line in log] == [
        ("upgraded the schema", state.revision, head())
    ]
    assert [line["event"] for line in state.migrate()] == ["nothing to do: the schema is current"]
    app = create_app(state.settings)
    try:
        check_answers(app, state.facts)
    finally:
        shut_down_app(app)


@both_chains
def test_an_upgraded_schema_is_that_of_a_new_database(
    state: State, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with closing(Database(state.database_url)) as database:
        upgrade(database)
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
            objects = "SELECT name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
            if database.is_sqlite:
                with closing(Database(f"sqlite:///{tmp_path / 'new.db'}")) as new:
                    upgrade(new)
                    with new.engine.connect() as reference:
                        expected = {row.name: " ".join(row.sql.split()) for row in reference.execute(text(objects))}
                assert {row.name: " ".join(row.sql.split()) for row in connection.execute(text(objects))} == expected


@pytest.mark.stack
@pytest.mark.parametrize(
    "state", [(CHAINED, "postgresql"), pytest.param((BRIDGED, "postgresql"), marks=pytest.mark.nightly)], indirect=True
)
def test_the_services_of_compose_upgrade_and_serve_a_database_of_the_superuser(state: State) -> None:
    """``setup`` hands it over, ``migrate`` connects as the owner, and web and workers as the application role."""
    with closing(Database(state.database_url)) as superuser:
        assert set_up(superuser, state.home).returncode == 0
    url = make_url(state.database_url)
    owner = url.set(username="tapeline_owner").render_as_string(hide_password=False)
    (line,) = replace(state, database_url=owner).migrate("--grant-to", "tapeline_app")
    assert (line["revision_before"], line["revision_after"]) == (state.revision, head())
    application = url.set(username="tapeline_app").render_as_string(hide_password=False)
    app = create_app(replace(state, database_url=application).settings)
    try:
        check_answers(app, state.facts)
    finally:
        shut_down_app(app)
    (line,) = replace(state, database_url=owner).migrate("--downgrade-to", CHAINED)
    assert line["revision_after"] == CHAINED


@pytest.mark.stack
@this_chain
def test_a_downgrade_gives_back_the_rows_and_columns_of_the_older_version(state: State) -> None:
    before = state.rows()
    assert sum(map(len, before.values())) > 100
    state.migrate()
    (line,) = state.migrate("--downgrade-to", state.revision)
    assert (line["event"], line["revision_after"]) == ("downgraded the schema", state.revision)
    assert state.rows() == before
    (line,) = state.migrate("--check")
    assert line["event"] == "the schema can be upgraded"
    state.migrate()


@pytest.mark.parametrize("state", [(CHAINED, "sqlite")], indirect=True)
def test_a_backup_of_the_older_version_is_restored(state: State, tmp_path: Path, database_url: str) -> None:
    environ = {"TAPELINE_HOME": str(tmp_path / "new"), "TAPELINE_AUTH": "keys", "TAPELINE_DATABASE_URL": database_url}
    settings = Settings.from_env(environ, cores=1)
    with closing(Database(settings.database_url)) as database, (state.home / "backup.tar").open("rb") as archive:
        restore(database, UploadFiles.of(settings), archive)
        assert is_current(database)
    app = create_app(settings)
    try:
        check_answers(app, state.facts)
    finally:
        shut_down_app(app)


def test_a_backup_from_before_the_first_revision_is_refused_with_the_remedy() -> None:
    with pytest.raises(BackupError, match="schema '0013': restore it with the version that made it, and upgrade that"):
        tables_of("0013")
    with pytest.raises(BackupError, match="schema '9999': restore it with a newer version of Tapeline"):
        tables_of("9999")


@pytest.mark.stack
@on_sqlite
def test_unfinished_jobs_go_on_and_other_code_is_named(state: State) -> None:
    ids, key = state.facts["jobs"], state.facts["keys"]["ann"]
    original = state.facts["answers"][f"/jobs/{ids['succeeded']}"]
    has_other_code = original["provenance"].get("code") != code_digest.digest()
    assert has_other_code or state.revision != BRIDGED
    with LocalStack(state.settings) as stack, Client(stack.url, key) as client:
        running = client.job(ids["running"])
        reached = running.epoch
        wait_until(lambda: running.refresh().epoch > reached, "the next epoch of the running job", 90)
        running.cancel()  # the only worker takes one job at a time
        queued = client.job(ids["queued"]).wait(timeout_s=90)
        assert (queued["status"], queued["progress"]["epoch"]) == ("succeeded", 4)
        assert ("mixed_provenance" in [event.data.get("code") for event in running.events()]) == has_other_code
        reproduction = client.job(ids["succeeded"]).reproduce().wait(timeout_s=90)["reproduction"]
        assert ("code" in reproduction["provenance_differs"]) == has_other_code
