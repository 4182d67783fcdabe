from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, func, select

from service.errors import (
    ArtifactNotFound,
    BudgetSpent,
    IdempotencyConflict,
    IllegalTransition,
    InvalidCursor,
    JobNotFound,
)
from service.jobs import actions, commits, epoch_commits, leases, submissions
from service.jobs.leases import Usage
from service.jobs.queries import listing, lookup, names
from service.jobs.queries.estimates import plan
from service.jobs.queries.listing import JobFilter
from service.jobs.queries.sorting import SORTS
from service.jobs.request_bodies import JobPatch
from service.jobs.submissions import IdempotencyKey, Submission
from service.schema.layer_shapes import Shape
from service.spec.estimation.networks import networks
from service.spec.validation import resolve
from service.states import Action, Request, Status
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database
from service.storage.tables import Base, ExpectedEpoch, Idempotency, Job
from tests.service.jobs.conftest import claim, commit, record

Submit = Callable[..., str]
OPERATIONS = {
    Action.CANCEL: actions.cancel,
    Action.PAUSE: actions.pause,
    Action.RESUME: actions.resume,
    Action.RETRY: actions.retry,
    Action.FORK: lambda *arguments, **owner: check_allowed(Action.FORK, *arguments, **owner),
    Action.REPRODUCE: lambda *arguments, **owner: check_allowed(Action.REPRODUCE, *arguments, **owner),
    Action.DELETE: actions.remove,
}
CRAFTED = [
    base64.urlsafe_b64encode(json.dumps(["-created_at", 5, text]).encode()).decode().rstrip("=")
    for text in ("\ud800", "\0", "é")
]
DIGITS = Shape(rows=28, columns=28, classes=10, train_count=8500)


def check_allowed(action: Action, database: Database, job_id: str, owner: str | None = None) -> None:
    """Fork and reproduce create a new job: check only that they are allowed."""
    with database.read() as session:
        actions.require(lookup.get(session, job_id, owner=owner), action)


def bring_to(database: Database, job_id: str, status: Status) -> None:
    """Bring the only queued job to a state by regular transitions."""
    if status is Status.QUEUED:
        return
    held = leases.claim(database, "w", 30)
    assert held is not None
    assert held.job_id == job_id
    match status:
        case Status.RUNNING:
            pass
        case Status.PAUSED:
            leases.release_lease(database, held, Request.PAUSE)
        case Status.SUCCEEDED:
            epoch_commits.succeed(database, held, "sha256:x")
        case Status.FAILED:
            commits.fail(database, held, {"code": "internal", "message": "m"})
        case Status.CANCELLED:
            leases.release_lease(database, held, Request.CANCEL)


@pytest.mark.parametrize(("status", "action"), list(itertools.product(Status, Action)))
def test_an_action_is_legal_exactly_where_it_is_offered(
    database: Database, submit: Submit, status: Status, action: Action
) -> None:
    job_id = submit()
    bring_to(database, job_id, status)
    with database.read() as session:
        offered = actions.actions_of(lookup.get(session, job_id))
    if action in offered:
        OPERATIONS[action](database, job_id)
    else:
        with pytest.raises(IllegalTransition) as caught:
            OPERATIONS[action](database, job_id)
        assert caught.value.allowed == offered


def test_cancelling_a_queued_job_takes_effect_immediately(database: Database, submit: Submit) -> None:
    assert actions.cancel(database, submit()).status == Status.CANCELLED
    assert leases.claim(database, "w", 15) is None


def test_a_resumed_job_is_queued_again(database: Database, submit: Submit) -> None:
    job_id = submit()
    bring_to(database, job_id, Status.PAUSED)
    assert actions.resume(database, job_id).status == Status.QUEUED
    held = leases.claim(database, "w", 15)
    assert held is not None
    assert held.lease == 2


def test_a_deleted_job_is_found_neither_by_id_nor_by_tag(database: Database, submit: Submit) -> None:
    job_id = submit(tags=["a"])
    actions.cancel(database, job_id)
    actions.remove(database, job_id)
    with database.read() as session:
        with pytest.raises(JobNotFound):
            lookup.get(session, job_id)
        assert listing.find(session, JobFilter(tags=["a"])).jobs == []


