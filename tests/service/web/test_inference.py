"""Predict and generate, from checkpoints that the real trainers made."""

from __future__ import annotations

import base64
import functools
import io
import json
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from engine import EpochDone, checkpoint
from service import datasets
from service.datasets import Dataset
from service.runtime.settings import Auth
from service.spec import validation
from service.spec.presets.definitions import DEFAULT_PRESET
from service.web.inference import loading
from service.web.inference.answering import _Kept
from service.web.services import EXTENSION, Services
from tests.service.web.conftest import PlayedWorker
from workers.training import build

CONV = [
    {"type": "conv2d", "filters": 4, "activation": "linear"},
    {"type": "batch_norm", "activation": "relu"},
    {"type": "max_pool2d"},
    {"type": "flatten"},
    {"type": "dropout", "rate": 0.3},
    {"units": 10, "activation": "softmax"},
]
DENSE = [{"units": 32, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "dense": {"layers": DENSE},
    "averaged": {"layers": DENSE, "average_decay": 0.9, "dataset": {"name": "mnist-10k", "scale": [-1, 1]}},
    "double": {"layers": DENSE, "dtype": "float64"},
    "conv": {"layers": CONV, "average_decay": 0.9},
    "sigmoids": {"layers": [*DENSE[:1], {"units": 10, "activation": "sigmoid"}], "loss": {"name": "squared_error"}},
    "bare": {"layers": [*DENSE[:1], {"units": 10, "activation": "linear"}], "loss": {"name": "squared_error"}},
}
GANS: dict[str, dict[str, Any]] = {
    "normal": {},
    "averaged": {"generator": {"average_decay": 0.9}, "latent": {"dim": 20, "distribution": "uniform"}},
    "batch norm": {
        "generator": {
            "layers": [
                {"units": 7 * 7 * 4, "activation": "linear"},
                {"type": "batch_norm", "activation": "relu"},
                {"type": "reshape", "shape": [7, 7, 4]},
                {"type": "upsample2d", "size": 4},
                {"type": "conv2d", "filters": 1, "activation": "tanh"},
            ]
        }
    },
}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return datasets.load("mnist-10k", tmp_path_factory.mktemp("data"), cache_root=tmp_path_factory.mktemp("cache"))


@dataclass
class Trained:
    """An epoch of real training: the trainer afterwards, what it reported, and its checkpoint."""

    spec: dict[str, Any]
    trainer: Any
    done: EpochDone
    checkpoint: bytes


@pytest.fixture(scope="session")
def train(digits: Dataset) -> Callable[..., Trained]:
    """Train for an epoch, on few images; each spec once."""

    @functools.cache
    def trained(text: str) -> Trained:
        spec = validation.resolve(json.loads(text))
        few = Dataset(
            digits.info,
            digits.train_images[:1000],
            digits.train_labels[:1000],
            digits.validation_images,
            digits.validation_labels,
            digits.sha256,
        )
        trainer = build.trainer(spec, few)
        done = [report for report in trainer.run() if isinstance(report, EpochDone)][-1]
        state = trainer.state_dict()
        state.spec = spec.model_dump(mode="json")
        return Trained(json.loads(text), trainer, done, checkpoint.dumps(state))

    def start(kind: str, **spec: Any) -> Trained:
        return trained(json.dumps({"kind": kind, "epochs": 1, **spec}))

    return start


@pytest.fixture
def job(client: FlaskClient, worker: PlayedWorker, submit: Callable[..., str]) -> Callable[[Trained], str]:
    """A job with what was trained."""

    def make(trained: Trained) -> str:
        job_id = submit(client, **trained.spec)
        worker.claim()
        confusion = trained.done.confusion
        worker.epoch(
            1,
            metrics=trained.done.metrics,
            checkpoint=trained.checkpoint,
            confusion=confusion.tolist() if confusion is not None else None,
        )
        worker.succeed()
        return job_id

    return make


def png(levels: Any, mode: str | None = None) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(levels), mode).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def ask(client: FlaskClient, job_id: str, verb: str, status: int = 200, **body: Any) -> Any:
    response = client.post(f"/jobs/{job_id}/{verb}", json=body)
    assert response.status_code == status, response.text
    return response.json


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predictions_are_those_of_the_trainer(
    client: FlaskClient, train: Any, job: Any, digits: Dataset, name: str
) -> None:
    trained = train("classifier", **CLASSIFIERS[name])
    job_id = job(trained)
    shown = trained.trainer.samples(40)
    answer = ask(client, job_id, "predict", images=[png(image) for image in shown.images])
    probabilities = np.array(answer["probabilities"])
    assert answer["checkpoint"] == 1
    assert answer["classes"] == shown.predictions.tolist()
    np.testing.assert_allclose(probabilities.max(axis=1), np.clip(shown.confidences, 0, 1), atol=1e-6)
    if name not in ("sigmoids", "bare"):
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    arrays = ask(client, job_id, "predict", images=(shown.images[:20] / 255).tolist())
    np.testing.assert_allclose(arrays["probabilities"], probabilities[:20], atol=1e-6)


