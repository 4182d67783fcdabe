"""The database tables. The database is the source of truth; broker messages and caches can be lost.

Times are integers in milliseconds since 1970 UTC, always from the database's clock: they compare and add the same way
in SQLite and PostgreSQL, and no decision depends on the clock of a client.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.states import DatasetKind, Status


class Base(DeclarativeBase):
    """Base class of all tables. Constraints have fixed names, which migrations use in both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _index(name: str, *columns: Any, where: str) -> Index:
    """A partial index."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class _Provenance(TypeDecorator[dict[str, Any]]):
    """A provenance, read with today's names: until 0.2, ``reference_classifier`` was ``judge``."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: dict[str, Any] | None, dialect: Dialect) -> dict[str, Any] | None:
        return value and {"reference_classifier" if name == "judge" else name: value[name] for name in value}


class Job(Base):
    """A training: its spec, state, progress, results and lease."""

    __tablename__ = "jobs"
    __table_args__ = (
        _index("ix_jobs_leases", "lease_expires_ms", where="status = 'running'"),
        Index("ix_jobs_created", "created_ms", "id"),
        Index("ix_jobs_owner", "owner", "created_ms", "id"),
        # A covering index for the sums of the quotas.
        _index("ix_jobs_quota", "owner", "status", "size_bytes", "expected_bytes", where="owner IS NOT NULL"),
        Index("ix_jobs_counts", "status", "kind"),  # a covering index for counts
        Index("ix_jobs_status", "status", "created_ms", "id"),
        Index("ix_jobs_priority", "priority", "id"),
        Index("ix_jobs_name", "name", "owner", "created_ms", "id"),
        _index("ix_jobs_upload", "upload_id", where="upload_id IS NOT NULL"),
        _index("ix_jobs_fold_group", "fold_group", where="fold_group IS NOT NULL"),
        _index("ix_jobs_sweep", "sweep_id", "trial", where="sweep_id IS NOT NULL"),
        _index("ix_jobs_finished", "finished_ms", "id", where="finished_ms IS NOT NULL"),
        _index("ix_jobs_prefix", "prefix_hash", where="finished_ms IS NOT NULL"),
        _index("ix_jobs_parent", "parent_id", "created_ms", where="parent_id IS NOT NULL"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(String(200))
    tags: Mapped[list[str]] = mapped_column(JSON)
    priority: Mapped[int] = mapped_column(Integer)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    resolved: Mapped[dict[str, Any]] = mapped_column(JSON)
    spec_hash: Mapped[str] = mapped_column(String(80))
    spec_version: Mapped[int] = mapped_column(Integer, default=1, server_default=text("1"))
    """The version of specs of the service that accepted it: workers leave those in the queue that are newer than their
    own. A retry, or a resume, does not change it."""
    parent_id: Mapped[str | None] = mapped_column(String(40))
    """The job that this one was forked from or reproduces, which may have been deleted."""
    start_epoch: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """The epoch of the initial checkpoint, which the job owns; 0: it starts from scratch."""
    reproduction: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """The result of the comparison with the reproduced job."""
    fold_group: Mapped[str | None] = mapped_column(String(40))
    """The id that all folds of a cross-validation share."""

    prefix_hash: Mapped[str | None] = mapped_column(String(80))
    """Of the spec without its epochs: jobs that have it in common may have epochs in common."""
    reused_from: Mapped[str | None] = mapped_column(String(40))
    """The job whose first epochs this one took over, which may have been deleted."""
    reused_epochs: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    investigation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The job retrains two others, to find where they diverge: ``a``, ``b``, and ``found``."""
    reusable: Mapped[bool] = mapped_column(Boolean, default=True, server_default=true())
    """Whether other jobs may take over its epochs: false once its bits are in doubt."""

    sweep_id: Mapped[str | None] = mapped_column(String(40))
    """The sweep that this job is a part of."""
    trial: Mapped[int | None] = mapped_column(Integer)
    """The trial of the sweep that the job belongs to."""
    hold_epoch: Mapped[int | None] = mapped_column(Integer)
    """The job pauses after this epoch, until its sweep decides."""

    status: Mapped[str] = mapped_column(String(20), default=Status.QUEUED)
    requested: Mapped[str | None] = mapped_column(String(20))
    request_id: Mapped[str | None] = mapped_column(String(128))
    """Of the last HTTP request that queued the job; the worker's log repeats it."""
    traceparent: Mapped[str | None] = mapped_column(String(55))
    """Of the same request, as in W3C Trace Context."""
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    """For display: 1, plus the number of lost workers and retries."""
    deaths: Mapped[int] = mapped_column(Integer, default=0)
    """Worker losses since the last new epoch."""
    lease: Mapped[int] = mapped_column(BigInteger, default=0)
    """The lease number: incremented by each claim, never reset. Every write of a worker checks it."""
    lease_token: Mapped[str | None] = mapped_column(String(32))
    """128 random bits of the claim, in hex: every write of a worker checks them, too, since a database that was
    restored issues numbers again. An earlier release leaves those of an earlier lease, or NULL."""
    lease_owner: Mapped[str | None] = mapped_column(String(80))
    lease_expires_ms: Mapped[int | None] = mapped_column(BigInteger)
    claimed_ms: Mapped[int | None] = mapped_column(BigInteger)
    """When the lease began; its time is charged to the owner at its end."""
    claimed_cpu_seconds: Mapped[float | None] = mapped_column(Float)
    """``cpu_seconds`` when the lease began."""

    epoch: Mapped[int] = mapped_column(Integer, default=0)
    """Finished epochs."""
    epochs: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(BigInteger, default=0)
    steps: Mapped[int] = mapped_column(BigInteger)
    steps_per_second: Mapped[float | None] = mapped_column(Float)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    best_epoch: Mapped[int | None] = mapped_column(Integer)
    health: Mapped[list[Any]] = mapped_column(JSON, default=list)
    provenance: Mapped[dict[str, Any] | None] = mapped_column(_Provenance)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    stopped_early: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """Why the job ended before its last epoch; ``steps`` is then the number of completed steps."""
    test_scores: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Loss and accuracy on the test part, the epoch of the weights that were scored, and, since they are counted, the
    number of examples; set once, at the end."""
    result_digest: Mapped[str | None] = mapped_column(String(80))
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)

    extremes: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default=text("'{}'"))
    """The lowest and highest finite value of each metric and their epochs, so that lists need not read epochs:
    ``{"val_loss": {"min": 0.11, "min_epoch": 7, "max": 0.52, "max_epoch": 1}}``. Forks and reproductions start empty.
    """
    starred: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    note: Mapped[str | None] = mapped_column(Text)
    """Free text of a user."""
    budget_seconds: Mapped[float | None] = mapped_column(Float)
    """The CPU time after which it pauses; a user may raise it."""
    cpu_seconds: Mapped[float | None] = mapped_column(Float)
    """CPU time of the job's training processes in all attempts."""
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Peak resident memory of the job's training processes."""
    upload_id: Mapped[str | None] = mapped_column(String(40))
    """The uploaded dataset (one version) of the job, which is kept as long as the job."""
    dataset_sha256: Mapped[str | None] = mapped_column(String(80))
    """Of the training data: set at submission or, for a folder of the operator, by the first worker."""
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """Sum over the job's rows in ``artifacts``, so that lists need not read them."""
    expected_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """The most that its files were expected to take at a time, estimated at submission; 0: unknown."""

    created_ms: Mapped[int] = mapped_column(BigInteger)
    queued_ms: Mapped[int] = mapped_column(BigInteger)
    started_ms: Mapped[int | None] = mapped_column(BigInteger)
    finished_ms: Mapped[int | None] = mapped_column(BigInteger)


# Not a partial index: with bound parameters, the planner cannot see the state.
Index("ix_jobs_waiting", Job.status, Job.priority.desc(), Job.queued_ms, Job.id)


# The queue of an owner, in the order of claims.
_index("ix_jobs_lane", Job.owner, Job.priority.desc(), Job.queued_ms, Job.id, where="status = 'queued'")


class JobTag(Base):
    """A copy of the jobs' tags, for filters."""

    __tablename__ = "job_tags"

    tag: Mapped[str] = mapped_column(String(50), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True)


class Epoch(Base):
    """The metrics of a finished epoch. Epochs are counted from 1."""

    __tablename__ = "epochs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Name to float; bit-identical in every run."""
    confusion: Mapped[list[list[int]] | None] = mapped_column(JSON(none_as_null=True))
    samples_digest: Mapped[str | None] = mapped_column(String(80))
    """SHA-256 of the sample arrays, not of the rendered image."""
    seconds: Mapped[float] = mapped_column(Float)
    cpu_seconds: Mapped[float | None] = mapped_column(Float)
    """CPU time of the epoch; not in ``metrics``, which must be equal in every run."""
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Resident memory of the training process at the end of the epoch."""
    lease: Mapped[int] = mapped_column(BigInteger)
    finished_ms: Mapped[int] = mapped_column(BigInteger)


class ExpectedEpoch(Base):
    """The expected metrics of an epoch of a reproduction, copied because the original may be deleted."""

    __tablename__ = "expected_epochs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True)
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    samples_digest: Mapped[str | None] = mapped_column(String(80))


class Event(Base):
    """The events of the jobs, numbered per job without gaps."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_created", "created_ms"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_ms: Mapped[int] = mapped_column(BigInteger)


class Artifact(Base):
    """A file of a job. The row is the commit point: a file without a row does not exist."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("job_id", "kind", "epoch"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(20))
    epoch: Mapped[int] = mapped_column(Integer)
    lease: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(200))
    path: Mapped[str] = mapped_column(Text)
    """Relative to the artifact root; assigned by the store, never by a client."""
    media_type: Mapped[str] = mapped_column(String(100))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_ms: Mapped[int] = mapped_column(BigInteger)


class Idempotency(Base):
    """Responses to requests with an idempotency key, returned again for a repeated request."""

    __tablename__ = "idempotency"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(80))
    job_id: Mapped[str] = mapped_column(String(40))
    answer: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_ms: Mapped[int] = mapped_column(BigInteger, index=True)


class Upload(Base):
    """An uploaded dataset, with its arrays in a folder named after its id."""

    __tablename__ = "uploads"
    __table_args__ = (UniqueConstraint("owner", "name", "sha256"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    """Empty without API keys: NULL values would not be unique."""
    name: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16), default=DatasetKind.IMAGES, server_default=DatasetKind.IMAGES.value)
    image_rows: Mapped[int] = mapped_column(Integer)
    """Of images; 0 for a table."""
    image_columns: Mapped[int] = mapped_column(Integer)
    image_channels: Mapped[int] = mapped_column(Integer, default=1, server_default=text("1"))
    columns: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    """Of a table, in the file's order: name, type and known facts about the values."""
    classes: Mapped[int] = mapped_column(Integer)
    class_names: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """In the order of the labels; NULL: numbers."""
    train_count: Mapped[int] = mapped_column(Integer)
    validation_count: Mapped[int] = mapped_column(Integer)
    test_count: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    report: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The data that the import left out, and its decisions, for the user who sent the files."""
    sha256: Mapped[str] = mapped_column(String(80))
    """Of the unpacked arrays, as for every dataset."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    shared: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether an admin has published it to all owners."""
    deleted_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Time of deletion; the data are kept until all jobs trained on them are deleted."""


class ApiKey(Base):
    """An API key of an owner. The key itself is shown once and not stored."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """The public part of the key: it selects the row, and identifies the key in lists and logs."""
    name: Mapped[str] = mapped_column(String(100))
    owner: Mapped[str] = mapped_column(String(64), index=True)
    scope: Mapped[str] = mapped_column(String(20))
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the complete key, which is long and random: a slow hash would add no protection."""
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int | None] = mapped_column(BigInteger)
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger)
    last_used_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Time of the last request, to about half a minute."""
    replaced_by: Mapped[str | None] = mapped_column(String(40))
    """The key that a rotation created in its place."""


class SigningKey(Base):
    """A public key with which this service signs or signed certificates. Rows are never deleted: a signature is
    checked as long as it exists."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 (hex) of the PEM."""
    public_key: Mapped[str] = mapped_column(Text)
    """PEM."""
    not_before_ms: Mapped[int] = mapped_column(BigInteger)
    retired_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Signatures that claim a later time are not valid."""


class BrowserSession(Base):
    """A browser session, in exchange for a key. It ends by expiry, by signing out, or with the key."""

    __tablename__ = "browser_sessions"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(String(40))
    """A row of ``api_keys``, or a key of the settings, which has no row."""
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger, index=True)


class AuditEntry(Base):
    """The audit log. Rows are never changed, and deleted by retention only; triggers enforce both."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_key", "key_id", "at_ms"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    action: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str | None] = mapped_column(String(100), index=True)
    """The id of the job, key or session, or the name of the dataset."""
    owner: Mapped[str | None] = mapped_column(String(64))
    key_id: Mapped[str | None] = mapped_column(String(40))
    address: Mapped[str | None] = mapped_column(String(60))
    request_id: Mapped[str | None] = mapped_column(String(128))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