def test_deleting_a_job_deletes_all_rows_that_refer_to_it_and_none_of_another_job(
    database: Database, submit: Submit
) -> None:
    tables = [
        table
        for table in Base.metadata.sorted_tables
        if "job_id" in table.columns and table.name != "model_versions"  # a registered job is not deleted
    ]

    def stored_job() -> str:
        """A cancelled job with a row in each of these tables."""
        job_id = submit(tags=["a"])
        held = claim(database)
        file = StoredFile(kind=ArtifactKind.SAMPLE, epoch=1, path=job_id, name="n", size_bytes=1, sha256="s")
        commit(database, held, record(1, files=(file,)))
        leases.release_lease(database, held, Request.CANCEL)
        with database.write() as session:
            session.add(ExpectedEpoch(job_id=job_id, epoch=1, metrics={}, samples_digest=None))
            session.add(Idempotency(owner="", key=job_id, fingerprint="f", job_id=job_id, answer={}, created_ms=1))
        return job_id

    def count_rows(job_id: str) -> dict[str, int]:
        with database.read() as session:
            counts = {table.name: select(func.count()).where(table.c.job_id == job_id) for table in tables}
            return {name: session.scalars(query).one() for name, query in counts.items()}

    deleted, kept = stored_job(), stored_job()
    before = count_rows(kept)
    assert min([*count_rows(deleted).values(), *before.values()]) > 0
    actions.remove(database, deleted)
    assert count_rows(deleted) == dict.fromkeys(before, 0)
    assert count_rows(kept) == before
    with database.read() as session:
        assert [job.id for job in session.scalars(select(Job))] == [kept]


def test_another_owners_job_is_not_found(database: Database, submit: Submit) -> None:
    job_id = submit(owner="ann")
    with database.read() as session:
        assert lookup.get(session, job_id, owner="ann").owner == "ann"
        assert lookup.get(session, job_id).owner == "ann"
        assert listing.find(session, JobFilter(), owner="bob").jobs == []
        with pytest.raises(JobNotFound):
            lookup.get(session, job_id, owner="bob")
    for operation in OPERATIONS.values():
        with pytest.raises(JobNotFound):
            operation(database, job_id, owner="bob")


def test_a_repeated_idempotency_key_replays_the_first_answer(database: Database) -> None:
    document = {"kind": "classifier"}
    submission = Submission(spec=document, resolved=resolve(document), steps=1)

    def submit(key: str, fingerprint: str) -> tuple[dict[str, object], bool]:
        idempotency = IdempotencyKey(key=key, fingerprint=fingerprint)
        return submissions.submit(
            database, [submission], idempotency=idempotency, represent=lambda jobs: {"id": jobs[0].id}
        )

    first, replayed = submit("k", "f")
    assert not replayed
    assert submit("k", "f") == (first, True)
    with pytest.raises(IdempotencyConflict):
        submit("k", "other")
    assert submit("k2", "f")[0] != first
    with database.read() as session:
        assert len(listing.find(session, JobFilter()).jobs) == 2


@pytest.mark.parametrize("sort", SORTS)
def test_pages_show_each_job_once_while_new_jobs_arrive(database: Database, submit: Submit, sort: str) -> None:
    initial_ids = [submit(priority=number % 3) for number in range(10)]
    listed_ids: list[str] = []
    cursor = None
    while True:
        with database.read() as session:
            page = listing.find(session, JobFilter(), sort=sort, limit=3, cursor=cursor)
        listed_ids += [job.id for job in page.jobs]
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
        if sort == "-created_at" and len(listed_ids) < 20:
            submit()
    assert len(listed_ids) == len(set(listed_ids))
    assert set(initial_ids) <= set(listed_ids)


