"""The client of one service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, Self, Unpack, cast
from uuid import uuid4

from service.client import downloads, lookup
from service.client.answers import Event, Generated, GenerateOptions, History, Picture, Prediction, Which
from service.client.connection import Connection, json_body
from service.client.job import Job
from service.client.lookup import Found
from service.client.sweep import Sweep

_UPLOAD_TIMEOUT_S: Final = 660.0
"""After the last byte has arrived, a service may read an archive of images for ten minutes."""
_PAGE: Final = 100


class Client:
    """A client of one service. Not thread-safe: use one per thread.

    Args:
        server: for example ``http://127.0.0.1:8000``.
        key: an API key, if the service requires one (default: the first one in TAPELINE_API_KEYS).

    Every method raises ``ServerUnreachable`` where no service answers and ``ApiError`` where it refuses. Requests
    that are safe to repeat are repeated a few times before that. Where a method takes a job, it takes a ``Job`` or an
    id; ``job`` also finds jobs by their name.
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
        return self._made("POST", "/jobs", repeatable=True, **options)

    def dry_run(self, spec: Mapping[str, Any] | bytes) -> dict[str, Any]:
        """The resolved spec and its estimated cost; nothing is stored."""
        params = {"dry_run": "true"}
        return self._connection.json("POST", "/jobs", params=params, repeatable=True, **json_body(spec))

    # Sweeps.

    def sweep(self, spec: Mapping[str, Any] | bytes, *, idempotency_key: str | None = None) -> Sweep:
        """Start a sweep: many jobs as one experiment.

        Args:
            spec: a document, or JSON text that is sent as it is.
            idempotency_key: as for ``submit``.
        """
        options = json_body(spec, **{"Idempotency-Key": idempotency_key or uuid4().hex})
        return Sweep(self._connection, self._connection.json("POST", "/sweeps", repeatable=True, **options))

    def sweep_dry_run(self, spec: Mapping[str, Any] | bytes) -> dict[str, Any]:
        """What a sweep would do; nothing is stored."""
        params = {"dry_run": "true"}
        return self._connection.json("POST", "/sweeps", params=params, repeatable=True, **json_body(spec))

    def sweeps(self, *, limit: int | None = None, status: str | None = None) -> Iterator[Sweep]:
        """Iterate over sweeps, newest first."""
        params = {"limit": str(_PAGE)} | ({"status": status} if status else {})
        left = limit
        while True:
            page = self._connection.json("GET", "/sweeps", params=params)
            for document in page["data"][:left]:
                yield Sweep(self._connection, document)
            left = None if left is None else left - len(page["data"])
            if not page["has_more"] or (left is not None and left <= 0):
                return
            params["cursor"] = page["next_cursor"]

    def find_sweep(self, sweep_id: str) -> Sweep:
        """The sweep with this id, or the newest whose id ends so, or that has this name."""
        if not sweep_id.startswith("swp_"):
            for found in self.sweeps():
                if found["name"] == sweep_id or found.id.lower().endswith(sweep_id.lower()):
                    return found.refresh()
        return Sweep(self._connection, {"id": sweep_id}).refresh()

    def compare(
        self,
        a: Job | str | Sequence[Job | str],
        b: Job | str | Sequence[Job | str],
        *,
        metric: str | None = None,
        of: Literal["last", "best"] = "last",
    ) -> dict[str, Any]:
        """Compare two settings, each a job or jobs that differ in their seeds.

        Args:
            metric: default: ``val_accuracy`` of classifiers, ``frechet_distance`` of GANs.
            of: the value of the last epoch, or the best of all epochs.

        Returns:
            ``difference`` (``b`` minus ``a``), ``interval``, ``p``, ``n``, and a ``sentence``.
        """
        params = {"a": _ids(a), "b": _ids(b), "of": of} | ({"metric": metric} if metric else {})
        return self._connection.json("GET", "/comparisons", params=params)

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

    # What ``Job`` has as methods, by id.

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
        images: Sequence[Path | bytes | Sequence[Any]],
        *,
        checkpoint: Which = "best",
        fit: bool = False,
        invert: bool = False,
        explain: bool = False,
    ) -> Prediction:
        """See ``Job.predict``."""
        return self._handle(job).predict(images, checkpoint=checkpoint, fit=fit, invert=invert, explain=explain)

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

    # Files and datasets.

    def download(self, url: str, to: Path | str) -> Path:
        """Download a file and verify its SHA-256; an incomplete file is never left behind.

        Args:
            url: a URL from a response, or a path of the API.
            to: a file name, or a folder, in which the file gets the name that the service gives it.

        Raises:
            DownloadDamaged: the bytes that arrived are not those that the service sent.
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
        on_progress: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Upload a dataset.

        Args:
            files: form fields and paths: ``archive``, or ``images`` and ``labels``, optionally with
                ``validation_images`` and ``validation_labels``. Files are streamed.
            validation_fraction: share of each class that becomes validation data, where no files are given for it.
            size: scale the images of an archive of image files, such as ``32`` or ``32x24`` (width x height).
            on_progress: called with the number of bytes read each time that a piece of a file is about to be sent.
        """
        fields = {"name": name, "validation_fraction": validation_fraction, "size": size}
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

    def _made(self, method: str, path: str, **options: Any) -> Job:
        return Job(self._connection, self._connection.json(method, path, **options))


def _ids(jobs: Job | str | Sequence[Job | str]) -> str:
    several = [jobs] if isinstance(jobs, Job | str) else jobs
    return ",".join(job.id if isinstance(job, Job) else job for job in several)


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], on_progress: Callable[[int], None]) -> None:
        self._file, self._on_progress = file, on_progress
        self.name = file.name

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_progress(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
