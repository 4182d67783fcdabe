"""A service with an object of every kind, all of them Ann's."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flask import Flask
from sqlalchemy import update
from werkzeug.test import TestResponse

from engine import checkpoint
from service.access import audit_seals, keys, owners, sign_in_links
from service.access.keys import Scope
from service.datasets.repository import DatasetRepository
from service.datasets.tables.preprocessing import Preprocessing
from service.jobs import leases, worker_registry
from service.jobs.queries import lookup
from service.models.certificates import signing, signing_keys
from service.spec.validation import document_for_files, read_resolved
from service.storage.database import now_ms
from service.storage.tables import Job, Worker
from service.web.core.core import EXTENSION, Core, provided
from service.web.datasets.upload_progress import ProgressBoard
from service.web.streaming.poller import Poller
from tests.service.features.sweeps.simulated_sweeps import finish
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.rules.operations import STREAM, Caller, Operation, Values, operations_of
from tests.waiting import wait_until
from workers.training import build

OPERATOR_KEY = "an-operator-chose-this-one"
SECRET = "cormorant"
"""A part of every name and text of Ann's that no request has to contain."""
UPLOAD = "anns-upload-0001"
MODEL = f"{SECRET}-digits"
FACES = f"{SECRET}-faces"
PRICES = f"{SECRET}-prices"
"""Ann's models, with the alias ``champion``."""
WORKER = "a-worker-1-00000000"
TEN = [{"units": 10, "activation": "softmax"}]
CLASSIFIER: dict[str, Any] = {"kind": "classifier", "layers": [{"units": 3, "activation": "softmax"}]}
GAN: dict[str, Any] = {
    "kind": "gan",
    "generator": {"layers": [{"units": 784, "activation": "tanh"}]},
    "discriminator": {"layers": [{"units": 1, "activation": "sigmoid"}]},
}
SWEEP: dict[str, Any] = {
    "name": f"{SECRET}-rates",
    "base": {"kind": "classifier", "epochs": 2, "layers": TEN},
    "space": {"/optimizer/learning_rate": {"choice": [0.01, 0.02, 0.03, 0.04]}},
}
ROWS = "".join(f"{n % 7},{n * 31 % 17},{f'{SECRET}-high' if n % 7 > 3 else 'low'}\n" for n in range(60))
TABLE = ("age,noise,label\n" + ROWS).encode()
NUMBERS = ("age,price\n" + "".join(f"{n % 9},{n * 1.5}\n" for n in range(60))).encode()
QUERIES: dict[str, dict[str, str]] = {
    "/jobs/{job_id}/bisection": {"metric": "train_loss", "above": "0"},
    "/comparisons": {"a": "{a}", "b": "{b}"},
    "/differences": {"a": "{a}", "b": "{b}"},
}
"""Operations that need URL parameters."""