def test_filters_can_be_combined(database: Database, submit: Submit) -> None:
    submit(name="Alpha", tags=["x"])
    expected = submit(name="alphabet 100%", tags=["x", "y"], kind="gan")
    submit(name="beta", tags=["y"])
    with database.read() as session:
        matches = listing.find(session, JobFilter(tags=["x"], kind="gan", text="ALPHA", status=[Status.QUEUED])).jobs
        assert [job.id for job in matches] == [expected]
        assert [job.id for job in listing.find(session, JobFilter(text="100%")).jobs] == [expected]
        assert listing.find(session, JobFilter(text="1_0")).jobs == []


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!!", "bnVsbA", "WzEsMl0", "WyItY3JlYXRlZF9hdCIsICJ4IiwgInkiXQ", "é", *CRAFTED]
)
def test_an_invalid_cursor_is_refused(database: Database, cursor: str) -> None:
    with database.read() as session, pytest.raises(InvalidCursor):
        listing.find(session, JobFilter(), cursor=cursor)


@pytest.mark.parametrize("which", ["best", "latest", "7", "-1", "../x", "9" * 30, "²"])
def test_a_missing_or_invalid_checkpoint_is_not_found(database: Database, submit: Submit, which: str) -> None:
    job_id = submit()
    with database.read() as session, pytest.raises(ArtifactNotFound):
        lookup.checkpoint(session, lookup.get(session, job_id), which)


def test_a_weight_average_adds_the_size_of_its_network_to_memory_and_checkpoints(database: Database) -> None:
    layers = [{"units": 20, "activation": "linear"}, {"type": "batch_norm"}, {"units": 784, "activation": "tanh"}]
    generator = 100 * 20 + 20 + 2 * 20 + 20 * 784 + 784
    statistics = 2 * 20
    for spec, average, numbers in (
        ({"kind": "classifier"}, {"average_decay": 0.9}, 311_650),
        (
            {"kind": "gan", "generator": {"layers": layers, "average_decay": None}},
            {"generator": {"layers": layers, "average_decay": 0.9}},
            generator + statistics,
        ),
    ):
        with database.read() as session:
            without, with_average = (
                plan(session, resolved, networks(resolved, DIGITS), DIGITS)
                for resolved in (resolve(spec), resolve(spec | average))
            )
        assert with_average.checkpoint_bytes - without.checkpoint_bytes == 4 * numbers
        # Twice: in the training, and in the checkpoint that is being written.
        assert with_average.estimated_bytes - without.estimated_bytes == 2 * 4 * numbers


@pytest.mark.parametrize("owner", [None, "ann"])
def test_lookups_by_name_use_an_index(database: Database, submit: Submit, owner: str | None) -> None:
    first, last = submit(owner, name="twice"), submit(owner, name="twice")
    submit("bob" if owner else None, name="once")
    statements: list[tuple[str, Any]] = []
    event.listen(
        database.engine, "before_cursor_execute", lambda c, cur, sql, values, *_: statements.append((sql, values))
    )
    with database.read() as session:
        page = listing.find(session, JobFilter(name="twice"), owner=owner, limit=5)
        assert [job.id for job in page.jobs] == [last, first]
        assert names.of_fork(session, page.jobs[0], owner=owner) == "twice-2"
        if database.is_sqlite:
            by_name = [
                statement for statement in statements if "jobs.name =" in statement[0] or "jobs.name IN" in statement[0]
            ]
            plans = [
                str(session.connection().exec_driver_sql("EXPLAIN QUERY PLAN " + sql, v).all()) for sql, v in by_name
            ]
            assert ["ix_jobs_name" in plan for plan in plans] == [True, True]


def test_a_failed_job_without_budget_left_is_not_retried(database: Database, submit: Submit) -> None:
    job_id = submit(budget={"seconds": 60})
    held = claim(database)
    used = Usage(cpu_seconds=61, peak_memory_bytes=0)
    commits.fail(database, held, {"code": "internal", "message": "m"}, used=used)
    with pytest.raises(BudgetSpent, match="has used 61 CPU seconds, its budget is 60"):
        actions.retry(database, job_id)
    actions.change(database, job_id, JobPatch(budget={"seconds": 120}))
    assert actions.retry(database, job_id).status == Status.QUEUED
