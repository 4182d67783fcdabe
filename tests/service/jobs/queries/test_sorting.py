from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InvalidCursor
from service.jobs.queries import listing
from service.jobs.queries.listing import JobFilter
from service.jobs.queries.sorting import MAX_CURSOR, SORTS, SortOrder
from service.spec.validation import resolve, spec_hash
from service.states import Status
from service.storage.database import Database
from service.storage.tables import JOBS

SPEC = resolve({"kind": "classifier"})
STATUS_RANKS = {"running": 0, "queued": 1, "paused": 2, "failed": 3, "succeeded": 4, "cancelled": 5}
METRICS = ("val_accuracy", "val_loss", "frechet_distance")
COLUMNS = (*METRICS, "best:val_loss", "max:grad_norm/layers.0", "/optimizer/learning_rate", "dataset", "layers.1.units")
ALL_SORTS = (*SORTS, *(sign + name for name in COLUMNS for sign in ("", "-")))
KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "created_at": lambda row: row["created_ms"],
    "priority": lambda row: row["priority"],
    "name": lambda row: row["name"] and row["name"].lower(),
    "status": lambda row: STATUS_RANKS[row["status"]],
    "started_at": lambda row: row["started_ms"],
    "finished_at": lambda row: row["finished_ms"],
    "duration": lambda row: row["finished_ms"] and row["started_ms"] and row["finished_ms"] - row["started_ms"],
    "epoch": lambda row: row["epoch"],
    **{name: lambda row, name=name: row["metrics"].get(name) for name in METRICS},
    "best:val_loss": lambda row: row["extremes"].get("val_loss", {}).get("min"),
    "max:grad_norm/layers.0": lambda row: row["extremes"].get("grad_norm/layers.0", {}).get("max"),
    "/optimizer/learning_rate": lambda row: row["resolved"]["optimizer"]["learning_rate"],
    "dataset": lambda row: row["resolved"]["dataset"]["name"],
    "layers.1.units": lambda row: row["resolved"]["layers"][1].get("units"),
}

maybe = st.one_of(st.none(), st.integers(1, 3))
number = st.one_of(st.none(), st.sampled_from([0.1, 0.1 + 2**-54, 1 / 3, 1e-300, 3.0, -2.5e17]), st.floats(-1, 1))
extreme = st.fixed_dictionaries({}, optional={"min": number, "max": number})
resolved = st.builds(
    lambda rate, dataset, units: (
        SPEC.model_dump(mode="json")
        | {"optimizer": {"learning_rate": rate}, "dataset": {"name": dataset}, "layers": [{}, units]}
    ),
    st.sampled_from([0.1, 1, 1e-300, None]),
    st.sampled_from(["a", "b", "cc"]),
    st.fixed_dictionaries({}, optional={"units": st.integers(1, 3)}),
)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "created_ms": st.integers(1, 3),
            "priority": st.integers(0, 2),
            "name": st.one_of(st.none(), st.sampled_from(["a", "B", "b", "C", "cc"])),
            "status": st.sampled_from([status.value for status in Status]),
            "started_ms": maybe,
            "finished_ms": maybe.map(lambda value: value and value + 3),
            "epoch": st.integers(0, 3),
            "metrics": st.dictionaries(st.sampled_from(METRICS), number),
            "extremes": st.dictionaries(st.sampled_from(["val_loss", "grad_norm/layers.0"]), extreme),
            "resolved": resolved,
        }
    ),
    min_size=1,
    max_size=9,
)


def store(database: Database, job_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    fixed = {
        "kind": "classifier",
        "tags": [],
        "spec": {},
        "resolved": SPEC.model_dump(mode="json"),
        "spec_hash": spec_hash(SPEC),
        **dict.fromkeys(("start_epoch", "deaths", "lease", "step", "last_seq", "queued_ms"), 0),
        **dict.fromkeys(("attempt", "epochs", "steps"), 1),
        "health": [],
    }
    stored_rows = [fixed | row | {"id": f"job_{index:026d}"} for index, row in enumerate(job_rows)]
    with database.write() as session:
        session.execute(JOBS.delete())
        session.execute(JOBS.insert(), stored_rows)
    return stored_rows


def listed(database: Database, sort: str, limit: int) -> list[str]:
    """The ids of all jobs, read page by page."""
    ids: list[str] = []
    cursor = None
    while True:
        with database.read() as session:
            page = listing.find(session, JobFilter(), sort=sort, limit=limit, cursor=cursor)
        assert len(page.jobs) <= limit
        ids += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None or len(ids) > 100:
            return ids
        assert len(cursor) <= MAX_CURSOR


@pytest.mark.parametrize("sort", ALL_SORTS)
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(job_rows=rows, limit=st.integers(1, 4))
def test_pages_contain_each_job_once_in_order(
    database: Database, sort: str, job_rows: list[dict[str, Any]], limit: int
) -> None:
    stored_rows = store(database, job_rows)
    key, is_descending = KEYS[sort.removeprefix("-")], sort.startswith("-")
    with_value = sorted((key(row), row["id"]) for row in stored_rows if key(row) is not None)
    without_value = sorted(row["id"] for row in stored_rows if key(row) is None)
    step = -1 if is_descending else 1
    assert listed(database, sort, limit) == [job_id for _, job_id in with_value[::step]] + without_value[::step]


@pytest.mark.parametrize("name", ["\U0001f600" * 200, "İ" * 200, "'; --", "\\", '"', "%_", "\x7f", "ß"])
@pytest.mark.parametrize("sort", ["name", "-name"])
def test_any_name_can_be_the_last_of_a_page(database: Database, sort: str, name: str) -> None:
    row = {"created_ms": 1, "priority": 0, "status": "queued", "epoch": 0, "metrics": {}}
    store(database, [row | {"name": job_name} for job_name in (name, name, None, "a", "z")])
    assert sorted(listed(database, sort, 1)) == [f"job_{index:026d}" for index in range(5)]


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("name", 5),
        ("name", "\0"),
        ("name", "\ud800"),
        ("name", "x" * 401),
        ("created_at", None),
        ("created_at", "5"),
        ("created_at", 1.5),
        ("created_at", True),
        ("created_at", 2**63),
        ("started_at", [1]),
        ("val_loss", "0.1"),
        ("val_loss", float("inf")),
        ("val_loss", float("nan")),
        ("val_loss", 10**400),
        ("-val_loss", False),
    ],
)
def test_a_cursor_with_an_invalid_position_is_refused(sort: str, value: Any) -> None:
    text = json.dumps([sort, value, "job_1"])
    cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    with pytest.raises(InvalidCursor):
        SortOrder(sort).after(cursor)
