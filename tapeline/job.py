"""A job, and a model that jobs are registered as: their documents, and operations on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, cast
from urllib.parse import urlencode

from tapeline import downloads
from tapeline.connection import json_body, segment
from tapeline.errors import ApiError
from tapeline.method_types import History, Residuals, Which
from tapeline.methods.calls import address
from tapeline.methods.job import JobMethods
from tapeline.notebook import cards
from tapeline.resources import Resource, once
from tapeline.sweeps import Sweep
from tapeline.trained.network import TrainedNetwork
from tapeline.trained.registered import RegisteredModel

_CHANGEABLE: Final = frozenset({"name", "tags", "priority", "budget", "starred", "note"})


class Job(Resource, TrainedNetwork, JobMethods):
    """A job as of the last request; ``refresh`` and ``wait`` update it.

    It is also a mapping over the document of the API: ``job["progress"]["epoch"]``. Like those of ``Client``, all
    methods may raise ``ServerUnreachable`` and ``ApiError``.
    """

    _noun = "job"

    # The document.

    @property
    def name(self) -> str | None:
        """The name, if the job has one."""
        return cast("str | None", self._read("name"))

    @property
    def kind(self) -> str:
        """``classifier``, ``regressor``, ``gan`` or ``prediction``."""
        return str(self._read("kind"))

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
        """The metrics of the last completed epoch; ``best`` has those of the best, ``history`` those of all."""
        return dict(self._read("metrics"))

    @property
    def best(self) -> dict[str, Any] | None:
        """The epoch of the best checkpoint, which ``predict`` uses: ``epoch``, ``metrics`` and their 95%
        ``intervals``. It is read from the service; ``None`` before the first epoch."""
        return cast("dict[str, Any] | None", self.results()["best"])

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
        """Current findings, problems of the training: each with ``code``, ``epoch``, ``message`` and ``advice``, best
        first, with ``settings`` for ``train(settings=...)`` and a ``reason``."""
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

    # What is shown of it.

    def _state(self) -> Any:
        return self.status, self["requested"], self.epoch, round(self["progress"]["fraction"], 2), self.health

    def _line(self) -> str:
        done = f"{self['progress']['fraction']:.0%}"
        if self.kind != "prediction":
            done = f"epoch {self.epoch}/{self.epochs} ({done})"
        problem = [self.error["message"]] if self.error else []
        best = self.best if self.status == "succeeded" else None
        metrics = [cards.best_text(best)] if best else cards.metrics_text(self.metrics)[:2]
        findings = [cards.finding_name(finding) for finding in self.health]
        return "  ".join([self.name or self.id, self.status, done, *metrics, *findings, *problem])

    def _html(self) -> str:
        self._read("resolved")  # that of a list is a summary
        results = self.results()
        latest = results["samples"]["latest"]
        sample = None
        if latest is not None:
            with self._connection.response("GET", latest["url"]) as response:
                sample = response.read()
        return cards.job(self._document, self.history().document, results["best"], sample)

    # Reading.

    def history(self) -> History:
        """The metrics of every completed epoch, as a list of dictionaries; ``to_frame()`` makes a DataFrame."""
        return History(self._connection.json("GET", f"{self._path}/metrics"))

    def checkpoints(self) -> list[dict[str, Any]]:
        """The stored checkpoints, each with ``epoch``, ``best``, ``latest``, ``url``, ``size_bytes``."""
        return list(self._connection.items(f"{self._path}/checkpoints", {}, page_size=None))

    # Files.

    def files(self) -> list[tuple[str, str]]:
        """All files, including plots and the animation of samples: names and URLs."""
        results = self.results()
        items = list(results["artifacts"])
        if results.get("next_cursor") is not None:
            rest = {"cursor": results["next_cursor"]}
            items += self._connection.items(f"{self._path}/artifacts", rest, page_size=None)
        files = [(downloads.safe_name(item["name"]), self._url_to_show(item)) for item in items]
        files += [(downloads.safe_name(f"{name}.png"), str(url)) for name, url in results["plots"].items()]
        if results["samples"]["film"]:
            files.append(("samples.gif", str(results["samples"]["film"])))
        return files

    def _url_to_show(self, item: Mapping[str, Any]) -> str:
        """The URL of a file; a classifier's sample grids are downloaded as they are shown, with their predictions."""
        is_drawn = item["kind"] == "sample" and self.kind == "classifier"
        return f"{self._path}/samples/{item['epoch']}.png" if is_drawn else str(item["url"])

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

    def certificate(self, to: Path | str, *, checkpoint: Which = "best") -> Path:
        """Download the certificate of a succeeded job: a folder that ``python -m tapeline.verify`` verifies offline.

        Args:
            to: a folder that does not exist yet, or is empty.
        """
        path = f"{self._path}/certificate?{urlencode({'checkpoint': str(checkpoint)})}"
        return downloads.download_folder(self._connection, path, Path(to))

    def download_predictions(self, to: Path | str = ".") -> Path:
        """Download the CSV file of a succeeded prediction (``Client.predict_dataset``).

        Args:
            to: a folder or a file name.

        Raises:
            ValueError: the job has no such file.
        """
        for item in self._connection.items(f"{self._path}/artifacts", {}, page_size=None):
            if item["kind"] == "predictions":
                return downloads.download(self._connection, item["url"], Path(to))
        raise ValueError(f"{self.id} has no predictions: it is a {self.kind} that is {self.status}")

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
        options = once({"checkpoint": checkpoint, "overrides": dict(overrides or {})}, idempotency_key)
        return Job(self._connection, self._connection.json("POST", f"{self._path}/fork", **options))

    def reproduce(self, *, idempotency_key: str | None = None) -> Job:
        """Train a succeeded job again; ``reproduction`` of the new job says whether the results are bit-identical."""
        options = once(None, idempotency_key)
        return Job(self._connection, self._connection.json("POST", f"{self._path}/reproduce", **options))

    def register(self, name: str, *, checkpoint: Which = "best", note: str | None = None) -> Model:
        """Register a checkpoint as the next version of a model, which is created with its first version.

        A checkpoint with the same bytes is the same version: it is not registered again.

        Args:
            name: of the model: lower-case letters, digits, dots, dashes and underscores.
            note: free text.
        """
        body = {"job": self.id, "checkpoint": checkpoint, "note": note}
        path = f"/models/{segment(name)}/versions"
        version = self._connection.json("POST", path, repeatable=True, **json_body(body))
        return Model(self._connection, version["reference"], version)

    # Changing it.

    def retry(self) -> Self:
        """Continue a failed job from its last checkpoint."""
        return self._act("retry")

    def change(self, /, **fields: Any) -> Self:
        """Set ``name``, ``tags``, ``priority``, ``budget`` (``{"seconds": n}``), ``starred`` or ``note``; ``None``
        clears."""
        if unknown := fields.keys() - _CHANGEABLE:
            names = ", ".join(sorted(_CHANGEABLE))
            raise TypeError(f"change() has no argument {min(unknown)!r}: it changes {names}")
        return self._set_document(self._connection.json("PATCH", self._path, repeatable=True, **json_body(fields)))

    # The trained network, besides what ``TrainedNetwork`` does with it.

    def confusion(self, *, checkpoint: Which = "best", epoch: int | None = None) -> dict[str, Any]:
        """The confusion matrix of an ``epoch`` on the validation data, with precision, recall and F1 of each class.

        Args:
            checkpoint: also an epoch whose checkpoint is no longer stored.
            epoch: former name of ``checkpoint``, for the number of an epoch.
        """
        return self._get_evaluation("confusion", **({"checkpoint": checkpoint} if epoch is None else {"epoch": epoch}))

    def residuals(self, *, checkpoint: Which = "best", limit: int | None = None) -> Residuals:
        """The validation rows for which a regressor is furthest from the target; ``points`` has all.

        Args:
            limit: how many rows to return.
        """
        options: dict[str, Which] = {} if limit is None else {"limit": limit}
        return Residuals(self._get_evaluation("residuals", checkpoint=checkpoint, **options))

    def _get_evaluation(self, resource: str, **params: Which) -> dict[str, Any]:
        return self._connection.json("GET", f"{self._path}/{resource}", params={n: str(v) for n, v in params.items()})

    def _dataset(self) -> dict[str, Any]:
        """The version of the dataset that the job was trained on: a newer one may have other columns."""
        name, sha256 = self.resolved["dataset"]["name"], self._read("dataset_sha256")
        try:
            newest = self._connection.json("GET", f"/datasets/{segment(name)}")
            if not newest.get("versions") or sha256 in (None, newest["sha256"]):
                return newest
            version = f"{name}@{sha256.removeprefix('sha256:')[:12]}"
            return self._connection.json("GET", f"/datasets/{segment(version)}")
        except ApiError as error:
            if error.status != 404:
                raise
            return {"kind": None, "image_shape": ()}  # deleted; the checkpoint has what the service needs

    @property
    def _used_reference(self) -> str:
        """It as the model of a prediction job."""
        return self.id

    def _checkpoint(self, which: Which) -> dict[str, Which]:
        return {"checkpoint": which}

    @property
    def _names(self) -> Mapping[str, object]:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.id):
            raise ApiError(404, {"code": "job_not_found", "detail": f"{self.id!r} is not the id of a job"})
        return {"job_id": self.id}

    @property
    def _path(self) -> str:
        return address("/jobs/{job_id}", self._names)


