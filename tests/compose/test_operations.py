"""Operations: upgrade, backup, reload, metrics."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.compose.conftest import IMAGE, ROOT, Service, docker

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(480)]

OLDER_COMMIT = "8da1b1db02df6b7de9ec70b5f0a297b548ed2b31"
"""A commit with schema 0014, the first that can be upgraded."""
LONG_JOB = {"kind": "gan", "epochs": 12, "seed": 3}


@pytest.fixture
def older_service(image: str, tmp_path: Path) -> Iterator[Service]:
    """The service of an older version, built from this repository's history."""
    archive = tmp_path / "older.tar"
    process = subprocess.run(
        ["git", "archive", f"--output={archive}", OLDER_COMMIT], cwd=ROOT, capture_output=True, text=True
    )
    if process.returncode != 0:
        pytest.skip(f"the older version is not in this clone: {process.stderr.strip()}")
    folder = tmp_path / "older"
    folder.mkdir()
    subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True)
    started = Service(folder=folder, settings={"TAPELINE_WORKERS": "1", "COMPOSE_IGNORE_ORPHANS": "1"})
    # Its compose file reads the image's name from the same variable as today's.
    yaml = (folder / "docker-compose.yml").read_text().replace("${TAPELINE_IMAGE:-tapeline}", "tapeline:older")
    (folder / "docker-compose.yml").write_text(yaml)
    try:
        started.compose("build", timeout_s=600)
        started.compose("up", "--detach", "--wait")
        yield started
    finally:
        started.folder = ROOT
        started.down()


def psql(service: Service, query: str) -> str:
    return service.compose("exec", "-T", "postgres", "psql", "-U", "tapeline", "-Atc", query).strip()


def schema(service: Service) -> str:
    return psql(service, "SELECT version_num FROM alembic_version")


