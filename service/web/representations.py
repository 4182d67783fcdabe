"""What the API answers with: pydantic models, and how rows become them. The OpenAPI document is made of these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from service.contract import jobs
from service.contract.architecture import Network
from service.contract.artifacts import ArtifactKind
from service.contract.audit import Deed
from service.contract.keys import Scope
from service.contract.spec import Kind
from service.contract.states import TERMINAL, Action, FindingCode, Request, Severity, Status
from service.contract.tables import Artifact, AuditEntry, Epoch, Event, Job
from service.datasets import DatasetInfo, DatasetState

Metrics = dict[str, float | None]
"""Name to value; a value that is not finite is null."""


class Answer(BaseModel):
    """Base of everything that the API answers with."""

    model_config = ConfigDict(frozen=True)


class Progress(Answer):
    """How far a job has come."""

    epoch: int = Field(description="Finished epochs.")
    epochs: int
    step: int = Field(description="Finished batches, also of the epoch under way.")
    steps: int
    fraction: float = Field(ge=0, le=1)
    eta_seconds: float | None = Field(description="Null unless the job runs and its speed is known.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """Where a job stands."""
        return cls.at(
            status=job.status,
            epoch=job.epoch,
            epochs=job.epochs,
            step=job.step,
            steps=job.steps,
            steps_per_second=job.steps_per_second,
        )

    @classmethod
    def at(cls, *, status: str, epoch: int, epochs: int, step: int, steps: int, steps_per_second: float | None) -> Self:
        """The same from the columns alone."""
        eta = None
        if status == Status.RUNNING and steps_per_second:
            eta = round(max(steps - step, 0) / steps_per_second, 1)
        fraction = min(step / steps, 1.0) if steps else 0.0
        return cls(epoch=epoch, epochs=epochs, step=step, steps=steps, fraction=round(fraction, 6), eta_seconds=eta)


class JobUrls(Answer):
    """Where to find what belongs to a job; paths on this service."""

    self: str
    results: str
    stream: str
    events: str
    metrics: str
    samples: str
    checkpoints: str
    artifacts: str
    page: str


class JobError(Answer):
    """Why a job failed."""

    model_config = ConfigDict(frozen=True, extra="allow")

    code: str
    message: str


class Difference(Answer):
    """Where a reproduction is another than its original."""

    epoch: int
    differs: list[str] = Field(description="Names of metrics, `samples`, `weights` or `epochs`.")


class Reproduction(Answer):
    """What came of training a job once more."""

    of: str = Field(description="The original.")
    match: bool | None = Field(description="Whether every bit is the same; null until that is known.")
    first_difference: Difference | None = None


class StoppedEarly(Answer):
    """Why a job succeeded before its last epoch."""

    metric: str = Field(description="That did not become better.")
    best: float
    best_epoch: int
    patience: int = Field(description="Epochs that were waited since.")


class FindingItem(Answer):
    """Something that is wrong with a training, as it was when it was found."""

    code: FindingCode
    severity: Severity
    epoch: int = Field(description="The epoch after which it was found.")
    message: str
    numbers: dict[str, float] = Field(description="What it was found in.")
    advice: list[str] = Field(description="What to try: settings of a spec.")


class FoundItem(Answer):
    """When something was wrong."""

    code: FindingCode
    severity: Severity
    message: str
    since: int = Field(description="The epoch after which it was found.")
    until: int | None = Field(description="The epoch after which it was over; null if it never was.")


class JobSummary(Answer):
    """A job as lists show it."""

    id: str
    kind: Kind
    name: str | None
    tags: list[str]
    owner: str | None
    status: Status
    requested: Request | None = Field(description="What a running job was asked to do and has not done yet.")
    attempt: int
    lease: int
    priority: int
    starred: bool
    note: str | None = Field(description="Free text by a person.")
    spec_hash: str
    progress: Progress
    metrics: Metrics = Field(description="Those of the last finished epoch.")
    best_epoch: int | None
    health: list[FindingItem] = Field(description="What is wrong with the training now, the oldest first.")
    parent_id: str | None = Field(description="The job that this one was forked from, or reproduces.")
    start_epoch: int = Field(description="It goes on after this epoch of its parent; 0: it began with nothing.")
    reproduction: Reproduction | None
    error: JobError | None
    stopped_early: StoppedEarly | None = Field(description="Where it is not null, the job ended before its last epoch.")
    result_digest: str | None
    cpu_seconds: float | None = Field(description="Processor time so far, all attempts together.")
    peak_memory_bytes: int | None = Field(description="The most resident memory that the training process had.")
    size_bytes: int = Field(description="Sum of its files' sizes: checkpoints and samples.")
    created_at: str
    started_at: str | None
    finished_at: str | None
    allowed_actions: list[Action]
    urls: JobUrls


class JobDetail(JobSummary):
    """A job, whole."""

    spec: dict[str, Any] = Field(description="As sent.")
    resolved: dict[str, Any] = Field(description="With every value filled in.")
    provenance: dict[str, Any] | None = Field(description="What the bits depend on besides the spec.")


class LayerItem(Answer):
    """A layer in its network."""

    type: str
    output_shape: list[int] = Field(description="Of one input: numbers, or rows, columns and channels.")
    parameters: int = Field(description="Trainable weights and biases.")


class NetworkItem(Answer):
    """A network of a spec, layer by layer."""

    pointer: str = Field(description="JSON pointer to its layers: `#/layers`, `#/generator/layers`.")
    input_shape: list[int]
    layers: list[LayerItem] = Field(description="In order; ends before a layer whose input has the wrong shape.")


class DryRun(Answer):
    """What a spec would become and cost."""

    resolved: dict[str, Any]
    networks: list[NetworkItem]
    parameters: int
    steps: int
    estimated_bytes: int = Field(description="Peak memory.")
    checkpoint_bytes: int
    estimated_seconds: float | None = Field(
        description="The median expected; null until a worker has measured its machine or a job of this kind has ended."
    )
    estimated_seconds_low: float | None = Field(description="Nine of ten jobs are expected to take at least so long,")
    estimated_seconds_high: float | None = Field(description="and at most so long.")
    estimate_basis: str | None = Field(
        description="What the estimate rests on: `calibration`, or `3 similar jobs`; null where there is none."
    )
    notes: list[str] = Field(
        description="What is worth knowing before the job is sent: a dataset that has to be downloaded, "
        "a preset that was adapted to the data."
    )


class EventList(Answer):
    """Part of a job's log."""

    data: list[dict[str, Any]] = Field(description="Each with `job`, `seq`, `type`, `at` and what its type tells.")
    has_more: bool
    next_after: int = Field(description="Give this as `after` to go on.")


