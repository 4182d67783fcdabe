"""Workers, queue, limits, presets, health, keys, sessions, usage and the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field

from service.access import keys
from service.access.audit import AnyAction
from service.access.keys import Identity, Scope
from service.datasets import importer
from service.jobs import worker_registry
from service.jobs.queries.queue import Queue, Waiting
from service.jobs.worker_registry import Impediment
from service.schema.preset_info import PresetInfo, ReachedItem
from service.spec import schema, strict_json, validation
from service.spec.presets.definitions import DEFAULT_PRESET, PRESETS
from service.spec.schema import Kind
from service.states import Drain, JobKind, MachineFaultReason, Status
from service.storage.tables import ApiKey, Job, Worker
from service.web.admin.owner_schemas import OwnerLimits
from service.web.http import requests
from service.web.http.queries import NumberCursor, OtherOwner, Query, Seq, Text, former_name
from service.web.http.schemas import ResponseModel, Timestamp
from service.web.jobs.schemas import Progress


class RunningJob(ResponseModel):
    """A job on a worker."""

    id: str
    name: str | None
    kind: str
    owner: str | None
    progress: Progress
    page: str


class MachineFaultItem(ResponseModel):
    """A fault of a worker's machine."""

    reason: MachineFaultReason = Field(description="What it cannot do: store files, store a dataset, or free memory.")
    message: str | None = Field(description="Details, for the scope `admin`.")
    seconds: int | None = Field(None, description="For how long; null: the worker does not tell.")


class WorkerCache(ResponseModel):
    """A worker's cache of datasets."""

    used_bytes: int
    limit_bytes: int


class WorkerItem(ResponseModel):
    """A worker process that was seen within the last minute."""

    id: str
    name: str = Field(description="`TAPELINE_WORKER_NAME`, or the host name; it survives restarts, as the id does not.")
    host: str
    pid: int
    slots: int = Field(description="Maximum number of concurrent jobs.")
    running: int = Field(description="Running jobs of all owners.")
    draining: bool = Field(
        description="Whether it is shutting down or drained: it finishes or returns its jobs, and claims no new ones."
    )
    drain: Drain | None = Field(
        description="What it was told to do with its jobs; null: it claims jobs, or its process is stopping."
    )
    blocked: MachineFaultItem | None = Field(
        description="Why it claims no new jobs: its machine has a fault, and is checked until it is well."
    )
    version: str | None = Field(description="Of Tapeline; null: it does not tell.")
    cpu: str | None = Field(description="Name of its processor.")
    numpy: str | None = Field(description="Version of NumPy; null until its first training process is ready.")
    blas: list[str] = Field(
        description="BLAS libraries with their versions, and the kind of CPU that they calculate for."
    )
    differs: list[Literal["version", "cpu", "numpy"]] = Field(
        description="In what it differs from most other workers: version or code of Tapeline, CPU kind (as far as it "
        "decides bits), NumPy or BLAS build."
    )
    differs_text: str | None = Field(description="What that means, with the remedy.")
    cache: WorkerCache | None = Field(description="Its cache of datasets; null: it has none.")
    started_at: Timestamp = Field(validation_alias="started_ms")
    seen_at: Timestamp = Field(validation_alias="seen_ms")
    jobs: list[RunningJob] = Field(description="Running jobs that are visible to the caller.")


class WorkerList(ResponseModel):
    """The workers that are alive."""

    data: list[WorkerItem]


class Ahead(ResponseModel):
    """The jobs that are expected to start before a queued one."""

    own: int = Field(description="Of the same owner.")
    others: int | None = Field(description="Of other owners; null beyond the first 1,000.")


class QueuedJob(ResponseModel):
    """A job that waits for a worker."""

    id: str
    name: str | None
    kind: str
    owner: str | None
    priority: int
    position: int | None = Field(
        description="Estimated place among the queued jobs of all owners, from 1; null beyond the first 1,000."
    )
    ahead: Ahead
    queued_at: Timestamp = Field(validation_alias="queued_ms")
    waited_seconds: float
    estimated_start_at: Timestamp | None = Field(description="Null if it cannot be estimated.")
    page: str


class QueueList(ResponseModel):
    """The queue in the expected order of claims."""

    data: list[QueuedJob]
    total: int = Field(description="Queued jobs of all owners.")
    own: int = Field(description="Queued jobs visible to the caller; at most `limit` are listed.")
    reason: str | None = Field(
        description="Why no job starts: `no_worker`, `storage`, `dataset` or `memory`; or why the first of `data` has "
        "not started: `share` (others' turn), `cap` (the most running jobs of the owner), `quota` or `starting`."
    )
    reason_text: str | None = Field(description="The reason as a sentence, with the remedy.")
    owners: dict[str, int] | None = Field(
        description="Queued jobs per owner, for the scope `admin`; an empty name stands for jobs without an owner."
    )


