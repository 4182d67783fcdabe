"""The client of one service."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, Literal, ParamSpec, Self, TypeVar
from urllib.parse import urlencode

from tapeline import downloads
from tapeline.addresses import local_server
from tapeline.connection import Connection, OnWait, segment
from tapeline.errors import AmbiguousJob, ApiError
from tapeline.job import Job, Model
from tapeline.method_types import Bisection, Comparison, Which
from tapeline.methods import GeneratedMethods
from tapeline.operations import lookup
from tapeline.operations.listing import Jobs
from tapeline.operations.lookup import Found
from tapeline.operations.training import TrainingOperations
from tapeline.operations.webhooks import WebhookOperations
from tapeline.resources import once
from tapeline.sweeps import Sweep, Trial
from tapeline.trackers import mlflow_runs

Side = Job | Sweep | Trial | str
"""A job, a sweep or a trial, in a comparison."""
_MIN_ID_SUFFIX_LENGTH: Final = 4

P = ParamSpec("P")
T = TypeVar("T")


def _of_job(method: Callable[Concatenate[Job, P], T]) -> Callable[Concatenate[Client, Job | str, P], T]:
    """A method of ``Job`` as one of the client that has the job, its id or its name as the first argument."""

    @wraps(method)
    def call(client: Client, job: Job | str, *args: P.args, **kwargs: P.kwargs) -> T:
        text = f"this method of the client goes with 0.3: use client.job(...).{method.__name__}(...)"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return method(client.handle(job), *args, **kwargs)

    return call  # type: ignore[return-value] # the job may be named, too


def checkpoints(job: Job) -> dict[str, Any]:
    """The former result of ``Client.checkpoints``."""
    return {"data": job.checkpoints()}


class Client(TrainingOperations, WebhookOperations, GeneratedMethods):
    """A client of one service. Not thread-safe: use one per thread.

    Args:
        server: for example ``https://ml.example`` (default: the service on this machine, with the port in
            TAPELINE_PORT or 8000).
        key: an API key, if the service requires one (default: the first one in TAPELINE_API_KEYS).
        on_wait: called with the reason and the seconds whenever a request waits for a quota.

    Every method raises ``ServerUnreachable`` if the service does not respond, and ``ApiError`` if it refuses the
    request. Requests that are safe to repeat are retried a few times first. Methods with a ``job`` parameter accept a
    ``Job``, an id, or any text by which ``job`` finds a job.
    """

    def __init__(self, server: str | None = None, key: str | None = None, *, on_wait: OnWait | None = None) -> None:
        self._connection = Connection(server or local_server(), key, on_wait=on_wait)
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
        return [first, *(self.job(job_id) for job_id in ids if job_id != first.id)]

    def folds(self, job: Job | str) -> dict[str, Any]:
        """The cross-validation of a job: its ``jobs``, and the ``means`` of their metrics.

        Raises:
            LookupError: the job does not belong to a cross-validation.
        """
        group = self.handle(job).refresh()["fold_group"]
        if group is None:
            raise LookupError("the job is not a fold of a cross-validation")
        return self._connection.json("GET", f"/folds/{segment(group)}")

    def job(self, id_or_name: str) -> Job:
        """The job with this id, the newest with this name, or the only one that contains the text in either.

        Raises:
            AmbiguousJob: several jobs match.
        """
        return self.look_up(id_or_name).job

    def handle(self, job: Job | str) -> Job:
        """Like ``job``, but without a request for a ``Job`` or a full id: its fields are fetched when they are read."""
        if isinstance(job, str) and not lookup.is_id(job):
            return self.job(job)
        return Job(self._connection, {"id": job.id if isinstance(job, Job) else job})

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
        **filters: str | bool,
    ) -> Jobs:
        """Iterate over jobs, newest first; pages are fetched as needed. A notebook shows them as a table.

        Args:
            limit: maximum number of jobs.
            name: an exact name.
            q: a part of a name or id.
            sort: as in the API, for example ``-val_accuracy``.
            filters: further filters of the API: ``dataset``, ``preset``, ``starred=True``, ``sweep``, ``parent``,
                ``created_since="2026-11-01T00:00Z"``, ``owner``; ``columns="best:val_accuracy"`` adds a column.
        """
        arguments = {"status": status, "kind": kind, "tag": tag, "name": name, "q": q, "sort": sort}
        params = {field: value for field, value in arguments.items() if value is not None}
        params |= {field: str(value).lower() if isinstance(value, bool) else value for field, value in filters.items()}

        def read() -> Iterator[Job]:
            for document in self._connection.items("/jobs", params, limit=limit):
                yield Job(self._connection, document)

        return Jobs(read)

    def model(self, reference: str, *, owner: str | None = None) -> Model:
        """A model by its name, or one version of it: ``digits@champion``, ``digits@latest`` or ``digits:3``.

        Args:
            owner: whose model it is, for a key with the scope ``admin``.
        """
        return Model(self._connection, reference, owner=owner).refresh()

    def models(self, *, limit: int | None = None, owner: str | None = None) -> Iterator[Model]:
        """Iterate over models by name; ``owner``: of this one, ``*``: of all, for admins."""
        query = {"owner": owner} if owner else {}
        for document in self._connection.items("/models", query, limit=limit):
            yield Model(self._connection, document["name"], document, owner=document["owner"] if owner else None)

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
        path = f"/jobs/{segment(self.handle(job).id)}/bisection"
        return Bisection.read(self._connection.json("GET", path, params={"metric": metric} | limit))

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
            self._connection, self.handle(job).refresh(), uri, experiment=experiment, checkpoint=checkpoint
        )

    # Sweeps and comparisons.

    def sweeps(
        self, *, limit: int | None = None, status: str | None = None, owner: str | None = None
    ) -> Iterator[Sweep]:
        """Iterate over sweeps, newest first; ``owner``: of this one, ``*``: of all, for admins."""
        query = {name: value for name, value in (("status", status), ("owner", owner)) if value}
        for document in self._connection.items("/sweeps", query, limit=limit):
            yield Sweep(self._connection, document)

    def find_sweep(self, sweep_id: str) -> Sweep:
        """The sweep with this id, or the newest one with this name or id suffix (four letters or more)."""
        if sweep_id and not sweep_id.startswith("swp_"):
            is_id_suffix = len(sweep_id) >= _MIN_ID_SUFFIX_LENGTH
            for sweep in self.sweeps():
                if sweep["name"] == sweep_id or (is_id_suffix and sweep.id.lower().endswith(sweep_id.lower())):
                    return sweep.refresh()
        return Sweep(self._connection, {"id": sweep_id}).refresh()

    def compare(
        self,
        a: Side | Sequence[Side],
        b: Side | Sequence[Side],
        *,
        metric: str | None = None,
        of: Literal["last", "best"] = "last",
    ) -> Comparison:
        """Compare two settings.

        Args:
            a, b: a job, or jobs that differ in their seeds; a sweep, for its best trial; a trial; or a name or id of
                one of these, such as ``"rates:3"`` for a trial of the sweep ``rates``.
            metric: default: ``val_accuracy`` of classifiers, ``frechet_distance`` of GANs.
            of: the value of the last epoch, or the best of all epochs.

        Returns:
            ``difference`` (``b`` minus ``a``), ``interval``, and a ``sentence``; ``["p"]``, ``["n"]`` and the rest as
            the API has them.
        """
        params = {"a": self._ids(a), "b": self._ids(b), "of": of} | ({"metric": metric} if metric else {})
        return Comparison(self._connection.json("GET", "/comparisons", params=params))

    def why(self, a: Side, b: Side) -> dict[str, Any]:
        """The differences of two jobs: ``spec``, ``provenance``, ``dataset``, the first differing ``epoch``
        and ``checkpoint``, and a ``sentence``. Nothing is trained.

        A trial with several seeds is represented by its job with the other side's seed, or else by that of
        its first seed.
        """
        return self._connection.json("GET", "/differences", params={"a": self._ids(a), "b": self._ids(b)})

    def investigate(self, a: Side, b: Side, *, idempotency_key: str | None = None) -> Job:
        """Submit a job that trains two others again, to find the first batch and tensor in which they differ.

        When it has succeeded, ``job["investigation"]`` has ``found`` and a ``sentence``.
        """
        options = once({"a": self._ids(a), "b": self._ids(b)}, idempotency_key)
        return Job(self._connection, self._connection.json("POST", "/differences", **options))

    def find_side(self, text: str, *, find_job: Callable[[str], Job] | None = None) -> Job | str:
        """Resolve the text of a comparison's side: to a job, or the id of a sweep or a trial.

        ``rates:1`` is a trial of the sweep ``rates``, and ``rates`` its best one, unless a job has this name.

        Args:
            find_job: finds a job by its name or id.

        Raises:
            AmbiguousJob, ApiError: several jobs match, or nothing matches.
        """
        sweep, colon, trial = text.rpartition(":")
        if text.startswith("swp_"):
            return text
        if colon and (trial.isdecimal() or not trial):
            with suppress(ApiError):
                return f"{self.find_sweep(sweep).id}:{trial}"
        try:
            return (find_job or self.job)(text)
        except (AmbiguousJob, ApiError):
            with suppress(ApiError):
                return self.find_sweep(text).id
            raise

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

    # Sharing.

    def share(self, *what: Side, expires_at: datetime | None = None) -> dict[str, Any]:
        """Create a link with which anybody may read a job, a sweep, or the comparison of two; ``url`` is the link.

        Args:
            expires_at: when it stops working, with a time zone; by default when it is revoked.
        """
        match [self._ids(side) for side in what]:
            case [one]:
                path = f"/{'sweeps' if one.startswith('swp_') else 'jobs'}/{one}"
            case [a, b]:
                path = f"/comparisons?{urlencode({'a': a, 'b': b}, safe=':,')}"
            case _:
                raise ValueError("share one job or sweep, or two to compare")
        body = {"path": path, "expires_at": expires_at.isoformat() if expires_at is not None else None}
        return self._connection.json("POST", "/shares", json=body)

    # Methods of ``Job``, by id or name: deprecated, until 0.3.

    list = jobs
    get = _of_job(Job.refresh)
    cancel = _of_job(Job.cancel)
    pause = _of_job(Job.pause)
    resume = _of_job(Job.resume)
    retry = _of_job(Job.retry)
    fork = _of_job(Job.fork)
    reproduce = _of_job(Job.reproduce)
    change = _of_job(Job.change)
    delete = _of_job(Job.delete)
    wait = _of_job(Job.wait)
    stream = _of_job(Job.events)
    metrics = _of_job(Job.history)
    results = _of_job(Job.results)
    checkpoints = _of_job(checkpoints)
    predict = _of_job(Job.predict)
    generate = _of_job(Job.generate)
    generate_picture = _of_job(Job.generate_picture)
    calibration = _of_job(Job.calibration)
    importance = _of_job(Job.importance)
    confusion = _of_job(Job.confusion)
    mistakes = _of_job(Job.mistakes)
    export = _of_job(Job.export)

    def _ids(self, side: Side | Sequence[Side]) -> str:
        sides = [side] if isinstance(side, Side) or not isinstance(side, Sequence) else side
        for item in sides:
            if not isinstance(item, Side):
                raise TypeError(f"{item!r} is no job, sweep, trial or name; a trial is sweep.trial(3), or 'rates:3'")
        # Ids are sent unchanged: this saves a request, and the service reports unknown ones.
        resolved = [
            self.find_side(item) if isinstance(item, str) and not all(map(lookup.is_id, item.split(","))) else item
            for item in sides
        ]
        return ",".join(item if isinstance(item, str) else item.id for item in resolved)