class ResourceSeries(Answer):
    """What each finished epoch took. Unlike metrics, it differs from run to run."""

    cpu_seconds: list[float | None] = Field(description="Processor time of the training process during the epoch.")
    memory_bytes: list[int | None] = Field(description="Its resident memory at the end of the epoch.")


class MetricTable(Answer):
    """Every finished epoch's metrics, as columns."""

    job: str
    epochs: list[int]
    series: dict[str, list[float | None]]
    seconds: list[float]
    resources: ResourceSeries
    best_epoch: int | None
    findings: list[FoundItem] = Field(description="What was wrong, and when; in the order in which it was found.")


class ArtifactItem(Answer):
    """A file of a job."""

    id: str
    kind: str
    epoch: int
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    created_at: str
    url: str


class ArtifactList(Answer):
    """The files of a job."""

    data: list[ArtifactItem]


class Checkpoint(ArtifactItem):
    """A checkpoint, in safetensors format."""

    best: bool
    latest: bool


class CheckpointList(Answer):
    """The checkpoints of a job that are kept."""

    data: list[Checkpoint]


class Films(Answer):
    """Addresses of the film of all samples, which has the same pixels in each format."""

    gif: str
    webp: str = Field(description="The smallest.")


class SampleList(Answer):
    """The pictures of samples of a job."""

    data: list[ArtifactItem]
    film: str | None = Field(description="All of them, one after the other, as a GIF.")
    films: Films | None