class AuditSeal(Base):
    """A link of the chain over the audit log: a range of entries and its digest. Triggers permit only one change, that
    of ``removed_ms``."""

    __tablename__ = "audit_seals"
    __table_args__ = (_index("ix_audit_seals_kept", "id", where="removed_ms IS NULL"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """From 1, without gaps."""
    first_id: Mapped[int] = mapped_column(BigInteger)
    last_id: Mapped[int] = mapped_column(BigInteger, index=True)
    count: Mapped[int] = mapped_column(Integer)
    entries_digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the entries, which remains after retention has removed them."""
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 over the previous digest and this row; ``audit_chain`` computes both."""
    created_ms: Mapped[int] = mapped_column(BigInteger)
    removed_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Time when retention deleted the entries."""


JOBS, JOB_TAGS, EPOCHS, ARTIFACTS, EVENTS, IDEMPOTENCY, AUDIT = (
    Base.metadata.tables[name] for name in ("jobs", "job_tags", "epochs", "artifacts", "events", "idempotency", "audit")
)
"""The Core tables, for inserts where the overhead of ORM sessions is too high."""


class Worker(Base):
    """A worker process and its last heartbeat."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    slots: Mapped[int] = mapped_column(Integer)
    running: Mapped[int] = mapped_column(Integer)
    draining: Mapped[bool] = mapped_column(Boolean)
    provenance: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The provenance of its jobs; NULL until its first child is ready."""
    started_ms: Mapped[int] = mapped_column(BigInteger)
    seen_ms: Mapped[int] = mapped_column(BigInteger)
    blocked: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Why it claims no jobs, as ``reason`` and ``message``; NULL if its machine is well."""
    version: Mapped[str | None] = mapped_column(String(40))
    cpu: Mapped[str | None] = mapped_column(String(200))
    """The name of its processor, for people; ``provenance`` has what decides bits."""
    cache: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """Its cache of datasets, as ``used_bytes`` and ``limit_bytes``; NULL: it has none."""
    datasets: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """The names of those that it has, besides uploads; NULL: all."""
    drain: Mapped[str | None] = mapped_column(String(10))
    """What a ``Drain`` does with its running jobs; NULL: it claims jobs."""
    totals: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What it has counted since its start, for metrics: see ``WorkerTotals``; NULL: an older version counts nothing."""
    spec_version: Mapped[int | None] = mapped_column(Integer)
    """The newest version of specs that it knows; NULL: an older version, which claims every job."""


class SchedulerHeartbeat(Base):
    """When a scheduler last handled expired leases."""

    __tablename__ = "scheduler_heartbeat"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """Always 1."""
    host: Mapped[str] = mapped_column(String(255))
    version: Mapped[str] = mapped_column(String(40))
    seen_ms: Mapped[int] = mapped_column(BigInteger)


class Store(Base):
    """The artifact folder, by the id in its file ``store-id``."""

    __tablename__ = "stores"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """Always 1."""
    id: Mapped[str] = mapped_column(String(40))
    host: Mapped[str] = mapped_column(String(255))
    """The machine that registered it."""
    created_ms: Mapped[int] = mapped_column(BigInteger)


class Calibration(Base):
    """Unused: the speed of a machine, as workers of earlier releases measured it."""

    __tablename__ = "calibrations"

    host: Mapped[str] = mapped_column(String(255), primary_key=True)
    factors: Mapped[dict[str, float]] = mapped_column(JSON)
    measured_ms: Mapped[int] = mapped_column(BigInteger)
