"""The client of one service."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, Self, Unpack, cast
from urllib.parse import quote
from uuid import uuid4

from service.client import downloads, lookup, mlflow_runs
from service.client.answers import (
    Event,
    ExportTarget,
    Generated,
    GenerateOptions,
    History,
    Picture,
    Prediction,
    Which,
)
from service.client.connection import Connection, json_body
from service.client.job import Job
from service.client.lookup import Found

_UPLOAD_TIMEOUT_S: Final = 660.0
"""The service may read an archive of images for ten minutes after the last byte has arrived."""
_PAGE: Final = 100


class Client:
    """A client of one service. Not thread-safe: use one per thread.

    Args:
        server: for example ``http://127.0.0.1:8000``.
        key: an API key, if the service requires one (default: the first one in TAPELINE_API_KEYS).

    Every method raises ``ServerUnreachable`` if the service does not respond, and ``ApiError`` if it refuses the
    request. Requests that are safe to repeat are retried a few times first. Methods with a ``job`` parameter accept a
    ``Job`` or an id; ``job`` also finds jobs by name.
    """

    def __init__(self, server: str, key: str | None = None) -> None:
        self._connection = Connection(server, key)
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
        return self._connection.json("GET", f"/folds/{group}")

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
        given = {"status": status, "kind": kind, "tag": tag, "name": name, "q": q, "sort": sort}
        params = {field: value for field, value in given.items() if value is not None} | filters
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = self._connection.json("GET", "/jobs", params=params | {"limit": str(size)})
            for document in page["data"]:
                yield Job(self._connection, document)
            if not page["has_more"]:
                return
            left = None if left is None else left - len(page["data"])
            params["cursor"] = page["next_cursor"]

    def list(self, *, limit: int | None = None, **filters: str) -> Iterator[Job]:
        """An older name of ``jobs``."""
        return self.jobs(limit=limit, **filters)

    # Methods of ``Job``, by id.

    def get(self, job: Job | str) -> Job:
        """Fetch a job by its id."""
        return self._handle(job).refresh()

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
        images: Sequence[Path | bytes | Sequence[Any]] | None = None,
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

    def wait(self, job: Job | str, *, timeout_s: float | None = None, patience_s: float = 60.0) -> Job:
        """See ``Job.wait``."""
        return self._handle(job).wait(timeout_s=timeout_s, patience_s=patience_s)

    def stream(self, job: Job | str, *, after: int = 0, patience_s: float = 60.0) -> Iterator[Event]:
        """See ``Job.events``."""
        return self._handle(job).events(after=after, patience_s=patience_s)

    def export(
        self,
        job: Job | str,
        target: ExportTarget,
        to: Path | str = ".",
        *,
        checkpoint: Which = "best",
        license: str | None = None,  # noqa: A002 - the API's name for it
    ) -> Path:
        """Download a trained model in the format of another program.

        Args:
            target: ``onnx`` (a single file), or ``torch``, ``tensorboard`` or ``huggingface`` (a zip file).
            to: a folder or a file name.
            license: of the model, for the model card of ``huggingface``; default: that of the dataset.
        """
        return downloads.export(
            self._connection, self._handle(job).id, target, Path(to), checkpoint=checkpoint, license=license
        )

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

    def datasets(self) -> Sequence[dict[str, Any]]:
        """The datasets that specs can use."""
        found: Sequence[dict[str, Any]] = self._connection.json("GET", "/datasets")["data"]
        return found

    def dataset(self, name: str) -> dict[str, Any]:
        """A dataset, with the number of examples of each class as ``class_counts``."""
        return self._connection.json("GET", f"/datasets/{quote(name, safe='@')}")

    def dataset_columns(self, name: str) -> dict[str, Any]:
        """Statistics of the columns of a table."""
        return self._connection.json("GET", f"/datasets/{quote(name, safe='@')}/columns")

    def dataset_examples(
        self, name: str, *, part: str = "train", label: int | None = None, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the images of a dataset, or the rows of a table; pages are fetched as needed.

        Args:
            part: ``train``, ``validation`` or ``test``.
            label: index of a class: only its examples.
            limit: maximum number of examples.
        """
        what = "rows" if self.dataset(name)["kind"] == "table" else "examples"
        params = {"part": part} | ({} if label is None else {"class": str(label)})
        left = limit
        while left is None or left > 0:
            size = str(_PAGE if left is None else min(left, _PAGE))
            page = self._connection.json(
                "GET", f"/datasets/{quote(name, safe='@')}/{what}", params=params | {"limit": size}
            )
            yield from page["data"]
            if not page["has_more"]:
                return
            left = None if left is None else left - len(page["data"])
            params["cursor"] = page["next_cursor"]

    def presets(self) -> Sequence[dict[str, Any]]:
        """The presets, each with ``kind``, ``name`` and its full ``spec``."""
        found: Sequence[dict[str, Any]] = self._connection.json("GET", "/presets")["data"]
        return found

    def upload(
        self,
        name: str,
        files: Mapping[str, Path],
        *,
        validation_fraction: float | None = None,
        size: str | None = None,
        channels: Literal["1", "3", "auto"] | None = None,
        on_bad: Literal["error", "skip"] | None = None,
        target: str | None = None,
        types: Mapping[str, str] | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Upload a dataset.

        Args:
            files: form fields and paths: ``table`` (CSV or TSV), ``archive``, or ``images`` and ``labels``, optionally
                with ``validation_images`` and ``validation_labels``. Files are streamed.
            validation_fraction: share of each class that becomes validation data, if there are no files for it.
            size: scale the images of an archive of image files, such as ``32`` or ``32x24`` (width x height).
            channels: store such images in grey (``1``) or in colour (``3``); by default detected from the images.
            on_bad: ``skip`` omits images that cannot be read; the response's ``report`` names them.
            target: the label column of a table (default: the last one).
            types: types of columns of a table, instead of the detected ones: ``number``, ``category``, ``date`` or
                ``ignore``.
            on_progress: called with the number of bytes before each piece of a file is sent.
        """
        fields: dict[str, Any] = {"name": name, "validation_fraction": validation_fraction, "size": size}
        fields |= {"channels": channels, "on_bad": on_bad}
        fields |= {"target": target, "types": json.dumps(dict(types)) if types else None}
        fields = {field: value for field, value in fields.items() if value is not None}
        with ExitStack() as opened:
            parts: dict[str, IO[bytes]] = {}
            for field, path in files.items():
                file = opened.enter_context(path.open("rb"))
                parts[field] = file if on_progress is None else cast("IO[bytes]", _Counted(file, on_progress))
            options: dict[str, Any] = {"data": fields, "files": parts, "timeout": _UPLOAD_TIMEOUT_S}
            return self._connection.json("POST", "/datasets", **options)

    def delete_dataset(self, name: str) -> None:
        """Delete an uploaded dataset that no unfinished job uses."""
        with self._connection.response("DELETE", f"/datasets/{name}"):
            pass

    # Keys, for clients whose own key has the scope ``admin``.

    def api_keys(self) -> Sequence[dict[str, Any]]:
        """All API keys, without their secrets."""
        found: Sequence[dict[str, Any]] = self._connection.json("GET", "/keys")["data"]
        return found

    def rotate_key(self, key_id: str, *, overlap_s: float = 24 * 60 * 60) -> dict[str, Any]:
        """Rotate a key: create its successor; the old one expires after ``overlap_s``.

        Returns:
            The new key: ``key`` is the secret, which is returned only once; ``replaces`` is the old key.
        """
        return self._connection.json("POST", f"/keys/{key_id}/rotate", json={"overlap_s": overlap_s})

    def _handle(self, job: Job | str) -> Job:
        return Job(self._connection, {"id": job.id if isinstance(job, Job) else job})

    def _create(self, method: str, path: str, **options: Any) -> Job:
        return Job(self._connection, self._connection.json(method, path, **options))


class _Counted:
    """A file that reports the number of bytes read."""

    def __init__(self, file: IO[bytes], on_progress: Callable[[int], None]) -> None:
        self._file, self._on_progress = file, on_progress
        self.name = file.name

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_progress(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
