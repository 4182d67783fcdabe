"""Predictions, saliency and confusion, compared with those of the trainer."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from service.datasets.cache import Dataset
from tests.service.web.inference.networks import CLASSIFIERS, ask, png, unpack


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


def test_saliency_is_the_gradient_of_the_logit(client: FlaskClient, train: Any, job: Any, digits: Dataset) -> None:
    trained = train("classifier", **CLASSIFIERS["double"])
    job_id, model = job(trained), trained.trainer.model
    image = digits.validation.inputs[3] / 255
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
    for start in range(0, len(digits.validation.labels), 250):
        part = slice(start, start + 250)
        answer = ask(client, job_id, "predict", images=[png(image) for image in digits.validation.inputs[part]])
        hits += int(np.count_nonzero(digits.validation.labels[part] == answer["classes"]))
    assert hits / len(digits.validation.labels) == trained.done.metrics["val_accuracy"]


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
    np.testing.assert_array_equal(unpack(right["images"][0]), digits.validation.inputs[right["indices"][0]])
    assert {digits.validation.labels[index] for index in right["indices"]} == {1}
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
    assert found["validation_count"] == matrix.sum() == len(digits.validation.labels)
    assert found["count"] == matrix.sum() - matrix.trace()
    shown = found["data"]
    assert len(shown) == min(256, found["count"])
    confidences = [item["confidence"] for item in shown]
    assert confidences == sorted(confidences, reverse=True)
    for item in shown[:20]:
        assert item["true_class"] == digits.validation.labels[item["index"]] != item["predicted_class"]
        assert item["true_confidence"] <= item["confidence"]
        np.testing.assert_array_equal(unpack(item["image"]), digits.validation.inputs[item["index"]])
    asked = [item["image"] for item in shown[:20]]
    answer = ask(client, job_id, "predict", images=asked)
    assert answer["classes"] == [item["predicted_class"] for item in shown[:20]]
    np.testing.assert_allclose(np.max(answer["probabilities"], axis=1), confidences[:20], atol=1e-6)
    few = client.get(f"/jobs/{job_id}/mistakes?limit=3&checkpoint=1").json
    assert few["data"] == shown[:3]
    for query, code in (("limit=0", "invalid_parameter"), ("limit=257", "invalid_parameter")):
        assert client.get(f"/jobs/{job_id}/mistakes?{query}").json["code"] == code
    assert client.get(f"/jobs/{job_id}/mistakes?checkpoint=9").json["code"] == "artifact_not_found"
