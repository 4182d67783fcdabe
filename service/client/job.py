"""A job: its document, and operations on it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self, cast
from uuid import uuid4

from service.client import downloads, streams
from service.client.connection import json_body, segment
from service.client.errors import ServerUnreachable
from service.client.method_types import Event, History, Which
from service.client.network_operations import NetworkOperations
from service.client.streams import OnOutage
from service.states import TERMINAL


class Job(NetworkOperations):
    """A job as of the last request; ``refresh`` and ``wait`` update it.

    It is also a mapping over the document of the API: ``job["progress"]["epoch"]``. Like those of ``Client``, all
    methods may raise ``ServerUnreachable`` and ``ApiError``.
    """

    # The document.

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self._document.get("name") else ""
        return f"<Job {self.id}{name} {self._document.get('status', 'not read yet')}>"

    @property
    def name(self) -> str | None:
        """The name, if the job has one."""
        return cast("str | None", self._read("name"))

    @property
    def kind(self) -> str:
        """``classifier`` or ``gan``."""
        return str(self._read("kind"))

    @property
    def status(self) -> str:
        """``queued``, ``running``, ``paused``, ``succeeded``, ``failed`` or ``cancelled``."""
        return str(self._read("status"))

    @property
    def ended(self) -> bool:
        """Whether the job has succeeded, failed or been cancelled."""
        return self.status in TERMINAL

    @property
    def tags(self) -> list[str]:
        """The tags."""
        return list(self._read("tags"))

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return int(self._read("progress")["epoch"])

    @property
    def epochs(self) -> int:
        """Total epochs."""
        return int(self._read("progress")["epochs"])

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics of the last completed epoch; ``history`` has those of all epochs."""
        return dict(self._read("metrics"))

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best checkpoint."""
        return cast("int | None", self._read("best_epoch"))

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test part of the data, scored once at the end; ``None``: not scored, or not finite."""
        return cast("float | None", self._read("test_accuracy"))

    @property
    def test_loss(self) -> float | None:
        """Loss on the test part of the data."""
        return cast("float | None", self._read("test_loss"))

    @property
    def test_epoch(self) -> int | None:
        """The epoch whose weights were scored on the test part: the best one."""
        return cast("int | None", self._read("test_epoch"))

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the job failed: ``code``, ``message`` and possibly ``hint``."""
        return cast("dict[str, Any] | None", self._read("error"))

    @property
    def health(self) -> list[dict[str, Any]]:
        """Current findings: problems of the training."""
        return list(self._read("health"))

    @property
    def parent_id(self) -> str | None:
        """The job that this one is a fork or reproduction of."""
        return cast("str | None", self._read("parent_id"))

    @property
    def reused_from(self) -> str | None:
        """The job whose first epochs (``reused_epochs``) this one took over."""
        return cast("str | None", self._read("reused_from"))

    @property
    def reproduction(self) -> dict[str, Any] | None:
        """Of a reproduction: ``of``, ``match`` and ``first_difference``."""
        return cast("dict[str, Any] | None", self._read("reproduction"))

    @property
    def result_digest(self) -> str | None:
        """A digest of weights, metrics and samples; equal digests mean equal results, bit for bit."""
        return cast("str | None", self._read("result_digest"))

    @property
    def created_at(self) -> datetime:
        """Time of submission, in UTC."""
        return datetime.fromisoformat(self._read("created_at"))

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as it was sent."""
        return dict(self._read("spec"))

    @property
    def resolved(self) -> dict[str, Any]:
        """The resolved spec."""
        return dict(self._read("resolved"))

    @property
    def page(self) -> str:
        """The URL of the job's page."""
        return f"{self._connection.server}{self._read('urls')['page']}"

    # Reading.

    def refresh(self) -> Self:
        """Fetch the document again."""
        return self._set_document(self._connection.json("GET", self._path))

    def wait(self, *, timeout_s: float | None = None, outage_timeout_s: float = 60.0) -> Self:
        """Wait until the job has ended; ``status`` has the outcome.

        Args:
            outage_timeout_s: how long the service may be unavailable.

        Raises:
            TimeoutError: the job has not ended in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        responded_at = time.monotonic()
        while True:
            try:
                self.refresh()
            except ServerUnreachable:
                if time.monotonic() - responded_at > outage_timeout_s:
                    raise
            else:
                responded_at = time.monotonic()
                if self.ended:
                    return self
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"job {self.id} is still {self.status} after {timeout_s:g} s")
            time.sleep(0.5)

    def events(
        self, *, after: int = 0, outage_timeout_s: float = 60.0, on_outage: OnOutage | None = None
    ) -> Iterator[Event]:
        """The events after number ``after``, as they happen, until the job has ended.

        A broken connection is re-established, without lost or repeated events.

        Args:
            outage_timeout_s: how long the service may be unavailable.
            on_outage: called with true when the service has not responded for two seconds, with false when it responds
                again.
        """
        path = f"{self._path}/stream"
        return streams.events(
            self._connection, path, after=after, outage_timeout_s=outage_timeout_s, on_outage=on_outage
        )

    def history(self) -> History:
        """The metrics of every completed epoch: ``epochs``, and ``series`` by the metric's name."""
        return cast("History", self._connection.json("GET", f"{self._path}/metrics"))

    def results(self) -> dict[str, Any]:
        """Final and best metrics, checkpoints, samples, plots, and the first 1,000 files; ``files`` has all."""
        return self._connection.json("GET", f"{self._path}/results")

    def checkpoints(self) -> list[dict[str, Any]]:
        """The stored checkpoints, each with ``epoch``, ``best``, ``latest``, ``url``, ``size_bytes``."""
        return self._items("checkpoints", None)

    # Files.

    def files(self) -> list[tuple[str, str]]:
        """All files, including plots and the animation of samples: names and URLs."""
        results = self.results()
        items = list(results["artifacts"])
        if results.get("next_cursor") is not None:
            items += self._items("artifacts", results["next_cursor"])
        files = [(downloads.safe_name(item["name"]), str(item["url"])) for item in items]
        files += [(downloads.safe_name(f"{name}.png"), str(url)) for name, url in results["plots"].items()]
        if results["samples"]["film"]:
            files.append(("samples.gif", str(results["samples"]["film"])))
        return files

    def download(self, to: Path | str | None = None) -> list[Path]:
        """Download all files and verify their SHA-256.

        Args:
            to: the folder (default: one named after the job's id).
        """
        folder = Path(self.id if to is None else to)
        folder.mkdir(parents=True, exist_ok=True)
        return [downloads.download(self._connection, url, folder / name) for name, url in self.files()]

    def download_checkpoint(self, which: Which = "best", to: Path | str = ".") -> Path:
        """Download one checkpoint, a safetensors file.

        Args:
            to: a folder or a file name.
        """
        return downloads.download(self._connection, f"{self._path}/checkpoints/{segment(str(which))}", Path(to))

    # New jobs from this one.

    def fork(
        self,
        overrides: Mapping[str, Any] | None = None,
        *,
        checkpoint: str | int = "latest",
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a new job that continues from a checkpoint of this one.

        Args:
            overrides: fields of the spec that change.
            checkpoint: ``best``, ``latest`` or the number of an epoch.
            idempotency_key: as in ``Client.submit``.
        """
        options = json_body(
            {"checkpoint": checkpoint, "overrides": dict(overrides or {})}, **_idempotency(idempotency_key)
        )
        return Job(self._connection, self._connection.json("POST", f"{self._path}/fork", repeatable=True, **options))

    def reproduce(self, *, idempotency_key: str | None = None) -> Job:
        """Train a succeeded job again; ``reproduction`` of the new job says whether the results are bit-identical."""
        headers = _idempotency(idempotency_key)
        document = self._connection.json("POST", f"{self._path}/reproduce", headers=headers, repeatable=True)
        return Job(self._connection, document)

    # Changing it.

    def cancel(self) -> Self:
        """Cancel a job; a running one stops after the current batch."""
        return self._act("cancel")

    def pause(self) -> Self:
        """Pause a running job after the current batch; it keeps its last checkpoint."""
        return self._act("pause")

    def resume(self) -> Self:
        """Continue a paused job from its last checkpoint."""
        return self._act("resume")

    def retry(self) -> Self:
        """Continue a failed job from its last checkpoint."""
        return self._act("retry")

    def change(self, **fields: Any) -> Self:
        """Set ``name``, ``tags``, ``priority``, ``starred`` or ``note``; ``None`` clears."""
        return self._set_document(self._connection.json("PATCH", self._path, repeatable=True, **json_body(fields)))

    def delete(self) -> None:
        """Delete an ended job with all its files."""
        with self._connection.response("DELETE", self._path):
            pass

    def _read(self, field: str) -> Any:
        """A field of the document, which is fetched if the list item or handle lacks it."""
        if field not in self._document:
            self.refresh()
        return self._document[field]

    def _items(self, resource: str, cursor: str | None) -> list[dict[str, Any]]:
        """All items of a list of the job, fetched page by page."""
        items: list[dict[str, Any]] = []
        while True:
            params = {} if cursor is None else {"cursor": cursor}
            page = self._connection.json("GET", f"{self._path}/{resource}", params=params)
            items += page["data"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return items

    def _act(self, verb: str) -> Self:
        return self._set_document(self._connection.json("POST", f"{self._path}/{verb}"))

    def _set_document(self, document: Mapping[str, Any]) -> Self:
        self._document = dict(document)
        return self


def _idempotency(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or uuid4().hex}
