"""Regressors: predictions, residuals, importance and exports in the unit of the target."""

from __future__ import annotations

import csv
import io
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from service.datasets.repository import DatasetRepository
from service.datasets.tables.rows import named_row
from service.jobs import leases
from service.jobs.queries import lookup
from service.web.core.core import EXTENSION, Core
from tests.service.onnx_sessions import session
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.datasets.test_datasets import upload_dataset
from tests.service.web.datasets.test_tables import TrainingOutput, train_on_table, training_cache
from tests.service.web.inference.test_exports import export, extract_folder, run_card

__all__ = ["training_cache"]

RNG = np.random.default_rng(0)
AREAS, CITIES = RNG.uniform(30, 150, 300), RNG.choice(["Bergen", "Oslo"], 300)
PRICES = 2_000_000 + 30_000 * AREAS + 500_000 * (CITIES == "Oslo") + RNG.normal(0, 100_000, 300)
# A column may have the name that the service and exports give to their results.
TABLE = "prediction,city,price\n" + "".join(
    f"{area:.1f},{city},{price:.0f}\n" for area, city, price in zip(AREAS, CITIES, PRICES, strict=True)
)
RELATIVE_TOLERANCE = 1e-5
FAR = [{"prediction": area, "city": "Oslo"} for area in (9e9, -9e9, 1e300)]
"""Their inputs are clipped."""


@pytest.fixture
def job(client: FlaskClient, worker: SimulatedWorker, app: Flask, training_cache: dict[str, TrainingOutput]) -> str:
    """A regressor with the outputs of a real training."""
    answer = upload_dataset(client, "flats", table=TABLE.encode())
    assert answer.status_code == 201, answer.text
    dataset = answer.json
    assert (dataset["task"], dataset["target"], dataset["default_kind"]) == ("regression", "price", "regressor")
    core: Core = app.extensions[EXTENSION]
    created = client.post("/jobs", json={"kind": "regressor", "dataset": "flats"})
    assert created.status_code == 201, created.text
    with core.database.read() as session:
        row = lookup.get(session, created.json["id"])
    if dataset["sha256"] not in training_cache:
        training_cache[dataset["sha256"]] = train_on_table(core, row)
    trained = training_cache[dataset["sha256"]]
    held = worker.claim()
    leases.begin(worker.database, held, {"numpy": "2.4", "preprocessing": trained.preprocessing})
    worker.commit_epoch(1, metrics=trained.metrics, checkpoint=trained.checkpoint)
    worker.succeed()
    return str(created.json["id"])


@pytest.fixture
def rows(app: Flask, job: str) -> list[dict[str, Any]]:
    """The validation rows by column, and a row without values."""
    core: Core = app.extensions[EXTENSION]
    with core.database.read() as read:
        info = DatasetRepository(core.settings, core.database).of_job(lookup.get(read, job))
    inputs = core.repository.load(info).validation.inputs
    return [*(named_row(row, info.columns) for row in inputs), {"prediction": None, "city": None}, *FAR]


