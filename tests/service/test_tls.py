"""TLS connections to the database and the broker: real servers, with certificates from a CA created here.

Each connection must refuse a certificate from another CA, and one for another host.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from limits.errors import StorageError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service.local import LocalStack
from service.maintenance import doctor
from service.runtime.settings import Settings
from service.storage.database import Database
from service.web.core import server_certificates
from service.web.core.publisher import Publisher
from service.web.core.quotas import Quotas
from service.web.core.server_certificates import ServerCertificates
from tests.waiting import wait_until
from workers.app import create_app

PROGRAMS = {
    "openssl": shutil.which("openssl"),
    "redis-server": shutil.which("redis-server") or shutil.which("valkey-server"),
    "postgres": next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None),
}
MISSING = [name for name, path in PROGRAMS.items() if path is None]

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

PASSWORD = "of-this-test"


def run(*command: str | Path, **options: Any) -> None:
    completed = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Servers:
    folder: Path
    postgres_port: int
    redis_port: int

    def database_url(self, host: str = "localhost", **query: str) -> str:
        parameters = {"sslmode": "verify-full", "sslrootcert": str(self.folder / "ca.crt")} | query
        query_string = "&".join(f"{name}={value}" for name, value in parameters.items() if value)
        return f"postgresql+psycopg://postgres:{PASSWORD}@{host}:{self.postgres_port}/postgres?{query_string}"

    def broker_url(self, host: str = "localhost", authority: str | None = "ca.crt") -> str:
        query = f"?ssl_ca_certs={self.folder / authority}" if authority else ""
        return f"rediss://:{PASSWORD}@{host}:{self.redis_port}/0{query}"

    def settings(self, **environ: str) -> Settings:
        return Settings.from_env({"TAPELINE_HOME": str(self.folder / "home"), **environ}, cores=1)


def make_certificates(folder: Path) -> None:
    """Create two CAs, and a certificate by the first for a server's name `localhost`, not for its address."""
    program = Path(__file__).parents[2] / "deploy" / "certificates.sh"
    run("sh", program, folder, "localhost")
    run("sh", program, folder / "others", "localhost")
    (folder / "others" / "ca.crt").rename(folder / "other.crt")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = Path(f"/tmp/tapeline-tls-{os.getpid()}")  # the server's user cannot enter pytest's folders
    folder.mkdir()
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    servers = Servers(folder, free_port(), free_port())
    binaries = Path(str(PROGRAMS["postgres"])).parent
    processes = []
    try:
        make_certificates(folder)
        (folder / "password").write_text(PASSWORD)
        if user:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "postgres", "postgres")
        data = folder / "data"
        initdb = [binaries / "initdb", "-D", data, "-U", "postgres", f"--pwfile={folder / 'password'}", "--no-sync"]
        run(*initdb, "--auth=scram-sha-256", **user)
        (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
        options = {
            "port": servers.postgres_port,
            "unix_socket_directories": "",
            "ssl": "on",
            "ssl_cert_file": folder / "server.crt",
            "ssl_key_file": folder / "server.key",
        }
        flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            processes.append(
                subprocess.Popen([binaries / "postgres", "-D", data, *flags], stdout=log, stderr=log, **user)
            )
            command = [
                str(PROGRAMS["redis-server"]),
                "--port",
                "0",
                "--tls-port",
                str(servers.redis_port),
                "--save",
                "",
            ]
            command += ["--tls-cert-file", f"{folder}/server.crt", "--tls-key-file", f"{folder}/server.key"]
            command += ["--tls-ca-cert-file", f"{folder}/ca.crt", "--tls-auth-clients", "no", "--requirepass", PASSWORD]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=folder))
        wait_until(lambda: are_ready(servers), f"the servers, see {folder / 'log'}", 60)
        yield servers
    finally:
        for process in processes:
            process.terminate()
            process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def are_ready(servers: Servers) -> bool:
    try:
        socket.create_connection(("127.0.0.1", servers.redis_port), timeout=1).close()
        psycopg.connect(servers.database_url().replace("+psycopg", ""), connect_timeout=2).close()
    except OSError:
        return False
    except psycopg.OperationalError as error:
        assert "refused" in str(error) or "starting up" in str(error), error
        return False
    return True


def query(settings: Settings) -> None:
    with closing(Database(settings.database_url)) as database, database.read() as session:
        session.execute(text("SELECT 1"))


def send_hint(settings: Settings) -> None:
    Publisher(settings.broker_url).check_broker(3.0)


def connect_worker(settings: Settings) -> None:
    with create_app(str(settings.broker_url), lambda: None).connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        connection.default_channel.client.ping()


def count_request(settings: Settings) -> None:
    with closing(Database(settings.database_url)) as database:
        meter: Any = Quotas(settings, database)._meter
        try:
            meter._limiter(meter._redis_url).storage.incr("tried", 60)
        except StorageError as error:
            raise error.storage_error from error


BROKER_CLIENTS = [send_hint, connect_worker, count_request]


