"""A job of the service: its document, and what can be done with it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, Unpack, cast
from uuid import uuid4

from service.client import downloads, streams
from service.client.answers import Event, Generated, GenerateOptions, History, Picture, Prediction, Which
from service.client.connection import Connection, json_body
from service.client.errors import ApiError, ServerUnreachable
from service.client.images import encoded
from service.states import TERMINAL


class Job(Mapping[str, Any]):
    """One job, as it was when it was last read; ``refresh`` and ``wait`` read it anew.

    It is a mapping over the document of the API as well: ``job["progress"]["epoch"]``. Every method raises
    ``ServerUnreachable`` and ``ApiError`` as those of ``Client`` do.
    """

    def __init__(self, connection: Connection, document: Mapping[str, Any]) -> None:
        self._connection = connection
        self._document = dict(document)

    # The document.

    def __getitem__(self, field: str) -> Any:
        return self._document[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self._document.get("name") else ""
        return f"<Job {self.id}{name} {self._document.get('status', 'not read yet')}>"

    @property
    def document(self) -> dict[str, Any]:
        """The document of the API, for example to print it as JSON."""
        return dict(self._document)

    @property
    def id(self) -> str:
        """``job_`` and 26 letters and digits."""
        return str(self._document["id"])

    @property
    def name(self) -> str | None:
        """The name that a person gave it."""
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
        """Whether it has succeeded, failed or been cancelled."""
        return self.status in TERMINAL

    @property
    def tags(self) -> list[str]:
        """Labels that a person gave it."""
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
        """The metrics of the last completed epoch; ``history`` has those of all."""
        return dict(self._read("metrics"))

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose checkpoint is called ``best``."""
        return cast("int | None", self._read("best_epoch"))

    @property
    def error(self) -> dict[str, Any] | None:
        """Why it failed: ``code``, ``message`` and perhaps ``hint``."""
        return cast("dict[str, Any] | None", self._read("error"))

    @property
    def health(self) -> list[dict[str, Any]]:
        """Problems of the training that were found and are not over."""
        return list(self._read("health"))

    @property
    def parent_id(self) -> str | None:
        """The job that this one was forked from, or reproduces."""
        return cast("str | None", self._read("parent_id"))

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
        """When it was submitted, in UTC."""
        return datetime.fromisoformat(self._read("created_at"))

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as it was sent."""
        return dict(self._read("spec"))

    @property
    def resolved(self) -> dict[str, Any]:
        """The spec with every value filled in."""
        return dict(self._read("resolved"))

    @property
    def page(self) -> str:
        """The address of its page, for a browser."""
        return f"{self._connection.server}{self._read('urls')['page']}"

    # Reading.

    def refresh(self) -> Self:
        """Read it anew."""
        return self._take(self._connection.json("GET", self._path))

    def wait(self, *, timeout_s: float | None = None, patience_s: float = 60.0) -> Self:
        """Wait until it has ended; ``status`` says how.

        Args:
            patience_s: the longest time that the service may be away.

        Raises:
            TimeoutError: it has not ended in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        answered = time.monotonic()
        while True:
            try:
                self.refresh()
            except ServerUnreachable:
                if time.monotonic() - answered > patience_s:
                    raise
            else:
                answered = time.monotonic()
                if self.ended:
                    return self
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"job {self.id} is still {self.status} after {timeout_s:g} s")
            time.sleep(0.5)

    def events(self, *, after: int = 0, patience_s: float = 60.0) -> Iterator[Event]:
        """Its events as they happen, from number ``after`` on until the job has ended.

        A connection that breaks is made anew, and no event is lost or comes twice.

        Args:
            patience_s: the longest time that the service may be away.
        """
        return streams.events(self._connection, f"{self._path}/stream", after=after, patience_s=patience_s)

    def history(self) -> History:
        """The metrics of every completed epoch: ``epochs``, and ``series`` by the metric's name."""
        return cast("History", self._connection.json("GET", f"{self._path}/metrics"))

    def results(self) -> dict[str, Any]:
        """Final and best metrics, checkpoints, samples, plots, and the first 1,000 files; ``files`` has all."""
        return self._connection.json("GET", f"{self._path}/results")

    def checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints that are kept, each with ``epoch``, ``best``, ``latest``, ``url``, ``size_bytes``."""
        return self._items("checkpoints", None)

    # Files.

    def files(self) -> list[tuple[str, str]]:
        """All files, plots and the film of samples included: a name, and the address to download it from."""
        results = self.results()
        items = list(results["artifacts"])
        if results.get("next_cursor") is not None:
            items += self._items("artifacts", results["next_cursor"])
        found = [(downloads.safe_name(item["name"]), str(item["url"])) for item in items]
        found += [(downloads.safe_name(f"{name}.png"), str(url)) for name, url in results["plots"].items()]
        if results["samples"]["film"]:
            found.append(("samples.gif", str(results["samples"]["film"])))
        return found

    def download(self, to: Path | str | None = None) -> list[Path]:
        """Download all files; each is compared with its SHA-256.

        Args:
            to: the folder; by default one that is named after the job's id.
        """
        folder = Path(self.id if to is None else to)
        folder.mkdir(parents=True, exist_ok=True)
        return [downloads.download(self._connection, url, folder / name) for name, url in self.files()]

    def download_checkpoint(self, which: Which = "best", to: Path | str = ".") -> Path:
        """Download one checkpoint, a safetensors file.

        Args:
            to: a folder, or the file's name.
        """
        return downloads.download(self._connection, f"{self._path}/checkpoints/{which}", Path(to))

    # Using the network.

    def predict(
        self,
        images: Sequence[Path | bytes | Sequence[Any]],
        *,
        checkpoint: Which = "best",
        fit: bool = False,
        invert: bool = False,
        explain: bool = False,
    ) -> Prediction:
        """Classify images with a trained classifier.

        Args:
            images: files (PNG, JPEG, WebP, BMP or GIF), their bytes, or rows of numbers in [0, 1], 0 being black.
            fit: cut drawings out, and centre them as MNIST's digits are.
            invert: they are dark on light.
            explain: also ``saliency``, how each pixel changes the logit of the class that was found.

        Raises:
            UnreadableImage: a file or bytes are no such image.
        """
        body = {"images": [encoded(image) for image in images], "checkpoint": checkpoint}
        body |= {"fit": fit, "invert": invert, "explain": explain}
        answer = self._connection.json("POST", f"{self._path}/predict", repeatable=True, **json_body(body))
        return cast("Prediction", answer)

    def generate(
        self,
        *,
        format: Literal["png", "array"] = "array",  # noqa: A002 - the API's name for it
        with_latent: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> Generated:
        """Generate images with a GAN, as rows of numbers in [0, 1], or as PNGs in base64.

        Args:
            with_latent: also the points that they were made from, as ``latent``.
        """
        body = {"format": format, "with_latent": with_latent, **options}
        answer = self._connection.json("POST", f"{self._path}/generate", repeatable=True, **json_body(body))
        return cast("Generated", answer)

    def generate_picture(
        self,
        *,
        format: Literal["grid", "film"] = "grid",  # noqa: A002 - the API's name for it
        **options: Unpack[GenerateOptions],
    ) -> Picture:
        """Generate images with a GAN, all in one PNG, or one after the other in a GIF."""
        body = json_body({"format": format, **options})
        with self._connection.response("POST", f"{self._path}/generate", repeatable=True, **body) as response:
            return Picture(response.read(), int(response.headers.get("Tapeline-Checkpoint", 0)))

    # New jobs from this one.

    def fork(
        self,
        overrides: Mapping[str, Any] | None = None,
        *,
        checkpoint: str | int = "latest",
        idempotency_key: str | None = None,
    ) -> Job:
        """Make a new job that continues from a checkpoint of this one.

        Args:
            overrides: fields of a spec that are different from there on.
            checkpoint: ``best``, ``latest`` or the number of an epoch.
            idempotency_key: as in ``Client.submit``.
        """
        options = json_body(
            {"checkpoint": checkpoint, "overrides": dict(overrides or {})}, **_idempotency(idempotency_key)
        )
        return Job(self._connection, self._connection.json("POST", f"{self._path}/fork", repeatable=True, **options))

    def reproduce(self, *, idempotency_key: str | None = None) -> Job:
        """Train a job that succeeded once more; the new job's ``reproduction`` says whether every bit is the same."""
        headers = _idempotency(idempotency_key)
        made = self._connection.json("POST", f"{self._path}/reproduce", headers=headers, repeatable=True)
        return Job(self._connection, made)

    # Changing it.

    def cancel(self) -> Self:
        """End a waiting job now, a running one between two batches."""
        return self._act("cancel")

    def pause(self) -> Self:
        """Stop a running job between two batches; its last checkpoint stays."""
        return self._act("pause")

    def resume(self) -> Self:
        """Continue a paused job from its last checkpoint."""
        return self._act("resume")

    def retry(self) -> Self:
        """Continue a failed job from its last checkpoint."""
        return self._act("retry")

    def change(self, **fields: Any) -> Self:
        """Set ``name``, ``tags``, ``priority``, ``starred`` or ``note``; ``None`` clears."""
        return self._take(self._connection.json("PATCH", self._path, repeatable=True, **json_body(fields)))

    def delete(self) -> None:
        """Remove it with all its files; it must have ended."""
        with self._connection.response("DELETE", self._path):
            pass

    @property
    def _path(self) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.id):
            raise ApiError(404, {"code": "job_not_found", "detail": f"{self.id!r} is not the id of a job"})
        return f"/jobs/{self.id}"

    def _read(self, field: str) -> Any:
        """A field of the document, which is read where a list or a handle lacks it."""
        if field not in self._document:
            self.refresh()
        return self._document[field]

    def _items(self, of: str, cursor: str | None) -> list[dict[str, Any]]:
        """What a list of the job's holds from this place on, page by page."""
        items: list[dict[str, Any]] = []
        while True:
            params = {} if cursor is None else {"cursor": cursor}
            page = self._connection.json("GET", f"{self._path}/{of}", params=params)
            items += page["data"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return items

    def _act(self, verb: str) -> Self:
        return self._take(self._connection.json("POST", f"{self._path}/{verb}"))

    def _take(self, document: Mapping[str, Any]) -> Self:
        self._document = dict(document)
        return self


def _idempotency(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or uuid4().hex}
