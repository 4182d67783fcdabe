"""Tables over HTTP: upload, spec, training as in a worker, and all requests about the job."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from engine import ClassifierTrainer, EpochDone, checkpoint
from service.datasets.repository import DatasetRepository
from service.datasets.tables.preprocessing import Preprocessing
from service.jobs import leases
from service.jobs.queries import lookup
from service.spec.validation import read_resolved
from service.storage.tables import Job
from service.web.core.core import EXTENSION, Core
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.datasets.test_dataset_versions import train
from tests.service.web.datasets.test_datasets import upload_dataset
from workers.training import build

ROWS = "".join(
    f"{'' if n % 11 == 5 else 5 + n % 20},{'Oslo' if n % 2 else 'Bergen'},2024-01-{n % 28 + 1:02},{n * 31 % 17},"
    f"{'high' if n % 20 > 9 else 'low'}\n"
    for n in range(200)
)
TABLE = ("age,city,since,noise,label\n" + ROWS).encode()


@pytest.fixture
def people_dataset(client: FlaskClient) -> Any:
    answer = upload_dataset(client, "people", table=TABLE)
    assert answer.status_code == 201, answer.text
    return answer.json


@dataclass(frozen=True)
class TrainingOutput:
    """What a training on the table produced."""

    checkpoint: bytes
    preprocessing: dict[str, Any]
    metrics: dict[str, float]
    confusion: list[list[int]] | None


@pytest.fixture(scope="module")
def training_cache() -> dict[str, TrainingOutput]:
    """A cache by version of the data: training takes longer than most tests, and has the same bits each time."""
    return {}


def train_on_table(core: Core, row: Job) -> TrainingOutput:
    spec = read_resolved(row.resolved)
    repository = DatasetRepository(core.settings, core.database)
    dataset = repository.load(repository.of_job(row))
    preprocessing = Preprocessing.of(dataset.info, dataset.train.inputs, dataset.train.labels)
    trainer = build.trainer(spec, dataset, preprocessing)
    last_epoch = [report for report in trainer.run() if isinstance(report, EpochDone)][-1]
    state = trainer.state_dict()
    state.spec = spec.model_dump(mode="json")
    state.state["preprocessing"] = preprocessing.document()
    confusion = last_epoch.confusion
    return TrainingOutput(
        checkpoint.dumps(state),
        preprocessing.document(),
        {**last_epoch.metrics, **last_epoch.scores},
        None if confusion is None else confusion.tolist(),
    )


@pytest.fixture
def job(
    client: FlaskClient,
    worker: SimulatedWorker,
    app: Flask,
    people_dataset: Any,
    training_cache: dict[str, TrainingOutput],
) -> str:
    """A job on the table, with the outputs of a real training."""
    core: Core = app.extensions[EXTENSION]
    created = client.post("/jobs", json={"kind": "classifier", "dataset": "people", "epochs": 30})
    assert created.status_code == 201, created.text
    with core.database.read() as session:
        row = lookup.get(session, created.json["id"])
    if people_dataset["sha256"] not in training_cache:
        training_cache[people_dataset["sha256"]] = train_on_table(core, row)
    trained = training_cache[people_dataset["sha256"]]
    held = worker.claim()
    leases.begin(worker.database, held, {"numpy": "2.4", "preprocessing": trained.preprocessing})
    worker.commit_epoch(1, metrics=trained.metrics, checkpoint=trained.checkpoint, confusion=trained.confusion)
    worker.succeed()
    return str(created.json["id"])


def test_the_response_to_an_upload_has_columns_and_report(client: FlaskClient, people_dataset: Any) -> None:
    assert (people_dataset["kind"], people_dataset["image_shape"], people_dataset["classes"]) == ("table", [], 2)
    assert [(column["name"], column["type"], column["missing"]) for column in people_dataset["columns"]] == [
        ("age", "number", 18), ("city", "category", 0), ("since", "date", 0), ("noise", "number", 0)
    ]  # fmt: skip
    assert people_dataset["class_names"] == ["high", "low"]
    assert people_dataset["report"]["target"] == "label"
    assert "preview" not in people_dataset["urls"]
    assert client.get("/datasets/people/preview.png").status_code == 404
    assert client.get("/datasets/people/validation/0.png").status_code == 404
    assert client.get("/ui/datasets/people").status_code == 200
    assert upload_dataset(client, "people", table=TABLE).status_code == 409


def test_a_split_column_defines_the_parts_and_the_test_rows_are_scored_once(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score equals the accuracy of the service's own predictions for the test rows."""
    scored, score = [], ClassifierTrainer.test

    def score_and_count(trainer: ClassifierTrainer, data: Any) -> dict[str, float]:
        scored.append(len(data))
        return score(trainer, data)

    monkeypatch.setattr(ClassifierTrainer, "test", score_and_count)
    lines = TABLE.decode().splitlines()
    parts = ["part", *(("train", "train", "train", "val", "test")[n % 5] for n in range(len(lines) - 1))]
    data = "".join(f"{part},{line}\n" for part, line in zip(parts, lines, strict=True)).encode()
    created = upload_dataset(client, "people", table=data, split="part")
    assert created.status_code == 201, created.text
    counts = [created.json[f"{part}_count"] for part in ("train", "validation", "test")]
    assert counts == [120, 40, 40]
    assert "part" not in [column["name"] for column in created.json["columns"]]
    other = upload_dataset(client, "other", table=data.replace(b"val,", b"test,"), split="part").json
    assert "its test rows are used for validation" in other["report"]["notes"][0]
    job_id = client.post("/jobs", json={"kind": "classifier", "dataset": "people", "epochs": 3}).json["id"]
    ended = train(app, job_id)
    assert ended.status == "succeeded", ended.error
    assert scored == [40]
    rows = client.get("/datasets/people/rows?part=test&limit=100").json["data"]
    assert len(rows) == 40
    results = client.get(f"/jobs/{job_id}/results").json
    body = {"rows": [row["values"] for row in rows], "checkpoint": results["test_epoch"]}
    predicted = client.post(f"/jobs/{job_id}/predict", json=body).json["classes"]
    accuracy = np.mean([predicted_class == row["label"] for predicted_class, row in zip(predicted, rows, strict=True)])
    assert results["test_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("fields", "parameter", "word"),
    [
        ({"table": TABLE, "target": "lable"}, "target", "did you mean 'label'?"),
        (
            {"table": TABLE, "types": '{"age": "zahl"}'},
            "types",
            "'age' cannot have the type 'zahl'; types are number, category, date, ignore",
        ),
        ({"table": TABLE, "types": "age"}, "types", "JSON object"),
        ({"table": TABLE, "split": "city"}, "split", "it says 'Bergen' in 100 rows, 'Oslo' in 100 rows"),
        ({"archive": TABLE, "split": "part"}, "split", "for tables"),
        ({"table": TABLE, "size": "32"}, "size", "archives of image files"),
        ({"archive": TABLE, "target": "label"}, "target", "for tables"),
        ({"table": TABLE, "archive": TABLE}, "table", "only file"),
        ({"table": b"a,b\n1\n"}, "table", "line 2 has 1 field instead of 2"),
    ],
)
def test_faults_in_the_upload_of_a_table_are_reported(
    client: FlaskClient, fields: dict[str, Any], parameter: str, word: str
) -> None:
    answer = upload_dataset(client, "bad", **fields)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json["errors"]
    assert error["parameter"] == parameter
    assert word in error["detail"]