class Model(TrainedNetwork, RegisteredModel):
    """A model of the registry, or one version of it: ``client.model("digits@champion")``.

    A version predicts, generates and is exported as a job does. An alias is resolved by each request: a program uses
    the version that it holds then. ``refresh`` updates what is read of it. It is also a mapping over its document.
    """

    @property
    def version(self) -> int:
        """The number of the version; of a model without one, of the newest."""
        return int(self._read("latest" if self.reference == self.name else "version"))

    @property
    def job(self) -> Job:
        """The job of the version."""
        return Job(self._connection, {"id": self._version()["job"]})

    @property
    def kind(self) -> str:
        """``classifier``, ``regressor`` or ``gan``."""
        return str(self._read("kind"))

    @property
    def metrics(self) -> dict[str, float | None]:
        """The key metrics of the version's checkpoint, with the scores on the test part if it was scored."""
        return dict(self._read("metrics"))

    def supply(self, findings: Sequence[Mapping[str, Any]]) -> list[Job | Sweep]:
        """Send the requests that supply what the gates need, except for approvals, which others have to give.

        Args:
            findings: ``GateFailed.gates``, or the ``findings`` of ``move(..., dry_run=True)``.

        Returns:
            The jobs and sweeps that were started: after ``wait()``, move the alias again.
        """
        started: list[Job | Sweep] = []
        for remedy in (remedy for finding in findings for remedy in finding["remedies"]):
            if remedy["path"].endswith("/approvals"):
                continue
            if remedy["method"] == "GET":  # a certificate, which is made by its first download
                with self._connection.response("GET", remedy["path"]) as response:
                    response.read()
                continue
            document = self._connection.json(remedy["method"], remedy["path"], **once(remedy["body"], None))
            started.append((Sweep if remedy["path"] == "/sweeps" else Job)(self._connection, document))
        return started

    def _version(self) -> Mapping[str, Any]:
        """The document of the version."""
        if "job" in self._document or self.reference != self.name:
            return {"job": self._read("job")}
        return self._connection.json("GET", f"{self._model}/versions/{self.version}", params=self._query)

    def _checkpoint(self, which: Which) -> dict[str, Which]:
        if which != "best":
            raise ValueError(f"{self.reference} is one checkpoint: leave out checkpoint={which!r}, or use the job")
        return {}

    @property
    def _used_reference(self) -> str:
        """It as the model of a prediction job."""
        if self._query:  # the service looks references up among the models of the caller
            raise ValueError(f"{self.reference} was read as that of another owner: use its job, model.job")
        return self.reference

    @property
    def _used_path(self) -> str:
        return f"/models/{segment(self._used_reference)}"

    def _dataset(self) -> Mapping[str, Any]:
        return self.refresh().job._dataset()
