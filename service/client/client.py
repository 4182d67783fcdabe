"""The client of one service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, Unpack
from uuid import uuid4

from service.client import downloads, lookup
from service.client.bisection import Bisection
from service.client.connection import Connection, OnWait, json_body, segment
from service.client.dataset_operations import DatasetOperations
from service.client.experiments import Experiments
from service.client.inputs.images import GivenImage
from service.client.job import Job
from service.client.lookup import Found
from service.client.method_types import (
    Event,
    ExportTarget,
    Generated,
    GenerateOptions,
    History,
    Picture,
    Prediction,
    Which,
)
from service.client.streams import OnOutage
from service.client.trackers import mlflow_runs

_PAGE_SIZE: Final = 100


class Client(DatasetOperations, Experiments):
    """A client of one service. Not thread-safe: use one per thread.

    Args:
        server: for example ``http://127.0.0.1:8000``.
        key: an API key, if the service requires one (default: the first one in TAPELINE_API_KEYS).
        on_wait: called with the reason and the seconds whenever a request waits for a quota.

    Every method raises ``ServerUnreachable`` if the service does not respond, and ``ApiError`` if it refuses the
    request. Requests that are safe to repeat are retried a few times first. Methods with a ``job`` parameter accept a
    ``Job``, an id, or any text by which ``job`` finds a job.
    """

    def __init__(self, server: str, key: str | None = None, *, on_wait: OnWait | None = None) -> None:
        self._connection = Connection(server, key, on_wait=on_wait)
        self.server, self.key = self._connection.server, self._connection.key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # Jobs.

    def submit(self, spec: Mapping[str, Any] | bytes, *, idempotency_key: str | None = None) -> Job:
        """Submit a job.

        Args:
            spec: a document, or JSON text that is sent as it is.
            idempotency_key: a name for this request; a repeated request with the same key and spec creates no second
                job and returns the first one. By default a new key, which allows the client to retry.
        """
        options = json_body(spec, **{"Idempotency-Key": idempotency_key or uuid4().hex})
        return self._create("POST", "/jobs", repeatable=True, **options)

    def submit_folds(
        self, spec: Mapping[str, Any], folds: int | None = None, *, idempotency_key: str | None = None
    ) -> list[Job]:
        """Submit a cross-validation: a job for each fold, all or none.

        Args:
            folds: the number of folds, unless the spec has it as ``dataset.folds``.
        """
        if folds is not None:
            data = spec.get("dataset", {})
            spec = {**spec, "dataset": {**({"name": data} if isinstance(data, str) else data), "folds": folds}}
        first = self.submit(spec, idempotency_key=idempotency_key)
        ids = first.get("fold_jobs") or [first.id]
        return [first, *(self.get(job_id) for job_id in ids if job_id != first.id)]

    def folds(self, job: Job | str) -> dict[str, Any]:
        """The cross-validation of a job: its ``jobs``, and the ``means`` of their metrics.

        Raises:
            LookupError: the job does not belong to a cross-validation.
        """
        group = self._handle(job).refresh()["fold_group"]
        if group is None:
            raise LookupError("the job is not a fold of a cross-validation")
        return self._connection.json("GET", f"/folds/{segment(group)}")

    def dry_run(self, spec: Mapping[str, Any] | bytes) -> dict[str, Any]:
        """The resolved spec and its estimated cost; nothing is stored."""
        params = {"dry_run": "true"}
        return self._connection.json("POST", "/jobs", params=params, repeatable=True, **json_body(spec))

    def job(self, id_or_name: str) -> Job:
        """The job with this id, the newest with this name, or the only one that contains the text in either.

        Raises:
            AmbiguousJob: several jobs match.
        """
        return self.look_up(id_or_name).job

    def look_up(self, id_or_name: str) -> Found:
        """Like ``job``, with the number of jobs that have the name."""
        return lookup.look_up(self._connection, id_or_name)

    def jobs(
        self,
        *,
        limit: int | None = None,
        status: str | None = None,
        kind: str | None = None,
        tag: str | None = None,
        name: str | None = None,
        q: str | None = None,
        sort: str | None = None,
        **filters: str,
    ) -> Iterator[Job]:
        """Iterate over jobs, newest first; pages are fetched as needed.

        Args:
            limit: maximum number of jobs.
            name: an exact name.
            q: a part of a name or id.
            sort: as in the API, for example ``-val_accuracy``.
            filters: further filters of the API.
        """
        arguments = {"status": status, "kind": kind, "tag": tag, "name": name, "q": q, "sort": sort}
        params = {field: value for field, value in arguments.items() if value is not None} | filters
        remaining = limit
        while remaining is None or remaining > 0:
            page_size = _PAGE_SIZE if remaining is None else min(remaining, _PAGE_SIZE)
            page = self._connection.json("GET", "/jobs", params=params | {"limit": str(page_size)})
            for document in page["data"]:
                yield Job(self._connection, document)
            if not page["has_more"]:
                return
            remaining = None if remaining is None else remaining - len(page["data"])
            params["cursor"] = page["next_cursor"]

    def list(self, *, limit: int | None = None, **filters: str) -> Iterator[Job]:
        """An older name of ``jobs``."""
        return self.jobs(limit=limit, **filters)

    # Methods of ``Job``, by id or name.

    def get(self, job: Job | str) -> Job:
        """Fetch a job."""
        return self._handle(job).refresh()

    def bisect(
        self, job: Job | str, metric: str, *, below: float | None = None, above: float | None = None
    ) -> Bisection:
        """Find the epoch from which a metric is too low or too high, by bisection: 64 epochs take at most 6 probes.

        The metric's last value must be bad; values that are not finite count as bad. The metric may turn bad
        more than once: ``times`` is the number of times that it did.

        Args:
            below, above: give exactly one of them; values beyond it are bad.

        Raises:
            ApiError: the job has no such metric, or its last value is good.
        """
        if (below is None) == (above is None):
            raise ValueError("name exactly one of below and above")
        limit = {"below": str(below)} if below is not None else {"above": str(above)}
        path = f"/jobs/{segment(self._handle(job).id)}/bisection"
        return Bisection.read(self._connection.json("GET", path, params={"metric": metric} | limit))

    def cancel(self, job: Job | str) -> Job:
        """See ``Job.cancel``."""
        return self._handle(job).cancel()

    def pause(self, job: Job | str) -> Job:
        """See ``Job.pause``."""
        return self._handle(job).pause()

    def resume(self, job: Job | str) -> Job:
        """See ``Job.resume``."""
        return self._handle(job).resume()

    def retry(self, job: Job | str) -> Job:
        """See ``Job.retry``."""
        return self._handle(job).retry()

    def fork(
        self,
        job: Job | str,
        overrides: Mapping[str, Any] | None = None,
        *,
        checkpoint: str | int = "latest",
        idempotency_key: str | None = None,
    ) -> Job:
        """See ``Job.fork``."""
        return self._handle(job).fork(overrides, checkpoint=checkpoint, idempotency_key=idempotency_key)

    def reproduce(self, job: Job | str, *, idempotency_key: str | None = None) -> Job:
        """See ``Job.reproduce``."""
        return self._handle(job).reproduce(idempotency_key=idempotency_key)

    def change(self, job: Job | str, **fields: Any) -> Job:
        """See ``Job.change``."""
        return self._handle(job).change(**fields)

    def delete(self, job: Job | str) -> None:
        """See ``Job.delete``."""
        self._handle(job).delete()

    def metrics(self, job: Job | str) -> History:
        """See ``Job.history``."""
        return self._handle(job).history()

    def results(self, job: Job | str) -> dict[str, Any]:
        """See ``Job.results``."""
        return self._handle(job).results()

    def checkpoints(self, job: Job | str) -> dict[str, Any]:
        """See ``Job.checkpoints``; the full response, with the list as ``data``."""
        return {"data": self._handle(job).checkpoints()}

    def predict(
        self,
        job: Job | str,
        images: Iterable[GivenImage] | GivenImage | None = None,
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        checkpoint: Which = "best",
        fit: bool = False,
        invert: bool = False,
        explain: bool = False,
    ) -> Prediction:
        """See ``Job.predict``."""
        return self._handle(job).predict(
            images, rows=rows, checkpoint=checkpoint, fit=fit, invert=invert, explain=explain
        )

    def generate(
        self,
        job: Job | str,
        *,
        format: Literal["png", "array"] = "array",  # noqa: A002 - the API's name for it
        with_latent: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> Generated:
        """See ``Job.generate``."""
        return self._handle(job).generate(format=format, with_latent=with_latent, **options)

    def generate_picture(
        self,
        job: Job | str,
        *,
        format: Literal["grid", "film"] = "grid",  # noqa: A002 - the API's name for it
        **options: Unpack[GenerateOptions],
    ) -> Picture:
        """See ``Job.generate_picture``."""
        return self._handle(job).generate_picture(format=format, **options)

    def wait(self, job: Job | str, *, timeout_s: float | None = None, outage_timeout_s: float = 60.0) -> Job:
        """See ``Job.wait``."""
        return self._handle(job).wait(timeout_s=timeout_s, outage_timeout_s=outage_timeout_s)

    def stream(
        self, job: Job | str, *, after: int = 0, outage_timeout_s: float = 60.0, on_outage: OnOutage | None = None
    ) -> Iterator[Event]:
        """See ``Job.events``."""
        return self._handle(job).events(after=after, outage_timeout_s=outage_timeout_s, on_outage=on_outage)

    def calibration(self, job: Job | str, *, checkpoint: Which = "best") -> dict[str, Any]:
        """See ``Job.calibration``."""
        return self._handle(job).calibration(checkpoint=checkpoint)

    def importance(self, job: Job | str, *, checkpoint: Which = "best") -> dict[str, Any]:
        """See ``Job.importance``."""
        return self._handle(job).importance(checkpoint=checkpoint)

    def confusion(self, job: Job | str, *, checkpoint: Which = "latest", epoch: int | None = None) -> dict[str, Any]:
        """See ``Job.confusion``."""
        return self._handle(job).confusion(checkpoint=checkpoint, epoch=epoch)

    def mistakes(self, job: Job | str, *, checkpoint: Which = "best", limit: int | None = None) -> dict[str, Any]:
        """See ``Job.mistakes``."""
        return self._handle(job).mistakes(checkpoint=checkpoint, limit=limit)

    def export(
        self,
        job: Job | str,
        target: ExportTarget,
        to: Path | str = ".",
        *,
        checkpoint: Which = "best",
        license: str | None = None,  # noqa: A002 - the API's name for it
    ) -> Path:
        """See ``Job.export``."""
        return self._handle(job).export(target, to, checkpoint=checkpoint, license=license)

    def export_to_mlflow(
        self, job: Job | str, uri: str, *, experiment: str = "tapeline", checkpoint: Which = "best"
    ) -> str:
        """Log a job as a run of an MLflow tracking server: settings, metrics of every epoch, files and tags.

        An earlier export of the job to the same experiment is updated.

        Args:
            uri: of the tracking server, for example ``http://127.0.0.1:5000`` or ``sqlite:///mlflow.db``.

        Returns:
            The id of the run.

        Raises:
            ExportFailed: MLflow is not installed on this machine, or rejects a request.
        """
        return mlflow_runs.log_run(
            self._connection, self._handle(job).refresh(), uri, experiment=experiment, checkpoint=checkpoint
        )

    # Files and datasets.

    def download(self, url: str, to: Path | str) -> Path:
        """Download a file and verify its SHA-256; an incomplete file is never left behind.

        Args:
            url: a URL from a response, or a path of the API.
            to: a file name, or a folder, in which the file gets the name that the service gives it.

        Raises:
            DownloadDamaged: the received bytes do not match the SHA-256 that the service sent.
        """
        return downloads.download(self._connection, url, Path(to))

    def fetch(self, url: str) -> bytes:
        """Download a small file into memory."""
        with self._connection.response("GET", url) as response:
            return response.read()

    def presets(self) -> Sequence[dict[str, Any]]:
        """The presets, each with ``kind``, ``name`` and its full ``spec``."""
        presets: Sequence[dict[str, Any]] = self._connection.json("GET", "/presets")["data"]
        return presets

    def workers(self) -> Sequence[dict[str, Any]]:
        """The workers of the last minute: ``name``, ``host``, ``slots``, and the caller's running ``jobs``."""
        workers: Sequence[dict[str, Any]] = self._connection.json("GET", "/workers")["data"]
        return workers

    def queue(self, *, limit: int = 100) -> dict[str, Any]:
        """The queued jobs in the order in which workers claim them, and in ``reason_text`` why none starts."""
        return self._connection.json("GET", f"/queue?limit={limit}")

    # Keys, for clients whose own key has the scope ``admin``.

    def api_keys(self) -> Sequence[dict[str, Any]]:
        """All API keys, without their secrets."""
        keys: Sequence[dict[str, Any]] = self._connection.json("GET", "/keys")["data"]
        return keys

    def rotate_key(self, key_id: str, *, overlap_s: float = 24 * 60 * 60) -> dict[str, Any]:
        """Rotate a key: create its successor; the old one expires after ``overlap_s``.

        Returns:
            The new key: ``key`` is the secret, which is returned only once; ``replaces`` is the old key.
        """
        return self._connection.json("POST", f"/keys/{segment(key_id)}/rotate", json={"overlap_s": overlap_s})

    def _handle(self, job: Job | str) -> Job:
        if isinstance(job, str) and not lookup.is_id(job):
            return self.job(job)
        return Job(self._connection, {"id": job.id if isinstance(job, Job) else job})

    def _create(self, method: str, path: str, **options: Any) -> Job:
        return Job(self._connection, self._connection.json(method, path, **options))
