"""Hostile request bodies, sent to the running stack as specs and to other endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.processor_time import cpu_seconds
from tests.security.conftest import Stack
from tests.security.hostile.meter import MAX_S, web_processes


def spec(**fields: Any) -> bytes:
    return json.dumps({"kind": "classifier", **fields}).encode()


def dense(count: int, units: int) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = [{"units": units, "activation": "relu"}] * count
    return [*layers, {"units": 10, "activation": "softmax"}]


def raw(text: str) -> bytes:
    return b'{"kind": "classifier", ' + text.encode() + b"}"


def conv(**fields: Any) -> list[dict[str, Any]]:
    layer = {"type": "conv2d", "filters": 8, "activation": "relu", **fields}
    return [layer, {"type": "flatten"}, {"units": 10, "activation": "softmax"}]


def hostile() -> Iterator[tuple[str, bytes]]:
    """Yield each body that must be refused, with a title for the report."""
    # Invalid JSON.
    yield "nothing", b""
    yield "no UTF-8", b'{"kind": "\xff"}'
    yield "UTF-16", '{"kind": "classifier"}'.encode("utf-16")
    yield "a byte order mark", b"\xef\xbb\xbf{}"
    yield "cut short", b'{"kind": "classifier", "epochs": '
    yield "two documents", b"{}{}"
    yield "single quotes", b"{'kind': 'classifier'}"
    yield "a comment", b'{"kind": "classifier" /* */}'
    yield "a trailing comma", b'{"kind": "classifier",}'
    yield "a NUL byte", b'{"kind": "classifier\0"}'
    yield "NaN", raw('"epochs": NaN')
    yield "Infinity", raw('"epochs": Infinity')
    yield "-Infinity", raw('"optimizer": {"learning_rate": -Infinity}')
    yield "1e999", raw('"optimizer": {"learning_rate": 1e999}')
    yield "-1e999", raw('"optimizer": {"learning_rate": -1e999}')
    yield "an integer of 5,000 digits", raw('"seed": ' + "9" * 5000)
    yield "a fraction of 100,000 digits", raw('"seed": 0.' + "9" * 100_000)
    yield "a key twice", raw('"epochs": 1, "epochs": 2')
    yield "a key twice, escaped", raw('"epochs": 1, "\\u0065pochs": 2')
    yield "a key twice, deep", raw('"dataset": {"name": "mnist", "name": "x"}')
    names = ", ".join(f'"k{number}": 1' for number in range(9_990))
    yield "a key twice behind ten thousand others", raw(names + ', "k9989": 2')
    yield "a body of keys, one of them twice", raw(", ".join(f'"k{n}": 1' for n in range(75_000)) + ', "k74999": 2')
    yield "half of a surrogate pair", raw('"name": "\\ud800"')
    yield "the other half in a key", raw('"\\udc00": 1')
    yield "arrays 100,000 deep", b"[" * 100_000
    yield "objects 100,000 deep", b'{"a":' * 100_000
    yield "arrays 100 deep, closed", raw('"tags": ' + "[" * 100 + "]" * 100)
    yield "objects 40 deep in a field", raw('"dataset": ' + '{"a":' * 40 + "1" + "}" * 40)
    yield "more than may be read", b" " * (2**20 + 1)
    yield "100,000 unknown fields", spec(**{f"field{n}": n for n in range(60_000)})
    # Documents that are not specs.
    for title, document in (("a list", []), ("null", None), ("a number", 1), ("a text", "x"), ("true", True)):
        yield title, json.dumps(document).encode()
    yield "no kind", b"{}"
    yield "a kind that is a list", b'{"kind": ["classifier"]}'
    yield "a prototype", spec(__proto__={"admin": True})
    yield "a constructor", spec(constructor={"prototype": {}})
    # Fields.
    yield "a control character in a name", raw('"name": "a\\u0000b"')
    yield "a name of a million letters", raw('"name": "' + "a" * 900_000 + '"')
    yield "100,000 tags", spec(tags=["a"] * 100_000)
    yield "a path for a dataset", spec(dataset={"name": "../../etc/passwd"})
    yield "an encoded path for a dataset", spec(dataset={"name": "%2e%2e%2fetc"})
    yield "an address for a dataset", spec(dataset={"name": "http://169.254.169.254/latest"})
    yield "SQL for a dataset", spec(dataset={"name": "x'; DROP TABLE jobs; --"})
    yield "a NUL in a dataset", raw('"dataset": {"name": "mnist\\u0000"}')
    yield "a hidden dataset", spec(dataset={"name": ".cache"})
    yield "a template for a preset", spec(preset="{{7*7}}")
    yield "a preset of another kind", spec(preset="stable")
    yield "a priority of 10", spec(priority=10)
    yield "a priority that is true", spec(priority=True)
    yield "epochs as text", spec(epochs="3")
    yield "half an epoch", spec(epochs=0.5)
    yield "no epochs", spec(epochs=0)
    yield "fewer than none", spec(epochs=-1)
    yield "a seed beyond a double", spec(seed=2**53)
    yield "a learning rate of 0", spec(optimizer={"learning_rate": 0})
    # Too much.
    yield "10**19 epochs", spec(epochs=10**19)
    yield "10,001 epochs", spec(epochs=10_001)
    yield "a batch of 10**9", spec(batch_size=10**9)
    yield "a batch larger than the data", spec(batch_size=4096, layers=dense(1, 10**6))
    yield "65 layers", spec(layers=dense(64, 10))
    yield "100,000 layers", spec(layers=dense(20_000, 10))
    yield "786,433 units", spec(layers=dense(1, 3 * 2**18 + 1))
    yield "too many parameters", spec(layers=dense(3, 4096))
    yield "too much work", spec(layers=dense(1, 4096), epochs=10_000, dataset={"name": "mnist"})
    yield "too much memory", spec(layers=conv(filters=256), batch_size=4096)
    yield "images that grow", spec(layers=[{"type": "upsample2d", "size": 16}] * 5 + conv())
    yield "a kernel of 10,000", spec(layers=conv(kernel=10_000))
    yield "a shape of a million", spec(layers=[{"type": "reshape", "shape": [10**6, 10**6, 10**6]}])
    yield "10**9 samples", spec(samples={"count": 10**9})
    yield "a million steps of a schedule", spec(schedule={"name": "step", "at_epochs": [1] * 100_000, "factor": 0.5})


CORPUS = list(hostile())
OTHER_PATHS = ("", "/fork", "/predict", "/generate")
"""Suffixes of other job paths that read a body; they refuse a hostile one even if the job does not exist."""


@pytest.mark.nightly
def test_the_corpus_is_large() -> None:
    assert len({title for title, _ in CORPUS}) == len(CORPUS) >= 60


def send(stack: Stack, method: str, path: str, body: bytes) -> tuple[httpx.Response, str]:
    """Send a request, and return the response and how it was too expensive, if it was.

    Each request has a new connection, since the service may close one whose body it did not read.

    Raises:
        ProcessLookupError: a web process has exited meanwhile.
    """
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {stack.keys['ann']}"}
    pids = web_processes(stack.home)
    before = cpu_seconds(pids)
    response = httpx.request(method, stack.url + path, content=body, headers=headers, timeout=30, trust_env=False)
    seconds = cpu_seconds(pids) - before
    return response, f"{seconds:.2f} s of processor time" if seconds > MAX_S else ""


@pytest.mark.stack
def test_no_hostile_body_becomes_a_job(stack: Stack) -> None:
    faults: list[Any] = []
    before = send(stack, "GET", "/jobs", b"")[0].json()["data"]
    for title, body in CORPUS:
        try:
            response, expense = send(stack, "POST", "/jobs", body)
        except (httpx.TransportError, ProcessLookupError) as error:
            faults.append((title, len(body), repr(error)))
            continue
        document = response.json()
        is_refused = response.status_code in (400, 413, 422) and document["status"] == response.status_code
        if is_refused and response.status_code == 422:
            is_refused = all(fault["pointer"].startswith("#") and fault["code"] for fault in document["errors"])
        if not is_refused or expense or "Traceback" in response.text:
            faults.append((title, response.status_code, expense, response.text[:200]))
    assert faults == []
    assert send(stack, "GET", "/jobs", b"")[0].json()["data"] == before


@pytest.mark.nightly
def test_other_endpoints_refuse_every_hostile_body(stack: Stack) -> None:
    faults: list[Any] = []
    for title, body in CORPUS:
        for suffix in OTHER_PATHS:
            try:
                response, expense = send(stack, "POST" if suffix else "PATCH", f"/jobs/job_{0:026}{suffix}", body)
            except (httpx.TransportError, ProcessLookupError) as error:
                faults.append((title, suffix, len(body), repr(error)))
                continue
            if not 400 <= response.status_code < 500 or expense:
                faults.append((title, suffix, response.status_code, expense, response.text[:200]))
    assert faults == []
