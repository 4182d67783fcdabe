"""The pods of the Helm chart under Docker: they become ready by their probes, train, and drain within their grace
period with the bits of an undisturbed run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.compose.conftest import FINAL_STATES, docker, require_image
from tests.compose.pods import Network, Pod, logs_of, wait_for_end
from tests.deploy.test_chart import Object, notes, render, values_of, with_value
from tests.waiting import wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

JOB = {"kind": "gan", "epochs": 6, "seed": 3}
"""Of about five seconds on an idle machine."""


def signing_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


@dataclass
class Cluster:
    network: Network
    values: Object
    http: httpx.Client
    web: Pod

    def pod(self, name: str) -> Pod:
        objects = render(self.values)
        spec = objects["Deployment", name]["spec"]["template"]["spec"]
        return Pod(self.network, spec, f"tl-tapeline-{name}")

    def submit(self, **spec: Any) -> str:
        response = self.http.post("/jobs", json=spec)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def job(self, job_id: str) -> Object:
        found: Object = self.http.get(f"/jobs/{job_id}").raise_for_status().json()
        return found

    def wait_until_epoch(self, job_id: str, epoch: int) -> None:
        wait_until(lambda: self.job(job_id)["progress"]["epoch"] >= epoch, f"epoch {epoch}", 120)
        assert self.job(job_id)["status"] == "running"

    def digest(self, job_id: str) -> str:
        with suppress(AssertionError):
            wait_until(lambda: self.job(job_id)["status"] in FINAL_STATES, "the end of the job", 240)
        job = self.job(job_id)
        queue = self.http.get("/queue").json()
        assert job["status"] == "succeeded", (job, queue, [logs_of(name) for name in self.network.containers[-3:]])
        return str(job["result_digest"])


@pytest.fixture(scope="module")
def cluster(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A database, a broker, and the pods of the chart but workers, started in the order of an installation."""
    secrets = {
        "postgres": {"password": "of the database"},
        "redis": {"password": "of-the-broker"},
        "tapeline-signing": {"signing-key.pem": signing_key()},
        "key": {},
    }
    values = with_value(values_of("small"), "test.apiKeySecret", "key")
    values = with_value(values, "web.service.port", 8000)  # no Service translates it here
    network = Network(secrets, tmp_path_factory.mktemp("secrets"))
    try:
        environment = [
            "--env",
            "POSTGRES_USER=tapeline",
            "--env",
            f"POSTGRES_PASSWORD={secrets['postgres']['password']}",
        ]
        network.run("postgres", *environment, require_image("postgres:17-alpine"))
        password = secrets["redis"]["password"]
        network.run("redis", require_image("redis:8-alpine"), "redis-server", "--requirepass", password)
        objects = render(values)

        started = Cluster(network, values, httpx.Client(), Pod(network, {}, ""))
        scheduler = started.pod("scheduler")
        init = scheduler.start_init()
        wait_until(lambda: "waiting for the migration to revision" in logs_of(init), "the wait for the schema", 60)
        migrate = Pod(network, objects["Job", "migrate"]["spec"]["template"]["spec"], "migrate")
        migrate.start()
        assert wait_for_end(migrate.container) == 0, migrate.logs()
        assert wait_for_end(init) == 0, logs_of(init)
        scheduler.start()
        scheduler.wait_until_started()

        started.web = started.pod("web")
        started.web.start()
        assert wait_for_end(started.web.container) != 0
        assert "tapeline keys create" in started.web.logs()
        (command,) = re.findall(r"exec deploy/tl-tapeline-scheduler -- (.*)", notes(values))
        printed = docker("exec", scheduler.container, *shlex.split(command))
        (key,) = re.findall(r"tpl_\S+", printed)
        secrets["key"]["api-key"] = key
        started.web.start()
        started.web.wait_until_started()
        wait_until(lambda: started.web.probe("readiness"), "readiness", 30)
        headers = {"Authorization": f"Bearer {key}"}
        address = f"http://{started.web.ip}:8000"
        started.http = httpx.Client(base_url=address, headers=headers, timeout=40, trust_env=False)
        yield started
    finally:
        network.down()


def test_a_drained_worker_gives_its_job_back_and_another_ends_it_with_the_same_bits(cluster: Cluster) -> None:
    first = cluster.pod("worker")
    init = first.start_init()
    assert wait_for_end(init) == 0, logs_of(init)
    first.start()
    first.wait_until_started()
    undisturbed = cluster.digest(cluster.submit(**JOB))
    wait_until(lambda: not re.search("^Z", docker("top", first.container, "-o", "stat,pid"), re.MULTILINE), "no zombie")
    job_id = cluster.submit(**JOB)
    cluster.wait_until_epoch(job_id, 2)
    assert first.probe("liveness"), "while it trains"
    seconds = first.stop()
    assert seconds < first.spec["terminationGracePeriodSeconds"] / 2
    assert cluster.job(job_id)["status"] == "queued"
    second = cluster.pod("worker")
    second.start()
    second.wait_until_started()
    assert cluster.digest(job_id) == undisturbed
    assert cluster.job(job_id)["attempt"] == 1
    certificate = cluster.http.get(f"/jobs/{job_id}/certificate")
    assert certificate.status_code == 200, certificate.text

    test = Pod(cluster.network, render(cluster.values)["Pod", "test"]["spec"], "test")
    test.start()
    assert wait_for_end(test.container, 200) == 0, test.logs()
    assert "bit-identical" in test.logs()
    assert second.stop() < second.spec["terminationGracePeriodSeconds"] / 2


def test_the_web_pod_stops_within_its_grace_period(cluster: Cluster) -> None:
    assert cluster.web.probe("liveness")
    cluster.web.stop()
