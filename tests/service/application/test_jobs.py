"""The use cases without a web process and without Flask, on a real database and real files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.access.audit import Actor
from service.application.jobs import Jobs
from service.application.specs import NetworkMismatch, SpecChecks
from service.datasets.repository import DatasetRepository
from service.errors import AdmissionRefused, IdempotencyConflict, IllegalTransition, JobNotFound, SpecError
from service.jobs.queries import listing
from service.jobs.queries.listing import JobFilter
from service.jobs.submissions import IdempotencyKey
from service.runtime.settings import Auth, Settings
from service.states import Action, Status
from service.storage.database import Database
from service.storage.stores import ArtifactFolder

ANA, BEN = Actor(owner="ana"), Actor(owner="ben")
SPEC = {"kind": "classifier", "name": "first"}


class Application:
    """The use cases, with a record of wake-ups and a limit on admitted jobs."""

    def __init__(self, database: Database, home: Path) -> None:
        settings = Settings(
            home=home,
            workers=1,
            database_url="",
            broker_url=None,
            artifacts=home / "artifacts",
            data=home / "data",
            auth=Auth.LOCAL,
            lease_s=15.0,
        )
        self.wake_ups: list[str] = []
        self.admissions_left = 10
        self.jobs = Jobs(
            database=database,
            artifacts=ArtifactFolder(settings.artifacts),
            specs=SpecChecks(database=database, datasets=DatasetRepository(settings, database)),
            admit=self._admit,
            wake_up=self.wake_ups.append,
        )

    def job_ids(self, owner: str | None = None) -> list[str]:
        """The stored jobs, as far as an owner can see them."""
        with self.jobs.database.read() as session:
            return [job.id for job in listing.find(session, JobFilter(), owner=owner).jobs]

    def _admit(self, owner: str | None, count: int, expected_bytes: int) -> None:
        if self.admissions_left < count:
            raise AdmissionRefused(owner)
        self.admissions_left -= count


@pytest.fixture
def application(sqlite_url: str, tmp_path: Path) -> Iterator[Application]:
    with closing(Database(sqlite_url, application="tests")) as database:
        yield Application(database, tmp_path)


def test_a_job_is_submitted_listed_cancelled_and_deleted_by_its_owner(application: Application) -> None:
    jobs = application.jobs
    job_id = jobs.submit(SPEC, by=ANA).answer["id"]
    assert application.wake_ups == [job_id]
    assert application.job_ids("ana") == [job_id]
    assert application.job_ids("ben") == []
    with pytest.raises(JobNotFound):
        jobs.act(job_id, Action.CANCEL, by=BEN)
    assert jobs.act(job_id, Action.CANCEL, by=ANA).status == Status.CANCELLED
    with pytest.raises(IllegalTransition):
        jobs.act(job_id, Action.PAUSE, by=ANA)
    jobs.delete(job_id, by=ANA)
    assert application.job_ids("ana") == []


def test_an_idempotency_key_is_replayed_even_when_no_more_jobs_are_admitted(application: Application) -> None:
    key = IdempotencyKey(key="mine", fingerprint="1")
    application.admissions_left = 1
    first = application.jobs.submit(SPEC, by=ANA, idempotency=key)
    with pytest.raises(AdmissionRefused):
        application.jobs.submit(SPEC, by=ANA)
    again = application.jobs.submit(SPEC, by=ANA, idempotency=key)
    assert (again.answer, again.replayed, application.wake_ups) == (first.answer, True, [first.answer["id"]])
    with pytest.raises(IdempotencyConflict):
        application.jobs.submit(SPEC | {"seed": 1}, by=ANA, idempotency=IdempotencyKey(key="mine", fingerprint="2"))


def test_a_dry_run_reports_the_cost_of_a_job_and_stores_nothing(application: Application) -> None:
    forecast = application.jobs.specs.forecast(SPEC, None)
    assert forecast.cost.parameters > 1000
    assert [network.where for network in forecast.networks] == ["layers"]
    with pytest.raises(SpecError):
        application.jobs.specs.forecast({"kind": "classifier", "epochs": -1}, None)
    with pytest.raises(NetworkMismatch) as caught:
        application.jobs.specs.forecast(
            {"kind": "classifier", "layers": [{"type": "dense", "units": 7, "activation": "softmax"}]}, None
        )
    assert caught.value.spec.layers[0].type == "dense"
    assert application.job_ids() == []
    assert application.wake_ups == []
