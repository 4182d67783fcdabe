from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import LeaseLost
from service.jobs import epoch_commits, leases, submissions
from service.jobs.queries import lookup
from service.jobs.queries.extremes import Extremes, extended
from service.jobs.submissions import Origin, Submission
from service.spec.validation import resolve
from service.storage.database import Database
from tests.service.jobs.epochs import claim, commit

Submit = Callable[..., str]


def stored(database: Database, job_id: str) -> Extremes:
    with database.read() as session:
        return lookup.get(session, job_id).extremes


def test_each_epoch_extends_the_extremes(database: Database, submit: Submit) -> None:
    job_id = submit()
    assert stored(database, job_id) == {}
    held = claim(database)
    for epoch, loss in enumerate((0.5, 0.2, 0.9, 0.2), 1):
        commit(database, held, epoch, val_loss=loss, val_accuracy=math.nan if epoch == 1 else 0.1 * epoch)
    assert stored(database, job_id) == {
        "val_loss": {"min": 0.2, "min_epoch": 2, "max": 0.9, "max_epoch": 3},
        "val_accuracy": {"min": 0.2, "min_epoch": 2, "max": 0.4, "max_epoch": 4},
    }


def test_a_repeated_epoch_changes_no_extreme(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, 1, val_loss=0.5)
    before = stored(database, job_id)
    leases.release_lease(database, held, None)
    again = claim(database)
    commit(database, again, 1, val_loss=0.1)  # a determinism violation: the stored epoch stays, and so do its extremes
    assert stored(database, job_id) == before
    with pytest.raises(LeaseLost):
        commit(database, held, 2, val_loss=0.0)
    assert stored(database, job_id) == before


def test_a_fork_starts_without_its_parents_extremes(database: Database, submit: Submit) -> None:
    parent_id = submit()
    held = claim(database)
    commit(database, held, 1, val_loss=0.1)
    epoch_commits.succeed(database, held, "sha256:x")
    with database.read() as session:
        parent = lookup.get(session, parent_id)
    document = {"kind": "classifier", "epochs": 4}
    for reproduces in (False, True):
        origin = Origin(parent=parent, reproduces=reproduces)
        new = Submission(spec=document, resolved=resolve(document), steps=40, origin=origin)
        answer, _ = submissions.submit(database, [new], idempotency=None, represent=lambda jobs: {"id": jobs[0].id})
        assert stored(database, str(answer["id"])) == {}


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.none() | st.floats(allow_nan=False, allow_infinity=False))))
def test_extremes_cover_the_values_of_all_epochs(epochs: list[dict[str, float | None]]) -> None:
    extremes: Extremes = {}
    for epoch, metrics in enumerate(epochs, 1):
        extremes = extended(extremes, metrics, epoch)
    for name in "ab":
        values = [(epoch[name], number) for number, epoch in enumerate(epochs, 1) if epoch.get(name) is not None]
        if not values:
            assert name not in extremes
            continue
        numbers = [value for value, _ in values]
        assert extremes[name] == {
            "min": min(numbers),
            "min_epoch": next(number for value, number in values if value == min(numbers)),
            "max": max(numbers),
            "max_epoch": next(number for value, number in values if value == max(numbers)),
        }
