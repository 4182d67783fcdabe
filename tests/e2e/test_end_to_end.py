"""The complete path of a job: HTTP in; database, broker, worker and engine in the middle; files out.

The tests send plain HTTP, as curl would, to the stack that `make up` starts: once with its embedded parts, and
once with an external PostgreSQL and an external Redis-protocol server.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from service.datasets.cache import load
from service.datasets.formats.array_folders import ArrayCache
from service.local import LocalStack
from service.runtime.settings import Settings
from tests import brokers

CLASSIFIER = {"kind": "classifier", "epochs": 4, "name": "digits", "tags": ["e2e"]}
GAN = {"kind": "gan", "epochs": 2, "samples": {"count": 16}}


@pytest.fixture(scope="module")
def external_stack(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack with a database and a broker that it did not start."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("outside")
    with brokers.serve(folder) as broker:
        environ = {
            "TAPELINE_HOME": str(home),
            "TAPELINE_PORT": "0",
            "TAPELINE_WORKERS": "2",
            "TAPELINE_BROKER_URL": broker.url,
            "TAPELINE_DATABASE_URL": f"postgresql+psycopg://postgres:@/postgres?host={postgres_server}",
        }
        with LocalStack(Settings.from_env(environ, cores=2)) as running:
            yield running


ON_BOTH_STACKS: Final = pytest.mark.parametrize(
    "either_stack", ["stack", pytest.param("external_stack", marks=pytest.mark.nightly)], indirect=True
)
"""Parts that the tests start themselves, and at night parts that they find."""


@pytest.fixture
def either_stack(request: pytest.FixtureRequest) -> LocalStack:
    """The shared stack with its embedded parts, or a stack with external ones."""
    selected: LocalStack = request.getfixturevalue(request.param)
    assert (selected.settings.home / "tapeline.db").exists() == (request.param == "stack")
    return selected


@pytest.fixture
def http(either_stack: LocalStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=either_stack.url, timeout=60) as client:
        yield client


def post(http: httpx.Client, spec: dict[str, Any]) -> dict[str, Any]:
    answer = http.post("/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == job["urls"]["self"]
    return job


def read_stream(http: httpx.Client, job: dict[str, Any], after: int | None = None) -> list[tuple[int | None, str, Any]]:
    """Read all events of a job's stream, until it ends."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    events: list[tuple[int | None, str, Any]] = []
    with http.stream("GET", job["urls"]["stream"], headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                number = int(fields["id"]) if "id" in fields else None
                events.append((number, fields["event"], json.loads(fields["data"])))
                fields = {}
    return events


@ON_BOTH_STACKS
def test_a_classifier_and_a_gan_train_side_by_side(http: httpx.Client) -> None:
    classifier, gan = post(http, CLASSIFIER), post(http, GAN)
    for job, epochs in ((classifier, 4), (gan, 2)):
        events = read_stream(http, job)
        assert events[0][1] == "snapshot"
        numbers = [number for number, _, _ in events if number is not None]
        assert numbers == list(range(1, numbers[-1] + 1))
        assert [kind for _, kind, _ in events if kind in ("metrics", "checkpoint", "sample")] == [
            "metrics", "checkpoint", "sample",
        ] * epochs  # fmt: skip
        assert events[-1][1] == "end"
        assert events[-1][2]["status"] == "succeeded"
        middle = numbers[len(numbers) // 2]
        replayed = [number for number, _, _ in read_stream(http, job, after=middle) if number is not None]
        assert replayed == list(range(middle + 1, numbers[-1] + 1))

    job = http.get(classifier["urls"]["self"]).json()
    assert job["status"] == "succeeded"
    assert job["progress"]["fraction"] == 1
    assert job["metrics"]["val_accuracy"] > 0.9
    assert http.get("/jobs", params={"tag": "e2e"}).json()["data"][0]["id"] == job["id"]


@ON_BOTH_STACKS
def test_fifteen_lines_of_numpy_reproduce_the_reported_accuracy(http: httpx.Client, tmp_path: Path) -> None:
    job = post(http, CLASSIFIER)
    read_stream(http, job)
    results = http.get(job["urls"]["results"]).json()
    latest = results["checkpoints"]["latest"]
    answer = http.get(latest["url"])
    assert answer.headers["ETag"] == f'"{latest["sha256"]}"'
    half = http.get(latest["url"], headers={"Range": f"bytes={latest['size_bytes'] // 2}-"})
    assert half.status_code == 206
    assert answer.content.endswith(half.content)

    (tmp_path / "model.safetensors").write_bytes(answer.content)
    weights = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    data = load("mnist-10k", tmp_path, cache=ArrayCache(tmp_path / "cache"))
    low, high = http.get(job["urls"]["self"]).json()["resolved"]["dataset"]["scale"]
    x = low + data.validation.inputs.reshape(-1, 784).astype(np.float32) * ((high - low) / 255)
    hidden = np.maximum(x @ weights["layers.0.weight"] + weights["layers.0.bias"], 0)
    logits = hidden @ weights["layers.1.weight"] + weights["layers.1.bias"]
    accuracy = np.mean(logits.argmax(axis=1) == data.validation.labels)
    assert accuracy == pytest.approx(results["metrics"]["val_accuracy"], abs=1e-3)


@pytest.mark.stack
@ON_BOTH_STACKS
def test_both_kinds_of_jobs_have_images(http: httpx.Client) -> None:
    for spec in (CLASSIFIER, GAN):
        job = post(http, spec)
        read_stream(http, job)
        for path in ("samples/1.png", "plots/curves.png"):
            with Image.open(io.BytesIO(http.get(f"/jobs/{job['id']}/{path}").content)) as image:
                assert image.format == "PNG"
        with Image.open(io.BytesIO(http.get(f"/jobs/{job['id']}/samples.gif").content)) as animation:
            assert getattr(animation, "n_frames", 1) == spec["epochs"]
        confusion = http.get(f"/jobs/{job['id']}/plots/confusion.svg")
        assert confusion.status_code == (200 if spec is CLASSIFIER else 404)


@pytest.mark.stack
@ON_BOTH_STACKS
def test_equal_specs_have_equal_digests(http: httpx.Client) -> None:
    digests = set()
    for _ in range(2):
        job = post(http, GAN)
        digests.add(read_stream(http, job)[-1][2]["result_digest"])
    assert len(digests) == 1


@ON_BOTH_STACKS
def test_networks_train_on_an_uploaded_dataset(http: httpx.Client) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    images = rng.integers(0, 60, (600, 12, 10)).astype(np.uint8)
    images[np.arange(600), labels * 4] += 180  # a bright row encodes the class
    archive = io.BytesIO()
    np.savez_compressed(archive, x_train=images, y_train=labels)
    upload = http.post("/datasets", data={"name": "rows"}, files={"archive": archive.getvalue()})
    assert upload.status_code == 201, upload.text
    jobs = [post(http, {"kind": kind, "dataset": {"name": "rows"}, "epochs": 2}) for kind in ("classifier", "gan")]
    assert http.delete("/datasets/rows").json()["code"] == "dataset_in_use"
    for job in jobs:
        assert read_stream(http, job)[-1][2]["status"] == "succeeded"
    classifier = http.get(jobs[0]["urls"]["self"]).json()
    assert classifier["metrics"]["val_accuracy"] == 1.0
    assert classifier["provenance"]["dataset"] == upload.json()["sha256"]
    assert http.delete("/datasets/rows").status_code == 204


@ON_BOTH_STACKS
def test_a_running_job_is_cancelled(http: httpx.Client) -> None:
    job = post(http, GAN | {"epochs": 500})
    deadline = time.monotonic() + 30
    while http.get(job["urls"]["self"]).json()["progress"]["step"] == 0:
        assert time.monotonic() < deadline, "no step was trained"
        time.sleep(0.05)
    assert http.post(f"/jobs/{job['id']}/cancel").status_code == 202
    ended = read_stream(http, job)[-1]
    assert ended[2]["status"] == "cancelled"
    assert http.post(f"/jobs/{job['id']}/cancel").status_code == 409
    assert http.delete(f"/jobs/{job['id']}").status_code == 204
    assert http.get(f"/jobs/{job['id']}").status_code == 404


@ON_BOTH_STACKS
def test_readyz_reports_every_check_as_ok(http: httpx.Client) -> None:
    readiness = http.get("/readyz").json()
    assert {name: check["status"] for name, check in readiness["checks"].items()} == {
        "database": "ok", "storage": "ok", "broker": "ok", "workers": "ok", "scheduler": "ok",
    }  # fmt: skip