def worker_item(row: Worker, jobs: Sequence[Job], differs: Sequence[str], *, with_messages: bool) -> WorkerItem:
    """A worker for a list, with its jobs that are visible to the caller; messages name folders of the machine."""
    fault = row.blocked
    if fault is not None and not with_messages:
        fault = fault | {"message": None}
    name = worker_registry.name_of(row.id)
    running = [RunningJob.from_row(job, progress=Progress.of(job), page=f"/ui/jobs/{job.id}") for job in jobs]
    build = row.provenance or {}
    return WorkerItem.from_row(
        row,
        name=name,
        jobs=running,
        blocked=fault,
        numpy=build.get("numpy"),
        blas=build.get("blas", []),
        differs=differs,
        differs_text=worker_registry.difference_text(differs) or None,
    )


def queue_list(queue: Queue, impediment: Impediment | None, owners: Mapping[str, int] | None) -> QueueList:
    """The queue; ``owners`` is for the scope ``admin``."""
    return QueueList(
        reason=impediment.reason if impediment is not None else queue.reason,
        reason_text=impediment.text if impediment is not None else queue.reason_text,
        data=[_queued(item) for item in queue.waiting],
        total=queue.total,
        own=queue.own,
        owners=dict(owners) if owners is not None else None,
    )


def _queued(item: Waiting) -> QueuedJob:
    return QueuedJob.from_row(
        item.job,
        position=item.position,
        ahead=Ahead(own=item.ahead_own, others=item.ahead_others),
        waited_seconds=round(item.waited_s, 1),
        estimated_start_at=item.start_ms,
        page=f"/ui/jobs/{item.job.id}",
    )


class Limits(ResponseModel):
    """Limits of specs and uploads, and the quotas of the caller's owner."""

    owner: OwnerLimits | None = Field(description="Null if keys are not required: there are no owners then.")
    max_body_bytes: int
    max_upload_bytes: int = Field(description="Body of `POST /datasets`.")
    max_unpacked_bytes: int = Field(description="All files of an upload together, unpacked.")
    max_image_side: int = Field(description="Rows or columns of an uploaded image.")
    max_images: int = Field(description="Images in one file of an upload.")
    max_label: int
    max_json_depth: int
    max_layers: int
    max_units: int
    max_filters: int
    max_kernel: int
    max_outputs: int = Field(description="Outputs of one layer per image.")
    max_parameters: int
    max_memory_bytes: int = Field(description="Estimated peak memory of a job (see `dry_run`).")
    max_operations: float = Field(description="Floating-point operations of a complete job.")
    max_shown_pixels: int = Field(description="`samples.count` times the pixels of an image of the dataset.")
    max_epochs: int
    max_batch_size: int
    max_samples: int
    max_tags: int
    priorities: list[int]
    kinds: list[str]
    presets: dict[str, list[str]]
    default_presets: dict[str, str]
    layers: list[str]
    activations: list[str]
    losses: list[str]
    optimizers: list[str]
    schedules: list[str]
    initializers: list[str]
    datasets: list[str]

    @classmethod
    def of(cls, owner: OwnerLimits | None, datasets: Sequence[str]) -> Self:
        """The limits, each from the constant or field that enforces it."""
        return cls(
            owner=owner,
            max_body_bytes=requests.MAX_BODY_BYTES,
            max_upload_bytes=requests.MAX_UPLOAD_BYTES,
            max_unpacked_bytes=importer.MAX_UNPACKED_BYTES,
            max_image_side=importer.MAX_SIDE,
            max_images=importer.MAX_PICTURES,
            max_label=importer.MAX_LABEL,
            max_json_depth=strict_json.MAX_DEPTH,
            max_layers=schema.MAX_LAYERS,
            max_units=schema.MAX_UNITS,
            max_filters=schema.MAX_FILTERS,
            max_kernel=schema.MAX_KERNEL,
            max_outputs=schema.MAX_OUTPUTS,
            max_parameters=schema.MAX_PARAMETERS,
            max_memory_bytes=schema.MAX_MEMORY_BYTES,
            max_operations=schema.MAX_OPERATIONS,
            max_shown_pixels=schema.MAX_SHOWN_PIXELS,
            max_epochs=schema.MAX_EPOCHS,
            max_batch_size=schema.MAX_BATCH,
            max_samples=_bound(schema.Sampling, "count", "le"),
            max_tags=_bound(schema.BaseSpec, "tags", "max_length"),
            priorities=[_bound(schema.BaseSpec, "priority", "ge"), _bound(schema.BaseSpec, "priority", "le")],
            kinds=list(JobKind),
            presets={kind: list(presets) for kind, presets in PRESETS.items()},
            default_presets=dict(DEFAULT_PRESET.items()),
            layers=_names(schema.Layer, "type"),
            activations=list(schema.Activation),
            losses=list(schema.LossName),
            optimizers=_names(schema.Optimizer),
            schedules=_names(schema.Schedule),
            initializers=_names(schema.Initializer),
            datasets=list(datasets),
        )


