"""The response models of the API, and their construction from rows. The OpenAPI document is generated from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from service.access.audit import AuditAction
from service.access.audit_chain import Seal
from service.access.keys import Scope
from service.datasets import DatasetInfo, DatasetState
from service.jobs import actions
from service.spec.estimation.layer_shapes import Network
from service.spec.schema import Kind
from service.states import Action, FindingCode, Request, Severity, Status
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact, AuditEntry, Epoch, Event, Job

Metrics = dict[str, float | None]
"""Name to value; a value that is not finite is null."""


class Answer(BaseModel):
    """Base of all response models."""

    model_config = ConfigDict(frozen=True)


class Progress(Answer):
    """Progress of a job."""

    epoch: int = Field(description="Finished epochs.")
    epochs: int
    step: int = Field(description="Finished batches, including those of the current epoch.")
    steps: int
    fraction: float = Field(ge=0, le=1)
    eta_seconds: float | None = Field(
        description="Estimated remaining time. Null unless the job is running and its speed is known."
    )

    @classmethod
    def of(cls, job: Job) -> Self:
        """The progress of a job."""
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
    """URLs of a job's resources, as paths on this service."""

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
    """The first difference between a reproduction and its original."""

    epoch: int
    differs: list[str] = Field(description="Names of metrics, `samples`, `weights` or `epochs`.")


class Reproduction(Answer):
    """The result of training a job again."""

    of: str = Field(description="Id of the original job.")
    match: bool | None = Field(description="Whether all results are bit-identical; null until known.")
    first_difference: Difference | None = None


class StoppedEarly(Answer):
    """Why a job succeeded before its last epoch."""

    metric: str = Field(description="The metric that stopped improving.")
    best: float
    best_epoch: int
    patience: int = Field(description="Number of epochs without improvement.")


class FindingItem(Answer):
    """A problem with a training, with the values at its detection."""

    code: FindingCode
    severity: Severity
    epoch: int = Field(description="The epoch after which it was detected.")
    message: str
    numbers: dict[str, float] = Field(description="The values that triggered it.")
    advice: list[str] = Field(description="Settings to try.")


class FoundItem(Answer):
    """The period of a finding."""

    code: FindingCode
    severity: Severity
    message: str
    since: int = Field(description="The epoch after which it was detected.")
    until: int | None = Field(description="The epoch after which it was resolved; null if it is not.")


class JobSummary(Answer):
    """A job in a list."""

    id: str
    kind: Kind
    name: str | None
    tags: list[str]
    owner: str | None
    status: Status
    requested: Request | None = Field(description="A pending request to a running job: to cancel or to pause.")
    attempt: int
    lease: int
    priority: int
    starred: bool
    note: str | None = Field(description="Free text.")
    spec_hash: str
    progress: Progress
    metrics: Metrics = Field(description="Metrics of the last finished epoch.")
    best_epoch: int | None
    health: list[FindingItem] = Field(description="Current findings, oldest first.")
    parent_id: str | None = Field(description="The job that this one is a fork or a reproduction of.")
    start_epoch: int = Field(
        description="The epoch of the parent's checkpoint that it continues from; 0: trained from scratch."
    )
    reproduction: Reproduction | None
    error: JobError | None
    stopped_early: StoppedEarly | None = Field(description="Why early stopping ended the job; null if it did not.")
    result_digest: str | None
    cpu_seconds: float | None = Field(description="CPU time so far, over all attempts.")
    peak_memory_bytes: int | None = Field(description="Peak resident memory of the training process.")
    size_bytes: int = Field(description="Total size of its files: checkpoints and samples.")
    created_at: str
    started_at: str | None
    finished_at: str | None
    allowed_actions: list[Action]
    urls: JobUrls


class JobDetail(JobSummary):
    """A job with its spec."""

    spec: dict[str, Any] = Field(description="The spec as sent.")
    resolved: dict[str, Any] = Field(description="Full spec (defaults included).")
    provenance: dict[str, Any] | None = Field(
        description="Environment: versions and hardware that the result depends on."
    )


class LayerItem(Answer):
    """A layer of a network."""

    type: str
    output_shape: list[int] = Field(description="Without the batch: number of values, or rows, columns and channels.")
    parameters: int = Field(description="Trainable weights and biases.")


