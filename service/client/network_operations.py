"""Operations of a job on its trained network."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, cast

from service.client import downloads
from service.client.connection import Document, json_body, segment
from service.client.errors import ApiError
from service.client.inputs.images import GivenImage, encoded, in_requests
from service.client.inputs.values import as_rows
from service.client.method_types import ExportTarget, Generated, GenerateOptions, Picture, Prediction, Which


class NetworkOperations(Document):
    """A job's document, with the methods of ``Job`` for its trained network."""

    @property
    def id(self) -> str:
        """``job_`` and 26 letters and digits."""
        return str(self._document["id"])

    @property
    def _path(self) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.id):
            raise ApiError(404, {"code": "job_not_found", "detail": f"{self.id!r} is not the id of a job"})
        return f"/jobs/{segment(self.id)}"

    def predict(
        self,
        images: Iterable[GivenImage] | GivenImage | None = None,
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        checkpoint: Which = "best",
        fit: bool = False,
        invert: bool = False,
        explain: bool = False,
    ) -> Prediction:
        """Classify images, or rows of a table, with a trained classifier.

        Args:
            images: paths of files (PNG, JPEG, WebP, BMP or GIF), their bytes, or rows of numbers in [0, 1], 0 being
                black; also a single file, or arrays of NumPy.
            rows: up to 1,000 mappings of columns to values, for a job trained on a table; of pandas,
                ``frame.to_dict("records")``. Missing columns and NaN count as missing values.
            fit: crop drawings, and centre them like MNIST digits; for a model of arrays in colour, crop images evenly.
                Without effect for a model of image files, for which images are always cropped as at the upload.
            invert: the images are dark on a light background.
            explain: also return ``saliency``, the gradient of the predicted class's logit with respect to each pixel.

        Raises:
            UnreadableImage: a file or bytes are not a supported image.
            FileNotFoundError: a text is neither the path of a file nor an image in base64.
        """
        options: dict[str, Any] = {"checkpoint": checkpoint, "fit": fit, "invert": invert, "explain": explain}
        if rows is not None:
            body = json_body({"rows": as_rows(rows)} | options)
            return cast("Prediction", self._connection.json("POST", f"{self._path}/predict", repeatable=True, **body))
        responses: list[Any] = []
        inputs: Iterable[Any] = (
            [images] if isinstance(images, str | bytes | os.PathLike) else () if images is None else images
        )
        for batch in in_requests([encoded(image) for image in inputs]):
            if responses:  # use the same checkpoint for all: "latest" may have changed
                options["checkpoint"] = responses[0]["checkpoint"]
            request = json_body({"images": batch} | options)
            responses.append(self._connection.json("POST", f"{self._path}/predict", repeatable=True, **request))
        if len(responses) == 1:
            return cast("Prediction", responses[0])
        joined = {
            name: [item for response in responses for item in response[name]]
            for name in ("probabilities", "classes", "seen", "saliency")
            if responses[0].get(name) is not None
        }
        return cast("Prediction", responses[0] | joined)

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

    # Evaluating it.

    def calibration(self, *, checkpoint: Which = "best") -> dict[str, Any]:
        """The confidence of a classifier's predictions against their accuracy on the validation data.

        Returns:
            ``bins``, each with ``confidence``, ``accuracy`` and ``count``, and the ``expected_error``.
        """
        return self._get_evaluation("calibration", checkpoint=checkpoint)

    def importance(self, *, checkpoint: Which = "best") -> dict[str, Any]:
        """The importance of each column of a table: the accuracy that is lost when its values are shuffled.

        Returns:
            ``columns``, each with ``column``, ``mean`` and ``deviation``.
        """
        return self._get_evaluation("importance", checkpoint=checkpoint)

    def confusion(self, *, checkpoint: Which = "latest", epoch: int | None = None) -> dict[str, Any]:
        """The confusion matrix on the validation data, with precision, recall and F1 of each class.

        Args:
            checkpoint: also an epoch whose checkpoint is no longer stored.
            epoch: former name of ``checkpoint``, for the number of an epoch.
        """
        named = {} if checkpoint == "latest" else {"checkpoint": checkpoint}
        return self._get_evaluation("confusion", **(named if epoch is None else {"epoch": epoch}))

    def mistakes(self, *, checkpoint: Which = "best", limit: int | None = None) -> dict[str, Any]:
        """The most confident mistakes on the validation data, as ``data``, and the ``count`` of all.

        Args:
            limit: how many mistakes to return.
        """
        return self._get_evaluation("mistakes", checkpoint=checkpoint, **({} if limit is None else {"limit": limit}))

    # Exporting it.

    def export(
        self,
        target: ExportTarget,
        to: Path | str = ".",
        *,
        checkpoint: Which = "best",
        license: str | None = None,  # noqa: A002 - the API's name for it
    ) -> Path:
        """Download the trained model in the format of another program.

        Args:
            target: ``onnx`` (a single file), or ``torch``, ``tensorboard`` or ``huggingface`` (a zip file).
            to: a folder or a file name.
            license: of the model, for the model card of ``huggingface``; default: that of the dataset.
        """
        return downloads.export(self._connection, self.id, target, Path(to), checkpoint=checkpoint, license=license)

    def _get_evaluation(self, resource: str, **params: Which) -> dict[str, Any]:
        return self._connection.json("GET", f"{self._path}/{resource}", params={n: str(v) for n, v in params.items()})
