"""Fair shares: whose job is claimed next, and the counts that decide it."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from collections import Counter, defaultdict

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import func, select, text, update

from migrations.upgrade import config
from service.access import owners, usage
from service.errors import BudgetSpent, IllegalTransition, JobNotFound, LeaseLost
from service.jobs import actions, commits, epoch_commits, leases, owner_queue
from service.jobs.leases import Claim, Usage
from service.jobs.queries import queue
from service.jobs.request_bodies import JobPatch
from service.jobs.rescue import rescue
from service.states import Request, Status
from service.storage.database import Database
from service.storage.fairness import room
from service.storage.owner_tables import OwnerQueue, OwnerUsage
from service.storage.tables import Epoch, Job
from tests.faults.invariants import owner_counts
from tests.service.jobs.conftest import Submit, claim, read_job
from tests.service.jobs.leases import renew
from tests.service.jobs.test_leases import reasons

OWNERS = (None, "ann", "bob", "özlem")


def owner_of(database: Database, held: Claim) -> str | None:
    with database.read() as session:
        owner: str | None = session.scalar(select(Job.owner).where(Job.id == held.job_id))
    return owner


def test_one_job_of_another_owner_starts_before_a_thousand(database: Database, submit: Submit) -> None:
    for _ in range(20):
        submit(owner="ann")
    claim(database)
    submit(owner="bob")
    assert owner_of(database, claim(database)) == "bob"
    assert owner_of(database, claim(database)) == "ann"


def test_a_priority_up_to_five_orders_only_the_jobs_of_its_owner(database: Database, submit: Submit) -> None:
    submit(owner="ann", priority=5)
    claim(database)
    submit(owner="ann", priority=5)
    submit(owner="bob", priority=0)
    assert owner_of(database, claim(database)) == "bob"


def test_an_urgent_job_starts_before_those_of_all_owners(database: Database, submit: Submit) -> None:
    submit(owner="ann")
    claim(database)
    submit(owner="bob")
    urgent = submit(owner="ann", priority=6)
    assert claim(database).job_id == urgent


def test_after_random_operations_the_queue_of_each_owner_equals_the_counts(database: Database, submit: Submit) -> None:
    """All paths that change a state, an owner or a priority, in random order: 1,000 operations."""
    choice = random.Random(41)
    held: list[Claim] = []
    jobs: list[str] = []

    def attempt(operation: int) -> None:
        job = choice.choice(jobs) if jobs else ""
        match operation:
            case 0 | 1 | 2:
                jobs.append(submit(owner=choice.choice(OWNERS), priority=choice.randrange(10)))
            case 3 | 4:
                if (taken := leases.claim(database, "w", choice.choice((0.001, 60)))) is not None:
                    held.append(taken)
            case 5 if held:
                epoch_commits.succeed(database, held.pop(choice.randrange(len(held))), "sha256:x")
            case 6 if held:
                commits.fail(database, held.pop(choice.randrange(len(held))), {"code": "internal", "message": "m"})
            case 7 if held:
                request = choice.choice((None, Request.PAUSE, Request.CANCEL))
                leases.release_lease(database, held.pop(choice.randrange(len(held))), request)
            case 8 if held:
                leases.record_child_loss(database, held.pop(choice.randrange(len(held))), "died")
            case 9:
                actions.cancel(database, job)
            case 10:
                choice.choice((actions.resume, actions.retry))(database, job)
            case 11:
                actions.change(database, job, JobPatch(priority=choice.randrange(10)))
            case 12:
                actions.remove(database, job)
            case 13:
                rescue(database)

    for _ in range(1000):
        with contextlib.suppress(IllegalTransition, JobNotFound, LeaseLost, IndexError):
            attempt(choice.randrange(14))
        kept, counted = owner_counts(database)
        assert kept == counted
    with database.write() as session:
        session.execute(update(Job).where(Job.owner.is_(None)).values(owner="ann"))
    kept, counted = owner_counts(database)
    assert kept == counted
    with database.read() as session:
        assert session.scalar(select(func.sum(OwnerUsage.jobs))) > 50


def advance_clock(database: Database, seconds: float) -> None:
    """Make everything that was longer ago."""
    passed = int(seconds * 1000)
    with database.write() as session:
        session.execute(update(OwnerQueue).values(accrued_ms=OwnerQueue.accrued_ms - passed))
        session.execute(update(Job).where(Job.status == Status.RUNNING).values(claimed_ms=Job.claimed_ms - passed))
        session.execute(update(Epoch).values(finished_ms=Epoch.finished_ms - passed))


def simulate(
    database: Database, submit: Submit, shares: dict[str, tuple[float, float, int]], *, slots: int, seconds: float
) -> dict[str, float]:
    """The slot-seconds of each owner, by the real claim and release and a simulated clock.

    Args:
        shares: weight, seconds of a job and number of queued jobs of each; another job is queued when one starts.
    """
    for name, (weight, _, count) in shares.items():
        for _ in range(count):
            submit(owner=name)
        with database.write() as session:
            session.execute(update(OwnerQueue).where(OwnerQueue.owner == name).values(weight=weight))
    clock, running = 0.0, list[tuple[float, int, str, Claim]]()
    used: dict[str, float] = defaultdict(float)
    number = 0
    while clock < seconds:
        while len(running) < slots:
            held = claim(database, lease_s=10_000)
            owner = owner_of(database, held) or ""
            number += 1
            heapq.heappush(running, (clock + shares[owner][1], number, owner, held))
            submit(owner=owner)
        end, _, owner, held = heapq.heappop(running)
        advance_clock(database, end - clock)
        clock = end
        used[owner] += shares[owner][1]
        owner_queue.accrue(database)
        epoch_commits.succeed(database, held, "sha256:x")
    for end, _, owner, _ in running:
        used[owner] += max(0.0, clock - (end - shares[owner][1]))
    return dict(used)


def test_ten_owners_with_unlike_jobs_have_equal_slot_seconds(database: Database, submit: Submit) -> None:
    durations = (1, 2, 3, 5, 8, 13, 20, 30, 45, 60)
    queued = (1, 40, 3, 30, 2, 20, 5, 1, 20, 10)
    shares = {f"o{index}": (1.0, float(durations[index]), queued[index]) for index in range(10)}
    used = list(simulate(database, submit, shares, slots=4, seconds=600).values())
    assert sum(used) ** 2 / (len(used) * sum(value**2 for value in used)) >= 0.98  # Jain's index


@pytest.mark.parametrize("slots", [1, 4, pytest.param(16, marks=pytest.mark.nightly)])
def test_slot_seconds_follow_the_weights(database: Database, submit: Submit, slots: int) -> None:
    shares = {"one": (1.0, 7.0, 5), "two": (2.0, 3.0, 5), "four": (4.0, 11.0, 5)}
    used = simulate(database, submit, shares, slots=slots, seconds=1500 / slots + 400)
    for name, (weight, _, _) in shares.items():
        assert used[name] / sum(used.values()) * 7 == pytest.approx(weight, rel=0.02)


def test_idleness_earns_nothing(database: Database, submit: Submit) -> None:
    """Ann has used four minutes alone; when Bob comes, both get every second slot."""
    for _ in range(20):
        submit(owner="ann")
    for _ in range(8):
        held = claim(database, lease_s=10_000)
        advance_clock(database, 30)
        epoch_commits.succeed(database, held, "sha256:x")
    for _ in range(20):
        submit(owner="bob")
    order = [owner_of(database, claim(database)) for _ in range(10)]
    assert 4 <= order.count("ann") <= 6


def test_a_cap_limits_the_running_jobs_of_an_owner(database: Database, submit: Submit) -> None:
    for owner in ("ann", "ann", "ann", "bob"):
        submit(owner=owner)
    owners.change(database, "ann", {"running_jobs": 1})
    assert sorted(str(owner_of(database, claim(database))) for _ in range(2)) == ["ann", "bob"]
    assert leases.claim(database, "w", 15) is None
    owners.change(database, "ann", {"running_jobs": None})
    owners.set_default_cap(database, 1)
    assert leases.claim(database, "w", 15) is None
    owners.set_default_cap(database, 2)
    assert leases.claim(database, "w", 15) is not None
    for _ in range(3):
        submit(owner="carl")
    assert [leases.claim(database, "w", 15) is not None for _ in range(3)] == [True, True, False], "a new owner's, too"


def demand(database: Database) -> int:
    with database.read() as session:
        return int(session.execute(text("SELECT * FROM tapeline_demand")).scalar_one())


def test_the_demand_is_what_runs_and_what_may_start_under_caps_and_quotas(database: Database, submit: Submit) -> None:
    """Whatever random owners, limits and states: as many slots start as many jobs, and one more starts none."""
    choice = random.Random(29)
    assert demand(database) == 0
    for name in [None, *(f"owner {number}" for number in range(25))]:
        jobs = [submit(owner=name, priority=choice.randrange(10)) for _ in range(choice.randrange(6))]
        for job in jobs[: choice.randrange(2)]:
            actions.cancel(database, job)
        if name is not None and jobs:
            owners.change(database, name, {"running_jobs": choice.choice((None, 1, 2, 9))})
    owners.set_default_cap(database, 3)
    for _ in range(5):
        leases.release_lease(database, claim(database), Request.PAUSE)
    held = [claim(database) for _ in range(10)]
    with database.write() as session:
        names = ["owner 3", "owner 8", owner_of(database, held[0]) or ""]
        session.execute(update(OwnerQueue).where(OwnerQueue.owner.in_(names)).values(blocked="quota"))
    for name in ("owner 1", "owner 2", "owner 5"):  # below what runs, perhaps
        owners.change(database, name, {"running_jobs": 1})
    expected = demand(database)
    while (started := leases.claim(database, "w", 60)) is not None:
        held.append(started)
        assert demand(database) == expected
    assert len(held) == expected
    assert 15 < expected < 60
    for taken in held:
        commits.fail(database, taken, {"code": "internal", "message": "m"})
    usage.apply_cpu_quotas(database, default=0)  # unblocks
    assert demand(database) > 0


def test_the_texts_of_the_rule_of_room_and_its_functions_agree(database: Database) -> None:
    """For all small counts: the column, the view, and the functions by which others count and simulate."""
    cases = itertools.product(range(4), range(4), (None, 1, 2, 3, 5), (None, "quota"))
    rows = [
        OwnerQueue(owner=f"{number:03}", queued=queued, running=running, cap=cap, blocked=blocked, weight=1.0)
        for number, (queued, running, cap, blocked) in enumerate(cases)
    ]
    with database.write() as session:
        session.add_all(rows)
    with database.read() as session:
        kept = session.scalars(select(OwnerQueue)).all()
    startable = {
        row.owner: room.startable(row.queued, cap=row.cap, running=row.running, blocked=row.blocked) for row in kept
    }
    assert {row.owner for row in kept if row.ready} == {owner for owner, count in startable.items() if count}
    assert demand(database) == sum(row.running for row in kept) + sum(startable.values())
    claims = Counter(claim.owner for claim in queue._simulate(kept, {}, [], slots=10_000) if claim.start_s == 0)
    assert claims == Counter(startable), "as many start at once as may"


def test_the_view_of_the_demand_has_the_text_of_this_version() -> None:
    migration = ScriptDirectory.from_config(config()).get_revision("0029")
    assert migration.module.QUERY == room.DEMAND


def vtimes(database: Database) -> dict[str, float]:
    with database.read() as session:
        return dict(session.execute(select(OwnerQueue.owner, OwnerQueue.vtime)).all())


def set_vtime(database: Database, owner: str, vtime: float) -> None:
    with database.write() as session:
        session.execute(update(OwnerQueue).where(OwnerQueue.owner == owner).values(vtime=vtime))


def test_neither_a_cap_nor_a_quota_earns_credit(database: Database, submit: Submit) -> None:
    """Whoever could not start jobs for a while starts where those are that could."""
    for owner in ("ann", "ann", "bob", "carl", "carl"):
        submit(owner=owner)
    owners.change(database, "ann", {"running_jobs": 1})
    taken = [claim(database) for _ in range(3)]
    (anns,) = (held for held in taken if owner_of(database, held) == "ann")
    set_vtime(database, "carl", 80_000)
    submit(owner="dora")
    assert vtimes(database)["dora"] == pytest.approx(80_000), "not where Ann is, who cannot start a job"
    epoch_commits.succeed(database, anns, "sha256:x")
    assert vtimes(database)["ann"] == pytest.approx(80_000)
    with database.write() as session:
        session.execute(update(OwnerQueue).where(OwnerQueue.owner == "bob").values(blocked="quota"))
    submit(owner="bob")
    assert vtimes(database)["bob"] < 1000
    usage.apply_cpu_quotas(database, default=0)
    assert vtimes(database)["bob"] == pytest.approx(80_000, abs=1)


def test_a_changed_priority_leaves_the_turn_of_its_owner(database: Database, submit: Submit) -> None:
    job, _ = submit(owner="ann"), submit(owner="bob")
    set_vtime(database, "bob", 1_000_000)
    actions.change(database, job, JobPatch(priority=4))
    assert vtimes(database)["ann"] == 0
    held = claim(database)
    assert held.job_id == job
    advance_clock(database, 10)
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job).values(priority=5))
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(OwnerUsage)) == 0, "its lease has not ended"


def test_a_spent_budget_pauses_a_job_until_it_is_raised(database: Database, submit: Submit) -> None:
    job = submit(owner="ann", budget={"seconds": 60})
    held = claim(database)
    assert leases.budget_left(database, held, Usage(cpu_seconds=59, peak_memory_bytes=0)) == 1
    assert renew(database, held, None, Usage(cpu_seconds=61, peak_memory_bytes=0)) is Request.BUDGET
    leases.release_lease(database, held, Request.BUDGET)
    assert (read_job(database, job).status, reasons(database, job)[-1]) == (Status.PAUSED, "budget")
    with pytest.raises(BudgetSpent):
        actions.resume(database, job)
    actions.change(database, job, JobPatch(budget={"seconds": 120}))
    actions.resume(database, job)
    held = claim(database)
    assert renew(database, held, None, Usage(cpu_seconds=130, peak_memory_bytes=0)) is Request.BUDGET
    actions.change(database, job, JobPatch(budget={"seconds": 180}))
    leases.release_lease(database, held, Request.BUDGET)
    assert read_job(database, job).status == Status.QUEUED, "the budget was raised while the job was being paused"


def test_jobs_wait_while_the_cpu_time_of_thirty_days_is_used_up(database: Database, submit: Submit) -> None:
    for owner in ("ann", "ann", "bob"):
        submit(owner=owner)
    held = claim(database)
    epoch_commits.succeed(database, held, "sha256:x", used=Usage(cpu_seconds=100, peak_memory_bytes=0))
    owners.change(database, "ann", {"cpu_seconds": 90})
    usage.apply_cpu_quotas(database, default=0)
    with database.read() as session:
        (day,) = usage.history(session, ["ann"])
        assert (day.jobs, day.cpu_seconds) == (1, 100)
        waiting = queue.read(session, owner="ann")
        assert (waiting.reason, waiting.waiting[0].position) == ("quota", None)
    assert owner_of(database, claim(database)) == "bob"
    assert leases.claim(database, "w", 15) is None
    owners.change(database, "ann", {"cpu_seconds": 0})
    usage.apply_cpu_quotas(database, default=0)
    assert owner_of(database, claim(database)) == "ann"
