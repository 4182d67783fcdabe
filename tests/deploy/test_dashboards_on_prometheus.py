"""Every query of every dashboard returns data, from a real Prometheus that scrapes a real service at work."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from service.access import keys
from service.local import LocalStack
from service.runtime.settings import Settings
from service.storage.database import Database
from tapeline import Client
from tests import brokers, prometheus
from tests.deploy.dashboards.documents import FOLDER, documents
from tests.deploy.dashboards.panels import COMPETING, selected
from tests.deploy.dashboards.queue import JAIN
from tests.prometheus import Prometheus
from tests.waiting import wait_until
from tests.workers.conftest import children_of

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(prometheus.program("prometheus") is None, reason=prometheus.WHY_SKIPPED),
]

DEPLOY: Final = FOLDER.parent
ADMIN: Final = "the-key-of-the-scraper"
OWNERS: Final = ("ann", "bob")
VARIABLES: Final = {"job": "tapeline", "owner": "ann", "datasource": "", "__rate_interval": "30s"}


@contextmanager
def serve_tls(certificates: Path, target: Path) -> Iterator[int]:
    """A port that speaks TLS in front of the Unix socket ``target``: the bundled broker has no TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, onward = await asyncio.open_unix_connection(str(target))
        await asyncio.gather(copy(reader, onward), copy(back, writer))

    async def cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(forward, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(cancel_all())
        loop.close()


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, beside a service with two owners, two slots, and keys and TLS, at work."""
    folder = tmp_path_factory.mktemp("scraped")
    subprocess.run(["sh", str(DEPLOY / "certificates.sh"), folder, "127.0.0.1"], check=True, capture_output=True)
    with ExitStack() as running:
        broker = running.enter_context(brokers.serve(folder / "broker"))
        port = running.enter_context(serve_tls(folder, broker.socket))
        environ = {
            "TAPELINE_HOME": str(folder / "home"),
            "TAPELINE_PORT": "0",
            "TAPELINE_AUTH": "keys",
            "TAPELINE_API_KEYS": ADMIN,
            "TAPELINE_BROKER_URL": f"rediss://127.0.0.1:{port}/0",
            "TAPELINE_CA": str(folder / "ca.crt"),
            "TAPELINE_OWNER_ARTIFACTS": "10000000000",
        }
        stack = running.enter_context(LocalStack(Settings.from_env(environ, cores=2)))
        with closing(Database(stack.settings.database_url)) as database:
            secrets = [keys.create(database, name="test", owner=owner, scope=keys.Scope.SUBMIT)[1] for owner in OWNERS]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "5s"},
            "rule_files": [str(DEPLOY / "alerts.yml")],
            "scrape_configs": [
                {
                    "job_name": VARIABLES["job"],
                    "authorization": {"credentials": ADMIN},
                    "static_configs": [{"targets": [stack.url.removeprefix("http://")]}],
                }
            ],
        }
        server = running.enter_context(prometheus.serve(folder, config))
        wait_until(lambda: server.values("tapeline_database_up"), "the first scrape")
        clients = [running.enter_context(Client(stack.url, key=secret)) for secret in secrets]
        keep_busy(stack, clients)
        yield server


def keep_busy(stack: LocalStack, clients: list[Client]) -> None:
    """Let short jobs end, long ones run and others wait, and a training process die."""
    short = [client.train(dataset="iris", epochs=3, settings={"seed": seed}) for client in clients for seed in range(2)]
    for job in short:
        job.wait()
    for seed in range(6):
        for client in clients:  # in turn, so that each has a slot
            client.train(dataset="iris", epochs=5000, settings={"seed": 10 + seed})
    wait_until(lambda: list(clients[0].jobs(status="running")), "a long job")
    os.kill(max(children_of(stack.pids["worker"])), signal.SIGKILL)


def substituted(text: str) -> str:
    """The text with the values of the variables."""
    text = re.sub(r"\$\{?(\w+)\}?", lambda found: VARIABLES[found[1]], text)
    assert "$" not in text
    return text


def queries() -> dict[str, str]:
    """The query of each series of each panel."""
    found = {}
    for name, document in documents().items():
        for panel in json.loads(document)["panels"]:
            for target in panel.get("targets", ()):
                found[f"{name}: {panel['title']}, {target['refId']}"] = substituted(target["expr"])
    return found


def test_every_query_returns_data(scraped: Prometheus) -> None:
    missing = queries()
    assert len(missing) > 60

    def are_all_answered() -> bool:
        for title, expr in list(missing.items()):
            if scraped.values(expr):
                del missing[title]
        return not missing

    try:
        wait_until(are_all_answered, "data", timeout_s=150)
    except AssertionError:
        pytest.fail("no data: " + "\n".join(f"{title}: {expr}" for title, expr in missing.items()))


def test_the_variables_offer_the_owners_and_the_scrape_job(scraped: Prometheus) -> None:
    def offered() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for document in documents().values():
            for variable in json.loads(document)["templating"]["list"]:
                if variable["type"] == "query":
                    values = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
                    assert values is not None
                    metric, label = values.groups()
                    found[variable["name"]] = scraped.labels(substituted(metric), label)
        return found

    wait_until(lambda: offered() == {"job": ["tapeline"], "owner": [*OWNERS]}, "a scrape with the owners")


def test_owners_who_compete_share_the_slots_fairly(scraped: Prometheus) -> None:
    def values(expr: str) -> list[float]:
        return scraped.values(substituted(selected(expr)).replace("[10m]", "[20s]"))

    fairness = f"({JAIN}) and on () count({COMPETING}) == {len(OWNERS)}"
    wait_until(lambda: values(fairness)[-1:] > [0.95], "a slot for each of those who compete")
    assert 0.5 <= min(values(fairness)) <= max(values(fairness)) <= 1.0001


def test_waiting_jobs_have_a_reason(scraped: Prometheus) -> None:
    def most(expr: str) -> Any:
        return max(scraped.values(expr), default=0)

    wait_until(lambda: most('tapeline_queue_waiting{reason="share"}') >= 8, "a scrape of the waiting jobs")
    assert most("tapeline_slots_wanted") > most("tapeline_slots") == 2


def test_no_alert_fires(scraped: Prometheus) -> None:
    assert scraped.values('ALERTS{alertstate="firing"}') == []
