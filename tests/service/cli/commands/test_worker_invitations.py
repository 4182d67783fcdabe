"""Invitations of workers on other machines, and the command that runs a worker from one."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from base64 import b64encode
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import make_url, text

from migrations import roles
from migrations.upgrade import upgrade
from service.access import audit
from service.cli import main
from service.jobs import worker_registry
from service.maintenance import worker_invitation
from service.runtime.settings import Settings
from service.states import Status
from service.storage.database import Database
from tests.workers.conftest import WorkerHarness

POSTGRESQL = "postgresql+psycopg://app:a-secret@db.example.org/tapeline"
BROKER = "rediss://:b-secret@redis.example.org:6379/0"


def invite(monkeypatch: pytest.MonkeyPatch, home: Path, *arguments: str, **variables: str) -> Result:
    for name, value in {"HOME": str(home), **variables}.items():
        monkeypatch.setenv(f"TAPELINE_{name}", value)
    return CliRunner().invoke(main, ["workers", "invite", *arguments])


@pytest.mark.parametrize(
    ("variables", "arguments", "expected"),
    [
        ({}, [], ["SQLite file", "move to PostgreSQL", "embedded one, on a socket", "TAPELINE_STORE=s3://", "--share"]),
        (
            {"DATABASE_URL": POSTGRESQL, "BROKER_URL": "redis+socket:///run/b.sock"},
            ["--share", "/mnt"],
            ["on a socket"],
        ),
        ({"DATABASE_URL": POSTGRESQL, "BROKER_URL": "redis://127.0.0.1"}, ["--share", "/mnt"], ["names 127.0.0.1"]),
        (
            {"DATABASE_URL": "postgresql+psycopg://app@postgres/t", "BROKER_URL": "redis://redis:6379/0"},
            ["--share", "/mnt"],
            ["names postgres", "names redis", "--host"],
        ),
        (
            {"DATABASE_URL": "postgresql+psycopg://app@/t?host=/run/pg", "BROKER_URL": BROKER},
            ["--share", "/mnt"],
            ["names /run/pg"],
        ),
        ({"DATABASE_URL": POSTGRESQL, "BROKER_URL": BROKER}, [], ["the store is the folder"]),
        (
            {"DATABASE_URL": POSTGRESQL, "BROKER_URL": BROKER, "STORE": "s3://bkt/p"},
            ["--share", "/m"],
            ["no folder"],
        ),
        (
            {
                "DATABASE_URL": POSTGRESQL,
                "BROKER_URL": BROKER,
                "STORE": "s3://bkt/p",
                "STORE_ENDPOINT": "http://localhost:8333",
            },
            [],
            ["TAPELINE_STORE_ENDPOINT names localhost"],
        ),
        (
            {"DATABASE_URL": POSTGRESQL, "BROKER_URL": BROKER, "STORE": "s3://bkt/p"},
            ["--host", "::1"],
            ["--host ::1"],
        ),
        (
            {"DATABASE_URL": POSTGRESQL, "BROKER_URL": BROKER, "STORE": "s3://bkt/p"},
            [],
            ["secrets/app/worker", "--grant-to-workers"],
        ),
    ],
)
def test_an_invitation_that_cannot_work_says_what_to_change(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: list[str],
    expected: list[str],
) -> None:
    refused = invite(monkeypatch, tmp_path, *arguments, **variables)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert [words for words in expected if words not in refused.stderr] == [], refused.stderr


@pytest.mark.nightly
def test_a_worker_trains_from_its_invitation(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("inviting_owner", "inviting_app", "invited_worker")
    urls = [make_url(postgres_url).set(username=name).render_as_string(hide_password=False) for name in names]
    with closing(Database(postgres_url)) as superuser, closing(Database(urls[0])) as owner:
        passwords = dict.fromkeys(names, "a password")
        roles.prepare(superuser, passwords, owner=names[0], application=names[1], worker=names[2])
        upgrade(owner, grant_to=names[1], grant_to_workers=names[2])
    home, broker = tmp_path / "first", "redis://:b-secret@127.0.0.1:1/0"
    password = home / "secrets" / "app" / "worker"
    password.parent.mkdir(parents=True)
    password.write_text("p@ss/word\n")
    options = ["gpu-2", "--host", "10.0.0.1", "--share", str(home / "artifacts"), "--role", names[2]]
    environ = {"DATABASE_URL": urls[1], "BROKER_URL": broker, "PORTABLE_BITS": "1"}
    invited = invite(monkeypatch, home, *options, "--json", **environ)
    assert invited.exit_code == 0, invited.stderr
    variables = json.loads(invited.stdout)["variables"]
    address = make_url(variables["TAPELINE_DATABASE_URL"])
    assert (address.username, address.password, address.host) == (names[2], "p@ss/word", "10.0.0.1")
    assert "host" not in address.query
    assert variables["TAPELINE_BROKER_URL"] == "redis://:b-secret@10.0.0.1:1/0"
    assert variables["TAPELINE_STORE"] == f"file://{home}/artifacts"
    assert (variables["TAPELINE_WORKER_NAME"], variables["TAPELINE_PORTABLE_BITS"]) == ("gpu-2", "1")
    printed = invite(monkeypatch, home, *options, **environ)
    assert "--env-file worker.env tapeline python -m workers" in printed.stderr
    written = invite(monkeypatch, home, *options, "--output", str(tmp_path / "private.env"), **environ)
    assert (written.stdout, (tmp_path / "private.env").read_text()) == ("", printed.stdout)
    assert stat.S_IMODE((tmp_path / "private.env").stat().st_mode) == 0o600
    socket = make_url(postgres_url).query["host"]
    local = address.set(host=None).update_query_dict({"host": socket}).render_as_string(hide_password=False)
    env_file = tmp_path / "worker.env"
    env_file.write_text(printed.stdout.replace(variables["TAPELINE_DATABASE_URL"], local))
    others = {name: value for name, value in os.environ.items() if not name.startswith("TAPELINE_")}
    others["TAPELINE_HOME"] = str(tmp_path / "second")
    with closing(WorkerHarness(home, Database(urls[1]))) as service, (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "tapeline", "worker", "--env-file", str(env_file)]
        worker = subprocess.Popen(command, env=others, stdout=log, stderr=log)
        service.processes.append(worker)
        job = service.until_end(service.submit(epochs=1))
        assert (job.status, job.error) == (Status.SUCCEEDED, None)
        with service.database.read() as session:
            (row,) = worker_registry.live_workers(session)
            assert (worker_registry.name_of(row.id), row.pid) == ("gpu-2", worker.pid)
            entries = audit.read(session, action="invite_worker")
            assert [(entry.subject, entry.detail) for entry in entries] == [("gpu-2", {"role": names[2]})] * 3
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    with closing(Database(postgres_url)) as superuser, superuser.engine.begin() as connection:
        connection.execute(text(f"REVOKE SELECT ON workers FROM {names[2]}"))
    refused = invite(monkeypatch, home, *options, **environ)
    assert refused.exit_code == 1
    assert "permission denied for table workers" in refused.stderr
    assert "--grant-to-workers invited_worker" in refused.stderr


def test_an_invitation_has_the_authority_and_the_credentials_that_are_files_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "s3").write_text("[default]\naws_access_key_id = ours\naws_secret_access_key = c-secret\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "s3"))
    environ = {
        "TAPELINE_HOME": str(tmp_path),
        "TAPELINE_DATABASE_URL": "postgresql+psycopg://app@postgres/t",
        "TAPELINE_BROKER_URL": "rediss://:b@redis:6379/0",
        "TAPELINE_STORE": "s3://tapeline",
        "TAPELINE_STORE_ENDPOINT": "https://seaweedfs:8333",
        "TAPELINE_CA": str(tmp_path / "ca.crt"),
    }
    settings = Settings.from_env(environ, cores=1)
    worker_invitation.check(settings, host="10.0.0.1", share=None)
    invited = worker_invitation.invite(settings, os.environ, role="w", password="p", host="10.0.0.1")
    assert dict(invited.variables) == {
        "TAPELINE_DATABASE_URL": "postgresql+psycopg://w:p@10.0.0.1/t?sslmode=verify-full",
        "TAPELINE_BROKER_URL": "rediss://:b@10.0.0.1:6379/0?ssl_cert_reqs=required",
        "TAPELINE_STORE": "s3://tapeline",
        "TAPELINE_STORE_ENDPOINT": "https://10.0.0.1:8333",
        "TAPELINE_CA": b64encode(b"-----BEGIN CERTIFICATE-----\n").decode(),
        "AWS_ACCESS_KEY_ID": "ours",
        "AWS_SECRET_ACCESS_KEY": "c-secret",
    }
    assert len(invited.remarks) == 1, invited.remarks
    of_files = "sslmode=verify-full&sslrootcert=/etc/a.crt", "ssl_ca_certs=/etc/b.crt"
    environ |= {
        "TAPELINE_DATABASE_URL": f"{POSTGRESQL}?{of_files[0]}",
        "TAPELINE_BROKER_URL": f"{BROKER}?{of_files[1]}",
        "TAPELINE_STORE_ENDPOINT": "http://s3.example.org",
        "TAPELINE_CA": "",
    }
    remarks = worker_invitation.invite(Settings.from_env(environ, cores=1), {}, role="w", password="p").remarks
    assert [
        words
        for words in ("/etc/a.crt must be", "/etc/b.crt must be", "store is not encr")
        if words not in str(remarks)
    ] == []


def test_a_file_that_is_no_env_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "worker.env"
    path.write_text("# a remark\n\nTAPELINE_WORKERS=2\nexport\n")
    refused = CliRunner().invoke(main, ["worker", "--env-file", str(path)])
    assert (refused.exit_code, refused.stderr) == (1, f"tapeline: {path} line 4 must be NAME=VALUE\n")
