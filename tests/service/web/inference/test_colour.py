"""Colour images, from an archive to predictions, samples and pictures."""

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
from numpy.typing import NDArray
from PIL import Image

from engine import EpochDone, checkpoint
from service.datasets.shapes import shape_of
from service.pictures import grids
from service.spec.validation import read_resolved
from service.web.core.core import EXTENSION, Core
from tests import coloured_shapes
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.datasets.test_datasets import upload_dataset
from tests.service.web.inference.networks import decode_png, png, pointers, post
from workers.training import build
from workers.training.diagnostics import TrainingDiagnostics
from workers.training.epochs.snapshot import samples_of

SIDE = 16


@pytest.fixture
def trained(
    app: Flask, client: FlaskClient, worker: SimulatedWorker, submit: Callable[..., str], tmp_path: Any
) -> Callable[..., tuple[str, Any]]:
    """Upload shapes, and train on them as a worker would."""
    path = coloured_shapes.write_archive(tmp_path / "shapes.zip", 240, side=SIDE)
    answer = upload_dataset(client, "shapes", archive=path.read_bytes(), size=str(SIDE))
    assert answer.status_code == 201, answer.text
    assert answer.json["image_shape"] == [SIDE, SIDE, 3]
    core: Core = app.extensions[EXTENSION]

    def make(**spec: Any) -> tuple[str, Any]:
        job_id = submit(client, **({"dataset": "shapes", "epochs": 1, "samples": {"count": 9}} | spec))
        document = client.get(f"/jobs/{job_id}").json["resolved"]
        resolved = read_resolved(document)
        info = core.repository.describe("shapes", None)
        shape, trainer = shape_of(info), build.trainer(resolved, core.repository.load(info))
        last_epoch = [report for report in trainer.run() if isinstance(report, EpochDone)][-1]
        state = trainer.state_dict()
        state.spec = document
        draw, _ = samples_of(trainer, TrainingDiagnostics(resolved, shape, None), 9, coloured_shapes.CLASSES)
        worker.claim()
        confusion = last_epoch.confusion.tolist() if last_epoch.confusion is not None else None
        worker.commit_epoch(
            1, metrics=last_epoch.metrics, checkpoint=checkpoint.dumps(state), confusion=confusion, sample=draw()
        )
        worker.succeed()
        return job_id, trainer

    return make