def test_types_and_target_chosen_by_the_user_are_applied(client: FlaskClient) -> None:
    types = json.dumps({"noise": "ignore", "age": "category"})
    created = upload_dataset(client, "people", table=TABLE, target="city", types=types).json
    assert [(column["name"], column["type"]) for column in created["columns"]] == [
        ("age", "category"), ("since", "date"), ("label", "category")
    ]  # fmt: skip
    assert created["class_names"] == ["Bergen", "Oslo"]


def test_a_dry_run_notes_what_the_table_preset_uses(client: FlaskClient, people_dataset: Any) -> None:
    def notes(**settings: Any) -> list[str]:
        spec = {"kind": "classifier", "dataset": "people", **settings}
        return [note for note in client.post("/jobs?dry_run=true", json=spec).json["notes"] if "Preset" in note]

    assert notes() == ["Preset table takes batch_size 16 and epochs 60 for 170 training rows."]
    assert notes(epochs=3) == ["Preset table takes batch_size 16 for 170 training rows."]
    assert notes(epochs=3, batch_size=10) == []


def test_a_classifier_of_a_table_starts_from_the_table_preset(client: FlaskClient, people_dataset: Any) -> None:
    answer = client.post("/jobs?dry_run=true", json={"kind": "classifier", "dataset": "people"}).json
    resolved = answer["resolved"]
    assert resolved["preset"] == "table"
    assert resolved["layers"][-1]["units"] == 2
    assert answer["networks"][0]["input_shape"] == [6]  # age and whether it is missing, two cities, a date, noise
    other = client.post("/jobs?dry_run=true", json={"kind": "classifier", "preset": "fast", "dataset": "people"}).json
    assert other["resolved"]["augmentation"]["max_shift"] == 0