class PresetItem(ResponseModel):
    """A named starting point for specs."""

    kind: Kind
    name: str
    is_default: bool = Field(
        description="Whether specs of this kind use it by default, unless the dataset has another `default_preset`."
    )
    summary: str
    reaches: list[ReachedItem] = Field(description="Measured results by dataset; the preset's own dataset is first.")
    spec: dict[str, Any] = Field(description="Full spec (defaults included).")

    @classmethod
    def of(cls, kind: Kind, name: str, info: PresetInfo) -> Self:
        """A preset with its resolved spec."""
        spec = validation.resolve({"kind": kind, "preset": name}).model_dump(mode="json")
        return cls.from_row(info, kind=kind, name=name, is_default=name == DEFAULT_PRESET[kind], spec=spec)


class PresetList(ResponseModel):
    """All presets."""

    data: list[PresetItem]


class Check(ResponseModel):
    """The state of one dependency."""

    status: str = Field(description="ok, degraded or down.")
    detail: str | None = None


class Readiness(ResponseModel):
    """Readiness of the service."""

    status: str = Field(description="ready, degraded (jobs are accepted, but may wait) or down.")
    checks: dict[str, Check]


class Liveness(ResponseModel):
    """Liveness of the process."""

    status: str


def _bound(model: type[schema.StrictModel], field: str, name: str) -> int:
    """A field's limit, from the model that enforces it."""
    bounds = [getattr(item, name) for item in model.model_fields[field].metadata if hasattr(item, name)]
    return int(bounds[0])


def _names(union: Any, field: str = "name") -> list[str]:
    """The names of a union's variants: the values of the discriminator ``field``."""
    members = [getattr(member, "__origin__", member) for member in get_args(get_args(union)[0])]  # without tags
    return [get_args(member.model_fields[field].annotation)[0] for member in members]


class SealsQuery(Query):
    """Which seals of the audit log to return."""

    limit: int = Field(100, ge=1, le=1000)
    cursor: NumberCursor = None
    before: Annotated[Seq | None, former_name("Former name of `cursor`.")] = None

    @property
    def last_id(self) -> int | None:
        """The last row of the previous page."""
        return int(self.cursor) if self.cursor else self.before


class AuditQuery(SealsQuery):
    """Which part of the audit log to return."""

    owner: Text | None = Field(None, description="Only actions with this owner's keys.")
    action: AnyAction | None = None
    subject: Text | None = Field(None, description="Only actions on this job, key or dataset.")


class QueueQuery(Query):
    """Whose queued jobs to return, and how many."""

    owner: OtherOwner = None
    limit: int = Field(100, ge=1, le=1000)


class KeyItem(ResponseModel):
    """An API key, without its secret."""

    id: str
    name: str
    owner: str
    scope: Scope
    created_at: Timestamp = Field(validation_alias="created_ms")
    expires_at: Timestamp | None = Field(validation_alias="expires_ms", description="Null: never.")
    revoked_at: Timestamp | None = Field(validation_alias="revoked_ms")
    state: str = Field(description="`valid`, `expired` or `revoked`.")
    last_recorded_at: Timestamp | None = Field(
        description="The key's last action in the audit: a submission, a change, a sign-in. Reads are not recorded."
    )
    last_used_at: Timestamp | None = Field(
        description="The key's last request of any kind, accurate to about half a minute; null: never used."
    )
    replaced_by: str | None = Field(description="Id of the key that a rotation created in its place.")


class NewKey(KeyItem):
    """A new API key, with its secret."""

    key: str = Field(description="The key itself. It is shown once and cannot be read again.")


class RotatedKey(NewKey):
    """The new API key after a rotation, with its secret."""

    replaces: KeyItem = Field(description="The old key, with its new expiry.")