@pytest.mark.parametrize("name", GANS)
def test_the_jobs_own_seed_gives_its_samples(client: FlaskClient, train: Any, job: Any, name: str) -> None:
    trained = train("gan", **GANS[name])
    job_id = job(trained)
    samples = trained.trainer.samples(9)
    answer = ask(client, job_id, "generate", count=9, seed=trained.spec.get("seed", 0))
    made = np.stack([unpack(image) for image in answer["images"]])
    np.testing.assert_array_equal(made, samples)


def unpack(text: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.fixture
def classifier(train: Any, job: Any) -> str:
    made: str = job(train("classifier", **CLASSIFIERS["averaged"]))
    return made


@pytest.fixture
def gan(train: Any, job: Any) -> str:
    made: str = job(train("gan"))
    return made


def test_saliency_is_the_gradient_of_the_logit(client: FlaskClient, train: Any, job: Any, digits: Dataset) -> None:
    trained = train("classifier", **CLASSIFIERS["double"])
    job_id, model = job(trained), trained.trainer.model
    image = digits.validation_images[3] / 255
    answer = ask(client, job_id, "predict", images=[image.tolist()], explain=True)
    (found,), (label,), saliency = answer["seen"], answer["classes"], np.array(answer["saliency"][0])
    np.testing.assert_allclose(found, image, atol=1e-3)
    assert saliency.shape == (28, 28)
    for row, column in ((14, 14), (7, 20), (0, 0)):
        lighter, darker = image.copy(), image.copy()
        lighter[row, column] += 1e-5
        darker[row, column] -= 1e-5
        both = np.asarray(model.logits(np.stack([lighter, darker]).reshape(2, -1)))[:, label]
        assert saliency[row, column] == pytest.approx((both[0] - both[1]) / 2e-5, abs=2e-5)


def test_a_whole_validation_split_gives_the_accuracy_that_was_reported(
    client: FlaskClient, train: Any, job: Any, digits: Dataset
) -> None:
    trained = train("classifier", **CLASSIFIERS["conv"])
    job_id = job(trained)
    hits = 0
    for start in range(0, len(digits.validation_labels), 250):
        part = slice(start, start + 250)
        answer = ask(client, job_id, "predict", images=[png(image) for image in digits.validation_images[part]])
        hits += int(np.count_nonzero(digits.validation_labels[part] == answer["classes"]))
    assert hits / len(digits.validation_labels) == trained.done.metrics["val_accuracy"]


def test_cells_hold_the_pictures_that_were_counted(client: FlaskClient, train: Any, job: Any, digits: Dataset) -> None:
    trained = train("classifier", **CLASSIFIERS["averaged"])
    job_id = job(trained)
    counted = client.get(f"/jobs/{job_id}/confusion").json
    assert counted["epoch"] == 1
    assert counted["matrix"] == trained.done.confusion.tolist()
    cells = {(t, p): client.get(f"/jobs/{job_id}/confusion/{t}/{p}").json for t in range(3) for p in range(3)}
    assert {place: cell["count"] for place, cell in cells.items()} == {
        (t, p): counted["matrix"][t][p] for t in range(3) for p in range(3)
    }
    right = cells[1, 1]
    assert right["confidences"] == sorted(right["confidences"])
    np.testing.assert_array_equal(unpack(right["images"][0]), digits.validation_images[right["indices"][0]])
    assert {digits.validation_labels[index] for index in right["indices"]} == {1}
    row, column = max(
        ((t, p) for t in range(10) for p in range(10) if t != p),
        key=lambda place: counted["matrix"][place[0]][place[1]],
    )
    wrong = client.get(f"/jobs/{job_id}/confusion/{row}/{column}?limit=2").json
    assert len(wrong["images"]) == 2 <= wrong["count"]
    assert wrong["confidences"] == sorted(wrong["confidences"], reverse=True)
    drawn = client.get(f"/jobs/{job_id}/confusion/{row}/{column}.png")
    assert Image.open(io.BytesIO(drawn.data)).width > 100
    again = client.get(f"/jobs/{job_id}/confusion/{row}/{column}.png", headers={"If-None-Match": drawn.headers["ETag"]})
    assert again.status_code == 304
    assert client.get(f"/jobs/{job_id}/confusion/10/0").json["code"] == "not_found"


def test_scores_of_each_class_follow_from_the_matrix(client: FlaskClient, train: Any, job: Any) -> None:
    job_id = job(train("classifier", **CLASSIFIERS["averaged"]))
    found = client.get(f"/jobs/{job_id}/confusion").json
    matrix = np.array(found["matrix"])
    assert [item["class_name"] for item in found["per_class"]] == found["class_names"]
    assert [item["support"] for item in found["per_class"]] == matrix.sum(axis=1).tolist()
    for label, item in enumerate(found["per_class"]):
        predicted = matrix[:, label].sum()
        assert item["precision"] == (pytest.approx(matrix[label, label] / predicted) if predicted else None)
        assert item["recall"] == pytest.approx(matrix[label, label] / matrix[label].sum())
    assert found["balanced_accuracy"] == pytest.approx(np.mean(matrix.diagonal() / matrix.sum(axis=1)))
    assert found["macro_f1"] == pytest.approx(np.mean([item["f1"] for item in found["per_class"]]))


def test_mistakes_come_with_the_most_confident_first(
    client: FlaskClient, train: Any, job: Any, digits: Dataset
) -> None:
    trained = train("classifier", **CLASSIFIERS["averaged"])
    job_id = job(trained)
    found = client.get(f"/jobs/{job_id}/mistakes?limit=256").json
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    assert set(found) == set(schemas["MistakeList"]["properties"])
    assert set(found["data"][0]) == set(schemas["Mistake"]["properties"])
    matrix = trained.done.confusion
    assert found["validation_count"] == matrix.sum() == len(digits.validation_labels)
    assert found["count"] == matrix.sum() - matrix.trace()
    shown = found["data"]
    assert len(shown) == min(256, found["count"])
    confidences = [item["confidence"] for item in shown]
    assert confidences == sorted(confidences, reverse=True)
    for item in shown[:20]:
        assert item["true_class"] == digits.validation_labels[item["index"]] != item["predicted_class"]
        assert item["true_confidence"] <= item["confidence"]
        np.testing.assert_array_equal(unpack(item["image"]), digits.validation_images[item["index"]])
    asked = [item["image"] for item in shown[:20]]
    answer = ask(client, job_id, "predict", images=asked)
    assert answer["classes"] == [item["predicted_class"] for item in shown[:20]]
    np.testing.assert_allclose(np.max(answer["probabilities"], axis=1), confidences[:20], atol=1e-6)
    few = client.get(f"/jobs/{job_id}/mistakes?limit=3&checkpoint=1").json
    assert few["data"] == shown[:3]
    for query, code in (("limit=0", "invalid_parameter"), ("limit=257", "invalid_parameter")):
        assert client.get(f"/jobs/{job_id}/mistakes?{query}").json["code"] == code
    assert client.get(f"/jobs/{job_id}/mistakes?checkpoint=9").json["code"] == "artifact_not_found"


def test_a_drawing_is_cut_out_and_centred(client: FlaskClient, train: Any, job: Any, digits: Dataset) -> None:
    job_id = job(train("classifier", **CLASSIFIERS["averaged"]))
    rng = np.random.default_rng(0)
    images, labels = digits.validation_images[:200], digits.validation_labels[:200]
    drawn = []
    for image in images:  # as on a page: ten times as large, dark on light, somewhere
        sheet = np.zeros((400, 420), np.uint8)
        top, left = rng.integers(0, 120, 2)
        sheet[top : top + 280, left : left + 280] = image.repeat(10, 0).repeat(10, 1)
        drawn.append(png(255 - sheet))

    def hits(**options: Any) -> int:
        found: list[int] = []
        for start in range(0, 200, 50):
            found += ask(client, job_id, "predict", images=drawn[start : start + 50], invert=True, **options)["classes"]
        return int(np.count_nonzero(labels == found))

    as_they_are = ask(client, job_id, "predict", images=[png(image) for image in images])["classes"]
    assert hits(fit=True) >= np.count_nonzero(labels == as_they_are) - 6
    assert hits() < 120


def test_what_is_transparent_is_background(client: FlaskClient, classifier: str, digits: Dataset) -> None:
    image = digits.validation_images[0]
    light = np.dstack([np.full((28, 28, 3), 255, np.uint8), image])  # white ink, as thick as the digit is light
    dark = np.dstack([np.zeros((28, 28, 3), np.uint8), image])
    plain, on_black, on_white, deep = (
        ask(client, classifier, "predict", images=[sent], invert=inverted)["probabilities"][0]
        for sent, inverted in (
            (png(image), False),
            (png(light), False),
            (png(dark), True),
            (png(image.astype(np.uint16) * 257), False),
        )
    )
    np.testing.assert_allclose([on_black, on_white, deep], [plain] * 3, atol=1e-6)


UNREADABLE: list[tuple[Any, str]] = [
    ("@@", "base64"),
    (base64.b64encode(b"GIF89a").decode(), "not a PNG"),
    (png(np.zeros((28, 28), np.uint8))[:60], "damaged PNG"),
    (png(np.zeros((1, 2049), np.uint8)), "2048 per side"),
    ([[0.5] * 28] * 27 + [[0.5]], "equal length"),
    ([["0.5"] * 28] * 28, "rows of numbers"),
    ([[True] * 28] * 28, "rows of numbers"),
    ([[0.5] * 28] * 27 + [[1.5] * 28], "[0, 1]"),
    ([0.5] * 783, "[783]"),
    ([[[0.5]]], "[1, 1, 1]"),
    ([], "[0]"),
    (None, "rows of numbers"),
    ({"a": 1}, "rows of numbers"),
]


def test_every_picture_that_cannot_be_read_is_named(client: FlaskClient, classifier: str) -> None:
    good = png(np.zeros((28, 28), np.uint8))
    problem = ask(client, classifier, "predict", 422, images=[good, *(image for image, _ in UNREADABLE)])
    assert problem["code"] == "invalid_input"
    assert [fault["pointer"] for fault in problem["errors"]] == [f"#/images/{n + 1}" for n in range(len(UNREADABLE))]
    for fault, (_, says) in zip(problem["errors"], UNREADABLE, strict=True):
        assert says in fault["detail"]


def test_a_bomb_is_not_unpacked(client: FlaskClient, classifier: str) -> None:
    """A header that claims a hundred million pixels, and a megabyte of nothing packed into a few bytes behind it."""
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
    )
    problem = ask(client, classifier, "predict", 422, images=[base64.b64encode(bomb).decode()])
    assert "10000 x 10000" in problem["errors"][0]["detail"]


