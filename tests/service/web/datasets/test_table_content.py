"""Rows and columns of tables, and tables with folds."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.datasets.builtins import BUILT_IN
from tests.service.web.conftest import MakeApp
from tests.service.web.datasets.test_dataset_versions import train
from tests.service.web.markup import one_line

MIXED = "age,city,joined,member\n" + "\n".join(
    f"{age},{city},{joined},{member}"
    for age, city, joined, member in zip(
        [*range(20, 50), "", "NA", *range(52, 80)],
        ["Oslo", "Bergen", "Oslo", ""] * 15,
        ["2024-03-31", "2023-01-01", "", "2024-03-31"] * 15,
        ["yes", "no"] * 30,
        strict=True,
    )
)


@pytest.fixture
def app(make_app: MakeApp, migrated_url: str) -> Flask:
    return make_app(migrated_url)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def people(client: FlaskClient) -> str:
    sent = client.post("/datasets", data={"name": "people", "table": (io.BytesIO(MIXED.encode()), "people.csv")})
    assert sent.status_code == 201, sent.text
    return "people"


@pytest.fixture
def partly_ignored(client: FlaskClient) -> str:
    table = {"name": "ages", "table": (io.BytesIO(MIXED.encode()), "ages.csv"), "types": '{"city": "ignore"}'}
    sent = client.post("/datasets", data=table)
    assert sent.status_code == 201, sent.text
    return "ages"


def fetch_rows(client: FlaskClient, name: str, query: str = "") -> list[dict[str, Any]]:
    all_rows, cursor = [], ""
    while True:
        page = client.get(f"/datasets/{name}/rows?limit=17{query}{cursor}").json
        all_rows += page["data"]
        if not page["has_more"]:
            return all_rows
        cursor = f"&cursor={page['next_cursor']}"


def test_rows_are_those_of_the_file(client: FlaskClient, people: str) -> None:
    """Every row of the file appears once, in training or validation, with its values from the file."""
    listed = [row for part in ("train", "validation") for row in fetch_rows(client, people, f"&part={part}")]
    shown = [{**row["values"], "member": row["class_name"]} for row in listed]
    sent = [
        {
            "age": int(row["age"]) if row["age"] not in ("", "NA") else None,
            "city": row["city"] or None,
            "joined": row["joined"] or None,
            "member": row["member"],
        }
        for row in csv.DictReader(io.StringIO(MIXED))
    ]

    def key(row: dict[str, Any]) -> str:
        return repr(sorted(row.items()))

    assert sorted(shown, key=key) == sorted(sent, key=key)
    assert {row["class_name"] for row in fetch_rows(client, people, "&class=1")} == {"yes"}


def test_columns_have_statistics(client: FlaskClient, people: str) -> None:
    answer = client.get("/datasets/people/columns").json
    ages = [*range(20, 50), *range(52, 80)]
    age, city, joined = answer["columns"]
    assert answer["rows"] == 60
    assert (age["type"], age["missing"], age["low"], age["high"]) == ("number", 2, 20, 79)
    assert age["mean"] == pytest.approx(statistics.fmean(ages))
    assert age["standard_deviation"] == pytest.approx(statistics.pstdev(ages))
    assert age["histogram"] == np.histogram(ages, 20)[0].tolist()
    assert (city["type"], city["missing"], city["distinct"]) == ("category", 15, 2)
    assert city["categories"] == [["Oslo", 30], ["Bergen", 15]]
    assert (joined["type"], joined["missing"]) == ("date", 15)
    assert (joined["low"], joined["high"]) == ("2023-01-01", "2024-03-31")
    assert joined["mean"] == "2023-10-31"


def test_the_page_draws_columns_and_the_report(client: FlaskClient, people: str) -> None:
    page = one_line(client.get("/ui/datasets/people").text)
    (histogram,) = re.findall(r'<svg class="histogram".*?aria-label="Histogram from 20 to 79">.*?</svg>', page)
    assert histogram.count("<rect") == 20
    (dates,) = re.findall(r'aria-label="Histogram from 2023-01-01 to 2024-03-31">(.*?)</svg>', page)
    assert re.findall(r'x="(\d+)"', dates) == ["0", "19"]
    assert re.search(r'title="Oslo: 30">Oslo', page)
    assert "Import report" in page
    (classes,) = re.findall(r'<h2 id="classes-title">.*?</section>', page, re.DOTALL)
    assert re.findall(r'<td class="number">(\d+)</td>', classes) == ["26", "4"] * 2
    listed = client.get("/ui/datasets").text
    assert "table, 3 columns" in listed
    assert client.get("/datasets/people/examples").json["code"] == "wrong_dataset_kind"


def test_the_page_states_which_columns_the_upload_left_out(client: FlaskClient, partly_ignored: str) -> None:
    assert "<strong>city</strong>: left out by the option types" in client.get(f"/ui/datasets/{partly_ignored}").text


@pytest.mark.parametrize(
    ("name", "row_count", "columns", "classes"), [("iris", 150, 4, 3), ("breast-cancer", 569, 30, 2)]
)
def test_built_in_tables_match_those_of_scikit_learn(
    client: FlaskClient, name: str, row_count: int, columns: int, classes: int
) -> None:
    item = client.get(f"/datasets/{name}").json
    assert (item["kind"], item["state"], item["classes"], len(item["columns"])) == ("table", "ready", classes, columns)
    assert item["sha256"] == BUILT_IN[name].info.sha256
    listed = [row for part in ("train", "validation") for row in fetch_rows(client, name, f"&part={part}")]
    assert len(listed) == row_count
    loaders = pytest.importorskip("sklearn.datasets")
    data = {"iris": loaders.load_iris, "breast-cancer": loaders.load_breast_cancer}[name]()
    expected = sorted((*map(float, x), str(data.target_names[y])) for x, y in zip(data.data, data.target, strict=True))
    assert sorted((*map(float, row["values"].values()), row["class_name"]) for row in listed) == expected


@pytest.mark.nightly
def test_a_table_can_be_cross_validated(app: Flask, client: FlaskClient) -> None:
    spec = {"kind": "classifier", "name": "flowers", "epochs": 30, "dataset": {"name": "iris", "folds": 5}}
    created = client.post("/jobs", json=spec)
    assert created.status_code == 201, created.text
    for job_id in sorted(created.json["fold_jobs"]):
        job = train(app, job_id)
        assert job.status == "succeeded", job.error
    summary = client.get(f"/folds/{created.json['fold_group']}").json
    assert summary["means"]["val_accuracy"]["count"] == 5
    assert summary["means"]["val_accuracy"]["mean"] > 0.9
    assert math.isfinite(summary["means"]["val_loss"]["high"])


def test_each_built_in_table_has_a_readme_with_source_and_licence() -> None:
    for name in ("iris", "breast-cancer"):
        folder = Path(str(BUILT_IN[name].table)).parent
        text = (folder / "README.md").read_text("utf-8")
        assert "**Source**" in text
        assert "**Licence**" in text
