"""The owner changes the schema, the application role reads and writes rows, and neither can do more."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError

from migrations import roles
from migrations.upgrade import is_current, upgrade
from service.errors import SettingsError
from service.maintenance import backup, retention
from service.maintenance.retention import Policy
from service.storage.artifacts import ArtifactFolder
from service.storage.database import Database
from tests.conftest import create_database
from tests.service.maintenance.conftest import House

_NUMBERS = itertools.count()  # roles belong to the server, which all tests share


@dataclass
class Roles:
    superuser: Database
    owner: Database
    application: Database
    names: tuple[str, str]

    def prepare(self) -> None:
        owner, application = self.names
        passwords = dict.fromkeys(self.names, "a password of it's own")
        roles.prepare(self.superuser, passwords, owner=owner, application=application)


def connect_as(url: str, role: str) -> Database:
    return Database(make_url(url).set(username=role).render_as_string(hide_password=False))


@pytest.fixture
def made(postgres_url: str) -> Iterator[Roles]:
    """An empty database; its roles are there once ``prepare`` has run."""
    number = next(_NUMBERS)
    names = (f"owner_{number}", f"app_{number}")
    owner, application = (connect_as(postgres_url, name) for name in names)
    with closing(Database(postgres_url)) as superuser, closing(owner), closing(application):
        yield Roles(superuser, owner, application, names)


def refused(database: Database, statement: str) -> bool:
    with closing(database.engine.connect()) as connection:
        try:
            connection.execute(text(statement))
        except ProgrammingError as error:
            assert "permission denied" in str(error) or "must be owner" in str(error), error
            return True
        return False


def test_the_owner_migrates_and_the_application_role_runs_the_service(made: Roles, tmp_path: Path) -> None:
    made.prepare()
    upgrade(made.owner, grant_to=made.names[1])
    assert is_current(made.application)
    house = House(made.application, ArtifactFolder(tmp_path / "artifacts"))
    house.train(2)
    job_id = house.train(5, ended_days_ago=9)
    saved = io.BytesIO()
    assert backup.backup(made.application, house.store, house.received, saved).rows["jobs"] == 2
    policy = Policy(jobs_days=0, checkpoints_days=7)
    retention.carry_out(made.application, house.store, policy, retention.plan(made.application, house.store, policy))
    assert house.epochs_kept(job_id) == [2, 5]


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
def test_the_application_role_cannot(shared: Roles, statement: str) -> None:
    assert refused(shared.application, statement)


@pytest.mark.parametrize(
    "statement", ["CREATE ROLE mine", "COPY jobs TO PROGRAM 'true'", "ALTER ROLE CURRENT_USER CREATEDB"]
)
def test_the_owner_cannot(shared: Roles, statement: str) -> None:
    assert refused(shared.owner, statement)


@pytest.fixture(scope="module")
def shared(postgres_server: str) -> Iterator[Roles]:
    url = create_database(postgres_server)
    names = ("shared_owner", "shared_app")
    owner, application = (connect_as(url, name) for name in names)
    with closing(Database(url)) as superuser, closing(owner), closing(application):
        found = Roles(superuser, owner, application, names)
        found.prepare()
        upgrade(owner, grant_to=names[1])
        yield found


def test_a_table_of_a_later_migration_is_covered(shared: Roles) -> None:
    with shared.owner.engine.begin() as connection:
        connection.execute(text("CREATE TABLE later (id serial PRIMARY KEY)"))
    with shared.application.engine.begin() as connection:
        connection.execute(text("INSERT INTO later DEFAULT VALUES"))
        assert connection.scalar(text("DELETE FROM later RETURNING id")) == 1


def test_a_database_of_one_role_is_handed_to_the_owner(made: Roles, tmp_path: Path) -> None:
    upgrade(made.superuser)
    job_id = House(made.superuser, ArtifactFolder(tmp_path)).train(2)
    for _ in range(2):  # it may be repeated
        made.prepare()
        upgrade(made.owner, grant_to=made.names[1])
    with made.superuser.engine.connect() as connection:
        query = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        assert connection.scalars(text(query)).all() == [made.names[0]]
        query = "SELECT DISTINCT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        assert connection.scalars(text(query)).all() == [made.names[0]]
    assert House(made.application, ArtifactFolder(tmp_path)).epochs_kept(job_id) == [1, 2]
    with made.owner.engine.begin() as connection:
        connection.execute(text("DROP FUNCTION audit_is_append_only CASCADE"))  # as a migration may


def test_a_restore_as_the_owner_is_readable_for_the_application_role(made: Roles, tmp_path: Path) -> None:
    made.prepare()
    source = Database(f"sqlite:///{tmp_path / 'tapeline.db'}")
    upgrade(source)
    house = House(source, ArtifactFolder(tmp_path / "old"))
    job_id = house.train(2)
    saved = io.BytesIO()
    backup.backup(source, house.store, house.received, saved)
    source.close()
    saved.seek(0)
    new = House(made.owner, ArtifactFolder(tmp_path / "new"))
    backup.restore(made.owner, new.store, new.received, saved)
    assert House(made.application, new.store).epochs_kept(job_id) == [1, 2]


def test_a_superuser_that_needs_no_password_loses_its_own(made: Roles) -> None:
    query = text("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = current_user")
    with made.superuser.engine.begin() as connection:
        connection.execute(text("ALTER ROLE CURRENT_USER PASSWORD 'known'"))
    made.prepare()
    with made.superuser.engine.connect() as connection:
        assert connection.scalar(query) is True
        query = text("SELECT rolpassword FROM pg_authid WHERE rolname = :role")
        assert connection.scalar(query, {"role": made.names[1]}).startswith("SCRAM-SHA-256$")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("app", "owner"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_passwords_are_random_and_kept(folder: Path) -> None:
    found = roles.write_passwords(folder, {"POSTGRES_PASSWORD": ""})
    assert len({*found.values(), (folder / "app" / "broker").read_text()}) == 3
    assert min(map(len, found.values())) >= 32
    assert (folder / "app" / "database").read_text() == found[roles.APPLICATION]
    assert roles.write_passwords(folder, {}) == found
    (folder / "app" / "database").unlink()
    assert roles.write_passwords(folder, {})[roles.APPLICATION] != found[roles.APPLICATION]


def test_chosen_passwords_replace_random_ones(folder: Path) -> None:
    roles.write_passwords(folder, {})
    found = roles.write_passwords(folder, {"POSTGRES_PASSWORD": "one of ours", "REDIS_PASSWORD": 'a"b\\c'})
    assert found[roles.APPLICATION] == "one of ours" == (folder / "app" / "database").read_text()
    assert found[roles.OWNER] != "one of ours"
    assert (folder / "app" / "redis.conf").read_text() == 'requirepass "a\\"b\\\\c"\n'


@pytest.mark.parametrize("password", ["tapeline", "two\nlines", " padded"])
def test_a_known_or_unprintable_password_is_refused(folder: Path, password: str) -> None:
    with pytest.raises(SettingsError, match=r"POSTGRES_PASSWORD must.*; REDIS_PASSWORD must"):
        roles.write_passwords(folder, {"POSTGRES_PASSWORD": password, "REDIS_PASSWORD": password})
    assert list(folder.rglob("database")) == []