@dataclass
class PopulatedService:
    """The service, its callers, and the ids of Ann's objects."""

    app: Flask
    worker: SimulatedWorker
    operations: list[Operation]
    callers: dict[str, Caller] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    """Of each job with files, the id of one."""
    first_answers: dict[str, str] = field(default_factory=dict)
    """What Carol, who has nothing, got from each list before anybody had created an object."""

    @property
    def core(self) -> Core:
        core: Core = self.app.extensions[EXTENSION]
        return core

    def query(self, operation: Operation, owner: str = "ann") -> dict[str, str]:
        """The URL parameters that an operation needs, with this owner's jobs."""
        ids = {"a": self.ids["classifier"], "b": self.ids["other"]}
        if owner == "bob":
            ids = {"a": self.ids["bobs"], "b": self.ids["bobs"]}
        known = operation.parameters("query")
        needed = QUERIES.get(operation.path, {})
        return {name: value.format(**ids) for name, value in needed.items() if name in known}

    def first_answer(self, address: str) -> str:
        """What Carol gets, without what differs between any two requests."""
        operation = next(item for item in self.operations if str(item) == address)
        response = self.callers["carol"].send(operation, {})
        is_stream = response.mimetype == STREAM
        text = self.callers["carol"].first_message(operation) if is_stream else response.text
        wait_until(lambda: not provided(Poller, self.app).is_reading, "the end of the stream's thread")
        return re.sub(r'req_\w+|"requests_left": \d+|[\d,]+ of 100,000', "", f"{response.status_code} {text}")

    def objects(self, operation: Operation) -> Iterator[Values]:
        """Path parameters that name Ann's objects: an operation on jobs suits only some of them."""
        names = operation.parameters("path")
        fixed = {"sweep_id": self.ids["sweep"], "group": self.ids["group"], "upload_id": UPLOAD}
        fixed |= {
            "key_id": self.ids["key"],
            "target": "torch",
            "owner_id": "ann",
            "worker_id": WORKER,
            "share_id": self.ids.get("share", ""),
            "model_name": MODEL,
            "version": "1",
            "alias": "champion",
            "webhook_id": self.ids.get("webhook", ""),
            "delivery_id": self.ids.get("delivery", ""),
        }
        fixed["token"] = self.ids.get("link" if "welcome" in operation.path else "shared", "tsh_none")
        jobs = ("classifier", "gan", "table", "regressor", "running", "waiting") if "job_id" in names else ("",)
        datasets = ("images", "table_data") if "name" in names else ("",)
        cells = ((true, predicted) for true in "012" for predicted in "012") if "true" in names else (("", ""),)
        models = (MODEL, FACES, PRICES) if "reference" in names else ("",)
        for job, dataset, (true, predicted), model in itertools.product(jobs, datasets, list(cells), models):
            values = fixed | {"true": true, "predicted": predicted}
            values |= {"job_id": self.ids.get(job, ""), "artifact_id": self.artifacts.get(job, "")}
            values |= {"name": self.ids.get(dataset, "")}
            values |= {"reference": f"{model}@champion"}
            yield {name: values[name] for name in names if values.get(name)}

    def admitted(self, operation: Operation) -> Caller:
        """Ann, or the operator for what only admins may do."""
        return self.callers["operator" if operation.scope == "admin" else "ann"]

    def find(self, operation: Operation, **options: Any) -> tuple[Values, TestResponse]:
        """The first of Ann's objects with which an operation succeeds, and its response."""
        refusals, caller = [], self.admitted(operation)
        for values in self.objects(operation):
            response = caller.send(operation, values, query_string=self.query(operation), **options)
            if response.status_code < 400:
                return values, response
            refusals.append((response.json or {}).get("code"))
        raise AssertionError(
            f"{operation} fails for all of Ann's objects: {refusals}. Add what it needs to populated.py"
        )

    def submit(self, caller: str = "ann", **spec: Any) -> str:
        """Submit a job and return its id."""
        return str(self.post(caller, "/jobs", spec)["id"])

    def move(self, model: str, version: int) -> None:
        """Move the alias ``champion`` of one of Ann's models."""
        self.post("ann", f"/models/{model}/aliases/champion", {"version": version, "reason": SECRET}, method="PUT")

    def post(self, caller: str, address: str, body: Any, *, method: str = "POST", **options: Any) -> Any:
        """Create or change an object and return it."""
        sender = self.callers[caller]
        headers = {"Authorization": f"Bearer {sender.key}"}
        content = {"json": body} if body is not None else {}
        response = sender.client.open(address, method=method, headers=headers, **content, **options)
        assert response.status_code in (200, 201, 202), response.text
        return response.json


def open_service(app: Flask) -> PopulatedService:
    """An empty service with the keys of its owners."""
    core: Core = app.extensions[EXTENSION]
    # The thread that records the use of keys would end during the tests that follow, some of which count threads.
    core.keyring.close()
    populated = PopulatedService(app, SimulatedWorker(core.database, core.artifacts), [])
    for owner, scope in (("ann", Scope.SUBMIT), ("bob", Scope.SUBMIT), ("carol", Scope.READ)):
        row, key = keys.create(core.database, name=f"key of {owner}", owner=owner, scope=scope)
        populated.callers[owner] = Caller(app, key)
        populated.ids.setdefault("key", row.id)
    signing_keys.register(core.database, signing.open_signer(core.settings))  # or the first certificate would
    owners.change(core.database, "ann", {"max_priority": 9})
    owners.change(core.database, owners.EVERYBODY, {"weight": 1.0})  # an owner more in the list
    worker_registry.record_heartbeat(
        core.database, Worker(id=WORKER, host="box", pid=7, slots=1, running=0, draining=False)
    )
    with core.database.write() as session:
        session.execute(update(Worker).values(seen_ms=now_ms() + 3_600_000))  # alive during all tests
    populated.callers["operator"] = Caller(app, OPERATOR_KEY)
    populated.callers["nobody"] = Caller(app, None)
    populated.operations = operations_of(populated.callers["operator"])
    return populated