class BestEpoch(Answer):
    """The epoch whose checkpoint is called best."""

    epoch: int
    metrics: Metrics


class ResultCheckpoints(Answer):
    """The two checkpoints that one wants."""

    best: Checkpoint | None
    latest: Checkpoint | None


class ResultSamples(Answer):
    """The last picture of samples, and the film of all."""

    latest: ArtifactItem | None
    film: str | None = Field(description="As a GIF.")
    films: Films | None


class Results(Answer):
    """What a script wants at the end of a job; also there before, with ``final`` false."""

    job: str
    final: bool
    status: Status
    metrics: Metrics
    best: BestEpoch | None
    checkpoints: ResultCheckpoints
    samples: ResultSamples
    plots: dict[str, str] = Field(description="Name to address; add nothing for PNG, or end in .svg.")
    artifacts: list[ArtifactItem]
    sizes: dict[ArtifactKind, int] = Field(description="Bytes of the files of each kind.")
    size_bytes: int = Field(description="Their sum.")
    result_digest: str | None
    error: JobError | None


class DatasetItem(Answer):
    """A dataset."""

    name: str
    title: str
    image_shape: list[int]
    classes: int
    train_count: int
    validation_count: int
    class_names: list[str]
    source: str
    licence: str
    sha256: str | None
    available: bool = Field(description="Whether it is here; else a worker downloads it when a job needs it.")
    state: DatasetState = Field(
        description="`ready`; `download`: a job downloads it when it starts; `unavailable`: its files are broken, or a "
        "download failed within the last day or cannot be stored. A job may be sent in any state but with broken files."
    )
    state_reason: str | None = Field(description="Why it is not ready, as a sentence.")
    download_bytes: int | None = Field(description="What a download would fetch; null where none is needed.")
    download_from: list[str] = Field(description="The hosts that a download tries, in turn.")
    problem: str | None
    uploaded: bool = Field(description="Whether it was sent to `POST /datasets`; only such a one can be deleted.")
    urls: dict[str, str]


class DatasetList(Answer):
    """All datasets."""

    data: list[DatasetItem]


class SessionItem(Answer):
    """In whose name one comes."""

    owner: str | None = Field(description="Whose jobs are seen; null where no keys are asked for: all.")
    scope: Scope = Field(description="What the key opens; each covers those before it.")
    key: str | None = Field(description="The key's name.")
    expires_at: str | None = Field(description="Null: it does not.")


class AuditItem(Answer):
    """Something that was done."""

    id: int
    at: str
    action: Deed
    subject: str | None = Field(description="The id of the job, key or session, or the name of the dataset.")
    owner: str | None
    key: str | None = Field(description="The id of the key that did it.")
    address: str | None
    request_id: str | None
    detail: dict[str, Any]


class AuditList(Answer):
    """What was done, the newest first."""

    data: list[AuditItem]
    next_before: int | None = Field(description="Where the next page begins; null: there is none.")


class OwnerLimits(Answer):
    """How much of the service one owner may have; null: no limit."""

    requests_per_minute: int | None
    queued_jobs: int | None
    running_jobs: int | None
    upload_bytes_per_day: int | None
    streams: int | None = Field(description="Open at once, in one web process.")