def saturation(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return int((pixels.max(axis=2) - pixels.min(axis=2)).max())


def jpeg(image: NDArray[np.uint8], side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("preset", ["conv", "fast"])
def test_predictions_are_those_of_the_trainer(client: FlaskClient, trained: Any, preset: str) -> None:
    job_id, trainer = trained(kind="classifier", preset=preset)
    samples = trainer.samples(9)
    answer = post(client, job_id, "predict", images=[png(image) for image in samples.images], explain=True)
    assert answer["classes"] == samples.predictions.tolist()
    assert answer["class_names"] == sorted(coloured_shapes.CLASSES)
    np.testing.assert_allclose(np.max(answer["probabilities"], axis=1), samples.confidences, rtol=1e-5)
    assert np.shape(answer["seen"]) == np.shape(answer["saliency"]) == (9, SIDE, SIDE, 3)
    np.testing.assert_allclose(np.array(answer["seen"]) * 255, samples.images, atol=0.3)
    pixels = (samples.images / 255).tolist()
    for images in (pixels, [np.ravel(image).tolist() for image in pixels]):
        np.testing.assert_allclose(
            post(client, job_id, "predict", images=images)["probabilities"], answer["probabilities"], atol=1e-5
        )


def test_a_photo_is_scaled_and_cropped_as_at_import(client: FlaskClient, trained: Any) -> None:
    """An image of four times the size, wider than high: its left and right edges are cropped."""
    job_id, trainer = trained(kind="classifier", preset="fast")
    image = trainer.samples(1).images[0]
    wide = np.zeros((4 * SIDE, 6 * SIDE, 3), np.uint8)
    wide[:, SIDE : 5 * SIDE] = image.repeat(4, 0).repeat(4, 1)
    unscaled = png(image)
    for file_format, options in (
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
    ):
        file = io.BytesIO()
        Image.fromarray(wide).save(file, file_format, **options)
        sent = base64.b64encode(file.getvalue()).decode()
        seen, expected = post(client, job_id, "predict", images=[sent, unscaled], explain=True)["seen"]
        np.testing.assert_allclose(seen, expected, atol=0.04 if file_format == "JPEG" else 0.003)
    upload = {f"{label}/{index}.jpg": jpeg(image, 50) for label in "ab" for index in range(8)}
    assert (
        imported_pixels(client, upload)
        == post(client, job_id, "predict", images=[base64.b64encode(jpeg(image, 50)).decode()], explain=True)["seen"][0]
    )


def imported_pixels(client: FlaskClient, files: dict[str, bytes]) -> Any:
    """The first validation image of an upload, as ``seen`` shows it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    assert upload_dataset(client, "photos", archive=packed.getvalue(), size=str(SIDE)).status_code == 201
    pixels = np.asarray(Image.open(io.BytesIO(client.get("/datasets/photos/validation/0.png").data)))
    return np.round(pixels / 255, 3).tolist()


def test_a_grey_image_gets_three_equal_channels_for_a_colour_model(client: FlaskClient, trained: Any) -> None:
    job_id, trainer = trained(kind="classifier", preset="fast")
    grey = trainer.samples(1).images[0][:, :, 1]
    seen = post(client, job_id, "predict", images=[png(grey), (grey / 255).tolist()], explain=True)["seen"]
    np.testing.assert_allclose(np.array(seen[0]) * 255, np.repeat(grey[:, :, None], 3, axis=2), atol=0.3)
    np.testing.assert_allclose(seen[0], seen[1], atol=0.002)


def test_a_colour_image_becomes_grey_for_a_grey_model(client: FlaskClient, classifier: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).convert("L"))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "BMP")
    sent = [png(image), base64.b64encode(file.getvalue()).decode(), (image / 255).tolist()]
    for seen in post(client, classifier, "predict", images=sent, explain=True)["seen"]:
        np.testing.assert_allclose(np.array(seen) * 255, expected, atol=0.8)


def test_files_that_cannot_be_decoded_as_images_are_named(client: FlaskClient, trained: Any) -> None:
    job_id, trainer = trained(kind="classifier", preset="fast")
    intact = jpeg(trainer.samples(1).images[0], 40)
    broken = [intact[: len(intact) // 2], b"BM" + bytes(50), b"RIFF1234WEBPjunk", b"GIF89a" + bytes(9)]
    sent = [base64.b64encode(data).decode() for data in (intact, *broken)]
    problem = post(client, job_id, "predict", 422, images=sent)
    assert pointers(problem) == [f"#/images/{number}" for number in range(1, 5)]
    assert "damaged" in problem["errors"][0]["detail"]
    assert "is not a PNG, JPEG" in problem["errors"][1]["detail"]
    wide = Image.new("RGB", (9000, 9000))
    file = io.BytesIO()
    wide.save(file, "JPEG", quality=1)
    bomb = base64.b64encode(file.getvalue()).decode()[:1_000_000]
    assert "too many pixels" in post(client, job_id, "predict", 422, images=[bomb])["errors"][0]["detail"]


def test_images_of_a_job_are_in_colour(client: FlaskClient, trained: Any) -> None:
    job_id, trainer = trained(kind="classifier", preset="conv")
    samples = trainer.samples(9)
    true, predicted = int(samples.labels[0]), int(samples.predictions[0])
    for path in (
        f"/jobs/{job_id}/samples/latest.png",
        f"/jobs/{job_id}/samples.gif",
        f"/jobs/{job_id}/samples.webp",
        f"/jobs/{job_id}/confusion/{true}/{predicted}.png",
        "/datasets/shapes/preview.png",
        "/datasets/shapes/validation/0.png",
    ):
        with client.get(path) as response:
            assert response.status_code == 200, (path, response.text)
            assert saturation(response.data) > 100, path
    cell = client.get(f"/jobs/{job_id}/confusion/{true}/{predicted}").json
    assert decode_png(cell["images"][0]).shape == (SIDE, SIDE, 3)
    assert client.get(f"/jobs/{job_id}/mistakes").json["data"][0]["image"]
    assert client.get(f"/ui/jobs/{job_id}").status_code == 200


@pytest.mark.parametrize("preset", ["best", "stable"])
def test_a_gan_generates_images_in_colour(client: FlaskClient, trained: Any, preset: str) -> None:
    job_id, trainer = trained(kind="gan", preset=preset)
    samples = trainer.samples(4)
    assert samples.shape == (4, SIDE, SIDE, 3)
    generated = post(client, job_id, "generate", count=4, seed=trainer.seed)
    for text, sample in zip(generated["images"], samples, strict=True):
        assert np.abs(decode_png(text).astype(int) - sample).max() <= 1
    arrays = post(client, job_id, "generate", count=4, format="array")["images"]
    assert np.shape(arrays) == (4, SIDE, SIDE, 3)
    grid = client.post(f"/jobs/{job_id}/generate", json={"count": 4, "format": "grid"}).data
    assert Image.open(io.BytesIO(grid)).mode == "RGB"
    film = client.post(f"/jobs/{job_id}/generate", json={"seeds": [1, 2], "steps": 3, "format": "film"}).data
    assert getattr(Image.open(io.BytesIO(film)), "n_frames", 1) > 1
    assert client.get(f"/jobs/{job_id}/samples.gif").status_code == 200


def test_a_sample_grid_with_predicted_classes_keeps_its_colours() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3)).astype(np.uint8)
    grid = grids.sample_grid(images, sample_classes=grids.SampleClasses([0, 1, 2, 0, 1], [0.9, 0.3, 0.8, 0.7, 0.6]))
    decoded, predicted = grids._from_grid(grid)
    np.testing.assert_array_equal(decoded, images)
    assert predicted.labels == [0, 1, 2, 0, 1]
    assert saturation(grids.classified_grid(grid, classes=3)) > 100