def test_a_newer_image_takes_over_an_older_service_and_its_database(older_service: Service) -> None:
    finished_job = older_service.wait_until_success(older_service.submit(kind="classifier", epochs=2))
    assert schema(older_service) == "0014"
    running_id = older_service.submit(**LONG_JOB)
    older_service.wait_until_epoch(running_id, 2)
    waiting_ids = [older_service.submit(kind="classifier", epochs=2, seed=seed) for seed in range(3)]

    service = older_service
    service.folder = ROOT
    # As in a rolling restart: the schema is already new, while old processes still train and serve requests.
    # Nor has setup made the role of workers yet.
    upgrade = ["python", "-m", "migrations.upgrade", "--grant-to", "tapeline_app"]
    service.compose("run", "--rm", "--no-deps", "migrate", *upgrade)
    assert schema(service) > "0014"
    before = service.job(running_id)["progress"]["epoch"]
    service.wait_until(running_id, lambda job: job["progress"]["epoch"] > before)
    waiting_ids.append(service.submit(kind="classifier", epochs=1))

    service.compose("up", "--detach", "--wait")
    assert docker("inspect", "--format={{.Config.Image}}", *service.containers("web")).strip() == IMAGE
    assert service.job(finished_job["id"])["result_digest"] == finished_job["result_digest"]
    service.check_download(finished_job["id"])
    for job_id in [running_id, *waiting_ids]:
        service.wait_until_success(job_id)
        assert [event["epoch"] for event in service.log(job_id) if event["type"] == "metrics"] == list(
            range(1, service.job(job_id)["progress"]["epochs"] + 1)
        )
    # The old database belonged to the superuser, as which every container connected, with a known password.
    assert psql(service, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "tapeline_owner"
    assert psql(service, "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'tapeline'") == "t"
    # Handed back, or reclaimed after lease expiry if PostgreSQL, which is replaced too, was down just then.
    assert service.job(running_id)["attempt"] <= 2


def test_the_doctor_finds_no_problem_in_a_healthy_service(service: Service) -> None:
    report = json.loads(service.compose("exec", "-T", "web", "tapeline", "doctor", "--json"))
    assert report["ok"], report


def test_each_container_connects_with_the_database_role_it_needs(service: Service) -> None:
    query = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'tapeline%'"
    assert psql(service, query) == "tapeline_app"
    create = "import os; from service.runtime.settings import Settings; from sqlalchemy import create_engine, text\n"
    create += "url = Settings.from_env(os.environ, cores=1).database_url\n"
    create += "create_engine(url).connect().execute(text('CREATE TABLE mine (id int)')); print('made')"
    output = service.expect_failure("exec", "-T", "web", "python", "-c", create)
    assert "permission denied for schema public" in output
    assert "made" in service.compose("run", "--rm", "-T", "migrate", "python", "-c", create)  # but not committed


def test_no_container_can_become_the_superuser_over_the_network(service: Service) -> None:
    for password in ("", "tapeline"):
        url = f"postgresql://tapeline:{password}@postgres/tapeline"
        output = service.expect_failure(
            "exec", "-T", "web", "python", "-c", f"import psycopg; psycopg.connect('{url}')"
        )
        assert "password authentication failed" in output or "no password supplied" in output, output
    for name in ("web", "worker", "scheduler"):
        service.expect_failure("exec", "-T", name, "ls", "/var/lib/tapeline/secrets/owner/database")
        service.expect_failure("exec", "-T", name, "sh", "-c", "echo mine > /var/lib/tapeline/secrets/app/database")


def test_the_name_of_the_database_is_refused_as_a_password(image: str) -> None:
    exposed = Service(settings={"POSTGRES_PASSWORD": "tapeline", "TAPELINE_AUTH": "keys"})
    try:
        exposed.expect_failure("up", "--detach", "--wait")
        logs = exposed.compose("logs", "setup")
        assert "POSTGRES_PASSWORD must be printable, and not 'tapeline'" in logs
        assert "omit it for a random one" in logs
        assert exposed.containers("web") == []
    finally:
        exposed.down()


def test_metrics_are_aggregated_over_all_processes(service: Service) -> None:
    service.wait_until_success(service.submit(kind="classifier", epochs=1))
    for _ in range(3):
        text = service.http.get("/metrics").raise_for_status().text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        (up,) = families["tapeline_database_up"].samples
        assert up.value == 1
        assert len(families["tapeline_worker_slots"].samples) == 2
        assert sum(sample.value for sample in families["tapeline_jobs"].samples) == 1


def test_a_reload_ends_streams_cleanly_and_new_processes_take_over(service: Service) -> None:
    job_id = service.submit(**LONG_JOB)
    ended = threading.Event()

    def read_stream() -> None:
        with service.http.stream("GET", f"/jobs/{job_id}/stream") as stream:
            list(stream.iter_lines())  # raises if the stream was cut off
        ended.set()

    following = threading.Thread(target=read_stream)
    following.start()
    service.wait_until_epoch(job_id, 1)
    service.compose("kill", "--signal=HUP", "web")
    following.join(20)
    assert ended.is_set()
    assert service.job(job_id)["status"] == "running"  # the stream did not end with the job
    service.wait_until_success(job_id)


def test_operator_commands_work_with_the_role_of_their_container(service: Service, tmp_path: Path) -> None:
    service.compose("exec", "-T", "web", "tapeline", "gc", "--keep-checkpoints", "1", "--delete")
    service.compose("exec", "-T", "web", "tapeline", "audit")
    output = service.compose("exec", "-T", "web", "tapeline", "keys", "create", "someone", "--scope", "read")
    assert "tpl_" in output
    for name in ("web", "migrate"):
        service.compose("run", "--rm", "-T", name, "tapeline", "backup", "/tmp/saved.tar")


def test_a_backup_is_restored_into_an_empty_service(service: Service, tmp_path: Path) -> None:
    job = service.wait_until_success(service.submit(kind="gan", epochs=2))
    archive = tmp_path / "tapeline.tar"
    project = ["docker", "compose", "--project-name"]
    environ = os.environ | {"TAPELINE_IMAGE": IMAGE}
    with archive.open("wb") as file:
        command = [*project, service.project, "exec", "-T", "web", "tapeline", "backup", "-"]
        subprocess.run(command, cwd=ROOT, env=environ, stdout=file, check=True, timeout=120)
    target = Service(settings={"TAPELINE_WORKERS": "1"})
    try:
        target_environ = environ | {"TAPELINE_PORT": str(target.port)}
        with archive.open("rb") as file:
            command = [*project, target.project, "run", "--rm", "-T", "migrate", "tapeline", "restore", "-"]
            subprocess.run(command, cwd=ROOT, env=target_environ, stdin=file, check=True, timeout=120)
        target.compose("up", "--detach", "--wait")
        assert target.job(job["id"])["result_digest"] == job["result_digest"]
        target.check_download(job["id"])
        body = {"checkpoint": "latest", "overrides": {"epochs": 3}}
        forked = target.http.post(f"/jobs/{job['id']}/fork", json=body)
        assert forked.status_code == 201, forked.text
        target.wait_until_success(forked.json()["id"])
    finally:
        target.down()