def test_a_second_header_does_not_get_past_the_first(client: FlaskClient, classifier: str) -> None:
    """Pillow obeys the last one: 30,000 by 30,000 pixels would be unpacked."""
    small, large = (struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0) for side in (28, 30_000))
    rows = chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    for headers in ([small, large], [small, small]):
        bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(b"IHDR", header) for header in headers) + rows
        problem = ask(client, classifier, "predict", 422, images=[base64.b64encode(bomb).decode()])
        assert problem["errors"][0]["detail"] == "is a damaged PNG"


def test_a_palette_that_is_missing_is_a_broken_picture(client: FlaskClient, classifier: str) -> None:
    bare = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 3, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0\0"))
        + chunk(b"IEND", b"")
    )
    problem = ask(client, classifier, "predict", 422, images=[base64.b64encode(bare).decode()])
    assert problem["errors"][0]["detail"] == "is a damaged PNG"


def test_a_drawing_too_faint_to_measure_is_an_empty_one(client: FlaskClient, classifier: str) -> None:
    faint = np.zeros((28, 28))
    faint[3, 4] = 1e-320
    answers = [
        ask(client, classifier, "predict", 200, images=[image.tolist()], fit=True)["probabilities"]
        for image in (faint, np.zeros((28, 28)))
    ]
    assert answers[0] == answers[1]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_faults_of_a_question_are_named(client: FlaskClient, classifier: str) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "#/images"),
        ({"images": []}, "#/images"),
        ({"images": ["x"] * 257}, "#/images"),
        ({"images": ["x"], "checkpoint": "newest"}, "#/checkpoint"),
        ({"images": ["x"], "checkpoint": 0}, "#/checkpoint"),
        ({"images": ["x"], "invrt": True}, "#/invrt"),
        ({"images": [png(np.zeros((2048, 2048), np.uint8))] * 5}, "#/images"),
    ]
    for body, pointer in cases:
        problem = ask(client, classifier, "predict", 422, **body)
        assert (problem["code"], pointer in pointers(problem)) == ("invalid_input", True), body