@pytest.mark.parametrize(
    ("spec", "pointer", "word"),
    [
        ({"kind": "gan"}, "#/kind", "train a classifier"),
        ({"preset": "conv"}, "#/preset", "use preset table"),
        ({"augmentation": {"max_shift": 1}}, "#/augmentation/max_shift", "is for images"),
        (
            {"layers": [{"type": "max_pool2d"}, {"type": "flatten"}, {"units": 2, "activation": "softmax"}]},
            "#/layers/0/type",
            "use dense layers",
        ),
        (
            {"loss": {"name": "squared_error", "class_weights": "balanced"}},
            "#/loss/class_weights",
            "softmax_cross_entropy",
        ),
    ],
)
def test_image_settings_are_rejected_for_tables(
    client: FlaskClient, people_dataset: Any, spec: dict[str, Any], pointer: str, word: str
) -> None:
    answer = client.post("/jobs", json={"kind": "classifier", "dataset": "people", **spec})
    assert answer.status_code == 422
    (error,) = answer.json["errors"]
    assert error["pointer"] == pointer
    assert word in error["detail"]


def test_rows_are_predicted_from_values_by_column_name(client: FlaskClient, job: str) -> None:
    rows = [
        {"age": 6, "city": "Oslo", "since": "2024-01-03", "noise": 3},
        {"age": "24", "city": "Paris", "noise": None, "label": "high"},
    ]
    answer = client.post(f"/jobs/{job}/predict", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    prediction = answer.json
    assert [prediction["class_names"][number] for number in prediction["classes"]] == ["low", "high"]
    np.testing.assert_allclose(np.sum(prediction["probabilities"], axis=1), 1, atol=1e-6)
    assert prediction["unknown_values"] == [{"row": 1, "column": "city", "value": "Paris"}]
    assert prediction["absent_columns"] == {"since": 1}
    sparse = client.post(f"/jobs/{job}/predict", json={"rows": [{"age": "24"}]}).json
    assert sparse["probabilities"][0] == pytest.approx(prediction["probabilities"][1], abs=1e-6)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"rows": [{"agee": 1, "age": 2}]}, "#/rows/0/agee"),
        ({"rows": [{"age": 1}, {"age": "old"}]}, "#/rows/1/age"),
        ({"rows": [{"since": "soon"}]}, "#/rows/0/since"),
        ({"rows": [{}]}, "#/rows/0"),
        ({"rows": []}, "#/rows"),
        ({"images": [[0]]}, "#/images"),
        ({"rows": [{"age": 1}], "images": [[0]]}, "#/rows"),
        ({"rows": [{"age": 1}], "explain": True}, "#/explain"),
        ({}, "#/rows"),
        ({"rows": [{"age": [1]}]}, "#/rows/0/age"),
    ],
)
def test_rows_that_do_not_fit_the_columns_are_rejected(client: FlaskClient, job: str, body: Any, pointer: str) -> None:
    answer = client.post(f"/jobs/{job}/predict", json=body)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json["errors"]]