class Limits(Answer):
    """What a spec may ask for, and how much one owner may have."""

    owner: OwnerLimits | None = Field(description="Null where no keys are asked for: there are no owners then.")
    max_body_bytes: int
    max_upload_bytes: int = Field(description="Of the body of `POST /datasets`.")
    max_unpacked_bytes: int = Field(description="Of all files of an upload together.")
    max_image_side: int = Field(description="Rows, or columns, of an upload's images.")
    max_images: int = Field(description="Of one file of an upload.")
    max_label: int
    max_json_depth: int
    max_layers: int
    max_units: int
    max_filters: int
    max_kernel: int
    max_outputs: int = Field(description="Numbers that one layer may make of one input.")
    max_parameters: int
    max_memory_bytes: int = Field(description="What a training may be reckoned to need at its peak (`dry_run` tells).")
    max_operations: float = Field(description="Floating-point operations of a whole run.")
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
    is_default: bool = Field(description="What a spec of this kind gets that names none.")
    summary: str
    reaches: list[ReachedItem] = Field(description="By dataset; the dataset of the preset comes first.")
    spec: dict[str, Any] = Field(description="With every value filled in.")


class PresetList(Answer):
    """All presets."""

    data: list[PresetItem]


class PredictAnswer(Answer):
    """What a classifier takes images for, one after the other."""

    probabilities: list[list[float]] = Field(
        description="Of each class, in [0, 1]. A softmax's add up to 1; of sigmoids each speaks for itself."
    )
    classes: list[int] = Field(description="The likeliest class of each image.")
    class_names: list[str]
    checkpoint: int = Field(description="The epoch whose checkpoint answered.")
    seen: list[list[list[float]]] | None = Field(
        None, description="With `explain`: the images as the network saw them, rows of numbers in [0, 1]."
    )
    saliency: list[list[list[float]]] | None = Field(
        None,
        description="With `explain`: how the logit of the image's class changes with each pixel, black being 0 and "
        "white 1. Above zero: light there speaks for the class.",
    )


class GenerateAnswer(Answer):
    """What a generator made."""

    images: list[str] | list[list[list[float]]] = Field(
        description="PNGs in base64, or rows of numbers in [0, 1], 0 being black."
    )
    latent: list[list[float]] | None = Field(None, description="With `with_latent`: the points they were made from.")
    checkpoint: int = Field(description="The epoch whose checkpoint answered.")


class Check(Answer):
    """One thing that the service needs."""

    status: str = Field(description="ok, degraded or down.")
    detail: str | None = None


class Readiness(Answer):
    """Whether the service can do its work."""

    status: str = Field(description="ready, degraded (jobs are taken, but may wait) or down.")
    checks: dict[str, Check]


class Liveness(Answer):
    """That the process lives."""

    status: str


class FaultItem(Answer):
    """One thing that is wrong with a request."""

    pointer: str | None = Field(None, description="JSON pointer into the body.")
    parameter: str | None = Field(None, description="Name of a parameter of the URL, or of a header.")
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
    errors: list[FaultItem] | None = Field(None, description="Every fault, or the first hundred of `error_count`.")
    error_count: int | None = None
    allowed_actions: list[Action] | None = None
    jobs: list[str] | None = None
    line: int | None = None
    column: int | None = None
    resolved: dict[str, Any] | None = Field(
        None, description="Of a dry run whose fields are valid, but do not fit each other or the dataset."
    )
    networks: list[NetworkItem] | None = Field(None, description="Likewise.")


