"""The counters of workers never fall, whatever becomes of their rows."""

from __future__ import annotations

from collections.abc import Sequence

from service.jobs.worker_registry import COMMIT_BOUNDS_S
from service.storage.tables import Worker
from service.web.core.worker_metrics import WorkerCounters
from workers.supervisor.totals import WorkerTotals


def row(worker_id: str, commits: Sequence[float] = (), store_errors: int = 0) -> Worker:
    totals = WorkerTotals()
    for seconds in commits:
        totals.count_commit(seconds)
    for _ in range(store_errors):
        totals.count_store_error()
    return Worker(id=worker_id, totals=totals.document())


def values(counters: WorkerCounters, name: str, **labels: str) -> list[float]:
    samples = [sample for family in counters.families() for sample in family.samples]
    return [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]


def test_commits_are_a_histogram_per_name() -> None:
    counters = WorkerCounters()
    counters.count([row("a-1-x")], max_names=9)
    counters.count([row("a-1-x", [0.01, 0.02, 99]), row("b-1-y", [0.3])], max_names=9)
    assert values(counters, "tapeline_commit_seconds_bucket", worker="a", le="0.01") == [1]
    assert values(counters, "tapeline_commit_seconds_bucket", worker="a", le="10.0") == [2]
    assert values(counters, "tapeline_commit_seconds_bucket", worker="a", le="+Inf") == [3]
    assert values(counters, "tapeline_commit_seconds_count") == [3, 1]
    assert values(counters, "tapeline_commit_seconds_sum", worker="b") == [0.3]
    assert len(values(counters, "tapeline_commit_seconds_bucket", worker="a")) == len(COMMIT_BOUNDS_S) + 1


def test_what_was_before_the_first_scrape_is_not_counted() -> None:
    counters = WorkerCounters()
    counters.count([row("a-1-x", store_errors=5)], max_names=9)
    assert values(counters, "tapeline_store_errors_total") == [0]
    counters.count([row("a-1-x", store_errors=7)], max_names=9)
    assert values(counters, "tapeline_store_errors_total") == [2]


def test_a_restart_of_one_of_two_workers_with_the_same_name_is_no_fall() -> None:
    counters = WorkerCounters()
    counters.count([], max_names=9)
    for workers, total in (
        ([row("a-1-x", store_errors=5), row("a-2-y", store_errors=1)], 6),
        ([row("a-2-y", store_errors=1)], 6),
        ([row("a-3-z", store_errors=1), row("a-2-y", store_errors=2)], 8),
        ([row("a-3-z", store_errors=1), row("a-2-y", store_errors=2), row("a-1-x", store_errors=5)], 8),
    ):
        counters.count(workers, max_names=9)
        counters = WorkerCounters.model_validate_json(counters.model_dump_json())  # as processes share them
        assert values(counters, "tapeline_store_errors_total", worker="a") == [total]


def test_later_names_share_a_label() -> None:
    counters = WorkerCounters()
    counters.count([], max_names=2)
    counters.count([row(f"{name}-1-x", store_errors=1) for name in "abcd"], max_names=2)
    assert values(counters, "tapeline_store_errors_total", worker="other") == [2]
    assert len(values(counters, "tapeline_store_errors_total")) == 3


def test_workers_of_other_versions_count_nothing() -> None:
    counters = WorkerCounters()
    counters.count([], max_names=9)
    documents = [None, {"commits": [1, 2]}, {"commits": {"0.1": 1}}, {"store_errors": "many"}]
    rows = [Worker(id=f"w-{number}-x", totals=totals) for number, totals in enumerate(documents)]
    counters.count([row("a-1-x", store_errors=1), *rows], max_names=9)
    assert values(counters, "tapeline_commit_seconds_count", worker="w") == [0]
    assert values(counters, "tapeline_store_errors_total") == [1, 0]
