"""Photos sent to a model trained on photos are prepared as in the import of its dataset."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image, ImageDraw

from engine import EpochDone, checkpoint
from service.spec.validation import read_resolved
from service.web.core.core import EXTENSION, Core
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.datasets.test_datasets import upload_dataset
from tests.service.web.inference.networks import post
from workers.training import build

FORMATS = ({"format": "JPEG", "quality": 92}, {"format": "PNG"}, {"format": "WEBP", "quality": 80}, {"format": "BMP"})


def photo(number: int, *, tint: int) -> bytes:
    """A wide or tall photo with an object on a bright background; with ``tint``, in colour."""
    rng = np.random.default_rng(number)
    size = (90 + number, 60) if number % 2 else (50, 70 + number)
    image = Image.new("RGB", size, (200, 200 - tint, 200))
    x, y = size[0] // 2 + rng.integers(-8, 8), size[1] // 2 + rng.integers(-8, 8)
    ImageDraw.Draw(image).ellipse((x - 16, y - 9, x + 20, y + 17), fill=(60 + tint, 60, 60 + number))
    noise = rng.normal(0, 9, (size[1], size[0], 1))
    image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, **FORMATS[number % len(FORMATS)])
    return file.getvalue()


@pytest.fixture
def trained(
    app: Flask, client: FlaskClient, worker: SimulatedWorker, submit: Callable[..., str]
) -> Callable[..., tuple[str, list[bytes]]]:
    """Upload photos, train on them, and return the job's id and the validation photos in dataset order."""

    def make(*, tint: int, **options: str) -> tuple[str, list[bytes]]:
        zip_file = io.BytesIO()
        with zipfile.ZipFile(zip_file, "w") as archive:
            for number in range(24):
                data, split = photo(number, tint=tint), "val" if number % 3 == 0 else "train"
                archive.writestr(f"{split}/{'ab'[number % 2]}/{number:02}.jpg", data)
        with zipfile.ZipFile(zip_file) as archive:
            validation_photos = [archive.read(name) for name in sorted(archive.namelist()) if name.startswith("val/")]
        answer = upload_dataset(client, "photos", archive=zip_file.getvalue(), **options)
        assert answer.status_code == 201, answer.text
        job_id = submit(client, kind="classifier", dataset="photos", epochs=1)
        document = client.get(f"/jobs/{job_id}").json["resolved"]
        core: Core = app.extensions[EXTENSION]
        data = core.repository.load(core.repository.describe("photos", None))
        trainer = build.trainer(read_resolved(document), data)
        last_epoch = [report for report in trainer.run() if isinstance(report, EpochDone)][-1]
        state = trainer.state_dict()
        state.spec = document
        worker.claim()
        worker.commit_epoch(1, metrics=last_epoch.metrics, checkpoint=checkpoint.dumps(state))
        worker.succeed()
        return job_id, validation_photos

    return make


@pytest.mark.parametrize(
    ("tint", "channels", "size", "fit"),
    [
        (20, "auto", "24x16", "crop"),
        (90, "1", "20", "crop"),
        (90, "auto", "20", "crop"),
        (0, "3", "24x16", "crop"),
        (90, "auto", "24x16", "pad"),
        (90, "1", "20", "pad"),
    ],
)
def test_the_model_sees_a_photo_as_the_import_stores_it(
    client: FlaskClient, trained: Any, tint: int, channels: str, size: str, fit: str
) -> None:
    job_id, photos = trained(tint=tint, channels=channels, size=size, fit=fit)
    request: dict[str, Any] = {"images": [base64.b64encode(data).decode() for data in photos], "explain": True}
    answer = post(client, job_id, "predict", **request)
    for number, seen in enumerate(answer["seen"]):
        stored = client.get(f"/datasets/photos/validation/{number}.png").data
        with Image.open(io.BytesIO(stored)) as image:
            np.testing.assert_array_equal(np.round(np.array(seen) * 255), np.asarray(image))
    assert post(client, job_id, "predict", **request, fit=True) == answer
