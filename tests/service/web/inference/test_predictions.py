"""Predictions, saliency and confusion, compared with those of the trainer."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from service.datasets.cache import Dataset
from tests.service.web.inference.networks import CLASSIFIERS, decode_png, png, post


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predictions_are_those_of_the_trainer(
    client: FlaskClient, train: Any, job: Any, digits: Dataset, name: str
) -> None:
    trained = train("classifier", **CLASSIFIERS[name])
    job_id = job(trained)
    samples = trained.trainer.samples(40)
    answer = post(client, job_id, "predict", images=[png(image) for image in samples.images])
    probabilities = np.array(answer["probabilities"])
    assert answer["checkpoint"] == 1
    assert answer["classes"] == samples.predictions.tolist()
    np.testing.assert_allclose(probabilities.max(axis=1), np.clip(samples.confidences, 0, 1), atol=1e-6)
    if name not in ("sigmoids", "bare"):
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    arrays = post(client, job_id, "predict", images=(samples.images[:20] / 255).tolist())
    np.testing.assert_allclose(arrays["probabilities"], probabilities[:20], atol=1e-6)


def test_saliency_is_the_gradient_of_the_logit(client: FlaskClient, train: Any, job: Any, digits: Dataset) -> None:
    trained = train("classifier", **CLASSIFIERS["double"])
    job_id, model = job(trained), trained.trainer.model
    image = digits.validation.inputs[3] / 255
    answer = post(client, job_id, "predict", images=[image.tolist()], explain=True)
    (seen,), (label,), saliency = answer["seen"], answer["classes"], np.array(answer["saliency"][0])
    np.testing.assert_allclose(seen, image, atol=1e-3)
    assert saliency.shape == (28, 28)
    for row, column in ((14, 14), (7, 20), (0, 0)):
        lighter, darker = image.copy(), image.copy()
        lighter[row, column] += 1e-5
        darker[row, column] -= 1e-5
        logits = np.asarray(model.logits(np.stack([lighter, darker]).reshape(2, -1)))[:, label]
        assert saliency[row, column] == pytest.approx((logits[0] - logits[1]) / 2e-5, abs=2e-5)


def test_predictions_for_the_whole_validation_split_have_the_reported_accuracy(
    client: FlaskClient, train: Any, job: Any, digits: Dataset
) -> None:
    trained = train("classifier", **CLASSIFIERS["conv"])
    job_id = job(trained)
    hits = 0
    for start in range(0, len(digits.validation.labels), 250):
        part = slice(start, start + 250)
        answer = post(client, job_id, "predict", images=[png(image) for image in digits.validation.inputs[part]])
        hits += int(np.count_nonzero(digits.validation.labels[part] == answer["classes"]))
    assert hits / len(digits.validation.labels) == trained.last_epoch.metrics["val_accuracy"]


def test_confusion_cells_contain_the_images_that_were_counted(
    client: FlaskClient, train: Any, job: Any, digits: Dataset
) -> None:
    trained = train("classifier", **CLASSIFIERS["averaged"])
    job_id = job(trained)
    confusion = client.get(f"/jobs/{job_id}/confusion").json
    assert confusion["epoch"] == 1
    assert confusion["matrix"] == trained.last_epoch.confusion.tolist()
    cells = {(t, p): client.get(f"/jobs/{job_id}/confusion/{t}/{p}").json for t in range(3) for p in range(3)}
    assert {place: cell["count"] for place, cell in cells.items()} == {
        (t, p): confusion["matrix"][t][p] for t in range(3) for p in range(3)
    }
    correct = cells[1, 1]
    assert correct["confidences"] == sorted(correct["confidences"])
    np.testing.assert_array_equal(decode_png(correct["images"][0]), digits.validation.inputs[correct["indices"][0]])
    assert {digits.validation.labels[index] for index in correct["indices"]} == {1}
    row, column = max(
        ((t, p) for t in range(10) for p in range(10) if t != p),
        key=lambda place: confusion["matrix"][place[0]][place[1]],
    )
    mistaken = client.get(f"/jobs/{job_id}/confusion/{row}/{column}?limit=2").json
    assert len(mistaken["images"]) == 2 <= mistaken["count"]
    assert mistaken["confidences"] == sorted(mistaken["confidences"], reverse=True)
    picture = client.get(f"/jobs/{job_id}/confusion/{row}/{column}.png")
    columns = math.ceil(math.sqrt(min(mistaken["count"], 64)))
    assert Image.open(io.BytesIO(picture.data)).width == columns * (3 * 28 + 16) + 8  # with captions
    unchanged = client.get(
        f"/jobs/{job_id}/confusion/{row}/{column}.png", headers={"If-None-Match": picture.headers["ETag"]}
    )
    assert unchanged.status_code == 304
    assert client.get(f"/jobs/{job_id}/confusion/10/0").json["code"] == "not_found"


def test_scores_of_each_class_follow_from_the_matrix(client: FlaskClient, train: Any, job: Any) -> None:
    job_id = job(train("classifier", **CLASSIFIERS["averaged"]))
    confusion = client.get(f"/jobs/{job_id}/confusion").json
    matrix = np.array(confusion["matrix"])
    assert [item["class_name"] for item in confusion["per_class"]] == confusion["class_names"]
    assert [item["support"] for item in confusion["per_class"]] == matrix.sum(axis=1).tolist()
    for label, item in enumerate(confusion["per_class"]):
        predicted = matrix[:, label].sum()
        assert item["precision"] == (pytest.approx(matrix[label, label] / predicted) if predicted else None)
        assert item["recall"] == pytest.approx(matrix[label, label] / matrix[label].sum())
    assert confusion["balanced_accuracy"] == pytest.approx(np.mean(matrix.diagonal() / matrix.sum(axis=1)))
    assert confusion["macro_f1"] == pytest.approx(np.mean([item["f1"] for item in confusion["per_class"]]))


def test_mistakes_are_listed_with_the_most_confident_first(
    client: FlaskClient, train: Any, job: Any, digits: Dataset
) -> None:
    trained = train("classifier", **CLASSIFIERS["averaged"])
    job_id = job(trained)
    mistakes = client.get(f"/jobs/{job_id}/mistakes?limit=256").json
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    assert set(mistakes) == set(schemas["MistakeList"]["properties"])
    assert set(mistakes["data"][0]) == set(schemas["Mistake"]["properties"])
    matrix = trained.last_epoch.confusion
    assert mistakes["validation_count"] == matrix.sum() == len(digits.validation.labels)
    assert mistakes["count"] == matrix.sum() - matrix.trace()
    shown = mistakes["data"]
    assert len(shown) == min(256, mistakes["count"])
    confidences = [item["confidence"] for item in shown]
    assert confidences == sorted(confidences, reverse=True)
    for item in shown[:20]:
        assert item["true_class"] == digits.validation.labels[item["index"]] != item["predicted_class"]
        assert item["true_confidence"] <= item["confidence"]
        np.testing.assert_array_equal(decode_png(item["image"]), digits.validation.inputs[item["index"]])
    images = [item["image"] for item in shown[:20]]
    answer = post(client, job_id, "predict", images=images)
    assert answer["classes"] == [item["predicted_class"] for item in shown[:20]]
    np.testing.assert_allclose(np.max(answer["probabilities"], axis=1), confidences[:20], atol=1e-6)
    first_three = client.get(f"/jobs/{job_id}/mistakes?limit=3&checkpoint=1").json
    assert first_three["data"] == shown[:3]
    for query, code in (("limit=0", "invalid_parameter"), ("limit=257", "invalid_parameter")):
        assert client.get(f"/jobs/{job_id}/mistakes?{query}").json["code"] == code
    assert client.get(f"/jobs/{job_id}/mistakes?checkpoint=9").json["code"] == "artifact_not_found"
