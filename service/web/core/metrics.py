"""Prometheus metrics, from counters of the web processes and from the database.

Gauges are queried at each scrape. Durations are counted from the event log, each event once: the first scrape only
records the time, and each later one counts the events since the one before. gunicorn's processes add up their counters
in files (``PROMETHEUS_MULTIPROC_DIR``), so any of them can answer a scrape.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Final

import structlog
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.access import usage
from service.jobs import leases, worker_registry
from service.jobs.events import EventType, is_lease_expiry, is_worker_lost
from service.jobs.queries import queue, statistics
from service.jobs.queries.queue import Demand
from service.jobs.queries.statistics import EventRecord, ServiceSnapshot
from service.maintenance import file_checks, scheduler_heartbeat
from service.states import TERMINAL, JobKind, MachineFaultReason, Status
from service.storage.database import Database
from service.storage.tables import Worker
from service.web.core.publisher import Publisher
from service.web.core.server_certificates import ServerCertificates
from service.web.core.worker_metrics import WorkerCounters

_LATE_MS: Final = 10_000
"""Minimum age of counted events: an event gets its time before its transaction commits, but has been
committed by this age."""
_LOOKBACK_MS: Final = 300_000
"""If scrapes are further apart than this, the events before it are not counted."""
_SIZES_MAX_AGE_S: Final = 60.0
"""How long the sums of file sizes are cached."""
_BROKER_TIMEOUT_S: Final = 1.0
_MAX_WORKERS: Final = 100
"""Names of workers with series of their own; if machines come and go under new names, later ones share ``other``."""
_MAX_OWNERS: Final = 20
"""Owners with series of their own, those that used most."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})

