"""Two machines that share no disk: a process sees the root folder of its machine only, and reaches database, broker and
store through proxies with a delay. Processes and servers are killed at random."""

from __future__ import annotations

import collections
import contextlib
import math
import os
import random
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from sqlalchemy import make_url

from migrations import roles
from migrations.upgrade import upgrade
from service.local import LocalStack
from service.runtime.settings import Settings
from service.states import TERMINAL, Status
from service.storage.database import Database
from service.storage.object_store import ObjectStore
from tapeline import Client, ClientError
from tests import brokers
from tests.conftest import create_database, postgres_folder, serve_postgres
from tests.faults.harness import FaultHarness, kill_training_child
from tests.faults.invariants import Reference
from tests.faults.proxy import Proxy
from tests.faults.sweeps.runs import LIFT_LOSS_LIMIT
from tests.object_servers import BUCKET, credentials, free_ports, serve_seaweedfs
from tests.waiting import wait_until
from tests.workers.conftest import kill_groups

DELAY_S: Final = 0.02
LEASE_S: Final = 6.0
SLOTS: Final = 2
MACHINES: Final = ("one", "two")
CHILD: Final = "a training process"
SERVERS: Final = ("database", "store", "broker")
TARGETS: Final = (*MACHINES, CHILD, *SERVERS, "web", "scheduler")
BUSY_TIMEOUT_S: Final = 30.0