class NetworkItem(Answer):
    """A network of a spec, layer by layer."""

    pointer: str = Field(description="JSON pointer to its layers: `#/layers`, `#/generator/layers`.")
    input_shape: list[int]
    layers: list[LayerItem] = Field(description="In order, up to the first layer whose input has a wrong shape.")


class DryRun(Answer):
    """The full spec and the estimated cost of a job."""

    resolved: dict[str, Any]
    networks: list[NetworkItem]
    parameters: int
    steps: int
    estimated_bytes: int = Field(description="Estimated peak memory.")
    checkpoint_bytes: int
    estimated_seconds: float | None = Field(
        description="Median estimate of the duration; null until a worker has measured its machine or a job of this "
        "kind "
        "has ended."
    )
    estimated_seconds_low: float | None = Field(description="90% of jobs are expected to take at least this long.")
    estimated_seconds_high: float | None = Field(description="90% of jobs are expected to take at most this long.")
    estimate_basis: str | None = Field(
        description="Basis of the estimate: `calibration`, or for example `3 similar jobs`; null without an estimate."
    )
    notes: list[str] = Field(
        description="Remarks before submitting: a dataset that has to be downloaded, or a preset that was adapted to "
        "the "
        "dataset."
    )


class EventList(Answer):
    """Part of a job's log."""

    data: list[dict[str, Any]] = Field(description="Each has `job`, `seq`, `type`, `at` and the fields of its type.")
    has_more: bool
    next_after: int = Field(description="`after` of the next request.")


class ResourceSeries(Answer):
    """Resources used by each finished epoch. Unlike metrics, they vary between runs."""

    cpu_seconds: list[float | None] = Field(description="CPU time of the training process during the epoch.")
    memory_bytes: list[int | None] = Field(description="Its resident memory at the end of the epoch.")


class MetricTable(Answer):
    """The metrics of all finished epochs, as columns."""

    job: str
    epochs: list[int]
    series: dict[str, list[float | None]]
    seconds: list[float]
    resources: ResourceSeries
    best_epoch: int | None
    findings: list[FoundItem] = Field(description="Findings with their periods, in order of detection.")


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
    """A page of a job's files."""

    data: list[ArtifactItem] = Field(description="By kind and epoch.")
    has_more: bool
    next_cursor: str | None


class Checkpoint(ArtifactItem):
    """A checkpoint, in safetensors format."""

    best: bool
    latest: bool


class CheckpointList(Answer):
    """A page of a job's stored checkpoints."""

    data: list[Checkpoint] = Field(description="By epoch.")
    has_more: bool
    next_cursor: str | None


class Films(Answer):
    """URLs of the animation of all samples; its pixels are identical in each format."""

    gif: str
    webp: str = Field(description="The smaller file.")


class SampleList(Answer):
    """A page of a job's sample grids."""

    data: list[ArtifactItem] = Field(description="By epoch.")
    has_more: bool
    next_cursor: str | None
    film: str | None = Field(description="Animation of all sample grids, as a GIF.")
    films: Films | None


class BestEpoch(Answer):
    """The epoch of the best checkpoint."""

    epoch: int
    metrics: Metrics


class ResultCheckpoints(Answer):
    """The best and the latest checkpoint."""

    best: Checkpoint | None
    latest: Checkpoint | None


class ResultSamples(Answer):
    """The latest sample grid, and the animation of all."""

    latest: ArtifactItem | None
    film: str | None = Field(description="The animation as a GIF.")
    films: Films | None