class KeyList(ResponseModel):
    """All API keys, the oldest first, revoked ones included."""

    data: list[KeyItem]
    of_settings: int = Field(description="Further keys in `TAPELINE_API_KEYS`; only the operator can change these.")
    required: bool = Field(description="Whether this service requires keys.")


class SessionItem(ResponseModel):
    """The caller's identity and permissions."""

    owner: str | None = Field(
        description="Owner of the visible jobs; null if keys are not required: all jobs are visible."
    )
    scope: Scope = Field(description="Permissions of the key: each scope includes those before it.")
    key: str | None = Field(validation_alias="key_name", description="The key's name.")
    expires_at: Timestamp | None = Field(validation_alias="expires_ms", description="Null: no expiry.")


class UsageDay(ResponseModel):
    """What an owner used on one day, also for jobs that have been deleted since."""

    date: str = Field(description="In UTC.")
    jobs: int = Field(description="Jobs that ended.")
    cpu_seconds: float
    slot_seconds: float = Field(description="Time for which slots were held; leases count on the day of their end.")
    bytes: int | None = Field(description="Stored by job files and datasets, at the last look of the day.")


class UsageItem(ResponseModel):
    """What one owner uses. Deleted jobs and files are not included."""

    owner: str | None = Field(description="Null: jobs and files that were created without keys.")
    jobs: dict[Status, int] = Field(description="Jobs by status; a status without jobs is left out.")
    stopped_by_sweep: int = Field(description="Cancelled jobs that their sweeps stopped.")
    cpu_seconds: float = Field(description="CPU time of all jobs, as far as measured.")
    artifact_bytes: int = Field(description="Files of jobs: checkpoints, samples and exports.")
    expected_bytes: int = Field(description="Further bytes that the files of unfinished jobs may take.")
    dataset_bytes: int = Field(description="Uploaded datasets.")
    keys: int = Field(description="Keys that are not revoked.")
    requests_left: int | None = Field(description="Requests left in this minute; null: no limit.")
    upload_bytes_left: int | None = Field(description="Bytes that may still be uploaded today; null: no limit.")
    artifact_bytes_left: int | None = Field(
        description="Bytes that the files of new jobs may be expected to take; null: no limit."
    )
    days: list[UsageDay] = Field(description="The last 30 days on which something was used, the oldest first.")


class UsageList(ResponseModel):
    """Usage per owner, largest first: of all owners for the scope `admin`, otherwise of the caller."""

    data: list[UsageItem]
    has_more: bool
    next_cursor: str | None


class AuditItem(ResponseModel):
    """An entry of the audit log."""

    id: int
    at: Timestamp = Field(validation_alias="at_ms")
    action: AnyAction
    subject: str | None = Field(description="The id of the job, key or session, or the name of the dataset.")
    owner: str | None
    key: str | None = Field(validation_alias="key_id", description="Id of the key that was used.")
    address: str | None
    request_id: str | None
    detail: dict[str, Any]


class AuditList(ResponseModel):
    """The audit log, newest first."""

    data: list[AuditItem]
    next_cursor: str | None
    next_before: Annotated[int | None, former_name("Former name of `next_cursor`.")]


class SealItem(ResponseModel):
    """A seal of the audit log: one link of its hash chain."""

    id: int
    first_id: int = Field(description="Id of the first entry.")
    last_id: int
    count: int = Field(description="Number of entries.")
    entries_digest: str = Field(description="SHA-256 of the entries.")
    digest: str = Field(description="SHA-256 over the previous seal's digest and this seal.")
    created_at: Timestamp = Field(validation_alias="created_ms")
    removed_at: Timestamp | None = Field(
        validation_alias="removed_ms", description="When retention removed the entries; null: they are kept."
    )


class SealList(ResponseModel):
    """The seals of the audit log, newest first: the first digest is the head of the chain."""

    data: list[SealItem]
    next_cursor: str | None
    next_before: Annotated[int | None, former_name("Former name of `next_cursor`.")]


def key_item(row: ApiKey, *, now: int, last_ms: int | None = None) -> KeyItem:
    """A key for a list.

    Args:
        now: the database's clock, in milliseconds.
        last_ms: when its last action was recorded.
    """
    return KeyItem.from_row(
        row,
        state=keys.state_of(row, now=now),
        last_recorded_at=last_ms,
        last_used_at=keys.last_used(row, last_ms),
    )


def session_item(caller: Identity | None) -> SessionItem:
    """The identity behind a request; ``None`` where no keys are required."""
    if caller is None:
        return SessionItem(owner=None, scope=Scope.ADMIN, key=None, expires_at=None)
    return SessionItem.from_row(caller)