def fill(populated: PopulatedService, held: ExitStack) -> None:
    """Create Ann's objects, and one job of Bob's. An upload stays in progress while ``held`` is open."""
    lists = [str(item) for item in populated.operations if item.method == "GET" and "{" not in item.path]
    populated.first_answers = {address: populated.first_answer(address) for address in lists}
    classes = np.arange(60).astype(np.uint8) % 3
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, images=images, labels=classes)
    populated.ids["images"] = _upload(populated, "anns-images", archive=buffer.getvalue())
    populated.ids["table_data"] = _upload(populated, "anns-table", table=TABLE)
    common = {"epochs": 3, "tags": [f"{SECRET}-tag"], "checkpoint": {"keep_last": 100}}
    classifier = CLASSIFIER | common | {"dataset": populated.ids["images"]}
    populated.ids["classifier"] = populated.submit(**classifier, name=f"{SECRET}-classifier")
    _train(populated, "classifier", 0.5)
    populated.ids["other"] = populated.submit(**classifier, name=f"{SECRET}-other", seed=1)
    _train(populated, "other", 0.4)
    with (
        populated.core.database.write() as session
    ):  # what a certificate needs, and a simulated worker does not measure
        recorded = {"provenance": {"code": f"sha256:{'c' * 64}"}, "dataset_sha256": f"sha256:{'d' * 64}"}
        session.execute(update(Job).where(Job.id == populated.ids["classifier"]).values(**recorded))
    populated.ids["bobs"] = populated.submit("bob", **CLASSIFIER | {"epochs": 3, "layers": TEN, "name": "bobs"})
    _train(populated, "bobs", 0.5, owner="bob")
    populated.ids["gan"] = populated.submit(**GAN, **common, name=f"{SECRET}-gan")
    _train(populated, "gan", 0.5)
    two_classes = {"layers": [{"units": 2, "activation": "softmax"}], "dataset": populated.ids["table_data"]}
    populated.ids["table"] = populated.submit(**CLASSIFIER | common | two_classes, name=f"{SECRET}-table")
    _train(populated, "table", 0.5)
    populated.ids["numbers"] = _upload(populated, "anns-numbers", table=NUMBERS)
    populated.ids["regressor"] = populated.submit(
        kind="regressor", dataset=populated.ids["numbers"], **common, name=f"{SECRET}-regressor"
    )
    _train(populated, "regressor", 0.5)
    for model, job in ((MODEL, "classifier"), (MODEL, "other"), (FACES, "gan"), (PRICES, "regressor")):
        populated.post("ann", f"/models/{model}/versions", {"job": populated.ids[job], "checkpoint": 2, "note": SECRET})
        populated.move(model, 1)
    sweep = populated.post("ann", "/sweeps", SWEEP)
    populated.ids["sweep"] = sweep["id"]
    reader = populated.callers["ann"].client
    reader.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {populated.callers['ann'].key}"
    finish(reader, populated.worker, sweep["id"])
    populated.ids["running"] = populated.submit(**classifier, name=f"{SECRET}-running", seed=2)
    populated.post("ann", f"/jobs/{populated.ids['running']}", {"note": SECRET}, method="PATCH")
    populated.worker.claim()
    populated.worker.commit_epoch(1, keep_last=100)
    folds = CLASSIFIER | {"dataset": {"name": populated.ids["images"], "folds": 2}, "name": f"{SECRET}-folds"}
    first = populated.post("ann", "/jobs", folds)
    populated.ids |= {"waiting": first["id"], "group": first["fold_group"]}
    shared = populated.post("ann", "/shares", {"path": f"/jobs/{populated.ids['classifier']}"})
    with populated.core.database.write() as session:
        populated.ids |= {"share": shared["id"], "shared": shared["token"]}
        populated.ids["link"] = sign_in_links.create(session, populated.ids["key"])
    webhook = {"url": f"https://93.184.216.34/{SECRET}", "events": ["job.failed"], "description": SECRET}
    populated.ids["webhook"] = populated.post("ann", "/webhooks", webhook)["id"]
    for _ in range(5):
        populated.ids["delivery"] = populated.post("ann", f"/webhooks/{populated.ids['webhook']}/test", None)["id"]
    recorder = held.enter_context(provided(ProgressBoard, populated.app).upload("ann", UPLOAD, 100))
    recorder.received(42)
    audit_seals.seal(populated.core.database, grace_s=0)
    populated.submit(**classifier, name=f"{SECRET}-last", seed=3)
    audit_seals.seal(populated.core.database, grace_s=0)


def _upload(populated: PopulatedService, name: str, **files: bytes) -> str:
    fields = {field: (io.BytesIO(data), field) for field, data in files.items()}
    populated.post("ann", "/datasets", None, data={"name": name, **fields})
    return name


def _train(populated: PopulatedService, name: str, loss: float, owner: str = "ann") -> None:
    """Simulate the training of a job; its checkpoints hold a real network, as it is before its first epoch."""
    core, worker = populated.core, populated.worker
    with core.database.read() as session:
        row = lookup.get(session, populated.ids[name])
    spec = read_resolved(row.resolved)
    repository = DatasetRepository(core.settings, core.database)
    dataset = repository.load(repository.of_job(row))
    provenance: dict[str, Any] = {"numpy": "2.4", "threads": 1}
    preprocessing = None
    if dataset.info.columns:
        preprocessing = Preprocessing.of(dataset.info, dataset.train.inputs, dataset.train.labels)
        provenance["preprocessing"] = preprocessing.document()
    state = build.trainer(spec, dataset, preprocessing).state_dict()
    is_older = name == "table"  # 0.2.0 has written the whole spec
    state.spec = spec.model_dump(mode="json") if is_older else document_for_files(spec)
    if preprocessing is not None:
        state.state["preprocessing"] = preprocessing.document()
    data = checkpoint.dumps(state)
    leases.begin(worker.database, worker.claim(), provenance)
    classes = dataset.info.classes
    has_classes = row.kind == "classifier"
    for epoch in (1, 2, 3):
        worker.commit_epoch(
            epoch,
            metrics={"train_loss": loss / epoch, "val_accuracy": 0.9},
            confusion=[[epoch] * classes] * classes if has_classes else None,
            checkpoint=data,
            keep_last=100,
        )
    worker.succeed()
    files = populated.post(owner, f"/jobs/{row.id}/artifacts", None, method="GET")["data"]
    populated.artifacts[name] = files[0]["id"]
