"""A job: its document, and operations on it."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Literal, Self, Unpack, cast
from urllib.parse import urlencode

import httpx

from tapeline import downloads
from tapeline.connection import UPLOAD_TIMEOUT_S, FileContent, json_body, segment
from tapeline.errors import ApiError
from tapeline.inputs.given import bodies, items_of, joined, shown_of, unknown_columns, without_columns
from tapeline.inputs.uploads import is_table
from tapeline.method_types import Generated, GenerateOptions, History, Picture, Prediction, Residuals, Which
from tapeline.notebook import cards
from tapeline.resources import Resource, once

_CHANGEABLE: Final = frozenset({"name", "tags", "priority", "budget", "starred", "note"})


class Job(Resource):
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

    def results(self) -> dict[str, Any]:
        """Final and best metrics, checkpoints, samples, plots, and the first 1,000 files; ``files`` has all."""
        return self._connection.json("GET", f"{self._path}/results")

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

    def certificate(self, to: Path | str, *, checkpoint: Which = "best") -> Path:
        """Download the certificate of a succeeded job: a folder that ``python -m tapeline.verify`` verifies offline.

        Args:
            to: a folder that does not exist yet, or is empty.
        """
        path = f"{self._path}/certificate?{urlencode({'checkpoint': str(checkpoint)})}"
        return downloads.download_folder(self._connection, path, Path(to))

    def digests(self, *, after: int = 0) -> dict[str, Any]:
        """The digests of the ``epochs`` after this one, and of the whole result: equal ones mean equal trainings."""
        return self._connection.json("GET", f"{self._path}/digests", params={"after": str(after)})

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

    # The trained network.

    def predict(
        self,
        data: Any = None,
        *,
        checkpoint: Which = "best",
        fit: bool = False,
        invert: bool = False,
        explain: bool = False,
        images: Any = None,
        rows: Any = None,
    ) -> Prediction:
        """Predict the classes of images, or of the rows of a table; of a regressor, values.

        Args:
            data: of a table, rows: a DataFrame or Series of pandas, a mapping of columns to values, or a list or array
                of values in the order of the columns; one or several. Missing columns and NaN count as missing values.
                Or the path of a CSV or TSV file: then ``summary`` of the response tells what was found in it.
                Otherwise images: paths of files (PNG, JPEG, WebP, BMP or GIF) or of a folder of them, their bytes,
                images of Pillow, arrays of numbers in [0, 1] (0 is black) or of bytes; one or several.
            fit: crop drawings, and centre them like MNIST digits; for a model of arrays in colour, crop images evenly.
                Without effect for a model of image files, for which images are always prepared as at the upload.
            invert: the images are dark on a light background.
            explain: also return ``saliency``, the gradient of the predicted class's logit with respect to each pixel.
            images, rows: former names of ``data``.

        Columns that the model does not have are left out, with a warning, unless they seem to be misspelt.

        Raises:
            UnreadableImage: a file or bytes are not a supported image.
            FileNotFoundError: a text is neither the path of a file nor an image in base64.
        """
        data = next((given for given in (data, images, rows) if given is not None), None)
        if isinstance(data, str | os.PathLike) and is_table(Path(data)):
            with self._predict_file(Path(data), checkpoint, "application/json") as response:
                response.read()
                return Prediction(response.json())
        options: dict[str, Any] = {"checkpoint": checkpoint, "fit": fit, "invert": invert, "explain": explain}
        responses: list[dict[str, Any]] = []
        items = items_of(data, self._dataset)
        unused: dict[str, str] = {}
        for body in bodies(items):
            if responses:  # use the same checkpoint for all: "latest" may have changed
                options["checkpoint"] = responses[0]["checkpoint"]
            responses.append(self._predict(body | options, unused))
        if unused:
            warnings.warn(f"not used by the model: {', '.join(unused.values())}", stacklevel=2)
        return Prediction(joined(responses), shown_of(items))

    def _predict(self, body: dict[str, Any], unused: dict[str, str]) -> dict[str, Any]:
        """Send a request without the columns that the model has not, which are added to ``unused`` with their texts."""
        while True:
            request = json_body(without_columns(body, unused))
            try:
                return self._connection.json("POST", f"{self._path}/predict", repeatable=True, **request)
            except ApiError as error:
                found = unknown_columns(error, body.get("rows", ()))
                if not found.keys() - unused.keys():
                    raise
                unused |= found

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

    def predict_table(
        self, file: Path | str, to: Path | str | IO[str], *, checkpoint: Which = "best"
    ) -> dict[str, Any]:
        """Write a CSV or TSV file with the predicted class and the probabilities added to each row.

        Args:
            file: its first line has the names of the columns; others than those of the model are copied only.
            to: the path of the new file, in the format of ``file``, or an open text file.

        Returns:
            What was found in the file: ``rows``, ``checkpoint``, ``notes`` and others.
        """
        with self._predict_file(Path(file), checkpoint, "text/csv") as response:
            if isinstance(to, str | os.PathLike):
                with downloads.complete_file(Path(to)) as output:
                    for chunk in response.iter_bytes():
                        output.write(chunk)
            else:
                for index, text in enumerate(response.iter_text()):
                    to.write(text if index else text.removeprefix("\ufeff"))
            return cast("dict[str, Any]", json.loads(response.headers["Tapeline-Summary"]))

    def _predict_file(self, file: Path, checkpoint: Which, accept: str) -> AbstractContextManager[httpx.Response]:
        headers = {"Content-Type": "text/csv", "Content-Length": str(file.stat().st_size), "Accept": accept}
        return self._connection.response(
            "POST",
            f"{self._path}/predict",
            repeatable=True,
            params={"checkpoint": str(checkpoint)},
            content=FileContent(file),
            headers=headers,
            timeout=UPLOAD_TIMEOUT_S,
        )

    def generate(
        self,
        *,
        format: Literal["png", "array"] = "array",  # noqa: A002 - the API's name for it
        with_latent: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> Generated:
        """Generate images with a GAN, as rows of numbers in [0, 1], or as PNGs in base64.

        Args:
            with_latent: also return the latent points, as ``latent``.
        """
        body = {"format": format, "with_latent": with_latent, **options}
        document = self._connection.json("POST", f"{self._path}/generate", repeatable=True, **json_body(body))
        return cast("Generated", document)

    def generate_picture(
        self,
        *,
        format: Literal["grid", "film"] = "grid",  # noqa: A002 - the API's name for it
        **options: Unpack[GenerateOptions],
    ) -> Picture:
        """Generate images with a GAN, as a grid (PNG) or an animation (GIF)."""
        body = json_body({"format": format, **options})
        with self._connection.response("POST", f"{self._path}/generate", repeatable=True, **body) as response:
            return Picture(response.read(), int(response.headers.get("Tapeline-Checkpoint", 0)))

    def calibration(self, *, checkpoint: Which = "best") -> dict[str, Any]:
        """The confidence of a classifier's predictions against their accuracy on the validation data.

        Returns:
            ``bins``, each with ``confidence``, ``accuracy`` and ``count``, and the ``expected_error``.
        """
        return self._get_evaluation("calibration", checkpoint=checkpoint)

    def importance(self, *, checkpoint: Which = "best") -> dict[str, Any]:
        """The importance of each column of a table: the accuracy that is lost when its values are shuffled, or the RMSE
        that a regressor gains.

        Returns:
            ``columns``, each with ``column``, ``mean`` and ``deviation``.
        """
        return self._get_evaluation("importance", checkpoint=checkpoint)

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

    def mistakes(self, *, checkpoint: Which = "best", limit: int | None = None) -> dict[str, Any]:
        """The most confident mistakes on the validation data, as ``data``, and the ``count`` of all.

        Args:
            limit: how many mistakes to return.
        """
        return self._get_evaluation("mistakes", checkpoint=checkpoint, **({} if limit is None else {"limit": limit}))

    def export(
        self,
        target: str,
        to: Path | str = ".",
        *,
        checkpoint: Which = "best",
        license: str | None = None,  # noqa: A002 - the API's name for it
    ) -> Path:
        """Download the trained model in the format of another program.

        Args:
            target: such as ``onnx`` (a single file), or ``torch``, ``tensorboard`` or ``huggingface`` (a zip file).
            to: a folder or a file name.
            license: of the model, for the model card of ``huggingface``; default: that of the dataset.
        """
        params = {"checkpoint": str(checkpoint)} | ({"license": license} if license is not None else {})
        path = f"{self._path}/export/{segment(target)}?{urlencode(params)}"
        return downloads.download(self._connection, path, Path(to))

    def _get_evaluation(self, resource: str, **params: Which) -> dict[str, Any]:
        return self._connection.json("GET", f"{self._path}/{resource}", params={n: str(v) for n, v in params.items()})

    @property
    def _path(self) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.id):
            raise ApiError(404, {"code": "job_not_found", "detail": f"{self.id!r} is not the id of a job"})
        return f"/jobs/{segment(self.id)}"
