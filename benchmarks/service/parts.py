"""The measurements, one function each. Variants alternate in seven rounds; figures are medians over the rounds.

``memory`` and ``burst`` take one round.
"""

from __future__ import annotations

import base64
import io
import json
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
from PIL import Image

from benchmarks.service.burst import burst
from benchmarks.service.clients import _percentile
from benchmarks.service.figures import KINDS, TINY, Figures, both, client, spread
from benchmarks.service.growth import growth
from benchmarks.service.memory import memory
from benchmarks.service.post import post
from benchmarks.service.rows import fill
from benchmarks.service.service_under_test import ServiceLauncher, ServiceUnderTest
from service.jobs import leases
from service.jobs.queries import listing, lookup
from service.jobs.queries.listing import JobFilter

LONG: Final[dict[str, Any]] = {"kind": "classifier", "epochs": 10_000, "checkpoint": {"every_epochs": 5}}


def pickup(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """Time from the POST to the first batch and to the first epoch on a stream, and that without its training."""
    spec = {"kind": "classifier", "epochs": 1}
    batches: dict[str, list[float]] = {kind: [] for kind in KINDS}
    epochs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    outside_epoch: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with both(launcher) as services:
        for service in services.values():
            service.serve()
            service.work(takes_notes=True)
        for number in range(3 * rounds + 1):
            for kind, service in services.items():
                service.note("batch_done")
                started_at = time.monotonic()
                job_id = service.submit(**spec)
                epoch_at = _first_epoch(service, job_id)
                batch_at = service.noted_at("batch_done")
                assert batch_at is not None
                service.wait_until_ended(job_id)
                (epoch_s,) = service.http.get(f"/jobs/{job_id}/metrics").json()["seconds"]
                time.sleep(2)  # the next spare child loads
                if number:
                    outside_epoch[kind].append(1000 * (epoch_at - started_at - epoch_s))
                    batches[kind].append(1000 * (batch_at - started_at))
                    epochs[kind].append(1000 * (epoch_at - started_at))
    return [
        {
            "database": kind,
            "first_batch_ms": spread(batches[kind], 1),
            "first_epoch_seen_ms": spread(epochs[kind], 1),
            "without_the_epoch_ms": spread(outside_epoch[kind], 1),
        }
        for kind in KINDS
    ]


def _first_epoch(service: ServiceUnderTest, job_id: str) -> float:
    with service.http.stream("GET", f"/jobs/{job_id}/stream") as stream:
        for line in stream.iter_lines():
            if line == "event: metrics":
                return time.monotonic()
    raise RuntimeError("the stream ended without an epoch")


def short(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """Throughput of tiny jobs, trained by two child processes; bare: two forked loops with the same files and rows."""
    count, rounds = 200, (rounds + 1) // 2
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    bare: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with both(launcher) as services:
        for service in services.values():
            service.serve()
            service.work(2)
        for number in range(rounds + 1):
            for kind, service in services.items():
                started_at = time.monotonic()
                job_ids = [service.submit(**TINY) for _ in range(count)]
                service.wait_until_all_ended(job_ids)
                rate = count / (time.monotonic() - started_at)
                bare_rate = count / _bare(service, TINY, jobs=count, children=2, warm=True)
                if number:
                    rates[kind].append(rate)
                    bare[kind].append(bare_rate)
    return [
        {
            "database": kind,
            "jobs_per_s": spread(rates[kind]),
            "bare": spread(bare[kind]),
            "ratio": spread([rate / bare_rate for rate, bare_rate in zip(rates[kind], bare[kind], strict=True)]),
        }
        for kind in KINDS
    ]


def scale(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """Claims and lists with 100,000 jobs, most of which are queued."""
    count, claims = 100_000, 25
    times_by_operation: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
    with both(launcher) as services:
        for service in services.values():
            fill(service.database, count)
            service.serve()
        for _ in range(rounds):
            for kind, service in services.items():
                operations: dict[str, Callable[[], object]] = {
                    "claim": lambda service=service: leases.claim(service.database, "bench", 600),
                    "list, newest first": lambda service=service: _list(service),
                    "list, running": lambda service=service: _list(service, status="running"),
                    "list, failed": lambda service=service: _list(service, status="failed"),
                    "list, a tag": lambda service=service: _list(service, tag="rare"),
                    "list, best priority": lambda service=service: _list(service, sort="-priority"),
                    "list, in the middle": lambda service=service: _list(
                        service, cursor=_middle_cursor(service, count)
                    ),
                }
                for name, operation in operations.items():
                    operation()
                    times_by_operation[kind].setdefault(name, []).extend(_time_ms(operation) for _ in range(claims))
    return [
        {
            "database": kind,
            "what": name,
            "p50_ms": _percentile_ms(times, 50),
            "p99_ms": _percentile_ms(times, 99),
            "count": len(times),
        }
        for kind in KINDS
        for name, times in times_by_operation[kind].items()
    ]


_CURSORS: dict[int, str] = {}


def _middle_cursor(service: ServiceUnderTest, count: int) -> str:
    if service.port not in _CURSORS:
        cursor = None
        with service.database.read() as session:
            for _ in range(3):
                page = listing.find(session, JobFilter(), limit=count // 6, cursor=cursor)
                cursor = page.next_cursor
        assert cursor is not None
        _CURSORS[service.port] = cursor
    return _CURSORS[service.port]


def _list(service: ServiceUnderTest, **query: str) -> httpx.Response:
    return service.http.get("/jobs", params=query).raise_for_status()


def _time_ms(operation: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    operation()
    return 1000 * (time.perf_counter() - started_at)


def _percentile_ms(times: Sequence[float], percent: int) -> float:
    return round(_percentile(sorted(times), percent), 2)


def streams(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """500 streams of one job, and the slowdown of its training; bare: by a server that only sends its events."""
    return _with_subscribers(launcher, rounds, clients=500)


def page(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """100 streams of one running job, as in a classroom, and the slowdown of its training."""
    return _with_subscribers(launcher, rounds, clients=100)


def _with_subscribers(launcher: ServiceLauncher, rounds: int, *, clients: int) -> list[Figures]:
    rows = []
    for kind in KINDS:
        with launcher.open(kind) as service:
            service.serve()
            service.work()
            job_id = service.submit(**LONG)
            _epoch_seconds(service, job_id, 5)
            bare_port = service.stream_bare(job_id)
            undisturbed, with_streams, own_streams, with_bare_streams, bare_streams = [], [], [], [], []
            for _ in range(rounds):
                undisturbed.append(_epoch_seconds(service, job_id, 3))
                for port, seconds, reports in (
                    (service.port, with_streams, own_streams),
                    (bare_port, with_bare_streams, bare_streams),
                ):
                    subscribers = client("stream", port, clients=clients, seconds=4, job=job_id)
                    assert subscribers.stdout is not None
                    assert subscribers.stdout.readline() == "open\n"
                    seconds.append(_epoch_seconds(service, job_id, 3))
                    reports.append(json.loads(subscribers.communicate()[0]))
                    time.sleep(1)
            service.http.post(f"/jobs/{job_id}/cancel")
        rows.append(
            {
                "database": kind,
                "streams": clients,
                "refused": max(item["refused"] for item in own_streams),
                "holes": sum(item["holes"] for item in own_streams),
                "events": sum(item["events"] for item in own_streams),
                "lag_p50_ms": spread([item["p50_ms"] for item in own_streams], 0),
                "lag_p99_ms": spread([item["p99_ms"] for item in own_streams], 0),
                "lag_max_ms": spread([item["p100_ms"] for item in own_streams], 0),
                "slower_percent": spread(
                    [100 * (after / before - 1) for before, after in zip(undisturbed, with_streams, strict=True)], 1
                ),
                "bare": spread(
                    [100 * (after / before - 1) for before, after in zip(undisturbed, with_bare_streams, strict=True)],
                    1,
                ),
                "ratio": spread([bare / served for bare, served in zip(with_bare_streams, with_streams, strict=True)]),
                "bare_lag_p50_ms": spread([item["p50_ms"] for item in bare_streams], 0),
                "epoch_s": spread(undisturbed, 4),
            }
        )
    return rows


def _epoch_seconds(service: ServiceUnderTest, job_id: str, seconds: float) -> float:
    """The current duration of an epoch, measured over ``seconds``."""

    def commits() -> tuple[int, int]:
        with service.database.read() as session:
            rows = lookup.epochs(session, job_id)
            return (rows[-1].epoch, rows[-1].finished_ms) if rows else (0, leases.clock(service.database))

    first_epoch, started_ms = commits()
    time.sleep(seconds)
    last_epoch, ended_ms = commits()
    while last_epoch == first_epoch:  # a busy machine
        time.sleep(0.2)
        last_epoch, ended_ms = commits()
    return (ended_ms - started_ms) / 1000 / (last_epoch - first_epoch)


def overhead(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """Overhead of a job of 20 epochs over the loop alone, in percent of the job; a ratio to the same files and rows."""
    spec = {"kind": "classifier", "epochs": 20, "dataset": {"name": _dataset(launcher)}}
    rows = []
    with both(launcher) as services:
        for service in services.values():
            service.serve()
            service.work()
            service.wait_until_ended(service.submit(**spec | {"epochs": 1}))  # the dataset is unpacked
        times: dict[str, list[float]] = {name: [] for name in ("loop", *KINDS)}
        bare: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            times["loop"].append(_bare(services["sqlite"], spec))
            for kind, service in services.items():
                bare[kind].append(_bare(service, spec, jobs=1))
                time.sleep(1)
                job = service.wait_until_ended(service.submit(**spec))
                with service.database.read() as session:
                    row = lookup.get(session, job["id"])
                    assert row.finished_ms is not None
                    times[kind].append((row.finished_ms - row.created_ms) / 1000)
    for kind in KINDS:
        pairs = zip(times["loop"], times[kind], strict=True)
        rows.append(
            {
                "database": kind,
                "dataset": spec["dataset"]["name"],
                "loop_s": spread(times["loop"]),
                "job_s": spread(times[kind]),
                "bare": spread(bare[kind]),
                "ratio": spread([bare_s / job_s for bare_s, job_s in zip(bare[kind], times[kind], strict=True)]),
                "overhead_percent": spread([100 * (job_s - loop_s) / job_s for loop_s, job_s in pairs]),
            }
        )
    return rows


def _dataset(launcher: ServiceLauncher) -> str:
    return "mnist" if launcher.has("mnist") else "mnist-10k"


def _bare(
    service: ServiceUnderTest, spec: dict[str, Any], *, jobs: int = 0, children: int = 1, warm: bool = False
) -> float:
    """Seconds of the engine's loop or, with ``jobs``, of children that also write files and rows."""
    return service.run_bare(spec, f"--jobs={jobs}", f"--children={children}", *(["--warm"] if warm else []))


def workers(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """Two equal jobs, in sequence on one worker, and in parallel on two workers; bare: by one and two forked loops."""
    spec = {"kind": "classifier", "epochs": 8}
    rows = []
    for kind in KINDS:
        times: dict[int, list[float]] = {1: [], 2: []}
        loops: dict[int, list[float]] = {1: [], 2: []}
        with launcher.open(kind) as service:
            service.serve()
            service.work()
            second = service.work()
            for number in range(rounds + 1):
                for count, figures in times.items():
                    second.send_signal(signal.SIGSTOP if count == 1 else signal.SIGCONT)  # it holds nothing now
                    service_s = _two_jobs(service, spec)
                    bare_s = _bare(service, spec, jobs=2, children=count)
                    if number:
                        figures.append(service_s)
                        loops[count].append(bare_s)
        gains, bare = ([one / two for one, two in zip(series[1], series[2], strict=True)] for series in (times, loops))
        rows.append(
            {
                "database": kind,
                "one_s": spread(times[1]),
                "two_s": spread(times[2]),
                "times_as_fast": spread(gains),
                "bare": spread(bare),
                "ratio": spread([gain / bare_s for gain, bare_s in zip(gains, bare, strict=True)]),
            }
        )
    return rows


def _two_jobs(service: ServiceUnderTest, spec: dict[str, Any]) -> float:
    """Time from the first POST to the end of the last job, with spare child processes ready."""
    time.sleep(2)
    documents = [service.wait_until_ended(job_id) for job_id in [service.submit(**spec), service.submit(**spec)]]
    with service.database.read() as session:
        jobs = [lookup.get(session, document["id"]) for document in documents]
    return (max(job.finished_ms or 0 for job in jobs) - min(job.created_ms for job in jobs)) / 1000


def predict(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """Time to classify a digit over a persistent connection, with a cached checkpoint and with one to be loaded."""
    rows = []
    for kind in KINDS:
        for preset in ("fast", "conv"):
            with launcher.open(kind) as service:
                service.serve()
                service.work()
                epochs = 8
                spec = {"kind": "classifier", "preset": preset, "epochs": epochs, "checkpoint": {"keep_last": epochs}}
                job_id = service.submit(**spec)
                service.wait_until_ended(job_id)
                digit = service.http.get("/datasets/mnist-10k/validation/0.png").read()
                sheet = _enlarged(digit, 10)
                _predict_ms(service, job_id, digit)  # the engine itself is loaded by the first
                cold = [_predict_ms(service, job_id, digit, checkpoint=epoch) for epoch in range(1, epochs)]
                plain: list[float] = []
                drawn: list[float] = []
                for _ in range(rounds * 30):
                    plain.append(_predict_ms(service, job_id, digit))
                    drawn.append(_predict_ms(service, job_id, sheet, fit=True, explain=True))
            rows.append(
                {
                    "database": kind,
                    "preset": preset,
                    "one_digit_ms": spread(plain),
                    "drawn_and_explained_ms": spread(drawn),
                    "next_checkpoint_ms": spread(cold),
                }
            )
    return rows


def _predict_ms(service: ServiceUnderTest, job_id: str, png: bytes, **options: Any) -> float:
    body = {"images": [base64.b64encode(png).decode()], **options}
    started_at = time.perf_counter()
    response = service.http.post(f"/jobs/{job_id}/predict", json=body)
    elapsed_ms = 1000 * (time.perf_counter() - started_at)
    response.raise_for_status()
    return elapsed_ms


def _enlarged(png: bytes, times: int) -> bytes:
    """An enlarged PNG, like a drawing sent by the page."""
    with Image.open(io.BytesIO(png)) as image:
        large = image.resize((image.width * times, image.height * times))
    buffer = io.BytesIO()
    large.save(buffer, "PNG")
    return buffer.getvalue()


PARTS: Final[dict[str, Callable[[ServiceLauncher, int], list[Figures]]]] = {
    function.__name__: function
    for function in (post, pickup, short, scale, growth, streams, page, predict, overhead, workers, memory, burst)
}
