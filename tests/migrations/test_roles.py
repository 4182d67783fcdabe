"""The owner role changes the schema, the application role reads and writes rows, and neither can do more."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, make_url, select, text
from sqlalchemy.exc import ProgrammingError

from migrations import roles
from migrations.upgrade import is_current, upgrade
from service.errors import SettingsError
from service.features.webhooks import endpoints, outbox
from service.features.webhooks.delivery import deliveries
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.protocol.addresses import AddressRules
from service.jobs import worker_registry
from service.maintenance import retention
from service.maintenance.backups import backup
from service.maintenance.retention import Policy
from service.states import Status
from service.storage.database import Database
from service.storage.owner_tables import OwnerQueue, OwnerUsage
from service.storage.stores import ArtifactFolder
from service.web.app import create_app
from tests.conftest import create_database
from tests.faults.sweeps.runs import RANDOM
from tests.service.maintenance.conftest import Installation
from tests.service.web.apps import shut_down_app
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness
from tests.workers.test_workers import DIVERGING

_NUMBERS = itertools.count()  # roles belong to the server, which all tests share


@dataclass
class Roles:
    superuser: Database
    owner: Database
    application: Database
    worker: Database
    names: tuple[str, str, str]

    def prepare(self) -> list[str]:
        owner, application, worker = self.names
        passwords = dict.fromkeys(self.names, "a password of it's own")
        return roles.prepare(self.superuser, passwords, owner=owner, application=application, worker=worker)

    def upgrade(self) -> None:
        upgrade(self.owner, grant_to=self.names[1], grant_to_workers=self.names[2])


def connect_as(url: str, role: str) -> Database:
    return Database(make_url(url).set(username=role).render_as_string(hide_password=False))


@pytest.fixture
def new_roles(postgres_url: str) -> Iterator[Roles]:
    """An empty database; ``prepare`` creates its roles."""
    number = next(_NUMBERS)
    names = (f"owner_{number}", f"app_{number}", f"worker_{number}")
    owner, application, worker = (connect_as(postgres_url, name) for name in names)
    with closing(Database(postgres_url)) as superuser, closing(owner), closing(application), closing(worker):
        yield Roles(superuser, owner, application, worker, names)


def is_refused(database: Database, statement: str) -> bool:
    with closing(database.engine.connect()) as connection:
        try:
            connection.execute(text(statement))
        except ProgrammingError as error:
            assert "permission denied" in str(error) or "must be owner" in str(error), error
            return True
        return False


def test_the_owner_migrates_and_the_application_role_runs_the_service(new_roles: Roles, tmp_path: Path) -> None:
    assert new_roles.prepare()[:3] == [f"created the role {name}" for name in new_roles.names]
    upgrade(new_roles.owner, grant_to=new_roles.names[1])
    assert is_current(new_roles.application)
    installation = Installation(new_roles.application, ArtifactFolder(tmp_path / "artifacts"))
    installation.train(2)
    job_id = installation.train(5, ended_days_ago=9)
    archive = io.BytesIO()
    assert backup.backup(new_roles.application, installation.files, archive).rows["jobs"] == 2
    policy = Policy(jobs_days=0, checkpoints_days=7)
    retention.carry_out(
        new_roles.application,
        installation.store,
        policy,
        retention.plan(new_roles.application, installation.store, policy),
    )
    assert installation.checkpoint_epochs(job_id) == [2, 5]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE jobs ADD COLUMN mine int",
        "DROP TABLE events",
        "TRUNCATE jobs CASCADE",
        "ALTER TABLE audit DISABLE TRIGGER ALL",
        "CREATE TRIGGER mine BEFORE INSERT ON jobs EXECUTE FUNCTION audit_is_append_only()",
        "UPDATE alembic_version SET version_num = '0001'",
        "UPDATE audit SET action = 'nothing'",
        "CREATE ROLE mine",
        "ALTER ROLE CURRENT_USER CREATEDB",
        "SET SESSION AUTHORIZATION postgres",
        "COPY jobs TO PROGRAM 'true'",
    ],
)
def test_the_application_role_is_refused_privileged_statements(prepared_roles: Roles, statement: str) -> None:
    assert is_refused(prepared_roles.application, statement)


FORBIDDEN = (
    "api_keys",
    "browser_sessions",
    "sign_in_links",
    "shares",
    "audit_seals",
    "idempotency",
    "owner_defaults",
    "owner_usage",
    "calibrations",
    "scheduler_heartbeat",
    "upload_progress",
    "file_checks",
    "damaged_files",
)
"""Tables on which a worker has no privilege."""


def test_a_worker_has_no_privilege_on_tables_that_it_does_not_need(
    prepared_roles: Roles, subtests: pytest.Subtests
) -> None:
    for table in FORBIDDEN:
        with subtests.test(table):
            for statement in (
                f"SELECT * FROM {table}",
                f"INSERT INTO {table} DEFAULT VALUES",
                f"DELETE FROM {table}",
                f"SELECT 1 FROM {table} FOR UPDATE",
            ):
                assert is_refused(prepared_roles.worker, statement), statement
    with prepared_roles.superuser.engine.connect() as connection:
        query = """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
            AND NOT has_any_column_privilege('shared_worker', oid, 'SELECT, INSERT, UPDATE, REFERENCES')
            AND NOT has_table_privilege('shared_worker', oid, 'DELETE, TRUNCATE, TRIGGER')"""
        assert {*FORBIDDEN} <= {*connection.scalars(text(query))}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM audit",
        "SELECT id FROM audit",
        "UPDATE audit SET action = 'nothing'",
        "DELETE FROM audit",
        "SELECT weight FROM owners",
        "SELECT display_name FROM owners",
        "UPDATE owners SET weight = 9",
        "INSERT INTO owners (id, created_ms) VALUES ('me', 1)",
        "UPDATE owner_queue SET vtime = 0",
        "INSERT INTO owner_queue (owner) VALUES ('me')",
        "SELECT change_owner_queue('ann', 1, 1, 0, 0)",
        "DELETE FROM jobs",
        "DELETE FROM uploads",
        "UPDATE uploads SET shared = TRUE",
        "UPDATE stores SET id = 'mine'",
        "UPDATE events SET data = '{}'",
        "UPDATE epochs SET step = 0",
        "DELETE FROM epochs",
        "UPDATE artifacts SET path = 'mine'",
        "DELETE FROM expected_epochs",
        "DELETE FROM sweeps",
        "SELECT * FROM webhooks",
        "SELECT url FROM webhooks",
        "SELECT secret FROM webhooks",
        "SELECT id FROM webhooks WHERE signing_key LIKE 'a%'",
        "UPDATE webhooks SET url = 'https://mine.example/'",
        "SELECT data FROM webhook_deliveries",
        "UPDATE webhook_deliveries SET status = 'delivered'",
        "DELETE FROM webhook_deliveries",
        "CREATE TABLE mine (id int)",
        "CREATE TEMPORARY TABLE mine (id int)",
        "TRUNCATE events",
        "ALTER TABLE jobs DISABLE TRIGGER ALL",
        "CREATE ROLE mine",
        "SET SESSION AUTHORIZATION postgres",
        "COPY jobs TO PROGRAM 'true'",
    ],
)
def test_a_worker_is_refused_what_it_does_not_need(prepared_roles: Roles, statement: str) -> None:
    assert is_refused(prepared_roles.worker, statement)


def test_a_worker_announces_to_webhooks_that_it_cannot_read(prepared_roles: Roles) -> None:
    url, events = "https://93.184.216.34/", [MessageType.JOB_FAILED]
    webhook = endpoints.create(prepared_roles.application, url, events, AddressRules(), owner="ann", is_admin=False)
    with prepared_roles.worker.write() as session:
        outbox.announce(session, owner="ann", kind="job.failed", data={"id": "job_1"})
    [claimed] = deliveries.claim(prepared_roles.application, at_most=9)
    assert (claimed.webhook_id, claimed.secrets) == (webhook.id, [webhook.secret])


def test_the_role_of_an_autoscaler_reads_the_demand_and_nothing_else(new_roles: Roles, postgres_url: str) -> None:
    new_roles.prepare()
    reader = new_roles.names[2].replace("worker", "demand")
    with new_roles.superuser.engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {reader} LOGIN"))
        connection.execute(text("REVOKE USAGE ON SCHEMA public FROM PUBLIC"))  # as the database refuses CONNECT
    for _ in range(2):
        upgrade(new_roles.owner, grant_to=new_roles.names[1], grant_demand_to=reader)
        with new_roles.owner.engine.begin() as connection:
            connection.execute(text(f"GRANT SELECT ON jobs TO {reader}"))  # the second upgrade takes it away
    upgrade(new_roles.owner, grant_to=new_roles.names[1], grant_demand_to=reader)
    with closing(connect_as(postgres_url, reader)) as database:
        with database.engine.connect() as connection:
            assert connection.execute(text("SELECT * FROM tapeline_demand")).all() == [(0,)]
        for statement in (
            "SELECT owner FROM owner_queue",
            "SELECT id FROM jobs",
            "SELECT * FROM alembic_version",
            "UPDATE owner_queue SET vtime = 0",
            "CREATE TABLE mine (id int)",
            "CREATE TEMPORARY TABLE mine (id int)",
            "CREATE OR REPLACE VIEW tapeline_demand AS SELECT 9 AS slots",
        ):
            assert is_refused(database, statement), statement
        query = """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind <> 'i'
            AND (relkind = 'S' AND has_sequence_privilege(oid, 'USAGE, SELECT, UPDATE') OR relkind <> 'S' AND (
            has_any_column_privilege(oid, 'SELECT, INSERT, UPDATE, REFERENCES')
            OR has_table_privilege(oid, 'DELETE, TRUNCATE, TRIGGER')))"""
        with database.engine.connect() as connection:
            assert connection.scalars(text(query)).all() == ["tapeline_demand"]


def test_a_role_that_would_lose_its_own_privileges_is_refused_before_the_migration(new_roles: Roles) -> None:
    new_roles.prepare()
    owner, application, worker = new_roles.names
    with pytest.raises(SettingsError, match=f"--grant-demand-to {owner}: .*omit --grant-demand-to"):
        upgrade(new_roles.owner, grant_demand_to=owner)
    with pytest.raises(SettingsError, match=f"--grant-to and --grant-demand-to name the same role, {application}"):
        upgrade(new_roles.owner, grant_to=application, grant_to_workers=worker, grant_demand_to=application)
    assert not is_current(new_roles.superuser)
    new_roles.upgrade()
    with pytest.raises(SettingsError, match=f"--grant-to-workers {owner}: this role owns the schema"):
        upgrade(new_roles.superuser, grant_to_workers=owner)
    assert is_current(new_roles.application)


@pytest.mark.stack
def test_a_worker_with_a_role_of_its_own_trains_a_job_and_a_sweep(new_roles: Roles, tmp_path: Path) -> None:
    new_roles.prepare()
    new_roles.upgrade()
    with (
        closing(WorkerHarness(tmp_path, new_roles.application)) as service,
        closing(WorkerHarness(tmp_path, new_roles.worker)) as other_machine,
    ):
        app = create_app(service.settings)
        client, worker = app.test_client(), other_machine.start()
        service.start("workers.scheduler")
        job = service.until_end(service.submit(epochs=2, checkpoint={"keep_last": 1}))
        assert (job.status, job.error) == (Status.SUCCEEDED, None)
        again = service.until_end(service.submit(epochs=3))  # takes over two epochs, and trains one
        assert (again.status, again.error) == (Status.SUCCEEDED, None)
        reproduced = client.post(f"/jobs/{job.id}/reproduce").json
        assert service.until_end(reproduced["id"]).reproduction["match"] is True
        failed = service.until_end(service.submit(**DIVERGING))
        assert (failed.error or {})["code"] == "diverged"
        base = RANDOM["base"] | {"dataset": {"name": "mnist-10k"}, "batch_size": 500}
        created = client.post("/sweeps", json=RANDOM | {"base": base})
        assert created.status_code == 201, created.text
        sweep = f"/sweeps/{created.json['id']}"
        wait_until(lambda: client.get(sweep).json["status"] == "succeeded", "the end of the sweep", 40)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        assert "permission denied" not in (tmp_path / "workers.log").read_text()
        with service.database.read() as session:
            queue = session.scalars(select(OwnerQueue)).one()
            assert (queue.owner, queue.running, queue.queued) == ("", 0, 0)
            assert session.scalar(select(func.sum(OwnerUsage.jobs))) == 4 + 6 * 2
            assert worker_registry.live_workers(session) == []
        shut_down_app(app)


@pytest.mark.parametrize(
    "statement", ["CREATE ROLE mine", "COPY jobs TO PROGRAM 'true'", "ALTER ROLE CURRENT_USER CREATEDB"]
)
def test_the_owner_is_refused_superuser_statements(prepared_roles: Roles, statement: str) -> None:
    assert is_refused(prepared_roles.owner, statement)


@pytest.fixture(scope="module")
def prepared_roles(postgres_server: str) -> Iterator[Roles]:
    url = create_database(postgres_server)
    names = ("shared_owner", "shared_app", "shared_worker")
    owner, application, worker = (connect_as(url, name) for name in names)
    with closing(Database(url)) as superuser, closing(owner), closing(application), closing(worker):
        created = Roles(superuser, owner, application, worker, names)
        created.prepare()
        created.upgrade()
        yield created


def test_the_application_role_can_use_tables_of_later_migrations(prepared_roles: Roles) -> None:
    with prepared_roles.owner.engine.begin() as connection:
        connection.execute(text("CREATE TABLE later (id serial PRIMARY KEY)"))
    with prepared_roles.application.engine.begin() as connection:
        connection.execute(text("INSERT INTO later DEFAULT VALUES"))
        assert connection.scalar(text("DELETE FROM later RETURNING id")) == 1


def test_a_database_of_a_single_role_is_transferred_to_the_owner(new_roles: Roles, tmp_path: Path) -> None:
    upgrade(new_roles.superuser)
    job_id = Installation(new_roles.superuser, ArtifactFolder(tmp_path)).train(2)
    for _ in range(2):  # it is idempotent
        new_roles.prepare()
        new_roles.upgrade()
    with new_roles.superuser.engine.connect() as connection:
        query = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert connection.scalars(text(query)).all() == [new_roles.names[0]]
        query = "SELECT DISTINCT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        assert connection.scalars(text(query)).all() == [new_roles.names[0]]
    assert Installation(new_roles.application, ArtifactFolder(tmp_path)).checkpoint_epochs(job_id) == [1, 2]
    with new_roles.owner.engine.begin() as connection:
        connection.execute(text("DROP FUNCTION audit_is_append_only CASCADE"))  # as a migration may need to


def test_the_application_role_can_read_a_restore_by_the_owner(new_roles: Roles, tmp_path: Path) -> None:
    new_roles.prepare()
    source = Database(f"sqlite:///{tmp_path / 'tapeline.db'}")
    upgrade(source)
    installation = Installation(source, ArtifactFolder(tmp_path / "old"))
    job_id = installation.train(2)
    archive = io.BytesIO()
    backup.backup(source, installation.files, archive)
    source.close()
    archive.seek(0)
    new = Installation(new_roles.owner, ArtifactFolder(tmp_path / "new"))
    backup.restore(new_roles.owner, new.files, archive)
    assert Installation(new_roles.application, new.store).checkpoint_epochs(job_id) == [1, 2]


def test_a_superuser_that_needs_no_password_has_its_password_removed(new_roles: Roles) -> None:
    query = text("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = current_user")
    with new_roles.superuser.engine.begin() as connection:
        connection.execute(text("ALTER ROLE CURRENT_USER PASSWORD 'known'"))
    new_roles.prepare()
    with new_roles.superuser.engine.connect() as connection:
        assert connection.scalar(query) is True
        query = text("SELECT rolpassword FROM pg_authid WHERE rolname = :role")
        assert connection.scalar(query, {"role": new_roles.names[1]}).startswith("SCRAM-SHA-256$")


def set_up(database: Database, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of the service ``setup``."""
    for name in ("app", "owner"):
        (home / "secrets" / name).mkdir(parents=True, exist_ok=True)
    environ = os.environ | {"TAPELINE_DATABASE_URL": database.url, "TAPELINE_HOME": str(home)}
    command = [sys.executable, "-m", "migrations.roles"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.stack
def test_setup_changes_nothing_if_this_version_cannot_upgrade_the_database(new_roles: Roles, tmp_path: Path) -> None:
    """Otherwise the version before could not go on: it may use the superuser, and own the tables."""
    upgrade(new_roles.superuser)
    state = text(
        "SELECT (SELECT json_agg(r ORDER BY r.rolname) FROM (SELECT rolname, rolpassword FROM pg_authid) r)::text,"
        " (SELECT json_agg(t ORDER BY t.tablename) FROM (SELECT tablename, tableowner FROM pg_tables) t)::text"
    )
    with new_roles.superuser.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
        connection.execute(text("ALTER ROLE CURRENT_USER PASSWORD 'known'"))
        before = connection.execute(state).one()
    refused = set_up(new_roles.superuser, tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "at revision 0006, which is too old" in refused.stderr
    assert refused.stderr.rstrip().endswith("Nothing was changed.")
    with new_roles.superuser.engine.connect() as connection:
        assert connection.execute(state).one() == before
    assert [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()] == []


@pytest.mark.stack
def test_setup_logs_what_it_changed_and_that_there_was_nothing_to_do(new_roles: Roles, tmp_path: Path) -> None:
    upgrade(new_roles.superuser)
    first, second = (set_up(new_roles.superuser, tmp_path) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    events = [json.loads(line)["event"] for line in first.stderr.splitlines()]
    assert events.count("wrote a password") == 8
    assert "made tapeline_owner the owner of table jobs" in events
    assert "made tapeline_owner the owner of function audit_is_append_only" in events
    assert [json.loads(line)["event"] for line in second.stderr.splitlines()] == [
        "nothing to do: all roles exist, and own what they should"
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("app", "owner"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_passwords_are_random_and_reused_until_deleted(folder: Path) -> None:
    passwords = roles.write_passwords(folder, {"POSTGRES_PASSWORD": ""})
    assert len({*passwords.values(), (folder / "app" / "broker").read_text()}) == 4
    assert min(map(len, passwords.values())) >= 32
    assert (folder / "app" / "database").read_text() == passwords[roles.APPLICATION]
    identity = json.loads((folder / "app" / "s3.json").read_text())["identities"][0]
    (key,) = identity["credentials"]
    assert key["secretKey"] == (folder / "app" / "bucket").read_text() != passwords[roles.APPLICATION]
    assert key["secretKey"] in (folder / "app" / "s3").read_text()
    assert identity["actions"] == ["Read:tapeline", "Write:tapeline", "List:tapeline"]
    assert roles.write_passwords(folder, {}) == passwords
    assert json.loads((folder / "app" / "s3.json").read_text())["identities"] == [identity]
    (folder / "app" / "database").unlink()
    assert roles.write_passwords(folder, {})[roles.APPLICATION] != passwords[roles.APPLICATION]


def test_chosen_passwords_replace_random_ones(folder: Path) -> None:
    roles.write_passwords(folder, {})
    passwords = roles.write_passwords(folder, {"POSTGRES_PASSWORD": "one of ours", "REDIS_PASSWORD": 'a"b\\c'})
    assert passwords[roles.APPLICATION] == "one of ours" == (folder / "app" / "database").read_text()
    assert passwords[roles.OWNER] != "one of ours"
    assert (folder / "app" / "redis.conf").read_text() == 'requirepass "a\\"b\\\\c"\n'


@pytest.mark.parametrize("password", ["tapeline", "two\nlines", " padded"])
def test_a_known_or_unprintable_password_is_refused(folder: Path, password: str) -> None:
    with pytest.raises(SettingsError, match=r"POSTGRES_PASSWORD must.*; REDIS_PASSWORD must"):
        roles.write_passwords(folder, {"POSTGRES_PASSWORD": password, "REDIS_PASSWORD": password})
    assert list(folder.rglob("database")) == []
