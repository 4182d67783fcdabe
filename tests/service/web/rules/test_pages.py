"""The pages of every list contain each row once, also while rows are added."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

import pytest

from service.access import audit_seals
from service.storage.sweep_tables import Sweep
from service.sweeps import events
from service.sweeps.events import SweepEventType
from tests.service.web.rules.operations import Operation, Values, unreached
from tests.service.web.rules.populated import CLASSIFIER, MODEL, SWEEP, TEN, PopulatedService

POSITIONS = {"cursor", "after", "before"}
"""Parameters that continue a list after, or before, a row."""
DRAWN = {
    "GET /": "the page of GET /jobs",
    "GET /ui/sweeps": "the page of GET /sweeps",
    "GET /ui/jobs/{job_id}/log": "the page of GET /jobs/{job_id}/events",
    "GET /ui/owners": "the page of GET /owners",
    "GET /ui/webhooks/{webhook_id}": "the page of GET /webhooks/{webhook_id}/deliveries",
    "GET /usage": "one row, except for admins: tests/service/web/admin/test_owners.py reads its pages",
    "GET /ui/models": "the page of GET /models",
    "GET /ui/models/{model_name}": "the page of GET /models/{model_name}/versions",
    "GET /ui/usage": "the page of GET /usage",
}
"""Pages of a list that is tried itself, or elsewhere."""
NAMES = ("id", "seq", "trial", "index", "reference", "name")
"""What identifies a row of a list."""


@pytest.fixture(scope="module")
def add_rows(populated: PopulatedService) -> Callable[[], None]:
    """Add a row to every list that can grow."""
    spec = CLASSIFIER | {"layers": TEN, "epochs": 100, "priority": 9, "checkpoint": {"keep_last": 100}}
    populated.ids["growing"] = populated.submit(**spec)
    assert populated.worker.claim().job_id == populated.ids["growing"]
    epochs = count(1)

    def add() -> None:
        epoch = next(epochs)
        populated.worker.commit_epoch(epoch, keep_last=100)
        version = {"job": populated.ids["growing"], "checkpoint": epoch}
        populated.post("ann", f"/models/{MODEL}/versions", version)
        populated.move(MODEL, 1 + epoch % 2)
        populated.post("ann", f"/models/{MODEL}-{epoch}/versions", version)
        populated.submit(**CLASSIFIER | {"layers": TEN})
        populated.post("ann", "/sweeps", SWEEP)
        populated.post("ann", f"/webhooks/{populated.ids['webhook']}/test", None)
        with populated.core.database.write() as session:
            events.append(session, session.get_one(Sweep, populated.ids["sweep"]), SweepEventType.RESULT, {})
        audit_seals.seal(populated.core.database, grace_s=0)

    for _ in range(4):
        add()
    return add


def test_every_row_is_on_one_page(
    populated: PopulatedService, add_rows: Callable[[], None], subtests: pytest.Subtests
) -> None:
    reached = []
    for operation in _lists(populated):
        if str(operation) in DRAWN:
            continue
        reached.append(operation)
        with subtests.test(str(operation)):
            values, query = _longest(populated, operation)
            maximum = int(operation.parameters("query")["limit"]["schema"]["maximum"])
            (rows,) = _pages(populated, operation, values, query | {"limit": maximum})
            assert len(rows) > 3
            for limit in (len(rows) // 4 + 1, len(rows) - 1, len(rows)):
                pages = list(_pages(populated, operation, values, query | {"limit": limit}))
                assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
                assert [*chain(*pages)] == rows

            pages = []
            for page in _pages(populated, operation, values, query | {"limit": len(rows) // 4 + 1}):
                pages.append(page)
                if len(pages) < 3:
                    add_rows()
            found = [_name(row) for row in chain(*pages)]
            assert len(found) == len(set(found))
            assert [name for name in found if name in {_name(row) for row in rows}] == [_name(row) for row in rows]
    assert unreached(_lists(populated), reached, DRAWN) == set()


def test_the_former_name_of_a_cursor_leads_to_the_same_rows(
    populated: PopulatedService, add_rows: Callable[[], None], subtests: pytest.Subtests
) -> None:
    reached = 0
    for operation in _lists(populated):
        for name, parameter in operation.parameters("query").items():
            if name in POSITIONS and parameter["schema"].get("deprecated"):
                reached += 1
                with subtests.test(str(operation)):
                    values, query = _longest(populated, operation)
                    caller = populated.admitted(operation)
                    first = caller.send(operation, values, query_string=query | {"limit": 2}).json
                    pages = [
                        caller.send(
                            operation, values, query_string=query | {"limit": 2, key: first["next_cursor"]}
                        ).json
                        for key in ("cursor", name)
                    ]
                    assert pages[0] == pages[1] != first
                    assert first.get("next_before", int(first["next_cursor"])) == int(first["next_cursor"])
    assert reached == 3


def test_a_log_can_be_read_backwards(populated: PopulatedService, add_rows: Callable[[], None]) -> None:
    (operation,) = [item for item in _lists(populated) if item.path == "/jobs/{job_id}/events"]
    values, ann = {"job_id": populated.ids["growing"]}, populated.callers["ann"]
    forwards = [row["seq"] for page in _pages(populated, operation, values, {"limit": 5}) for row in page]
    backwards, query = list[int](), {"limit": "3", "before": str(forwards[-1] + 1)}
    has_more = True
    while has_more:
        page = ann.send(operation, values, query_string=query).json
        backwards[:0] = [row["seq"] for row in page["data"]]
        has_more, query["before"] = page["has_more"], str(backwards[0])
        if len(backwards) < 8:
            add_rows()
    assert backwards == forwards == list(range(1, forwards[-1] + 1))


@pytest.mark.parametrize("position", ["x", "%", "W10", "-1", "9" * 30, "\u20ac"])
def test_a_position_that_no_page_named_is_refused(
    populated: PopulatedService, subtests: pytest.Subtests, position: str
) -> None:
    for operation in _lists(populated):
        for name in operation.parameters("query").keys() & POSITIONS:
            with subtests.test(str(operation), name=name):
                values, query = _longest(populated, operation)
                caller = populated.admitted(operation)
                response = caller.send(operation, values, query_string=query | {name: position})
                assert (response.status_code, response.json["code"]) in {
                    (400, "invalid_cursor"),
                    (400, "invalid_parameter"),
                }


def _lists(populated: PopulatedService) -> list[Operation]:
    """The operations that return one page of a list."""
    names = {operation: operation.parameters("query").keys() for operation in populated.operations}
    return [
        operation for operation in populated.operations if "limit" in names[operation] and names[operation] & POSITIONS
    ]


def _longest(populated: PopulatedService, operation: Operation) -> tuple[Values, dict[str, Any]]:
    """The object with the longest list."""
    if "job_id" in operation.parameters("path"):
        return {"job_id": populated.ids.get("growing", populated.ids["running"])}, {}
    values, _ = populated.find(operation)
    return values, populated.query(operation)


def _pages(
    populated: PopulatedService, operation: Operation, values: Values, query: dict[str, Any]
) -> Iterator[list[Any]]:
    """The rows of each page, to the end of the list."""
    position = dict[str, Any]()
    while True:
        response = populated.admitted(operation).send(operation, values, query_string=query | position)
        assert response.status_code == 200, response.text
        page = response.json
        rows = page["data"] if "data" in page else page["artifacts"]
        yield rows
        if "next_cursor" in page:
            position = {"cursor": page["next_cursor"]}
            has_more = page["next_cursor"] is not None
            assert page.get("has_more", has_more) is has_more
        else:  # of a log
            position, has_more = {"after": page["next_after"]}, page["has_more"]
        if not has_more:
            return


def _name(row: dict[str, Any]) -> Any:
    return next(row[name] for name in NAMES if name in row)