def diagnose(settings: Settings) -> dict[str, doctor.Finding]:
    with closing(Database(settings.database_url)) as database:
        return {item.name: item for item in doctor.examine(settings, database, broker_url=settings.broker_url)}


def test_the_database_is_reached_when_its_ca_is_trusted(servers: Servers) -> None:
    settings = servers.settings(TAPELINE_DATABASE_URL=servers.database_url())
    query(settings)
    finding = diagnose(settings)["database"]
    assert finding.ok
    assert finding.detail.endswith("over TLS")
    assert PASSWORD not in finding.detail


@pytest.mark.parametrize(
    ("host", "changes", "reason"),
    [
        ("localhost", {"sslrootcert": "other.crt"}, "certificate verify failed"),
        ("127.0.0.1", {}, "does not match host name"),
        ("localhost", {"sslmode": "disable", "sslrootcert": ""}, "no encryption"),
    ],
)
def test_database_connections_fail_with_the_wrong_ca_or_host_or_without_tls(
    servers: Servers, host: str, changes: dict[str, str], reason: str
) -> None:
    changes = {
        name: str(servers.folder / value) if value.endswith(".crt") else value for name, value in changes.items()
    }
    settings = servers.settings(TAPELINE_DATABASE_URL=servers.database_url(host, **changes))
    with pytest.raises(OperationalError, match=reason):
        query(settings)
    finding = diagnose(settings)["database"]
    assert not finding.ok
    assert reason in finding.detail
    if "certificate" in finding.detail:
        assert "sslrootcert in TAPELINE_DATABASE_URL" in str(finding.advice)


@pytest.mark.parametrize("connect", BROKER_CLIENTS)
def test_the_broker_is_reached_when_its_ca_is_trusted(servers: Servers, connect: Callable[[Settings], None]) -> None:
    settings = servers.settings(TAPELINE_DATABASE_URL=servers.database_url(), TAPELINE_BROKER_URL=servers.broker_url())
    connect(settings)
    assert diagnose(settings)["broker"].ok


@pytest.mark.parametrize("connect", [query, *BROKER_CLIENTS])
@pytest.mark.parametrize("authority", ["ca.crt", "other.crt"])
def test_one_setting_names_the_ca_of_database_and_broker(
    servers: Servers, connect: Callable[[Settings], None], authority: str
) -> None:
    settings = servers.settings(
        TAPELINE_CA=str(servers.folder / authority),
        TAPELINE_DATABASE_URL=servers.database_url(sslmode="", sslrootcert=""),
        TAPELINE_BROKER_URL=servers.broker_url(authority=None),
    )
    if authority == "ca.crt":
        connect(settings)
    else:
        with pytest.raises(Exception, match=r"(?i)certificate.verify.failed"):
            connect(settings)


@pytest.mark.parametrize("connect", BROKER_CLIENTS)
@pytest.mark.parametrize(
    ("host", "authority"), [("localhost", "other.crt"), ("localhost", None), ("127.0.0.1", "ca.crt")]
)
def test_broker_connections_fail_with_an_untrusted_ca_or_the_wrong_host(
    servers: Servers, connect: Callable[[Settings], None], host: str, authority: str | None
) -> None:
    settings = servers.settings(
        TAPELINE_DATABASE_URL=servers.database_url(), TAPELINE_BROKER_URL=servers.broker_url(host, authority)
    )
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        connect(settings)
    finding = diagnose(settings)["broker"]
    assert not finding.ok
    assert "CERTIFICATE_VERIFY_FAILED" in finding.detail
    assert "ssl_ca_certs in TAPELINE_BROKER_URL" in str(finding.advice)


def test_a_job_trains_when_only_tls_connections_are_possible(servers: Servers) -> None:
    settings = servers.settings(
        TAPELINE_PORT="0", TAPELINE_DATABASE_URL=servers.database_url(), TAPELINE_BROKER_URL=servers.broker_url()
    )
    with LocalStack(settings) as stack, httpx.Client(base_url=stack.url, timeout=60, trust_env=False) as http:
        job = http.post("/jobs", json={"kind": "classifier", "epochs": 1}, headers={"Prefer": "wait=30"}).json()
        wait_until(lambda: http.get(f"/jobs/{job['id']}").json()["status"] == "succeeded", "the job", 60)
        assert http.get("/readyz").json()["status"] == "ready"
    with psycopg.connect(servers.database_url().replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


def test_metrics_have_the_end_of_the_certificates_of_both_servers(servers: Servers) -> None:
    shown = subprocess.run(
        [str(PROGRAMS["openssl"]), "x509", "-in", servers.folder / "server.crt", "-noout", "-enddate"],
        capture_output=True,
        text=True,
        check=True,
    )
    end = ssl.cert_time_to_seconds(shown.stdout.strip().removeprefix("notAfter="))
    found = server_certificates.servers(servers.database_url(), servers.broker_url())
    assert ServerCertificates(found).ends() == {"database": end, "broker": end}
