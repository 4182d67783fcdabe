"""What a trained network is used for, whether it is that of a job or of a version of a model."""

from __future__ import annotations

import json
import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Final, Literal, Unpack, cast
from urllib.parse import urlencode

import httpx

from tapeline import downloads
from tapeline.connection import UPLOAD_TIMEOUT_S, FileContent, json_body, segment
from tapeline.errors import ApiError
from tapeline.inputs.given import bodies, items_of, joined, shown_of, unknown_columns, without_columns
from tapeline.inputs.uploads import is_table
from tapeline.method_types import Generated, GenerateOptions, Picture, Prediction, Which
from tapeline.resources import Document

_MODEL: Final = "Tapeline-Model"
"""The header that names the version of a model that was used."""


class TrainedNetwork(Document):
    """A trained network: it predicts, generates, or is exported."""

    @abstractmethod
    def _checkpoint(self, which: Which) -> dict[str, Which]:
        """The parameter of a request for a checkpoint."""

    @property
    def _used_path(self) -> str:
        """The address to predict, generate or export with."""
        return self._path

    @abstractmethod
    def _dataset(self) -> Mapping[str, Any]:
        """The dataset that it was trained on."""

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
                return Prediction(response.json(), model=response.headers.get(_MODEL))
        options: dict[str, Any] = {**self._checkpoint(checkpoint), "fit": fit, "invert": invert, "explain": explain}
        responses: list[dict[str, Any]] = []
        path, model = self._used_path, None
        items = items_of(data, self._dataset)
        unused: dict[str, str] = {}
        for body in bodies(items):
            if responses:  # use the same checkpoint for all: "latest" may change, and an alias be moved
                path = path if model is None else f"/models/{segment(model)}"
                options |= {"checkpoint": responses[0]["checkpoint"]} if model is None else {}
            document, headers = self._predict(path, body | options, unused)
            responses.append(document)
            model = headers.get(_MODEL)
        if unused:
            warnings.warn(f"not used by the model: {', '.join(unused.values())}", stacklevel=2)
        return Prediction(joined(responses), shown_of(items), model=model)

    def _predict(self, path: str, body: dict[str, Any], unused: dict[str, str]) -> tuple[dict[str, Any], httpx.Headers]:
        """Send a request without the columns that the model has not, which are added to ``unused`` with their texts."""
        while True:
            request = json_body(without_columns(body, unused))
            try:
                return self._connection.json_and_headers("POST", f"{path}/predict", repeatable=True, **request)
            except ApiError as error:
                found = unknown_columns(error, body.get("rows", ()))
                if not found.keys() - unused.keys():
                    raise
                unused |= found

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
            f"{self._used_path}/predict",
            repeatable=True,
            params={name: str(which) for name, which in self._checkpoint(checkpoint).items()},
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
        body = {"format": format, "with_latent": with_latent, **self._generating(options)}
        document = self._connection.json("POST", f"{self._used_path}/generate", repeatable=True, **json_body(body))
        return cast("Generated", document)

    def generate_picture(
        self,
        *,
        format: Literal["grid", "film"] = "grid",  # noqa: A002 - the API's name for it
        **options: Unpack[GenerateOptions],
    ) -> Picture:
        """Generate images with a GAN, as a grid (PNG) or an animation (GIF)."""
        body = json_body({"format": format, **self._generating(options)})
        with self._connection.response("POST", f"{self._used_path}/generate", repeatable=True, **body) as response:
            headers = response.headers
            return Picture(response.read(), int(headers.get("Tapeline-Checkpoint", 0)), headers.get(_MODEL))

    def _generating(self, options: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if name != "checkpoint"}
        return given | (self._checkpoint(options["checkpoint"]) if "checkpoint" in options else {})

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
        params: dict[str, Which | str] = {**self._checkpoint(checkpoint)}
        params |= {"license": license} if license is not None else {}
        query = f"?{urlencode(params)}" if params else ""
        path = f"{self._used_path}/export/{segment(target)}{query}"
        return downloads.download(self._connection, path, Path(to))