class Results(Answer):
    """The results of a job; before its end, the results so far with ``final`` false."""

    job: str
    final: bool
    status: Status
    metrics: Metrics
    best: BestEpoch | None
    checkpoints: ResultCheckpoints
    samples: ResultSamples
    plots: dict[str, str] = Field(description="URLs of plots by name, as PNG; replace the suffix by `.svg` for SVG.")
    artifacts: list[ArtifactItem] = Field(description="One page of the job's files, by kind and epoch.")
    has_more: bool = Field(description="Whether there are more files.")
    next_cursor: str | None = Field(
        description="Cursor of the next page of files, here and in `GET /jobs/{job_id}/artifacts`."
    )
    artifact_count: int = Field(description="Number of all files, not only of this page.")
    sizes: dict[ArtifactKind, int] = Field(description="Total size of the files of each kind.")
    size_bytes: int = Field(description="Total size of all files.")
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
    version: str | None = Field(description="Name of exactly these data, for specs: `mine@1a2b3c4d5e6f`.")
    versions: list[str] = Field(description="All versions with this name, the newest first; `mine` names the newest.")
    available: bool = Field(
        description="Whether its files are available locally; otherwise a worker downloads them for the first job."
    )
    state: DatasetState = Field(
        description="`ready`; `download`: the first job downloads it; `unavailable`: its files are damaged, or a "
        "download "
        "failed within the last day or cannot be stored. Jobs are accepted unless the files are damaged."
    )
    state_reason: str | None = Field(description="Why the dataset is not ready.")
    download_bytes: int | None = Field(description="Download size; null if no download is needed.")
    download_from: list[str] = Field(description="Hosts that a download tries, in order.")
    problem: str | None
    uploaded: bool = Field(
        description="Whether it was uploaded with `POST /datasets`; only uploaded datasets can be deleted."
    )
    urls: dict[str, str]


class DatasetList(Answer):
    """All datasets."""

    data: list[DatasetItem]


class SessionItem(Answer):
    """The caller's identity and permissions."""

    owner: str | None = Field(
        description="Owner of the visible jobs; null if keys are not required: all jobs are visible."
    )
    scope: Scope = Field(description="Permissions of the key: each scope includes those before it.")
    key: str | None = Field(description="The key's name.")
    expires_at: str | None = Field(description="Null: it does not expire.")


class AuditItem(Answer):
    """An entry of the audit log."""

    id: int
    at: str
    action: AuditAction
    subject: str | None = Field(description="The id of the job, key or session, or the name of the dataset.")
    owner: str | None
    key: str | None = Field(description="Id of the key that was used.")
    address: str | None
    request_id: str | None
    detail: dict[str, Any]


class AuditList(Answer):
    """The audit log, newest first."""

    data: list[AuditItem]
    next_before: int | None = Field(description="`before` of the next page; null: this is the last page.")


class SealItem(Answer):
    """A seal of the audit log: one link of its hash chain."""

    id: int
    first_id: int = Field(description="Id of the first entry.")
    last_id: int
    count: int = Field(description="Number of entries.")
    entries_digest: str = Field(description="SHA-256 of the entries.")
    digest: str = Field(description="SHA-256 over the previous seal's digest and this seal.")
    created_at: str
    removed_at: str | None = Field(description="When retention removed the entries; null: they are kept.")


class SealList(Answer):
    """The seals of the audit log, newest first: the first digest is the head of the chain."""

    data: list[SealItem]
    next_before: int | None = Field(description="`before` of the next page; null: this is the last page.")


class OwnerLimits(Answer):
    """The quotas of an owner; null: no limit."""

    requests_per_minute: int | None
    queued_jobs: int | None
    running_jobs: int | None
    upload_bytes_per_day: int | None
    dataset_bytes: int | None = Field(description="Total stored size of the owner's datasets.")
    streams: int | None = Field(description="Simultaneously open streams per web process.")


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
    is_default: bool = Field(description="Whether specs of this kind use it by default.")
    summary: str
    reaches: list[ReachedItem] = Field(description="Measured results by dataset; the preset's own dataset is first.")
    spec: dict[str, Any] = Field(description="Full spec (defaults included).")


class PresetList(Answer):
    """All presets."""

    data: list[PresetItem]


class PredictAnswer(Answer):
    """The predictions of a classifier, in the order of the images."""

    probabilities: list[list[float]] = Field(
        description="Probability of each class, in [0, 1]. With softmax they add up to 1; with sigmoid they are "
        "independent."
    )
    classes: list[int] = Field(description="The most probable class of each image.")
    class_names: list[str]
    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    seen: list[list[list[float]]] | None = Field(
        None, description="With `explain`: the preprocessed images, as rows of numbers in [0, 1]."
    )
    saliency: list[list[list[float]]] | None = Field(
        None,
        description="With `explain`: the gradient of the predicted class's logit with respect to each pixel (0 black, "
        "1 "
        "white). Positive values: brightness there increases the logit.",
    )


class GenerateAnswer(Answer):
    """Generated images."""

    images: list[str] | list[list[list[float]]] = Field(
        description="PNGs in base64, or rows of numbers in [0, 1], where 0 is black."
    )
    latent: list[list[float]] | None = Field(None, description="With `with_latent`: the latent points of the images.")
    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")


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


