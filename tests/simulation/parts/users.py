"""Users: what they ask of web processes, and what they were told."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service.errors import IllegalSweepAction, ServiceError
from service.jobs import actions, submissions
from service.jobs.request_bodies import JobPatch
from service.jobs.submissions import IdempotencyKey, Submission
from service.runtime.failpoints import failpoint
from service.spec.schema import ClassifierSpec, Spec
from service.spec.validation import resolve
from service.states import Action, Status, SweepStatus
from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.storage.tables import Job
from service.sweeps import actions as sweep_actions
from tests.simulation.kernel.runtime import CURRENT, Event, Time
from tests.simulation.parts.databases import SimulatedDatabase
from tests.simulation.parts.services import Service
from tests.simulation.parts.sweeps import SWEEPS, new_sweep
from tests.simulation.parts.trainings import STEPS_PER_EPOCH, expected_result
from tests.simulation.parts.workers import Worker
from tests.simulation.substitutes import open_store

T = TypeVar("T")

OWNERS: Final = (None, "ann", "bob")
_THINKING_S: Final = (0.1, 0.5, 1.5, 4.0)
_PATIENCE_S: Final = 8.0
_BUDGET_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A job as a user wants it.

    Attributes:
        number: of the request, which is stored in the job's spec.
    """

    number: int
    owner: str | None
    seed: int
    epochs: int
    priority: int = 0
    has_budget: bool = False

    @property
    def resolved(self) -> Spec:
        """The spec."""
        return _spec(self.seed, self.epochs, self.priority, self.has_budget)

    @property
    def result(self) -> tuple[Sequence[Mapping[str, float]], str]:
        """The metrics of all epochs, and the result digest of an undisturbed training."""
        key = (self.seed, cast(ClassifierSpec, self.resolved).optimizer.learning_rate)
        return expected_result(key, self.epochs)


@dataclass(eq=False)
class Ledger:
    """What users asked for, and what they were told."""

    asked: dict[int, Ask] = field(default_factory=dict)
    jobs: dict[str, Ask] = field(default_factory=dict)
    """Acknowledged, by the job's id."""
    to_delete: set[str] = field(default_factory=set)
    """Jobs whose deletion was requested, with or without an answer."""
    cancelled: set[str] = field(default_factory=set)
    """Jobs whose cancellation was requested."""
    drained: dict[str, float] = field(default_factory=dict)
    """Since when operators were told that a worker is drained; a claim that had begun before may end later."""
    sweep: int | None = None
    """Which of ``SWEEPS`` is submitted in this life."""
    sweeps: dict[str, int] = field(default_factory=dict)
    """Acknowledged: which of ``SWEEPS`` each is."""


class Unanswered(Exception):
    """The web process died, or answered 503: whether the request was carried out is unknown."""


class Web(Service):
    """A web process: a thread for each request."""

    def main(self) -> None:
        self.database = self.open_database()

    def serve(self, request: Callable[[SimulatedDatabase], T]) -> T:
        """The answer to a request.

        Raises:
            ServiceError: it is refused.
            Unanswered: there is none.
        """
        answers: list[T | Exception] = []
        done = Event()

        def handle() -> None:
            try:
                answers.append(request(self.database))
            except (ServiceError, SQLAlchemyError) as error:
                answers.append(error)
            done.set()

        if not self.is_up or self.process is None:
            raise Unanswered
        self.process.on_death.append(done.set)
        self.world.spawn("request", handle, process=self.process)
        done.wait(_PATIENCE_S)
        if not answers or isinstance(answers[0], SQLAlchemyError):
            raise Unanswered
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]