@pytest.fixture
def expected(client: FlaskClient, job: str, rows: list[dict[str, Any]]) -> Any:
    answer = client.post(f"/jobs/{job}/predict", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    assert (answer.json["target"], answer.json["classes"], answer.json["class_names"]) == ("price", [], [])
    return np.asarray(answer.json["values"])


def test_predictions_residuals_and_metrics_agree_in_the_unit_of_the_target(
    client: FlaskClient, job: str, expected: Any
) -> None:
    answer = client.get(f"/jobs/{job}/residuals?limit=3").json
    targets, predictions = np.array(answer["points"]).T
    np.testing.assert_allclose(predictions, expected[: len(predictions)], rtol=1e-6)
    assert set(targets) <= {round(price) for price in PRICES}
    assert (answer["target"], answer["validation_count"]) == ("price", len(targets))
    results = client.get(f"/jobs/{job}/results").json
    rmse = float(np.sqrt(np.mean((predictions - targets) ** 2)))
    assert results["metrics"]["val_rmse"] == pytest.approx(rmse, rel=1e-5)
    assert 80_000 < rmse < 250_000
    interval = results["intervals"]["val_rmse"]
    assert interval["low"] < rmse < interval["high"]
    assert interval["text"].startswith("95% CI ")
    worst = answer["worst"]
    errors = [abs(row["prediction"] - row["target"]) for row in worst]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(np.abs(predictions - targets).max())
    assert set(worst[0]["row"]) == {"prediction", "city"}


def test_columns_are_as_important_as_the_errors_that_their_loss_causes(client: FlaskClient, job: str) -> None:
    answer = client.get(f"/jobs/{job}/importance").json
    assert answer["accuracy"] is None
    importance = {item["column"]: item["mean"] for item in answer["columns"]}
    assert importance["prediction"] > importance["city"] > 0
    assert answer["rmse"] + importance["prediction"] > 1_000_000


@pytest.mark.parametrize(("delimiter", "number"), [(",", "70.5"), (";", "70,5")])
def test_a_file_of_rows_gets_a_column_with_the_prediction(
    client: FlaskClient, job: str, delimiter: str, number: str
) -> None:
    data = delimiter.join(["prediction", "city", "id"]) + "\n" + delimiter.join([number, "Oslo", "7"]) + "\n"
    (value,) = client.post(f"/jobs/{job}/predict", json={"rows": [{"prediction": 70.5, "city": "Oslo"}]}).json["values"]
    headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
    with client.post(f"/jobs/{job}/predict", data=data, headers=headers) as answer:
        assert answer.status_code == 200, answer.text
        (row,) = csv.DictReader(io.StringIO(answer.text), delimiter=delimiter)
    assert list(row) == ["prediction", "city", "id", "prediction (2)"]
    assert float(row["prediction (2)"].replace(",", ".")) == pytest.approx(value, rel=1e-14)
    with client.post(f"/jobs/{job}/predict", data=data, headers={"Content-Type": "text/csv"}) as answer:
        found = json.loads(answer.text)
    assert found["values"] == pytest.approx([value])
    assert (found["target"], found["probabilities"], found["summary"]["rows"]) == ("price", [], 1)


def test_predictions_come_with_their_typical_error_and_say_what_is_unusual(client: FlaskClient, job: str) -> None:
    error = client.get(f"/jobs/{job}/results").json["metrics"]["val_rmse"]
    low, high = (f"{round(area, 1):.4g}" for area in (min(AREAS), max(AREAS)))
    usual, unusual = {"prediction": 80, "city": "Oslo"}, {"prediction": 900, "city": None}
    answer = client.post(f"/jobs/{job}/predict", json={"rows": [usual]}).json
    assert (answer["typical_error"], answer["notes"]) == (error, [])
    answer = client.post(f"/jobs/{job}/predict", json={"rows": [unusual]}).json
    outside = f"column 'prediction' is outside the range of the dataset ({low} to {high})"
    assert answer["notes"] == ["column 'city' is empty in 1 row, treated as a missing value", f"{outside}: 900"]
    data = "prediction,city\n80,Oslo\n900,\n20,Rome\n"
    with client.post(f"/jobs/{job}/predict", data=data, headers={"Content-Type": "text/csv"}) as response:
        summary = json.loads(response.text)["summary"]
    assert summary["missing_values"] == {"city": 1}
    assert summary["notes"][-3:] == [
        "column 'city' is empty in 1 row, treated as a missing value",
        f"{outside} in 2 rows, such as 900",
        f"typical error of price: {error:,.0f}, the RMSE on the validation data",
    ]


def test_what_needs_classes_is_refused_and_plots_are_drawn(client: FlaskClient, job: str) -> None:
    for path in ("confusion", "mistakes", "calibration"):
        answer = client.get(f"/jobs/{job}/{path}")
        assert (answer.status_code, answer.json["code"]) == (409, "wrong_kind"), path
        assert answer.json["detail"] == f"the job is a regressor; what it gets wrong: GET /jobs/{job}/residuals"
    answer = client.post(f"/jobs/{job}/generate", json={})
    assert answer.json["detail"] == f"the job is a regressor; it predicts: POST /jobs/{job}/predict"
    assert client.get(f"/jobs/{job}/plots/calibration.png").status_code == 404
    for name in ("curves", "residuals", "importance"):
        answer = client.get(f"/jobs/{job}/plots/{name}.png")
        assert answer.status_code == 200, answer.text
        assert answer.data.startswith(b"\x89PNG")
    assert client.get(f"/ui/jobs/{job}").status_code == 200
    play = client.get(f"/ui/play/{job}").text
    assert "Predict rows" in play
    assert 'id="bars"' not in play


def test_the_dataset_shows_its_numbers_instead_of_classes(client: FlaskClient, job: str) -> None:
    detail = client.get("/datasets/flats").json
    assert (detail["classes"], detail["class_names"]) == (0, [])
    (row,) = client.get("/datasets/flats/rows?limit=1").json["data"]
    assert (row["label"], row["class_name"]) == (None, None)
    assert row["target"] in {round(price) for price in PRICES}
    columns = client.get("/datasets/flats/columns").json["columns"]
    assert [column["name"] for column in columns] == ["price", "prediction", "city"]
    assert columns[0]["low"] == min(round(price) for price in PRICES)
    page = client.get("/ui/datasets/flats").text
    assert "Number to predict" in page


def tried(client: FlaskClient, spec: str, query: str = "?dry_run=true") -> Any:
    boundary, body = encode_multipart(
        {"name": "tried", "spec": spec, "table": FileStorage(io.BytesIO(TABLE.encode()), "x")}
    )
    return client.post(f"/datasets{query}", data=body, content_type=f"multipart/form-data; boundary={boundary}")


def test_a_dry_run_of_an_upload_finds_the_number_to_predict(client: FlaskClient) -> None:
    answer = tried(client, "{}")
    assert answer.status_code == 200, answer.text
    found = answer.json
    assert (found["task"], found["target"], found["plan"]["resolved"]["kind"]) == ("regression", "price", "regressor")
    assert found["report"]["range"] == [min(map(round, PRICES)), max(map(round, PRICES))]


@pytest.mark.parametrize("spec", ['{"epochs": 2}', '{"dataset": "tried"}', '{"dataset": {"folds": 3}}'])
def test_the_plan_of_an_upload_is_that_of_a_job_on_it(client: FlaskClient, spec: str) -> None:
    assert tried(client, spec).json["plan"]["resolved"]["dataset"]["name"] == "tried"


@pytest.mark.parametrize(
    ("spec", "query", "detail"),
    [
        ('{"dataset": "iris"}', "?dry_run=true", "is of the dataset 'iris'; the upload is 'tried': leave its name out"),
        ('{"dataset": {"name": "iris"}}', "?dry_run=true", "is of the dataset 'iris'"),
        ("{}", "", "is of a dry run"),
    ],
)
def test_a_spec_of_other_data_or_without_a_dry_run_is_refused(
    client: FlaskClient, spec: str, query: str, detail: str
) -> None:
    answer = tried(client, spec, query)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_upload")
    assert detail in answer.json["detail"]
    assert client.get("/datasets/tried").status_code == 404


@pytest.mark.parametrize(
    ("spec", "pointer", "words"),
    [
        ({"kind": "classifier", "dataset": "flats"}, "#/kind", "train a regressor"),
        ({"kind": "gan", "dataset": "flats"}, "#/kind", "train a regressor"),
        ({"kind": "regressor", "dataset": "iris"}, "#/kind", "iris has classes; train a classifier"),
        ({"kind": "regressor", "dataset": "mnist-10k"}, "#/kind", "train a classifier"),
        ({"kind": "regressor", "loss": "hinge"}, "#/loss", "squared_error"),
        ({"kind": "regressor", "layers": [{"units": 2, "activation": "linear"}]}, "#/layers/0/units", "must be 1"),
        ({"kind": "regressor", "layers": [{"units": 1, "activation": "relu"}]}, "#/layers/0/activation", "linear"),
        ({"kind": "regressor", "augmentation": {"flip": True}}, "#/augmentation", "only a classifier has it"),
        (
            {"kind": "regressor", "early_stopping": {"metric": "val_accuracy", "patience": 3}},
            "#/early_stopping/metric",
            "val_rmse",
        ),
    ],
)
def test_specs_that_do_not_fit_are_refused_with_the_remedy(
    client: FlaskClient, job: str, spec: dict[str, Any], pointer: str, words: str
) -> None:
    answer = client.post("/jobs", json=spec)
    assert answer.status_code == 422, answer.text
    faults = {fault["pointer"]: fault["detail"] for fault in answer.json["errors"]}
    assert words in faults.get(pointer, ""), faults


def close(computed: Any, expected: Any) -> bool:
    return bool(np.allclose(np.asarray(computed), expected, rtol=RELATIVE_TOLERANCE, atol=0))


def test_a_fork_predicts_the_same_target(client: FlaskClient, job: str) -> None:
    rents = TABLE.replace("price", "rent", 1).encode()
    assert upload_dataset(client, "rents", table=rents).status_code == 201
    refused = client.post(f"/jobs/{job}/fork", json={"overrides": {"dataset": {"name": "rents"}, "epochs": 90}})
    assert refused.status_code == 422, refused.text
    assert "its target is rent; the checkpoint predicts price" in refused.text
    assert client.post(f"/jobs/{job}/fork", json={"overrides": {"epochs": 90}}).status_code == 201


def test_onnx_agrees_with_predict(client: FlaskClient, job: str, rows: Any, expected: Any) -> None:
    model = session(export(client, job, "onnx").data)
    columns = {
        "prediction_": np.array(
            [np.nan if row["prediction"] is None else row["prediction"] for row in rows], np.float64
        ),
        "city": np.array([row["city"] or "" for row in rows]),
    }
    (computed,) = model.run(["prediction"], columns)
    assert close(computed, expected)
    assert model.get_modelmeta().custom_metadata_map["target"] == "price"


def test_the_model_card_agrees_with_predict(
    client: FlaskClient, job: str, rows: Any, expected: Any, tmp_path: Path
) -> None:
    folder = extract_folder(export(client, job, "huggingface").data, tmp_path)
    assert close(run_card(folder)["predict"](rows), expected)
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: tabular-regression" in card
    assert "A regressor that predicts price from rows of 2 columns." in card
    assert json.loads((folder / "preprocessing.json").read_text())["unused_columns"] == ["price"]


@pytest.mark.nightly
def test_the_torch_module_agrees_with_predict(
    client: FlaskClient, job: str, rows: Any, expected: Any, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    module = runpy.run_path(str(extract_folder(export(client, job, "torch").data, tmp_path) / "model.py"))
    assert module["TARGET"] == "price"
    assert close(module["load"]().predict(rows), expected)