def at_time(milliseconds: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def finite(value: Any) -> Any:
    """The same document, with null for every number that is not finite, which JSON cannot express."""
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
    """A job with its spec."""
    return JobDetail(
        **job_fields(job), spec=finite(job.spec), resolved=finite(job.resolved), provenance=finite(job.provenance)
    )


def network_item(network: Network) -> NetworkItem:
    """A network's layers with their output shapes."""
    return NetworkItem(
        pointer=f"#/{network.where}",
        input_shape=list(network.input_size),
        layers=[
            LayerItem(type=placed.layer.type, output_shape=list(placed.size), parameters=placed.weights)
            for placed in network.placed
        ],
    )


def event_document(event: Event, *, job_id: str) -> dict[str, Any]:
    """An event as in the log and the stream, with the URL of its file."""
    data = finite(event.data)
    document = {"job": job_id, "seq": event.seq, "type": event.type, "at": at_time(event.created_ms), **data}
    if event.type == "sample":
        document["url"] = f"/jobs/{job_id}/samples/{data['epoch']}.png"
    elif event.type == "checkpoint":
        document["url"] = f"/jobs/{job_id}/checkpoints/{data['epoch']}"
    return document


def metric_table(job: Job, rows: Sequence[Epoch], news: Sequence[Event]) -> MetricTable:
    """Rows as columns, with null for missing values.

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
    """A sample grid for a list."""
    return ArtifactItem(**_artifact_fields(row, f"/jobs/{row.job_id}/samples/{row.epoch}.png"))


def checkpoint_items(job: Job, rows: Sequence[Artifact]) -> list[Checkpoint]:
    """All of a job's checkpoints for a list, in the order of their epochs."""
    return [checkpoint_item(job, row, latest=rows[-1].epoch) for row in rows]


def checkpoint_item(job: Job, row: Artifact, *, latest: int) -> Checkpoint:
    """A checkpoint for a list. Where no epoch is the best, the latest is.

    Args:
        latest: the epoch of the job's latest checkpoint.
    """
    return Checkpoint(
        **_artifact_fields(row, f"/jobs/{row.job_id}/checkpoints/{row.epoch}"),
        best=row.epoch == (latest if job.best_epoch is None else job.best_epoch),
        latest=row.epoch == latest,
    )


def film_urls(job_id: str, *, exists: bool) -> Films | None:
    """The URLs of the animation, if there are samples."""
    return Films(gif=f"/jobs/{job_id}/samples.gif", webp=f"/jobs/{job_id}/samples.webp") if exists else None


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
        version=info.version,
        versions=list(info.versions),
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
        "error": job_error(job),
        "stopped_early": StoppedEarly(**job.stopped_early) if job.stopped_early is not None else None,
        "result_digest": job.result_digest,
        "cpu_seconds": _rounded(job.cpu_seconds),
        "peak_memory_bytes": job.peak_memory_bytes,
        "size_bytes": job.size_bytes,
        "created_at": at_time(job.created_ms),
        "started_at": _maybe_at_time(job.started_ms),
        "finished_at": _maybe_at_time(job.finished_ms),
        "allowed_actions": list(actions.actions_of(job)),
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


def job_error(job: Job) -> JobError | None:
    """Why a job failed, if it did."""
    return JobError(**finite(job.error)) if job.error is not None else None


def audit_item(row: AuditEntry) -> AuditItem:
    """A row of the audit."""
    return AuditItem(
        id=row.id,
        at=at_time(row.at_ms),
        action=AuditAction(row.action),
        subject=row.subject,
        owner=row.owner,
        key=row.key_id,
        address=row.address,
        request_id=row.request_id,
        detail=row.detail,
    )


def seal_item(seal: Seal) -> SealItem:
    """A seal of the audit log."""
    return SealItem(
        id=seal.id,
        first_id=seal.first_id,
        last_id=seal.last_id,
        count=seal.count,
        entries_digest=seal.entries_digest,
        digest=seal.digest,
        created_at=at_time(seal.created_ms),
        removed_at=_maybe_at_time(seal.removed_ms),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _maybe_at_time(milliseconds: int | None) -> str | None:
    return at_time(milliseconds) if milliseconds is not None else None