def test_faults_of_a_wish_are_named(client: FlaskClient, gan: str) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"count": 0}, "#/count"),
        ({"count": 257}, "#/count"),
        ({"seed": -1}, "#/seed"),
        ({"seed": 1, "seeds": [1]}, "#"),
        ({"count": 4, "latent": [[0.0] * 100]}, "#"),
        ({"latent": [[0.0] * 99]}, "#/latent/0"),
        ({"latent": []}, "#/latent"),
        ({"count": 16, "steps": 18}, "#/steps"),
        ({"format": "jpeg"}, "#/format"),
        ({"latent": [[1e9] * 100]}, "#/latent/0/0"),
        ({"count": 200, "scale": 16, "format": "film"}, "#/scale"),
    ]
    for body, pointer in cases:
        problem = ask(client, gan, "generate", 422, **body)
        assert (problem["code"], pointer in pointers(problem)) == ("invalid_input", True), body


def pointers(problem: dict[str, Any]) -> list[str]:
    return [fault["pointer"] for fault in problem["errors"]]


def test_points_can_be_sent_back(client: FlaskClient, gan: str) -> None:
    first = ask(client, gan, "generate", count=3, seed=5, format="array", with_latent=True)
    assert np.array(first["latent"]).shape == (3, 100)
    again = ask(client, gan, "generate", latent=first["latent"], format="array")
    np.testing.assert_allclose(again["images"], first["images"], atol=1e-5)
    assert again["latent"] is None
    fewer = ask(client, gan, "generate", seeds=[5, 6], format="array", with_latent=True)
    assert fewer["latent"][0] == first["latent"][0]
    assert np.array(fewer["images"]).shape == (2, 28, 28)
    assert 0 <= np.min(fewer["images"]) < np.max(fewer["images"]) <= 1


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_a_walk_goes_from_point_to_point(client: FlaskClient, train: Any, job: Any, distribution: str) -> None:
    job_id = job(train("gan", latent={"dim": 100, "distribution": distribution}))
    ends = np.array(ask(client, job_id, "generate", seeds=[1, 2, 3], with_latent=True)["latent"])
    walked = ask(client, job_id, "generate", seeds=[1, 2, 3], steps=4, with_latent=True)
    points = np.array(walked["latent"])
    assert points.shape == (9, 100)
    assert len(walked["images"]) == 9
    np.testing.assert_allclose(points[[0, 4, 8]], ends, atol=1e-6)
    lengths = np.linalg.norm(points, axis=1)
    if distribution == "uniform":
        np.testing.assert_allclose(points[1], 0.75 * ends[0] + 0.25 * ends[1], atol=1e-6)
    else:
        np.testing.assert_allclose(lengths[:5], np.linspace(lengths[0], lengths[4], 5), rtol=1e-5)
        assert np.linalg.norm((ends[0] + ends[1]) / 2) < 0.8 * lengths[2]  # where a straight walk would have gone