disable_created_metrics()  # type: ignore[no-untyped-call]  # no additional *_created series
_REGISTRY: Final = CollectorRegistry()
_REQUESTS: Final = Histogram(
    "tapeline_http_request_seconds",
    "Time to the first byte of the response, by route. For streams: until the headers are sent.",
    ["method", "route", "status"],
    registry=_REGISTRY,
)
STREAMS: Final = Gauge(
    "tapeline_stream_clients", "Open event streams.", registry=_REGISTRY, multiprocess_mode="livesum"
)
_WAITS: Final = Histogram(
    "tapeline_queue_wait_seconds",
    "Time from a job's creation to its first claim.",
    ["kind"],
    registry=_REGISTRY,
    buckets=(0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600, 21600),
)
_RUNS: Final = Histogram(
    "tapeline_job_run_seconds",
    "Time from a job's first claim to its end, by final state.",
    ["kind", "status"],
    registry=_REGISTRY,
    buckets=(1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400),
)
_EPOCHS: Final = Histogram(
    "tapeline_epoch_seconds",
    "Duration of an epoch.",
    ["kind"],
    registry=_REGISTRY,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
_CPU: Final = Counter("tapeline_job_cpu_seconds", "CPU time of finished epochs.", ["kind"], registry=_REGISTRY)
_MEMORY: Final = Histogram(
    "tapeline_job_peak_memory_bytes",
    "Peak resident memory of the training processes of jobs that ended.",
    ["kind"],
    registry=_REGISTRY,
    buckets=[2**power for power in range(26, 36)],
)
_LOST: Final = Counter(
    "tapeline_workers_lost",
    "Leases that ended because a worker or its child died.",
    ["kind", "worker"],
    registry=_REGISTRY,
)
_EXPIRED: Final = Counter(
    "tapeline_lease_expiries",
    "Leases that expired: their workers did not renew them. tapeline_workers_lost_total counts these, too.",
    ["kind", "worker"],
    registry=_REGISTRY,
)
_FAILED: Final = Counter(
    "tapeline_jobs_failed", "Jobs that failed, by their last worker.", ["kind", "worker"], registry=_REGISTRY
)
_VIOLATIONS: Final = Counter(
    "tapeline_determinism_violations",
    "Epochs that were trained again and were not bit-identical.",
    ["kind"],
    registry=_REGISTRY,
)

_WORKERS: Final[set[str]] = set()
"""The labels that were used."""

_log = structlog.get_logger("tapeline.web")


def register(app: Flask) -> None:
    """Measure the time of every response."""

    @app.after_request
    def observe(response: Response) -> Response:
        if "began" in g:
            method = request.method if request.method in _METHODS else "other"
            route = request.url_rule.rule if request.url_rule is not None else "none"
            _REQUESTS.labels(method, route, response.status_code).observe(time.perf_counter() - g.began)
        return response


class Metrics:
    """The metrics page of a web process.

    Args:
        publisher: checks the broker.
        artifacts: the folder whose disk is measured.
        certificates: checks those of database and broker.
        owner_limit_bytes: the quota of job files per owner; 0: no limit.
        late_ms: minimum age of counted events, in ms.
    """

    def __init__(
        self,
        database: Database,
        *,
        publisher: Publisher | None = None,
        artifacts: Path | None = None,
        certificates: ServerCertificates | None = None,
        owner_limit_bytes: int = 0,
        late_ms: int = _LATE_MS,
    ) -> None:
        self._database, self._publisher, self._artifacts = database, publisher, artifacts
        self._certificates = certificates or ServerCertificates([])
        self._owner_limit_bytes = owner_limit_bytes or math.inf
        self._late_ms = late_ms
        self._counted = _Counted()
        self._lock = threading.Lock()
        self._sizes: tuple[float, list[Metric]] | None = None
        self._without_data: Mapping[str, int] = {}
        self._unknown: Mapping[str, int] = {}

    def page(self, *, with_owners: bool = False) -> bytes:
        """All metrics in Prometheus's text format; without the database, only the counters of the processes.

        Args:
            with_owners: add what the largest owners use, by name.
        """
        registry = CollectorRegistry()
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(_FunctionCollector(_REGISTRY.collect))
        try:
            gauges = self._count_news() + self._gauges() + (self._owners() if with_owners else [])
        except SQLAlchemyError as error:
            _log.warning("metrics from the database are missing: it does not respond", error=str(error))
            gauges = [_database_up(0)]
        gauges += [*self._broker(), *self._certificate_ends(), *self._disk()]
        registry.register(_FunctionCollector(lambda: gauges))
        return generate_latest(registry)

    def _count_news(self) -> list[Metric]:
        """Count the new events, and what workers have counted; returns the latter."""
        _begin_series()
        with self._lock, self._shared_counts():
            until, counted = leases.clock(self._database) - self._late_ms, self._counted.until_ms
            after = max(until if counted is None else counted, until - _LOOKBACK_MS)
            # All is read before anything is counted: what an error interrupts is counted again.
            with self._database.read() as session:
                workers = worker_registry.live_workers(session)
                news = statistics.events_between(session, after, until)
            self._counted.workers.count(workers, max_names=_MAX_WORKERS)
            for event in news:
                _count(event)
            self._counted.until_ms = max(after, until)
            return self._counted.workers.families()

    def _gauges(self) -> list[Metric]:
        with self._database.read() as session:
            snapshot = statistics.now(session)
            for name, kind in product(_by_name(snapshot.workers), JobKind):
                # From 0, before the first loss: Prometheus sees no increase where a series begins.
                for counter in (_LOST, _EXPIRED, _FAILED):
                    counter.labels(kind, _worker_label(name)).inc(0)
            if self._sizes is None or time.monotonic() - self._sizes[0] > _SIZES_MAX_AGE_S:
                self._sizes = (time.monotonic(), self._measure_sizes(session))
                self._without_data, self._unknown = queue.count_without_data(session), queue.count_unknown(session)
            counts = {"without_data": self._without_data, "unknown": self._unknown}
            demand = queue.demand(session, snapshot.workers, **counts)
            damaged, scheduler = file_checks.count_damaged(session), scheduler_heartbeat.last_beat(session)
        files = _gauge("damaged_files", "Stored files that were missing or damaged when they were read last.", damaged)
        heartbeat = _gauge(
            "scheduler_heartbeat_age_seconds",
            "Time since a scheduler last handled expired leases; infinite if none has run.",
            math.inf if scheduler is None else scheduler.age_s,
        )
        return [*_families(snapshot), *_demand(demand), *self._sizes[1], files, heartbeat]

    def _owners(self) -> list[Metric]:
        with self._database.read() as session:
            largest = usage.largest(session, at_most=_MAX_OWNERS)
        names = [row.owner or "-" for row in largest]  # an empty label is none
        return [
            _gauge(f"owner_{name}", meaning, dict(zip(zip(names), values, strict=True)), labels=["owner"])
            for name, meaning, values in (
                ("running_jobs", "Running jobs of the largest owners.", [row.running for row in largest]),
                ("queued_jobs", "Queued jobs of the largest owners.", [row.queued for row in largest]),
                ("load", "Running jobs divided by the owner's weight.", [row.load for row in largest]),
                ("cpu_seconds", "CPU seconds of the last 30 days.", [row.cpu_seconds for row in largest]),
                (
                    "slot_seconds",
                    "Slot-seconds of the last 30 days.",
                    [row.slot_seconds for row in largest],
                ),
                ("bytes", "Bytes of job files and datasets, some hours old.", [row.bytes for row in largest]),
            )
        ]

    def _measure_sizes(self, session: Session) -> list[Metric]:
        return [
            _gauge(
                "artifact_bytes",
                "Bytes of stored files, up to a minute old.",
                {(kind,): size for kind, size in statistics.artifact_bytes(session)},
                labels=["kind"],
            ),
            # Without names: every key may read the metrics.
            _gauge(
                "largest_owner_artifact_bytes",
                "Bytes of the files of the owner who stores most, up to a minute old.",
                statistics.largest_owner_bytes(session),
            ),
            _gauge("owner_artifact_limit_bytes", "The quota of stored files per owner.", self._owner_limit_bytes),
        ]

    def _broker(self) -> Iterator[Metric]:
        if self._publisher is None or not self._publisher.has_broker:
            return
        try:
            self._publisher.check_broker(_BROKER_TIMEOUT_S)
            value = 1
        except Exception as error:  # noqa: BLE001 - each transport has its own exceptions
            _log.warning("the broker does not respond", error=str(error))
            value = 0
        yield _gauge("broker_up", "Whether the broker accepted a write during this scrape.", value)

    def _certificate_ends(self) -> Iterator[Metric]:
        ends = {(name,): end for name, end in self._certificates.ends().items()}
        meaning = "When the TLS certificate of a server ends, as a Unix time."
        yield _gauge("certificate_end_timestamp_seconds", meaning, ends, ["server"])

    def _disk(self) -> Iterator[Metric]:
        if self._artifacts is None:
            return
        try:
            usage = shutil.disk_usage(self._artifacts)
        except OSError as error:
            _log.warning("the disk usage of the artifact folder cannot be read", error=str(error))
            return
        yield _gauge("disk_free_bytes", "Free bytes of the artifacts' disk.", usage.free)
        yield _gauge("disk_size_bytes", "Size bytes of the artifacts' disk.", usage.total)

    @contextmanager
    def _shared_counts(self) -> Iterator[None]:
        """gunicorn's processes share what is counted through a file, which is locked for one scrape."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if folder is None:
            yield
            return
        with (Path(folder) / "counted").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            self._counted = _Counted.model_validate_json(text) if text else _Counted()
            yield
            file.truncate(0)
            file.write(self._counted.model_dump_json())


class _Counted(BaseModel):
    """What is counted so far."""

    until_ms: int | None = None
    """The time up to which events have been counted, by the database's clock in ms."""
    workers: WorkerCounters = Field(default_factory=WorkerCounters)


class _FunctionCollector(Collector):
    """A collector that calls a function."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """Call the function."""
        return self._collect()


def _begin_series() -> None:
    """Begin what is counted per kind with 0: Prometheus sees no increase where a series begins."""
    for kind in JobKind:
        for metric in (_WAITS, _EPOCHS, _CPU, _MEMORY, _VIOLATIONS):
            metric.labels(kind)
        for status in TERMINAL:
            _RUNS.labels(kind, status)


def _count(event: EventRecord) -> None:
    if event.type == EventType.METRICS:
        _EPOCHS.labels(event.kind).observe(event.data["seconds"])
        _CPU.labels(event.kind).inc(event.data.get("cpu_seconds") or 0)
    elif event.type == EventType.END and event.started_ms is not None:
        _RUNS.labels(event.kind, event.data["status"]).observe(max(0, event.at_ms - event.started_ms) / 1000)
        if event.peak_memory_bytes is not None:
            _MEMORY.labels(event.kind).observe(event.peak_memory_bytes)
    elif event.type == EventType.LOG:
        _VIOLATIONS.labels(event.kind).inc()
    elif event.type == EventType.STATUS:
        reason = str(event.data.get("reason"))
        worker = _worker_label(worker_registry.name_of(event.data.get("worker", "")))
        if reason == "claimed" and event.data.get("lease") == 1:
            _WAITS.labels(event.kind).observe(max(0, event.at_ms - event.created_ms) / 1000)
        if is_worker_lost(reason):
            _LOST.labels(event.kind, worker).inc()
        if is_lease_expiry(event.data):
            _EXPIRED.labels(event.kind, worker).inc()
        if event.data.get("status") == Status.FAILED:
            _FAILED.labels(event.kind, worker).inc()


def _by_name(workers: Iterable[Worker]) -> dict[str, list[Worker]]:
    """Names, not ids, are labels: every start of a worker has another id."""
    grouped: dict[str, list[Worker]] = {}
    for row in workers:
        grouped.setdefault(worker_registry.name_of(row.id), []).append(row)
    return grouped


def _worker_label(name: str) -> str:
    """The name of a worker, unless there are too many."""
    if name in _WORKERS or len(_WORKERS) < _MAX_WORKERS:
        _WORKERS.add(name)
        return name
    return "other"


def _gauge(name: str, meaning: str, values: float | Mapping[Any, float], labels: Sequence[str] = ()) -> Metric:
    """A gauge with one value, or with one for each combination of labels."""
    gauge = GaugeMetricFamily(f"tapeline_{name}", meaning, labels=labels)
    for combination, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        gauge.add_metric(combination, value)
    return gauge


def _database_up(value: int) -> Metric:
    return _gauge("database_up", "Whether the database responded during this scrape.", value)


def _families(snapshot: ServiceSnapshot) -> list[Metric]:
    jobs = {(status, kind): count for status, kind, count in snapshot.jobs}
    workers = {(name,): rows for name, rows in _by_name(snapshot.workers).items()}
    ages = {name: max(0, snapshot.clock_ms - min(row.seen_ms for row in rows)) / 1000 for name, rows in workers.items()}
    slots = {name: sum(row.slots for row in rows) for name, rows in workers.items()}
    busy = {name: sum(row.running for row in rows) for name, rows in workers.items()}
    blocked = dict.fromkeys([(reason.value,) for reason in MachineFaultReason], 0)
    for row in snapshot.workers:
        if row.blocked is not None:
            blocked[row.blocked["reason"],] += 1
    draining = sum(row.draining for row in snapshot.workers)
    missing = "Names of workers that fell silent within the last hour, and did not come back."
    expired = "Time since the oldest expired lease of a running job expired; 0 if none."
    return [
        _database_up(1),
        _gauge("jobs", "Jobs by state and kind.", jobs, ["status", "kind"]),
        _gauge("longest_wait_seconds", "Waiting time of the longest-waiting queued job.", snapshot.longest_wait_s),
        _gauge("expired_lease_seconds", expired, snapshot.expired_lease_s),
        _gauge("workers", "Workers with a heartbeat within the last minute.", len(snapshot.workers)),
        _gauge("workers_missing", missing, snapshot.missing_workers),
        _gauge("workers_draining", "Workers that claim no jobs: they stop or are drained.", draining),
        _gauge("workers_blocked", "Workers that claim no jobs for a fault of their machines.", blocked, ["reason"]),
        _gauge("worker_heartbeat_age_seconds", "Time since the last heartbeat of a worker.", ages, ["worker"]),
        _gauge("worker_slots", "Maximum concurrent jobs of a worker.", slots, ["worker"]),
        _gauge("worker_running", "Running jobs of a worker.", busy, ["worker"]),
    ]


def _demand(demand: Demand) -> list[Metric]:
    waiting = {(reason,): count for reason, count in demand.reasons.items()}
    return [
        _gauge("queue_waiting", "Queued jobs by the reason for which they wait.", waiting, ["reason"]),
        _gauge("slots", "Maximum concurrent jobs of the workers that claim jobs.", demand.slots),
        _gauge("slots_wanted", "Running jobs, and queued ones that may run if there is a slot.", demand.wanted),
    ]
