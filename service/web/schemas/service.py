"""The service itself: workers and the queue, limits, presets, health, and problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, get_args

from pydantic import ConfigDict, Field

from service.datasets import importer
from service.jobs import worker_registry
from service.jobs.queries.queue import Queue, Waiting
from service.jobs.worker_registry import Impediment
from service.runtime.settings import Quotas
from service.spec import schema, strict_json, validation
from service.spec.presets.definitions import DEFAULT_PRESET, PRESETS
from service.spec.presets.info import PresetInfo
from service.spec.schema import Kind
from service.states import Action, MachineFaultReason
from service.storage.machine_tables import Worker
from service.storage.tables import Job
from service.web.schemas.base import Answer, Timestamp
from service.web.schemas.jobs import NetworkItem, Progress


class RunningJob(Answer):
    """A job on a worker."""

    id: str
    name: str | None
    kind: str
    owner: str | None
    progress: Progress
    page: str


class MachineFaultItem(Answer):
    """A fault of a worker's machine."""

    reason: MachineFaultReason = Field(description="What it cannot do: store files, store a dataset, or free memory.")
    message: str | None = Field(description="Details, for the scope `admin`.")


class WorkerItem(Answer):
    """A worker process that was seen within the last minute."""

    id: str
    name: str = Field(description="`TAPELINE_WORKER_NAME`, or the host name; it survives restarts, as the id does not.")
    host: str
    pid: int
    slots: int = Field(description="Maximum number of concurrent jobs.")
    running: int = Field(description="Running jobs of all owners.")
    draining: bool = Field(
        description="Whether it is shutting down: it finishes or returns its jobs, and claims no new ones."
    )
    blocked: MachineFaultItem | None = Field(
        description="Why it claims no new jobs: its machine has a fault, and is checked until it is well."
    )
    started_at: Timestamp = Field(validation_alias="started_ms")
    seen_at: Timestamp = Field(validation_alias="seen_ms")
    jobs: list[RunningJob] = Field(description="Running jobs that are visible to the caller.")


class WorkerList(Answer):
    """The workers that are alive."""

    data: list[WorkerItem]


class QueuedJob(Answer):
    """A job that waits for a worker."""

    id: str
    name: str | None
    kind: str
    owner: str | None
    priority: int
    position: int = Field(description="Place among the queued jobs of all owners, from 1.")
    queued_at: Timestamp = Field(validation_alias="queued_ms")
    waited_seconds: float
    page: str


class QueueList(Answer):
    """The queue in claim order: highest priority first, then the oldest."""

    data: list[QueuedJob]
    total: int = Field(description="Queued jobs of all owners.")
    own: int = Field(description="Queued jobs visible to the caller; at most `limit` are listed.")
    reason: str | None = Field(
        description="Why no job starts: `no_worker`, `storage`, `dataset` or `memory`; null if workers claim jobs."
    )
    reason_text: str | None = Field(description="The reason as a sentence, with the remedy.")
    owners: dict[str, int] | None = Field(
        description="Queued jobs per owner, for the scope `admin`; an empty name stands for jobs without an owner."
    )


def worker_item(row: Worker, jobs: Sequence[Job], *, with_messages: bool) -> WorkerItem:
    """A worker for a list, with its jobs that are visible to the caller; messages name folders of the machine."""
    fault = row.blocked
    if fault is not None and not with_messages:
        fault = fault | {"message": None}
    name = worker_registry.name_of(row.id)
    return WorkerItem.represent(row, name=name, jobs=[_running(job) for job in jobs], blocked=fault)


def _running(job: Job) -> RunningJob:
    return RunningJob.represent(job, progress=Progress.of(job), page=f"/ui/jobs/{job.id}")


def queue_list(queue: Queue, impediment: Impediment | None, owners: Mapping[str | None, int] | None) -> QueueList:
    """The queue; ``owners`` is for the scope ``admin``."""
    return QueueList(
        reason=impediment.reason if impediment is not None else None,
        reason_text=impediment.text if impediment is not None else None,
        data=[_queued(item) for item in queue.waiting],
        total=queue.total,
        own=queue.own,
        owners={name or "": count for name, count in owners.items()} if owners is not None else None,
    )