SPECS: Final[Sequence[dict[str, Any]]] = (
    {"kind": "classifier", "epochs": 12, "batch_size": 50, "checkpoint": {"keep_last": 2}},
    {
        "kind": "classifier",
        "epochs": 8,
        "batch_size": 50,
        "layers": [
            {"units": 64, "activation": "relu"},
            {"type": "dropout", "rate": 0.2},
            {"units": 10, "activation": "softmax"},
        ],
        "checkpoint": {"keep_last": 3},
    },
    {"kind": "classifier", "dataset": {"name": "iris"}, "epochs": 40},
    {"kind": "classifier", "dataset": {"name": "breast-cancer"}, "epochs": 25, "checkpoint": {"keep_last": 2}},
    {"kind": "gan", "epochs": 4, "samples": {"count": 16}, "checkpoint": {"keep_last": 2}},
    # Its checkpoints are sent in several parts.
    {
        "kind": "classifier",
        "epochs": 3,
        "layers": [{"units": 1500, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
    },
)
"""Jobs of one to a few seconds, of all kinds of bundled datasets."""

_SEPARATE: Final = """
own=$1 name=$2; shift 2
mount --bind "$own" /mnt
while [ "$1" != -- ]; do mount -t tmpfs none "$1"; shift; done
shift
mkdir -p "$own" && mount --bind /mnt "$own" && umount /mnt
echo "$name" > /proc/sys/kernel/hostname
exec "$@"
"""
"""Mount the own root over folders that are hidden, and take a host name, in namespaces of this process."""
_UNSHARE: Final = ("unshare", "--mount", "--uts", *([] if os.getuid() == 0 else ["--map-root-user"]))


def can_separate() -> bool:
    """Whether this system lets a process have its own mounts."""
    command = [*_UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Server:
    """A server that can be killed and started again, behind a proxy with a delay."""

    def __init__(self, serve: Callable[[], AbstractContextManager[Any]]) -> None:
        self._serve = serve
        self._stack = ExitStack()
        self.address: Any = None
        """What ``serve`` yields."""
        self.start()

    def start(self) -> None:
        self.address = self._stack.enter_context(self._serve())

    def kill(self) -> None:
        self._stack.close()


@dataclass
class TwoMachines:
    """Web page, scheduler and a worker on one machine, a second worker on the other, and three servers."""

    folder: Path
    hidden: Sequence[Path]
    """Folders of the servers, which no machine sees."""
    harness: FaultHarness
    servers: Mapping[str, Server]
    environ: Mapping[str, str]
    logins: Mapping[str, str]
    """The database's URL for each role."""
    client: Client
    rng: random.Random
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    specs: dict[str, int] = field(default_factory=dict)
    """The number of each job's spec."""
    _bag: list[str] = field(default_factory=list)

    def start(self, name: str) -> None:
        """Start a worker (``one`` or ``two``), the web process or the scheduler."""
        machine = name if name in MACHINES else MACHINES[0]
        arguments = {
            "web": ["gunicorn", "-c", "python:service.web.gunicorn_conf", "service.web.wsgi:app"],
            "scheduler": ["workers.scheduler"],
        }.get(name, ["workers"])
        root = self.folder / machine
        role = roles.WORKER if name in MACHINES else roles.APPLICATION
        own = {"TAPELINE_HOME": str(root), "TAPELINE_WORKER_NAME": machine, "TAPELINE_DATABASE_URL": self.logins[role]}
        paths = [str(root / "patch"), os.environ["PYTHONPATH"]]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("TAPELINE_")}
        environ = {**inherited, **self.environ, **own, "PYTHONPATH": os.pathsep.join(paths)}
        separate = [*_UNSHARE, "sh", "-ec", _SEPARATE, "sh", root, machine, self.folder, *self.hidden, "--"]
        with (self.harness.home / f"{name}.log").open("ab") as log:
            command = [*map(str, separate), sys.executable, "-m", *arguments]
            self.processes[name] = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        self.harness.processes.append(self.processes[name])

    def run(
        self,
        jobs: int,
        *,
        targets: Sequence[str] = (*TARGETS, *SERVERS, *MACHINES, *[CHILD] * 3),
        kills: float = math.inf,
        pause_s: tuple[float, float],
        outage_s: tuple[float, float],
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Submit ``jobs`` jobs one after another, and kill until all have ended.

        Args:
            targets: what is killed, in random order, again and again.
            kills: after so many, all jobs may end.
            pause_s: the shortest and the longest pause before a kill.
            outage_s: those until a server is started again.
            report: gets a line each minute.
        """
        for name in ("web", "scheduler", *MACHINES):
            self.start(name)
        started = last_report = time.monotonic()
        while open_jobs := self._fill_queue(jobs):
            time.sleep(self.rng.uniform(*pause_s))  # kills at times that nobody chose
            if self.kills.total() < kills:
                self._strike(targets, outage_s)
            if time.monotonic() - last_report > 60:
                last_report = time.monotonic()
                ended = len(self.specs) - len(open_jobs)
                minutes = (last_report - started) / 60
                report(f"  after {minutes:.0f} min: {self.kills.total()} kills, {ended} jobs ended")

    def _fill_queue(self, jobs: int) -> list[str]:
        """Submit jobs until each slot has one and two wait for it; returns those that have not ended."""
        found = [job_id for job_id in self.specs if self.harness.job(job_id).status not in TERMINAL]
        while len(found) < 3 * len(MACHINES) * SLOTS and len(self.specs) < jobs:
            number = len(self.specs) % len(SPECS)
            job_id = submit(self.client, number, f"job {len(self.specs)}")
            self.harness.accepted.append(job_id)
            self.specs[job_id] = number
            found.append(job_id)
        return found

    def _strike(self, targets: Sequence[str], outage_s: tuple[float, float]) -> None:
        if not self._bag:
            self._bag = self.rng.sample(targets, len(targets))
        target = self._bag.pop()
        if target in self.servers:
            self.servers[target].kill()
            time.sleep(self.rng.uniform(*outage_s))  # the outage is the scenario
            self.servers[target].start()
            self.harness.database.engine.dispose()
        elif target == CHILD:
            busy = self._busy(MACHINES)
            if not busy or not kill_training_child(self.processes[self.rng.choice(busy)].pid):
                return
        else:
            if target in MACHINES and not self._busy([target]):
                return
            kill_groups([self.processes[target]])
            self.start(target)
        self.kills[target] += 1

    def _busy(self, machines: Sequence[str]) -> list[str]:
        """Those of some machines that train a job, waiting for one."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while time.monotonic() < deadline:
            owners = [
                job.lease_owner or "" for job in map(self.harness.job, self.specs) if job.status == Status.RUNNING
            ]
            prefixes = {name: f"{name}-{self.processes[name].pid}-" for name in machines}
            busy = [name for name, prefix in prefixes.items() if any(owner.startswith(prefix) for owner in owners)]
            if busy:
                for name in busy:
                    self.check_view(name)
                return busy
            time.sleep(0.05)
        return []

    def check_view(self, machine: str) -> None:
        """Check that a worker sees neither the root of the other one, nor a folder of a server."""
        view = Path(f"/proc/{self.processes[machine].pid}/root")
        seen = {
            str(path) for folder in (self.folder, *self.hidden) for path in view.joinpath(*folder.parts[1:]).iterdir()
        }
        assert seen == {f"{view}{self.folder / machine}"}, f"{machine} sees {seen}"

    def check(self, references: Sequence[Reference]) -> None:
        """Stop all processes, and check that every job has the results of an undisturbed one, and no file is on a
        machine."""
        for machine in MACHINES:
            self.check_view(machine)
        self.harness.check({job_id: references[number] for job_id, number in self.specs.items()})
        left = [path for machine in MACHINES for path in (self.folder / machine).rglob("job_*")]
        assert not left, f"files of jobs on a machine: {left}"


def submit(client: Client, number: int, key: str) -> str:
    """Submit a job until the service confirms it."""
    while True:
        with contextlib.suppress(ClientError):
            return client.submit({**SPECS[number], "reuse": "never"}, idempotency_key=key).id
        time.sleep(0.2)


def train_references(folder: Path) -> list[Reference]:
    """Train each spec once, undisturbed, in a service of its own with a folder for its files and SQLite."""
    settings = Settings.from_env({"TAPELINE_HOME": str(folder), "TAPELINE_PORT": "0"}, cores=2)
    with (
        LocalStack(settings) as stack,
        Client(stack.url) as client,
        closing(Database(settings.database_url)) as database,
    ):
        job_ids = [submit(client, number, f"reference {number}") for number in range(len(SPECS))]
        for job_id in job_ids:
            wait_until(lambda job_id=job_id: client.job(job_id).status in TERMINAL, f"the end of {job_id}", 300)
        return [Reference.of(database, job_id) for job_id in job_ids]


@contextmanager
def open_two_machines(folder: Path, seed: int) -> Iterator[TwoMachines]:
    """Start the servers, and create the roles of the database and the folders of the machines.

    Args:
        folder: an empty one, which the machines do not see, but for their own roots.
    """
    for name in (*MACHINES, "store", "broker", "home"):
        (folder / name).mkdir()
    lift = textwrap.indent(LIFT_LOSS_LIMIT, "    ")
    for machine in MACHINES:
        (folder / machine / "patch").mkdir()
        patch = f"import sys\nif 'workers' in ' '.join(sys.orig_argv):\n{lift}"
        (folder / machine / "patch" / "sitecustomize.py").write_text(patch)
    with ExitStack() as stack:
        data, ports = stack.enter_context(postgres_folder()), free_ports(9)
        servers = {
            "database": Server(lambda: serve_postgres(data)),
            "store": Server(lambda: serve_seaweedfs(folder / "store", ports[:8])),
            "broker": Server(lambda: brokers.serve(folder / "broker")),
        }
        for server in servers.values():
            stack.callback(server.kill)
        url = create_database(servers["database"].address)
        addresses = {
            "database": f"{servers['database'].address}/.s.PGSQL.5432",
            "store": urlsplit(servers["store"].address).port,
            "broker": str(servers["broker"].address.socket),
        }
        proxies = {
            name: stack.enter_context(closing(Proxy(connector(to), delay_s=DELAY_S))) for name, to in addresses.items()
        }
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in credentials().items():
            patched.setenv(name, value)
        environ = {
            "TAPELINE_BROKER_URL": f"redis://127.0.0.1:{proxies['broker'].port}/0",
            "TAPELINE_STORE": f"s3://{BUCKET}/two-machines",
            "TAPELINE_STORE_ENDPOINT": f"http://127.0.0.1:{proxies['store'].port}",
            "TAPELINE_LEASE_S": f"{LEASE_S:g}",
            "TAPELINE_WORKERS": str(SLOTS),
            "TAPELINE_PORT": str(ports[8]),
        }
        database = stack.enter_context(closing(Database(url)))
        names = {"owner": roles.OWNER, "application": roles.APPLICATION, "worker": roles.WORKER}
        roles.prepare(database, dict.fromkeys(names.values(), "a password"), **names)
        owner = make_url(url).set(username=roles.OWNER).render_as_string(hide_password=False)
        with closing(Database(owner)) as owned:
            upgrade(owned, grant_to=roles.APPLICATION, grant_to_workers=roles.WORKER)
        address = f"127.0.0.1:{proxies['database'].port}/{make_url(url).database}?sslmode=disable&gssencmode=disable"
        logins = {role: f"postgresql+psycopg://{role}@{address}" for role in names.values()}
        harness = FaultHarness(folder / "home", database, lease_s=LEASE_S)
        harness.bucket = ObjectStore(environ["TAPELINE_STORE"], endpoint=servers["store"].address, lease_s=30)
        stack.callback(lambda: kill_groups([process for process in harness.processes if process.poll() is None]))
        client = stack.enter_context(Client(f"http://127.0.0.1:{ports[8]}"))
        yield TwoMachines(folder, [data], harness, servers, environ, logins, client, random.Random(seed))


def connector(to: str | int | None) -> Callable[[], socket.socket]:
    """What connects to a Unix socket, or to a port."""

    def connect() -> socket.socket:
        if isinstance(to, int):
            return socket.create_connection(("127.0.0.1", to))
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(to))
        except OSError:
            connection.close()
            raise
        return connection

    return connect
