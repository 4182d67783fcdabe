"""Bugs of the protocol that the simulator must find: each removes one guard, one order, one token or one rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A replacement in the source of a module of the product. The old text occurs in it once, which a test holds.

    Attributes:
        on_postgresql: whether it is hunted there: without locks, it does nothing.
    """

    why: str
    module: str
    old: str
    new: str
    on_postgresql: bool = False


BUGS: Final = {
    "guard without status": Bug(
        why="a worker writes to a job that it has given back, or that has ended",
        module="service.jobs.leases",
        old="return and_(Job.id == claim.job_id, Job.status == Status.RUNNING, is_same)",
        new="return and_(Job.id == claim.job_id, is_same)",
    ),
    "guard without lease": Bug(
        why="a worker that was taken for lost writes to the job of its successor",
        module="service.jobs.leases",
        old="is_same = and_(Job.lease == claim.lease, Job.lease_token == claim.token)",
        new="is_same = Job.id == claim.job_id",
    ),
    "guard without token": Bug(
        why="a restored database issues the number of a lease again, and two workers hold it",
        module="service.jobs.leases",
        old="is_same = and_(Job.lease == claim.lease, Job.lease_token == claim.token)",
        new="is_same = Job.lease == claim.lease",
    ),
    "commit without status": Bug(
        why="an epoch is committed to a job that is queued",
        module="service.jobs.leases",
        old='held = and_(JOBS.c.id == bindparam("job"), JOBS.c.status == Status.RUNNING)',
        new='held = JOBS.c.id == bindparam("job")',
    ),
    "commit without lease": Bug(
        why="an epoch is committed under the lease of another worker",
        module="service.jobs.leases",
        old='held = and_(held, JOBS.c.lease == bindparam("held"), JOBS.c.lease_token == bindparam("token"))',
        new='held = and_(held, JOBS.c.lease >= bindparam("held"), bindparam("token").is_not(None))',
    ),
    "commit without token": Bug(
        why="after a restore, an epoch is committed under a lease with the same number",
        module="service.jobs.leases",
        old='held = and_(held, JOBS.c.lease == bindparam("held"), JOBS.c.lease_token == bindparam("token"))',
        new='held = and_(held, JOBS.c.lease == bindparam("held"), bindparam("token").is_not(None))',
    ),
    "commit over a gap": Bug(
        why="after a restore, an epoch is committed whose predecessor is gone",
        module="service.jobs.epoch_commits",
        old="if epoch > self.epoch:",
        new="if False:",
    ),
    "renewal of any lease": Bug(
        why="a zombie renews the lease of its successor",
        module="service.jobs.renewals",
        old="return and_(leases.is_one_of(claims), JOBS.c.status == Status.RUNNING)",
        new="return and_(JOBS.c.id.in_([claim.job_id for claim in claims]), JOBS.c.status == Status.RUNNING)",
    ),
    "renewal without status": Bug(
        why="a worker renews a lease that has ended",
        module="service.jobs.renewals",
        old="return and_(leases.is_one_of(claims), JOBS.c.status == Status.RUNNING)",
        new="return leases.is_one_of(claims)",
    ),
    "release without guard": Bug(
        why="a zombie that stops queues the job that another worker trains",
        module="service.jobs.leases",
        old="job = guard(session, claim, **usage_values(used))\n        release(session, job, reason=Reason.RELEASED",
        new="job = session.get_one(Job, claim.job_id)\n        release(session, job, reason=Reason.RELEASED",
    ),
    "child loss without guard": Bug(
        why="the death of a child whose lease was taken counts against its successor",
        module="service.jobs.leases",
        old="record_worker_loss(session, guard(session, claim, **usage_values(used)), message)",
        new="record_worker_loss(session, session.get_one(Job, claim.job_id), message)",
    ),
    "release of acknowledged claims": Bug(
        why="a worker gives back the jobs that it trains",
        module="service.jobs.leases",
        old="query = query.where(or_(Job.lease_token.is_(None), ~is_one_of(acknowledged)))",
        new="query = query",
    ),
    "claim forgotten": Bug(
        why="a claim whose answer was lost runs nowhere until its lease expires, and counts as a lost worker",
        module="workers.supervisor.supervisor",
        old="            self._may_hold_unknown_claims = True\n            claim = leases.claim(",
        new="            claim = leases.claim(",
    ),
    "same lease number": Bug(
        why="a claim does not end the lease before it",
        module="service.jobs.leases",
        old="lease=JOBS.c.lease + 1,",
        new="lease=JOBS.c.lease,",
    ),
    "constant token": Bug(
        why="all leases have one token",
        module="service.jobs.leases",
        old="token = secrets.token_hex(_TOKEN_BYTES)",
        new='token = "0" * 32',
    ),
    "drained worker claims": Bug(
        why="a claim that was on its way ignores the order to claim no more",
        module="service.jobs.leases",
        old="JOBS.c.status == Status.QUEUED, ~exists().where(is_drained))",
        new="JOBS.c.status == Status.QUEUED, or_(~exists().where(is_drained), exists().where(is_drained)))",
    ),
    "heartbeat undrains": Bug(
        why="the next heartbeat of a worker overwrites the order to claim no more",
        module="service.jobs.worker_registry",
        old='changed["drain"] = func.coalesce(new.drain, Worker.drain)',
        new='changed["drain"] = new.drain',
    ),
    "request ignored at release": Bug(
        why="what a worker wants at the end of its lease overrides the cancellation that a user requests now",
        module="service.jobs.leases",
        old="match otherwise or requested if requested is Request.PREEMPT else requested or otherwise:",
        new="match otherwise:",
    ),
    "request survives": Bug(
        why="a request that was carried out is carried out again in the next lease",
        module="service.jobs.leases",
        old="    job.requested = None\n    job.lease_owner = job.lease_expires_ms = None",
        new="    job.lease_owner = job.lease_expires_ms = None",
    ),
    "preemption counts as such after a loss": Bug(
        why="a lost worker is neither counted nor charged if its job was to make room",
        module="service.jobs.leases",
        old="    _forget_preemption(session, job)\n    job.deaths += 1",
        new="    job.deaths += 1",
    ),
    "deaths not counted": Bug(
        why="a job that kills its workers does so for ever",
        module="service.jobs.leases",
        old="    job.deaths += 1\n",
        new="",
    ),
    "deaths not forgotten": Bug(
        why="a long job fails after three lost workers in a week",
        module="service.jobs.epoch_commits",
        old="    progress.deaths = 0  #",
        new="    #",
    ),
    "usage decreases": Bug(
        why="whoever measures last overwrites what was used",
        module="service.jobs.leases",
        old="return func.coalesce(case((column > new, column), else_=new), column)",
        new="return func.coalesce(new, column)",
    ),
    "no grace after an outage": Bug(
        why="after an outage of the database, the scheduler takes the jobs of all workers",
        module="service.jobs.rescue",
        old="self._from_ms = now_ms + self.lease_ms",
        new="self._from_ms = now_ms",
    ),
    "rescue without probe": Bug(
        why="once the database accepts writes again, the first one takes the jobs of workers that could not renew",
        module="service.jobs.rescue",
        old="if probed_ms is not None and _expiry_ms(job) < now and now - probed_ms >= _PROBE_TIMEOUT_MS:",
        new="if _expiry_ms(job) < now:",
    ),
    "expiry in the far future": Bug(
        why="after the clock was set back, the job of a lost worker waits for the time from before",
        module="service.jobs.rescue",
        old="is_late = or_(expires < now_ms() + PROBE_LEAD_MS, expires > now_ms() + 2 * policy.lease_ms)",
        new="is_late = expires < now_ms() + PROBE_LEAD_MS",
    ),
    "no fence": Bug(
        why="a worker that cannot renew trains on while another has the job",
        module="workers.supervisor.lease_keeper",
        old="FENCE: Final = 0.7",
        new="FENCE: Final = 70.0",
    ),
    "idempotency key ignored": Bug(
        why="a repeated request makes a second job",
        module="service.jobs.submissions",
        old="earlier = take_key(connection, idempotency, jobs[0], answer)",
        new="earlier = take_key(connection, idempotency, jobs[0], answer) and None",
    ),
    "transition without event": Bug(
        why="a queued trial is paused with its sweep, and its stream does not tell",
        module="service.jobs.actions",
        old="            job.status = Status.PAUSED\n            record_status(session, job, reason=reason)",
        new="            job.status = Status.PAUSED",
    ),
    "event numbers with gaps": Bug(
        why="a stream that continues behind a number misses an event",
        module="service.jobs.events",
        old=".values(last_seq=Job.last_seq + len(events))",
        new=".values(last_seq=Job.last_seq + len(events) + (len(events) > 1))",
    ),
    "rows before files": Bug(
        why="a failed upload counts as done, and the row names a file that is not there",
        module="service.storage.object_store",
        old="raise error from None  # the outcome is unknown: a file that is there has no row",
        new="break",
    ),
    "unknown outcome is a refusal": Bug(
        why="a commit whose answer was lost counts as refused, and the files of its rows are removed",
        module="workers.operations",
        old="refusal(error if self._attempts == 1 else OutcomeUnknown(error.job_id, error.lease))",
        new="refusal(error)",
    ),
    "files of an unknown outcome removed": Bug(
        why="the files of a commit whose outcome is unknown are removed, and its rows may name them",
        module="workers.training.epochs.snapshot",
        old="        raise  # keep the files: an earlier attempt may have committed rows that name them",
        new="        _discard(run, records)\n        raise",
    ),
    "young orphans removed": Bug(
        why="the scheduler removes a file that is about to get its row",
        module="service.storage.artifacts",
        old="if item.age_s > older_than_s:",
        new="if item.age_s >= 0:",
    ),
    "size kept": Bug(
        why="the bytes of removed checkpoints are counted for ever",
        module="service.jobs.epoch_commits",
        old="progress.size_bytes -= sum(row.size_bytes for row in removed) + ",
        new="progress.size_bytes -= ",
    ),
    "commit to the former store": Bug(
        why="a worker that was not started again commits files in the store that the service has left",
        module="service.jobs.epoch_commits",
        old="artifact_rows.check_same_store(row.store, {",
        new="set({",
    ),
    "no last pass": Bug(
        why="a migration does not copy what was stored while it copied",
        module="service.maintenance.store_migration",
        old="        copier.run_pass()\n        report.waiting",
        new="        report.waiting",
    ),
    "late record": Bug(
        why="a sender whose message was taken over records its result, and ends the lease of the other",
        module="service.features.webhooks.delivery.deliveries",
        old="where(*key, WebhookDelivery.lease == claimed.lease)",
        new="where(*key)",
    ),
    "message without lease": Bug(
        why="each scheduler sends each message",
        module="service.features.webhooks.delivery.deliveries",
        old="row.lease, row.next_ms = uuid4().hex, now + LEASE_S * 1000",
        new="row.lease, row.next_ms = uuid4().hex, now + 1",
    ),
    "message not written": Bug(
        why="the end of a job is not announced in its transaction",
        module="service.jobs.epoch_commits",
        old='hooks.job_changed(connection, job, reason="done")',
        new="pass",
    ),
    "lost worker announced again": Bug(
        why="one lost worker is told of once for each of its jobs",
        module="service.jobs.rescue",
        old="data=data, once=worker)",
        new="data=data)",
    ),
    "any pause is a rung": Bug(
        why="a sweep decides by the results of trials that a pause has stopped before their rung",
        module="service.sweeps.trials",
        old="return job is None or job.status in TERMINAL or leases.is_paused_by_sweep(job)",
        new="return job is None or job.status in TERMINAL or job.status == Status.PAUSED",
    ),
    "stragglers forgotten": Bug(
        why="a trial that pauses after its sweep was resumed is never continued",
        module="service.sweeps.actions",
        old="                queued += _requeue(session, Job.sweep_id == sweep_id)",
        new="                pass",
    ),
    "decisions left to workers": Bug(
        why="a decision that a worker could not make is never made",
        module="service.sweeps.decisions",
        old="                queued += advance_one(database, sweep_id)",
        new="                pass",
        on_postgresql=True,
    ),
    "counters drift": Bug(
        why="what decides who is served is not what the rows say",
        module="service.storage.fairness.triggers",
        old="    queued = queued + {queued},",
        new="    queued = MAX(queued, queued + {queued}),",
    ),
    "commit without lock": Bug(
        why="the lease guard of a commit reads a row that a rescue changes at the same time",
        module="service.jobs.leases",
        old="return locking(query.where(held), keeps_key=True)",
        new="return query.where(held)",
        on_postgresql=True,
    ),
    "messages claimed without lock": Bug(
        why="two schedulers take the same messages",
        module="service.features.webhooks.delivery.deliveries",
        old=(
            "        webhook = endpoints.lock(session, webhook_id)\n"
            "        if webhook is None or webhook.disabled_ms is not None:\n"
            "            return []"
        ),
        new=(
            "        webhook, locking = session.get(Webhook, webhook_id), (lambda query, **_: query)\n"
            "        if webhook is None or webhook.disabled_ms is not None:\n"
            "            return []"
        ),
        on_postgresql=True,
    ),
    "files of a repeated commit removed": Bug(
        why="a commit whose answer was lost is repeated, finds itself, and has the files of its rows removed",
        module="service.jobs.epoch_commits",
        old="return [file.path for record in records for file in record.files if file.path not in stored]",
        new="return [file.path for record in records for file in record.files]",
    ),
    "message of a dead sender": Bug(
        why="what a scheduler was sending when it died is never sent again",
        module="service.features.webhooks.delivery.deliveries",
        old="row.lease, row.next_ms = uuid4().hex, now + LEASE_S * 1000",
        new="row.lease, row.next_ms = uuid4().hex, None",
    ),
    "end not announced": Bug(
        why="a cancellation, or the failure of a job, is not announced in its transaction",
        module="service.jobs.transitions",
        old="    hooks.job_changed(session, job, reason=reason)\n    if status == Status.FAILED",
        new="    if status == Status.FAILED",
    ),
    "clock of a worker": Bug(
        why="leases run by the clock of whoever renews them, which may be wrong",
        module="service.jobs.renewals",
        old="leases.expiry(max(claim.lease_s for claim in claims))",
        new='int(1000 * __import__("workers.pace", fromlist=["time"]).time.time()) + leases.milliseconds('
        "max(claim.lease_s for claim in claims))",
    ),
    "rescue without lock": Bug(
        why="two schedulers take one job from one lost worker",
        module="service.jobs.rescue",
        old="due = locking(select(Job).where(Job.status == Status.RUNNING, is_late), skip_locked=True)",
        new="due = select(Job).where(Job.status == Status.RUNNING, is_late)",
        on_postgresql=True,
    ),
    "claimed twice": Bug(
        why="two workers claim one job",
        module="service.jobs.leases",
        old="free = locking(first, skip_locked=True).scalar_subquery()\n    return (\n        update(JOBS)\n"
        "        .where(JOBS.c.id == free, JOBS.c.status == Status.QUEUED, ",
        new="free = first.scalar_subquery()\n    return (\n        update(JOBS)\n        .where(JOBS.c.id == free, ",
        on_postgresql=True,
    ),
    "action without lock": Bug(
        why="what a user asks for meets a job that a worker ends at the same time",
        module="service.jobs.actions",
        old="job = session.scalar(locking(select(Job).where(Job.id == job_id, visible(Job.owner, owner))))",
        new="job = session.scalar(select(Job).where(Job.id == job_id, visible(Job.owner, owner)))",
        on_postgresql=True,
    ),
}
"""By name."""