def _queued(item: Waiting) -> QueuedJob:
    return QueuedJob.represent(
        item.job, position=item.position, waited_seconds=round(item.waited_s, 1), page=f"/ui/jobs/{item.job.id}"
    )


class OwnerLimits(Answer):
    """The quotas of an owner; null: no limit."""

    requests_per_minute: int | None
    queued_jobs: int | None
    running_jobs: int | None
    upload_bytes_per_day: int | None
    dataset_bytes: int | None = Field(description="Total stored size of the owner's datasets.")
    artifact_bytes: int | None = Field(description="Total size of the files of all jobs of the owner.")
    streams: int | None = Field(description="Simultaneously open streams per web process.")

    @classmethod
    def of(cls, quotas: Quotas) -> Self:
        """The quotas of the settings, where 0 means that there is no limit."""
        return cls(
            requests_per_minute=quotas.requests or None,
            queued_jobs=quotas.queued or None,
            running_jobs=quotas.running or None,
            upload_bytes_per_day=quotas.uploads or None,
            dataset_bytes=quotas.datasets or None,
            artifact_bytes=quotas.artifacts or None,
            streams=quotas.streams or None,
        )


class Limits(Answer):
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
    def of(
        cls, owner: OwnerLimits | None, datasets: Sequence[str], *, max_body_bytes: int, max_upload_bytes: int
    ) -> Self:
        """The limits, each from the constant or field that enforces it."""
        return cls(
            owner=owner,
            max_body_bytes=max_body_bytes,
            max_upload_bytes=max_upload_bytes,
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
            kinds=list(Kind),
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


class ReachedItem(Answer):
    """What a preset reaches at its last epoch."""

    dataset: str
    metric: str
    value: float = Field(description="Median of several seeds.")
    seconds: float = Field(description="Training time on one core.")


class PresetItem(Answer):
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
        return cls(
            kind=kind,
            name=name,
            is_default=name == DEFAULT_PRESET[kind],
            summary=info.summary,
            reaches=[ReachedItem.represent(reached) for reached in info.reaches],
            spec=validation.resolve({"kind": kind, "preset": name}).model_dump(mode="json"),
        )


class PresetList(Answer):
    """All presets."""

    data: list[PresetItem]


class Check(Answer):
    """The state of one dependency."""

    status: str = Field(description="ok, degraded or down.")
    detail: str | None = None


class Readiness(Answer):
    """Readiness of the service."""

    status: str = Field(description="ready, degraded (jobs are accepted, but may wait) or down.")
    checks: dict[str, Check]


class Liveness(Answer):
    """Liveness of the process."""

    status: str


class FaultItem(Answer):
    """An error in a request."""

    pointer: str | None = Field(None, description="JSON pointer into the body.")
    parameter: str | None = Field(None, description="Name of a URL parameter, header or form field.")
    detail: str
    code: str
    suggestion: str | None = None


class ProblemDocument(Answer):
    """An error (RFC 9457)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str | None
    errors: list[FaultItem] | None = Field(None, description="All errors, or the first hundred of `error_count`.")
    error_count: int | None = None
    allowed_actions: list[Action] | None = None
    jobs: list[str] | None = None
    line: int | None = None
    column: int | None = None
    resolved: dict[str, Any] | None = Field(
        None, description="For a dry run whose fields are valid, but inconsistent or unsuitable for the dataset."
    )
    networks: list[NetworkItem] | None = Field(None, description="Included together with `resolved`.")


def _bound(model: type[schema.StrictModel], field: str, name: str) -> int:
    """A field's limit, from the model that enforces it."""
    bounds = [getattr(item, name) for item in model.model_fields[field].metadata if hasattr(item, name)]
    return int(bounds[0])


def _names(union: Any, field: str = "name") -> list[str]:
    """The names of a union's variants: the values of the discriminator ``field``."""
    members = [getattr(member, "__origin__", member) for member in get_args(get_args(union)[0])]  # without tags
    return [get_args(member.model_fields[field].annotation)[0] for member in members]