def at_time(milliseconds: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def finite(value: Any) -> Any:
    """The same document, with null for every number that is not finite: JSON has no other word for it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: finite(item) for name, item in value.items()}
        case list():
            return [finite(item) for item in value]
        case _:
            return value


def job_summary(job: Job) -> JobSummary:
    """A job for a list."""
    return JobSummary(**job_fields(job))


def job_detail(job: Job) -> JobDetail:
    """A job, whole."""
    return JobDetail(
        **job_fields(job), spec=finite(job.spec), resolved=finite(job.resolved), provenance=finite(job.provenance)
    )


def network_item(network: Network) -> NetworkItem:
    """A network's layers with the sizes that flow through them."""
    return NetworkItem(
        pointer=f"#/{network.where}",
        input_shape=list(network.input_size),
        layers=[
            LayerItem(type=placed.layer.type, output_shape=list(placed.size), parameters=placed.weights)
            for placed in network.placed
        ],
    )


def event_document(event: Event, *, job_id: str) -> dict[str, Any]:
    """An event as the log and the stream show it, with the address of what it tells of."""
    data = finite(event.data)
    document = {"job": job_id, "seq": event.seq, "type": event.type, "at": at_time(event.created_ms), **data}
    if event.type == "sample":
        document["url"] = f"/jobs/{job_id}/samples/{data['epoch']}.png"
    elif event.type == "checkpoint":
        document["url"] = f"/jobs/{job_id}/checkpoints/{data['epoch']}"
    return document


def metric_table(job: Job, rows: Sequence[Epoch], news: Sequence[Event]) -> MetricTable:
    """Columns out of rows; where an epoch lacks a value, there is null.

    Args:
        news: the job's events of type ``health``.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return MetricTable(
        job=job.id,
        epochs=[row.epoch for row in rows],
        series={name: [finite(row.metrics.get(name)) for row in rows] for name in names},
        seconds=[round(row.seconds, 3) for row in rows],
        resources=ResourceSeries(
            cpu_seconds=[_rounded(row.cpu_seconds) for row in rows], memory_bytes=[row.memory_bytes for row in rows]
        ),
        best_epoch=job.best_epoch,
        findings=_found(news),
    )


def _found(news: Sequence[Event]) -> list[FoundItem]:
    found: list[dict[str, Any]] = []
    for event in news:
        data = event.data
        if data["state"] == "found":
            told = {name: data[name] for name in ("code", "severity", "message")}
            found.append({**told, "since": data["epoch"], "until": None})
            continue
        for item in found:
            if (item["code"], item["since"]) == (data["code"], data["since"]):
                item["until"] = data["epoch"]
    return [FoundItem(**item) for item in found]


def artifact_item(row: Artifact) -> ArtifactItem:
    """A file for a list."""
    return ArtifactItem(**_artifact_fields(row, f"/jobs/{row.job_id}/artifacts/{row.id}"))


def sample_item(row: Artifact) -> ArtifactItem:
    """A picture of samples for a list."""
    return ArtifactItem(**_artifact_fields(row, f"/jobs/{row.job_id}/samples/{row.epoch}.png"))


def checkpoint_items(job: Job, rows: Sequence[Artifact]) -> list[Checkpoint]:
    """A job's checkpoints for a list, in the order of their epochs. Where no epoch is the best, the latest is."""
    latest = rows[-1].epoch if rows else 0
    best = latest if job.best_epoch is None else job.best_epoch
    return [
        Checkpoint(
            **_artifact_fields(row, f"/jobs/{row.job_id}/checkpoints/{row.epoch}"),
            best=row.epoch == best,
            latest=row.epoch == latest,
        )
        for row in rows
    ]


def film_urls(job_id: str, samples: Sequence[Artifact]) -> Films | None:
    """Where the film is, if there is anything to show."""
    return Films(gif=f"/jobs/{job_id}/samples.gif", webp=f"/jobs/{job_id}/samples.webp") if samples else None


def results(job: Job, best: Epoch | None, checkpoints: Sequence[Artifact], samples: Sequence[Artifact]) -> Results:
    """Everything that a job has given so far.

    Args:
        checkpoints, samples: in the order of their epochs.
    """
    items = checkpoint_items(job, checkpoints)
    films = film_urls(job.id, samples)
    rows = {ArtifactKind.CHECKPOINT: checkpoints, ArtifactKind.SAMPLE: samples}
    sizes = {kind: sum(row.size_bytes for row in rows[kind]) for kind in rows}
    plots = {"curves": f"/jobs/{job.id}/plots/curves.png"} if job.epoch else {}
    if job.epoch and job.kind == Kind.CLASSIFIER:
        plots["confusion"] = f"/jobs/{job.id}/plots/confusion.png"
    return Results(
        job=job.id,
        final=job.status in TERMINAL,
        status=Status(job.status),
        metrics=finite(job.metrics),
        best=BestEpoch(epoch=best.epoch, metrics=finite(best.metrics)) if best is not None else None,
        checkpoints=ResultCheckpoints(
            best=next((item for item in items if item.best), None), latest=items[-1] if items else None
        ),
        samples=ResultSamples(
            latest=sample_item(samples[-1]) if samples else None, film=films.gif if films else None, films=films
        ),
        plots=plots,
        artifacts=[artifact_item(row) for row in [*checkpoints, *samples]],
        sizes=sizes,
        size_bytes=sum(sizes.values()),
        result_digest=job.result_digest,
        error=_error(job.error),
    )


def dataset_item(info: DatasetInfo) -> DatasetItem:
    """A dataset for a list."""
    address = f"/datasets/{info.name}"
    urls = {"self": address} | ({"preview": f"{address}/preview.png"} if info.available else {})
    return DatasetItem(
        name=info.name,
        title=info.title,
        image_shape=list(info.image_shape),
        classes=info.classes,
        train_count=info.train_count,
        validation_count=info.validation_count,
        class_names=list(info.class_names),
        source=info.source,
        licence=info.licence,
        sha256=info.sha256,
        available=info.available,
        state=info.state,
        state_reason=info.state_reason,
        download_bytes=info.download_bytes or None,
        download_from=list(info.download_from),
        problem=info.problem,
        uploaded=info.upload_id is not None,
        urls=urls,
    )


def job_fields(job: Job) -> dict[str, Any]:
    """The fields of ``JobSummary``."""
    address = f"/jobs/{job.id}"
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "tags": job.tags,
        "owner": job.owner,
        "status": job.status,
        "requested": job.requested,
        "attempt": job.attempt,
        "lease": job.lease,
        "priority": job.priority,
        "starred": job.starred,
        "note": job.note,
        "spec_hash": job.spec_hash,
        "progress": Progress.of(job),
        "metrics": finite(job.metrics),
        "best_epoch": job.best_epoch,
        "health": finite(job.health),
        "parent_id": job.parent_id,
        "start_epoch": job.start_epoch,
        "reproduction": Reproduction(**job.reproduction) if job.reproduction is not None else None,
        "error": _error(job.error),
        "stopped_early": StoppedEarly(**job.stopped_early) if job.stopped_early is not None else None,
        "result_digest": job.result_digest,
        "cpu_seconds": _rounded(job.cpu_seconds),
        "peak_memory_bytes": job.peak_memory_bytes,
        "size_bytes": job.size_bytes,
        "created_at": at_time(job.created_ms),
        "started_at": _maybe_at_time(job.started_ms),
        "finished_at": _maybe_at_time(job.finished_ms),
        "allowed_actions": list(jobs.actions_of(job)),
        "urls": JobUrls(
            self=address,
            results=f"{address}/results",
            stream=f"{address}/stream",
            events=f"{address}/events",
            metrics=f"{address}/metrics",
            samples=f"{address}/samples",
            checkpoints=f"{address}/checkpoints",
            artifacts=f"{address}/artifacts",
            page=f"/ui/jobs/{job.id}",
        ),
    }


def _artifact_fields(row: Artifact, url: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "epoch": row.epoch,
        "name": row.name,
        "media_type": row.media_type,
        "size_bytes": row.size_bytes,
        "sha256": row.sha256,
        "created_at": at_time(row.created_ms),
        "url": url,
    }


def _error(error: Mapping[str, Any] | None) -> JobError | None:
    return JobError(**finite(dict(error))) if error is not None else None


def audit_item(row: AuditEntry) -> AuditItem:
    """A row of the audit."""
    return AuditItem(
        id=row.id,
        at=at_time(row.at_ms),
        action=Deed(row.action),
        subject=row.subject,
        owner=row.owner,
        key=row.key_id,
        address=row.address,
        request_id=row.request_id,
        detail=row.detail,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _maybe_at_time(milliseconds: int | None) -> str | None:
    return at_time(milliseconds) if milliseconds is not None else None