class User:
    """Sends one request after the other; repeats what was not answered, under the same idempotency key."""

    def __init__(self, ledger: Ledger, webs: list[Web], workers: list[Worker], habits: Sequence[str]) -> None:
        self._ledger, self._webs, self._workers, self._habits = ledger, webs, workers, habits
        self._tape = CURRENT.world.tape

    def act(self, count: int) -> None:
        """Do something several times."""
        for _ in range(count):
            Time.sleep(_THINKING_S[self._tape.draw(len(_THINKING_S))])
            habit = self._habits[self._tape.draw(len(self._habits))]
            if habit == "sweep":
                self.use_sweep()
            elif habit == "submit" or not self._ledger.jobs:
                self.submit()
            else:
                job_ids = list(self._ledger.jobs)
                self.request_action(job_ids[self._tape.draw(len(job_ids))], Action(habit))

    def submit(self) -> None:
        """Submit a job, until there is an answer."""
        tape, number = self._tape, len(self._ledger.asked) + 1
        priority = ((0, 3, 7) if number <= 2 else (0, 7, 8))[tape.draw(3)]  # urgent ones find all slots in use
        owner = OWNERS[tape.draw(len(OWNERS))]
        ask = Ask(number, owner, tape.draw(8), 1 + tape.draw(4), priority, has_budget=tape.draw(8) == 7)
        self._ledger.asked[number] = ask
        while True:
            try:
                job_id, is_repeated = self._web().serve(functools.partial(_submit, ask=ask))
            except Unanswered:
                Time.sleep(1.0)
                continue
            break
        if is_repeated:
            CURRENT.world.sometimes("submitted twice")
        self._ledger.jobs[job_id] = ask
        CURRENT.world.note(f"was told that {job_id} is submitted")
        for _ in range((1, 0, 2)[tape.draw(3)]):  # a message of the broker may be lost, or come twice
            self._workers[tape.draw(len(self._workers))].wake_up()

    def use_sweep(self) -> None:
        """Submit the sweep of this life, or pause and resume it."""
        web, ledger, tape = self._web(), self._ledger, self._tape
        if not ledger.sweeps:
            if ledger.sweep is None:
                ledger.sweep = tape.draw(len(SWEEPS))
            number = ledger.sweep
            try:
                sweep_id = web.serve(functools.partial(_submit_sweep, number=number))
            except Unanswered:
                return
            ledger.sweeps[sweep_id] = number
            CURRENT.world.note(f"was told that {sweep_id} is submitted")
            return
        (sweep_id,) = ledger.sweeps
        try:
            web.serve(lambda database: sweep_actions.pause(database, sweep_id, owner=None, by=None))
            CURRENT.world.sometimes("sweep paused")
        except (ServiceError, Unanswered):
            pass
        Time.sleep(_THINKING_S[tape.draw(len(_THINKING_S))])
        with contextlib.suppress(ServiceError, Unanswered):
            web.serve(lambda database: sweep_actions.resume(database, sweep_id, owner=None, by=None))

    def request_action(self, job_id: str, action: Action) -> None:
        """Request an action on a job; it may be illegal, or remain without an answer."""
        if action is Action.DELETE:
            self._ledger.to_delete.add(job_id)
        if action is Action.CANCEL:
            self._ledger.cancelled.add(job_id)
        try:
            self._web().serve(functools.partial(_ACTIONS[action], job_id=job_id))
        except (ServiceError, Unanswered):
            return
        CURRENT.world.note(f"was told that {action} of {job_id} is done")
        if action is Action.DELETE:
            CURRENT.world.sometimes("deleted")
            self._ledger.jobs.pop(job_id, None)

    def resume_repeatedly(self) -> None:
        """Resume every job that users have paused, and raise every budget: each job is to end."""
        while True:
            with self._webs[0].database.read() as session:
                query = select(Job.id).where(Job.status == Status.PAUSED, Job.sweep_id.is_(None)).order_by(Job.id)
                paused = session.scalars(query).all()
            for job_id in paused:
                actions.change(self._webs[0].database, job_id, JobPatch.model_validate({"budget": None}))
                actions.resume(self._webs[0].database, job_id)
            with self._webs[0].database.read() as session:
                paused = session.scalars(select(Sweep.id).where(Sweep.status == SweepStatus.PAUSED)).all()
            for sweep_id in paused:
                with contextlib.suppress(IllegalSweepAction):  # its user has resumed it since the query
                    sweep_actions.resume(self._webs[0].database, sweep_id, owner=None, by=None)
            Time.sleep(20.0)

    def _web(self) -> Web:
        return self._webs[self._tape.draw(len(self._webs))]


def _submit_sweep(database: Database, *, number: int) -> str:
    key = IdempotencyKey(key="sweep", fingerprint=str(number))
    answer, _, _ = sweep_actions.submit(
        database, new_sweep(number), idempotency=key, represent=lambda sweep: {"id": sweep.id}
    )
    failpoint("submitted")
    return str(answer["id"])


def _submit(database: Database, *, ask: Ask) -> tuple[str, bool]:
    submission = Submission(
        spec={"request": ask.number},
        resolved=ask.resolved,
        steps=STEPS_PER_EPOCH * ask.epochs,
        owner=ask.owner,
    )
    answer, is_repeated = submissions.submit(
        database,
        [submission],
        idempotency=IdempotencyKey(key=f"request {ask.number}", fingerprint=str(ask.number)),
        represent=lambda jobs: {"id": jobs[0].id},
    )
    failpoint("submitted")
    return str(answer["id"]), is_repeated


@functools.cache
def _spec(seed: int, epochs: int, priority: int, has_budget: bool) -> Spec:
    document: dict[str, Any] = {"kind": "classifier", "seed": seed, "epochs": epochs, "priority": priority}
    document |= {"reuse": "never", "checkpoint": {"keep_last": 1}}
    return resolve(document | ({"budget": {"seconds": _BUDGET_S}} if has_budget else {}))


def _remove(database: Database, *, job_id: str) -> None:
    """As the endpoint: the rows first, the files afterwards."""
    settings = CURRENT.world.process.settings
    assert settings is not None
    actions.remove(database, job_id)
    open_store(settings).remove_folder(job_id)


_ACTIONS: Final[dict[Action, Callable[..., object]]] = {
    Action.CANCEL: actions.cancel,
    Action.PAUSE: actions.pause,
    Action.RESUME: actions.resume,
    Action.RETRY: actions.retry,
    Action.DELETE: _remove,
}