def test_a_walk_between_opposite_points_stays_finite(client: FlaskClient, gan: str) -> None:
    point = [1.0] + [0.0] * 99
    walked = ask(client, gan, "generate", latent=[point, [-1.0] + [0.0] * 99, [0.0] * 100], steps=2, with_latent=True)
    assert np.isfinite(np.array(walked["latent"])).all()


@pytest.mark.parametrize(("form", "kind"), [("grid", "PNG"), ("film", "GIF")])
def test_one_picture_of_all(client: FlaskClient, gan: str, form: str, kind: str) -> None:
    answer = client.post(f"/jobs/{gan}/generate", json={"seeds": [1, 2], "steps": 7, "format": form, "scale": 2})
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.data))
    assert image.format == kind
    assert answer.headers["Tapeline-Checkpoint"] == "1"
    if form == "film":
        assert image.size == (56, 56)
        assert getattr(image, "n_frames", 1) == 8


def test_the_wrong_verb_names_the_right_one(client: FlaskClient, submit: Callable[..., str]) -> None:
    classifier, gan = submit(client), submit(client, kind="gan")
    problem = ask(client, classifier, "generate", 409)
    assert problem["code"] == "wrong_kind"
    assert f"/jobs/{classifier}/predict" in problem["detail"]
    assert f"/jobs/{gan}/generate" in ask(client, gan, "predict", 409, images=["x"])["detail"]
    assert client.get(f"/jobs/{gan}/confusion").json["code"] == "wrong_kind"
    assert client.get(f"/jobs/{gan}/mistakes").json["code"] == "wrong_kind"


