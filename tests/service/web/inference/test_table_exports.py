"""Exports of models trained on tables, with their columns, categories and missing values."""

from __future__ import annotations

import json
import runpy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.datasets.repository import DatasetRepository
from service.datasets.tables.rows import named_row
from service.jobs.queries import lookup
from service.web.core.core import EXTENSION, Core
from tests.service.onnx_sessions import session
from tests.service.web.datasets.test_tables import job, people_dataset, training_cache
from tests.service.web.inference.test_exports import TOLERANCE, export, extract_folder, run_card

__all__ = ["job", "people_dataset", "training_cache"]


@pytest.fixture
def rows(app: Flask, job: str) -> list[dict[str, Any]]:
    """The validation rows by column, and two rows with missing, extreme or unknown values."""
    core: Core = app.extensions[EXTENSION]
    with core.database.read() as read:
        info = DatasetRepository(core.settings, core.database).of_job(lookup.get(read, job))
    inputs = core.repository.load(info).validation.inputs
    unusual = {"age": None, "city": None, "since": None, "noise": 1e9}
    return [*(named_row(row, info.columns) for row in inputs), unusual, unusual | {"city": "Paris"}]


@pytest.fixture
def expected(client: FlaskClient, job: str, rows: list[dict[str, Any]]) -> Any:
    answer = client.post(f"/jobs/{job}/predict", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    return np.asarray(answer.json["probabilities"])


def days(row: dict[str, Any]) -> dict[str, Any]:
    """A row in the exports' input format: dates are days since 1970-01-01."""
    since = row["since"]
    return row | {"since": None if since is None else float(np.datetime64(since).astype(np.int64))}


def check_messages(predict: Any, rows: list[dict[str, Any]], expected: Any) -> None:
    """Check that rows are accepted and rejected as by the service, and that its notes become warnings."""
    with warnings.catch_warnings(action="error"):
        probabilities = np.asarray(predict(rows[:-1]))
        labelled = np.asarray(predict([row | {"label": "high"} for row in rows[:-1]]))
    assert np.abs(probabilities - expected[:-1]).max() < TOLERANCE
    assert np.array_equal(probabilities, labelled)
    dates = [row | {"since": row["since"] and np.datetime64(row["since"], "ns")} for row in rows[:-1]]
    assert np.array_equal(np.asarray(predict(dates)), probabilities)
    with pytest.warns(UserWarning, match=r"column 'city': .*'Paris'"):
        predict(rows[-1:])
    with pytest.raises(ValueError, match=r"^'Ctiy' is not a column; did you mean 'city'\?$"):
        predict([{"age": 3, "Ctiy": "Oslo"}])
    with pytest.raises(ValueError, match=r"^column 'age' must be a number, not 'old'$"):
        predict([{"age": "old"}])
    with pytest.raises(ValueError, match=r"^column 'since' must be a date such as 2024-12-31, not '1\.2\.2024'$"):
        predict([{"since": "1.2.2024"}])


def test_onnx_accepts_named_columns_and_matches_predict(
    client: FlaskClient, job: str, rows: Any, expected: Any
) -> None:
    model = session(export(client, job, "onnx").data)
    kinds = {source.name: source.type for source in model.get_inputs()}
    number, text = "tensor(double)", "tensor(string)"
    assert kinds == {"age": number, "city": text, "since": number, "noise": number}
    converted = [days(row) for row in rows]
    columns = {
        name: np.array([row[name] or "" for row in converted])
        if kind == text
        else np.array([np.nan if row[name] is None else row[name] for row in converted], np.float64)
        for name, kind in kinds.items()
    }
    (computed,) = model.run(None, columns)
    assert np.abs(computed - expected).max() < TOLERANCE
    metadata = model.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["high", "low"]
    assert [column["name"] for column in json.loads(metadata["columns"])] == ["age", "city", "since", "noise"]


def test_the_model_card_accepts_rows_and_matches_predict(
    client: FlaskClient, job: str, rows: Any, expected: Any, tmp_path: Path
) -> None:
    folder = extract_folder(export(client, job, "huggingface").data, tmp_path)
    predict = run_card(folder)["predict"]
    with pytest.warns(UserWarning, match="'Paris'"):
        computed = predict([days(row) for row in rows])
    assert np.abs(computed - expected).max() < TOLERANCE
    check_messages(predict, rows, expected)
    assert "pipeline_tag: tabular-classification" in (folder / "README.md").read_text()


@pytest.mark.nightly
def test_the_torch_module_accepts_rows_and_matches_predict(
    client: FlaskClient, job: str, rows: Any, expected: Any, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    module = runpy.run_path(str(extract_folder(export(client, job, "torch").data, tmp_path) / "model.py"))
    predict = module["load"]().predict
    with pytest.warns(UserWarning, match="'Paris'"):
        computed = predict([days(row) for row in rows]).numpy()
    assert np.abs(computed - expected).max() < TOLERANCE
    check_messages(predict, rows, expected)