def test_a_csv_file_of_rows_is_predicted_as_json_or_as_the_same_file(client: FlaskClient, job: str) -> None:
    file = b"city;age;note;label\nOslo;6,5;x;low\nUlm;;y;high\n"
    rows = [{"city": "Oslo", "age": 6.5}, {"city": "Ulm", "age": None}]
    expected = client.post(f"/jobs/{job}/predict", json={"rows": rows}).json
    for data in (file, gzip.compress(file)):
        with client.post(f"/jobs/{job}/predict", data=data, content_type="text/csv") as response:
            answer = response.json
        assert answer.keys() == expected.keys()
        assert answer["classes"] == expected["classes"]
        assert answer["probabilities"] == expected["probabilities"]
        assert answer["unknown_values"] == [{"row": 1, "column": "city", "value": "Ulm"}]
        assert answer["absent_columns"] == {"since": 2, "noise": 2}
        assert (answer["summary"]["rows"], answer["summary"]["unused_columns"]) == (2, ["note"])
    written = client.post(
        f"/jobs/{job}/predict?checkpoint=1", data=file, content_type="text/csv", headers={"Accept": "text/csv"}
    )
    assert written.content_type == "text/csv; charset=utf-8"
    assert json.loads(written.headers["Tapeline-Summary"]) == answer["summary"]
    header, first, second = written.text.splitlines()
    written.close()
    assert header == "city;age;note;label;prediction;probability;probability of high;probability of low"
    assert first.startswith("Oslo;6,5;x;low;low;")
    assert second.startswith("Ulm;;y;high;")


@pytest.mark.parametrize(
    ("data", "pointer", "detail"),
    [
        (b"", "#", "is empty"),
        (b"age,city\n", "#", "has a header, but no rows"),
        (b"age,city\n1,2,3\n", "#", "line 2 has 3 fields instead of 2"),
        (b"age,city,age\n1,2,3\n", "#", "two columns have the same name, 'age'"),
        (b"," * 10_000 + b"\n1\n", "#", "has 10,001 columns; at most 10,000 are read"),
        (b"agee\n1\n", "#/columns/agee", "column 'agee' is unknown; did you mean 'age'? Rename it, or remove it"),
        (
            b"age,since\n1,\nx,\n2,never\ny,\n",
            "#/rows/1/age",
            "line 3: 'age' must be a number, not 'x' (and further lines)",
        ),
    ],
)
def test_a_csv_file_that_does_not_fit_is_rejected_with_line_and_column(
    client: FlaskClient, job: str, data: bytes, pointer: str, detail: str
) -> None:
    refused = client.post(f"/jobs/{job}/predict", data=data, content_type="text/csv")
    assert (refused.status_code, refused.json["code"]) == (422, "invalid_input")
    assert (refused.json["errors"][0]["pointer"], refused.json["errors"][0]["detail"]) == (pointer, detail)


def test_the_header_of_a_predicted_file_stays_short(client: FlaskClient, job: str) -> None:
    names = [f"spalte-{'ü' * 30}-{number}" for number in range(200)]
    data = f"age,{','.join(names)}\n1{',2' * 200}\n".encode()
    written = client.post(f"/jobs/{job}/predict", data=data, content_type="text/csv", headers={"Accept": "text/csv"})
    summary = json.loads(written.headers["Tapeline-Summary"])
    assert len(written.headers["Tapeline-Summary"]) <= 3000
    written.close()
    assert summary["rows"] == 1
    assert set(summary["unused_columns"]) < set(names)


def test_the_header_of_a_predicted_file_has_the_notes_whatever_else_is_in_it(client: FlaskClient, job: str) -> None:
    cities = "".join(f"Новый город {index},1\n" for index in range(40))
    data = f"city,age,неизвестно\n{cities}".replace(",1\n", ",1,x\n").encode()
    written = client.post(f"/jobs/{job}/predict", data=data, content_type="text/csv", headers={"Accept": "text/csv"})
    notes = json.loads(written.headers["Tapeline-Summary"])["notes"]
    written.close()
    assert len(notes) == 5
    assert notes[0].startswith("not used by the model")
    assert notes[-2].startswith("40 unknown categories")