def test_a_job_without_a_checkpoint_says_so(client: FlaskClient, submit: Callable[..., str]) -> None:
    job_id = submit(client)
    problem = ask(client, job_id, "predict", 404, images=[png(np.zeros((28, 28), np.uint8))])
    assert problem["code"] == "not_yet"
    assert "the first one follows its first epoch" in problem["detail"]
    assert client.get(f"/jobs/{job_id}/confusion").json["code"] == "not_yet"
    assert client.get(f"/jobs/{job_id}/mistakes").json["code"] == "not_yet"


def test_a_checkpoint_that_is_gone_names_those_that_are_there(client: FlaskClient, classifier: str) -> None:
    image = png(np.zeros((28, 28), np.uint8))
    problem = ask(client, classifier, "predict", 404, images=[image], checkpoint=7)
    assert problem["code"] == "artifact_not_found"
    assert "available epochs: 1" in problem["detail"]
    assert "keep_last" in problem["detail"]
    for which in ("best", "latest", 1):
        assert ask(client, classifier, "predict", images=[image], checkpoint=which)["checkpoint"] == 1


def test_a_damaged_checkpoint_is_no_answer(
    client: FlaskClient, worker: PlayedWorker, submit: Callable[..., str], train: Any
) -> None:
    job_id = submit(client)
    worker.claim()
    worker.epoch(1, checkpoint=train("gan").checkpoint)  # whole, but of another network
    image = png(np.zeros((28, 28), np.uint8))
    assert ask(client, job_id, "predict", 500, images=[image])["code"] == "artifact_damaged"
    worker.epoch(2, checkpoint=train("classifier").checkpoint, best=False)
    (path,) = (worker.artifacts.root / job_id / "checkpoint").glob("000002-*")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert ask(client, job_id, "predict", 500, images=[image], checkpoint=2)["code"] == "artifact_damaged"