def test_a_predicted_file_leaves_nothing_behind(client: FlaskClient, job: str) -> None:
    for data in (b"age,city\n1,Oslo\n", b"age,city\n1,2,3\n"):
        client.post(f"/jobs/{job}/predict", data=data, content_type="text/csv").close()
    artifacts = client.application.extensions[EXTENSION].settings.artifacts
    assert [path for path in artifacts.rglob("*") if path.name.startswith("rows_") or path.name == "inputs"] == []


def test_the_checkpoint_of_json_rows_is_a_field_of_the_body(client: FlaskClient, job: str) -> None:
    refused = client.post(f"/jobs/{job}/predict?checkpoint=1", json={"rows": [{"age": 1}]})
    assert (refused.status_code, refused.json["code"]) == (400, "invalid_parameter")


def test_importance_is_deterministic_and_highest_for_the_decisive_column(client: FlaskClient, job: str) -> None:
    importance = client.get(f"/jobs/{job}/importance").json
    assert importance == client.get(f"/jobs/{job}/importance?checkpoint=1").json
    by_name = {column["column"]: column["mean"] for column in importance["columns"]}
    assert max(by_name, key=by_name.__getitem__) == "age"
    assert by_name["age"] > 0.2
    for plot, kind in (("importance.png", b"\x89PNG"), ("calibration.svg", b"<?xml"), ("confusion.png", b"\x89PNG")):
        drawn = client.get(f"/jobs/{job}/plots/{plot}")
        assert (drawn.status_code, drawn.data[: len(kind)]) == (200, kind)


def test_calibration_covers_every_validation_row(client: FlaskClient, job: str) -> None:
    calibration = client.get(f"/jobs/{job}/calibration").json
    assert sum(item["count"] for item in calibration["bins"]) == calibration["validation_count"] == 30
    assert 0 <= calibration["expected_error"] <= 1
    shares = [
        item["count"] / 30 * abs(item["confidence"] - item["accuracy"]) for item in calibration["bins"] if item["count"]
    ]
    assert calibration["expected_error"] == pytest.approx(sum(shares))


def test_cells_of_the_confusion_matrix_and_mistakes_show_rows(client: FlaskClient, job: str) -> None:
    matrix = client.get(f"/jobs/{job}/confusion").json["matrix"]
    cell = client.get(f"/jobs/{job}/confusion/0/0").json
    assert cell["count"] == matrix[0][0] == len(cell["rows"])
    assert set(cell["rows"][0]) == {"age", "city", "since", "noise"}
    assert cell["images"] == []
    assert client.get(f"/jobs/{job}/confusion/0/0.png").status_code == 404
    mistakes = client.get(f"/jobs/{job}/mistakes").json
    assert all(mistake["image"] is None and mistake["row"] for mistake in mistakes["data"])


def test_the_pages_of_a_table_job_mention_rows_instead_of_images(client: FlaskClient, job: str) -> None:
    page = client.get(f"/ui/jobs/{job}").text
    assert "Importance of columns" in page
    assert "validation rows" in page
    assert "validation images" not in page
    play = client.get(f"/ui/play/{job}").text
    assert 'data-column="city"' in play
    assert "canvas" not in play


def test_a_fork_accepts_only_tables_with_the_same_columns(client: FlaskClient, job: str) -> None:
    upload_dataset(client, "others", table=TABLE.replace(b"noise", b"sound"))
    upload_dataset(client, "more", table=TABLE + ROWS.encode())
    rejected = client.post(f"/jobs/{job}/fork", json={"overrides": {"epochs": 60, "dataset": {"name": "others"}}})
    assert rejected.status_code == 422
    assert "columns" in rejected.json["errors"][0]["detail"]
    accepted = client.post(f"/jobs/{job}/fork", json={"overrides": {"epochs": 60, "dataset": {"name": "more"}}})
    assert accepted.status_code == 201, accepted.text


def test_a_job_on_images_has_no_rows_and_no_importance(client: FlaskClient, submit: Any) -> None:
    job_id = submit(client)
    assert client.get(f"/jobs/{job_id}/importance").status_code == 404
    answer = client.post(f"/jobs/{job_id}/predict", json={"rows": [{"age": 1}]})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == "#/rows"