def test_a_network_that_overflows_gives_no_invalid_json(
    client: FlaskClient, worker: PlayedWorker, submit: Callable[..., str], train: Any
) -> None:
    trained = train("classifier", **CLASSIFIERS["dense"])
    state = checkpoint.loads(trained.checkpoint)
    state.tensors["layers.0.weight"][:] = np.finfo(np.float32).max
    job_id = submit(client, **trained.spec)
    worker.claim()
    worker.epoch(1, checkpoint=checkpoint.dumps(state))
    answer = ask(client, job_id, "predict", images=[png(np.full((28, 28), 255, np.uint8))], explain=True)
    assert np.isfinite(answer["probabilities"]).all()
    assert np.isfinite(answer["saliency"]).all()


def test_nobody_uses_somebody_elses_network(make_app: Any, sqlite_url: str, submit: Callable[..., str]) -> None:
    client = make_app(sqlite_url, auth=Auth.KEYS, api_keys=("a" * 20, "b" * 20)).test_client()
    mine, other = ({"Authorization": f"Bearer {letter * 20}"} for letter in "ab")
    job_id = client.post("/jobs", json={"kind": "classifier"}, headers=mine).json["id"]
    body = {"images": [[0.0] * 784]}
    assert client.post(f"/jobs/{job_id}/predict", json=body, headers=mine).json["code"] == "not_yet"
    assert client.post(f"/jobs/{job_id}/predict", json=body, headers=other).json["code"] == "job_not_found"
    assert client.get(f"/jobs/{job_id}/confusion/1/1", headers=other).json["code"] == "job_not_found"


def test_networks_stay_ready_and_are_made_once(app: Flask, classifier: str, digits: Dataset) -> None:
    here: Services = app.extensions[EXTENSION]
    reads: list[str] = []
    read = here.artifacts.read

    def counting(path: str, sha256: str) -> bytes:
        reads.append(path)
        return read(path, sha256)

    here.artifacts.read = counting  # type: ignore[method-assign]
    images = [png(image) for image in digits.validation_images[:5]]
    expected = ask(app.test_client(), classifier, "predict", images=images)
    reads.clear()
    app.extensions.pop(loading._EXTENSION)
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(ask, app.test_client(), classifier, "predict", images=images, explain=number % 2 == 0)
            for number in range(24)
        ]
    assert {json.dumps(future.result()["probabilities"]) for future in asked} == {json.dumps(expected["probabilities"])}
    assert len(reads) == 1


def test_what_was_asked_for_last_is_kept() -> None:
    kept: _Kept[int] = _Kept(10, lambda number: number)
    made: list[int] = []

    def get(number: int) -> None:
        kept.get(str(number), lambda: made.append(number) or number)  # type: ignore[func-returns-value]

    for number in (4, 5, 4, 3, 4, 5, 11, 11):
        get(number)
    assert made == [4, 5, 3, 5, 11]  # 3 drove out 5, which 4 was asked for after; 11 is more than fits, and stays alone


def test_a_picture_of_a_data_set(client: FlaskClient, digits: Dataset) -> None:
    answer = client.get("/datasets/mnist-10k/validation/3.png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.data))), digits.validation_images[3])
    assert client.get("/datasets/mnist-10k/validation/1500.png").json["code"] == "not_found"
    assert client.get("/datasets/mnist/validation/0.png").status_code in (200, 404)


def test_every_preset_is_a_spec_that_the_schema_knows(client: FlaskClient) -> None:
    presets = client.get("/presets").json["data"]
    assert [(item["kind"], item["name"]) for item in presets if item["is_default"]] == [
        (kind, name) for kind, name in DEFAULT_PRESET.items()
    ]
    for item in presets:
        dry = client.post("/jobs?dry_run=true", json=item["spec"])
        assert dry.status_code == 200, dry.text
        assert dry.json["resolved"] == item["spec"]
    answer = client.get("/schema.json")
    assert answer.mimetype == "application/schema+json"
    schema = answer.json
    keep = schema["$defs"]["Checkpointing"]["properties"]["keep_last"]
    assert keep["description"].startswith("Number of recent checkpoints")
    assert schema["$defs"]["GanSpec"]["required"] == ["kind"]
