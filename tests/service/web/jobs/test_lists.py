"""The list of jobs: filters, columns, groups, counts and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.storage.tables import Job
from service.web.core.core import EXTENSION

Submit = Callable[..., str]


@pytest.fixture
def jobs(either_app: Flask, make_worker: Any, submit: Submit) -> dict[str, str]:
    """Six jobs of both kinds, two of which were trained."""
    client, worker = either_app.test_client(), make_worker(either_app)
    job_ids = {"first": submit(client, name="first", tags=["night", "small"], epochs=4, priority=9)}
    worker.claim()
    for epoch, accuracy in enumerate((0.5, 0.9, 0.8), 1):
        worker.commit_epoch(epoch, metrics={"val_accuracy": accuracy, "val_loss": 1 / epoch, "d_loss": 0.1 * epoch})
    worker.succeed()
    job_ids["second"] = submit(client, name="second", tags=["night"], optimizer={"learning_rate": 0.01}, priority=9)
    worker.claim()
    worker.commit_epoch(1, metrics={"val_accuracy": 0.7, "val_loss": 0.2})
    worker.fail()
    job_ids["fork"] = client.post(f"/jobs/{job_ids['first']}/fork", json={"overrides": {"seed": 5}}).json["id"]
    job_ids["gan"] = submit(client, kind="gan", tags=["small"])
    job_ids["conv"] = submit(client, preset="conv")
    job_ids["other"] = submit(client, name="=1+1", epochs=2)
    return job_ids


def get_json(app: Flask, address: str) -> Any:
    answer = app.test_client().get(address)
    assert answer.status_code == 200, answer.text
    return answer.json


def names(app: Flask, jobs: dict[str, str], query: str) -> list[str]:
    names_by_id = {job_id: name for name, job_id in jobs.items()}
    return [names_by_id[job["id"]] for job in get_json(app, f"/jobs?limit=100&{query}")["data"]]


FILTERS = {
    "tag=night": ["fork", "second", "first"],
    "tag=night,small": ["fork", "first"],
    "tag=night&tag=small": ["fork", "first"],
    "q=NIGH": ["fork", "second", "first"],
    "q=econ": ["second"],
    "preset=conv": ["conv"],
    "dataset=mnist-10k&kind=gan": ["gan"],
    "dataset=nothing": [],
    "starred=true": ["gan"],
    "starred=false&kind=classifier": ["other", "conv", "fork", "second", "first"],
    "q=lucky": ["gan"],
    "without=tag": ["other", "conv"],
    "without=name,parent": ["conv", "gan"],
    "name=second": ["second"],
    "parent={first}": ["fork"],
}
"""The jobs that each query selects."""


def test_filters_select_jobs_and_counts_cover_the_selection(
    either_app: Flask, jobs: dict[str, str], subtests: pytest.Subtests
) -> None:
    either_app.test_client().patch(f"/jobs/{jobs['gan']}", json={"starred": True, "note": "a lucky one"})
    for query, expected in FILTERS.items():
        with subtests.test(query):
            query = query.format(**jobs)
            assert names(either_app, jobs, query) == expected
            counts = get_json(either_app, f"/jobs?counts=true&{query}")["counts"]
            assert sum(counts.values()) == len(expected)
            for status, count in counts.items():
                filtered = get_json(either_app, f"/jobs?counts=true&limit=100&status={status}&{query}")
                assert len(filtered["data"]) == count
                assert filtered["counts"] == counts, "a status does not change how many jobs of the others there are"


def test_requested_columns_are_added_to_each_job(either_app: Flask, jobs: dict[str, str]) -> None:
    column_names = (
        "preset,dataset,seed,duration,parent,/optimizer/learning_rate,layers.0.units,val_accuracy,best:val_accuracy,"
        "best:val_loss,max:d_loss,tags,created_at"
    )
    page = get_json(either_app, f"/jobs?limit=100&columns={column_names}")
    assert [column["name"] for column in page["columns"]] == column_names.split(",")
    shown = {job["id"]: job["columns"] for job in page["data"]}
    first, fork, gan = shown[jobs["first"]], shown[jobs["fork"]], shown[jobs["gan"]]
    assert (first["preset"], first["dataset"], first["seed"], fork["seed"]) == ("fast", "mnist-10k", 0, 5)
    assert (first["val_accuracy"], first["best:val_accuracy"], first["best:val_loss"]) == (0.8, 0.9, 1 / 3)
    assert (first["max:d_loss"], gan["best:val_loss"], gan["layers.0.units"]) == (pytest.approx(0.3), None, None)
    assert (first["/optimizer/learning_rate"], first["layers.0.units"]) == (0.4, 392)
    assert shown[jobs["second"]]["/optimizer/learning_rate"] == 0.01
    assert (fork["parent"], page["parents"]) == (jobs["first"], {jobs["first"]: "first"})
    assert first["duration"] >= 0
    assert fork["duration"] is None
    assert first["created_at"] == next(job["created_at"] for job in page["data"] if job["id"] == jobs["first"])
    assert fork["best:val_accuracy"] is None, "a parent's best value is not the fork's"
    labels = {column["name"]: (column["label"], column["goal"]) for column in page["columns"]}
    assert labels["val_accuracy"] == ("val accuracy", "maximize")
    assert labels["best:val_loss"] == ("best val loss", "minimize")
    assert labels["max:d_loss"] == ("highest discriminator loss", None)
    assert "columns" not in get_json(either_app, f"/jobs/{jobs['first']}")


@pytest.mark.parametrize(
    ("query", "suggestion"),
    [
        ("columns=preset,optimizer.learning_rat", "optimizer.learning_rate"),
        ("columns=best:d_loss", "min:d_loss"),
        ("sort=-best:val_acuracy", "best:val_accuracy"),
        ("sort=layers", None),
        ("columns=" + ",".join(["preset"] * 51), None),
    ],
)
def test_invalid_columns_are_rejected_with_a_suggestion_where_possible(
    client: FlaskClient, query: str, suggestion: str | None
) -> None:
    for address in ("/jobs?", "/?"):
        answer = client.get(address + query, headers={"Accept": "application/json"})
        assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
        assert answer.json["errors"][0].get("suggestion") == suggestion
        assert answer.json["errors"][0]["parameter"] == query.partition("=")[0]


def test_a_list_can_be_sorted_by_any_column_across_pages(either_app: Flask, jobs: dict[str, str]) -> None:
    for sort, expected in {
        "-best:val_accuracy": ["first", "second", "other", "gan", "fork", "conv"],
        "best:val_loss": ["second", "first"],
        "optimizer.learning_rate": ["gan", "conv", "second"],
        "-preset": ["gan"],
        "-seed": ["fork"],
    }.items():
        listed: list[str] = []
        cursor = ""
        while True:
            page = get_json(either_app, f"/jobs?limit=2&sort={sort}{cursor}")
            listed += [job["id"] for job in page["data"]]
            if not page["has_more"]:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert sorted(listed) == sorted(jobs.values())
        if sort == "optimizer.learning_rate":  # by value, whether it comes from the spec or the preset
            rates = get_json(either_app, "/jobs?limit=100&sort=optimizer.learning_rate&columns=optimizer.learning_rate")
            values = [job["columns"]["optimizer.learning_rate"] for job in rates["data"]]
            assert values == sorted(values)
            assert [job["id"] for job in rates["data"]] == listed
        elif sort.startswith(("-best", "best", "-seed")):
            ranked = [name for name in expected if sort == "-seed" or name in ("first", "second")]
            assert listed[: len(ranked)] == [jobs[name] for name in ranked]


def test_jobs_of_a_former_preset_name_are_listed_under_the_current_one(either_app: Flask, jobs: dict[str, str]) -> None:
    with either_app.extensions[EXTENSION].database.write() as session:
        stored = session.get_one(Job, jobs["conv"])
        stored.resolved = stored.resolved | {"preset": "seed"}
    for name in ("seed", "classic"):
        (job,) = get_json(either_app, f"/jobs?preset={name}&columns=preset")["data"]
        assert (job["id"], job["columns"]["preset"]) == (jobs["conv"], "classic")
    groups = get_json(either_app, "/jobs/groups?by=preset")["data"]
    assert [group["count"] for group in groups if group["value"] == "classic"] == [1]


def test_groups_have_counts_best_values_and_a_query_that_lists_them(either_app: Flask, jobs: dict[str, str]) -> None:
    for by, expected in {
        "tag": {"night": 3, "small": 3, None: 2},
        "preset": {"fast": 4, "stable": 1, "conv": 1},
        "dataset": {"mnist-10k": 6},
    }.items():
        answer = get_json(either_app, f"/jobs/groups?by={by}&columns=best:val_accuracy,val_loss,d_loss,preset")
        assert {group["value"]: group["count"] for group in answer["data"]} == expected
        assert answer["has_more"] is False
        for group in answer["data"]:
            query = "&".join(f"{name}={value}" for name, value in group["query"].items())
            rows = get_json(either_app, f"/jobs?limit=100&columns=best:val_accuracy,val_loss&{query}")["data"]
            assert len(rows) == group["count"]
            for name, best in (("best:val_accuracy", max), ("val_loss", min)):
                values = [row["columns"][name] for row in rows if row["columns"][name] is not None]
                assert group["best"][name] == (best(values) if values else None)
            assert set(group["best"]) == {"best:val_accuracy", "val_loss"}
    spec = get_json(either_app, "/jobs/groups?by=spec&tag=night")["data"]
    assert sum(group["count"] for group in spec) == 3
    assert all(len(names(either_app, jobs, f"spec={group['value']}")) >= group["count"] for group in spec)
    by_name = get_json(either_app, "/jobs/groups?by=name&limit=2")
    assert len(by_name["data"]) == 2
    assert by_name["has_more"] is True
    assert get_json(either_app, "/jobs/groups?by=tag&tag=night")["data"][-1]["query"]["tag"] in ("night", "small")


def test_available_columns_are_listed_with_their_number_of_values(either_app: Flask, jobs: dict[str, str]) -> None:
    listed = {column["name"]: column for column in get_json(either_app, "/jobs/columns")["data"]}
    assert {"preset", "duration", "best:val_accuracy", "val_loss", "max:d_loss", "latent.dim"} <= set(listed)
    assert listed["dtype"]["values"] == 1
    assert listed["optimizer.learning_rate"]["values"] >= 3
    assert listed["layers"]["sort"] is None if "layers" in listed else True
    assert listed["optimizer.learning_rate"]["sort"] == "optimizer.learning_rate"
    gans = {column["name"] for column in get_json(either_app, "/jobs/columns?kind=gan")["data"]}
    assert "augmentation.max_shift" not in gans
    fifty_columns = ",".join(list(listed)[:50])
    assert get_json(either_app, f"/jobs?columns={fifty_columns}")["data"]


def rows_of(answer: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.text)))


def test_csv_has_every_job_and_the_chosen_columns(either_app: Flask, jobs: dict[str, str]) -> None:
    client = either_app.test_client()
    answer = client.get(
        "/jobs?format=csv&columns=status,best:val_accuracy,tags,optimizer.learning_rate&sort=created_at"
    )
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="tapeline-jobs.csv"'
    assert answer.headers["X-Total-Count"] == "6"
    table = rows_of(answer)
    assert table[0] == ["id", "name", "status", "best:val_accuracy", "tags", "optimizer.learning_rate"]
    assert [row[0] for row in table[1:]] == list(jobs.values())
    assert table[1] == [jobs["first"], "first", "succeeded", "0.9", "night, small", "0.4"]
    assert table[4][1:4] == ["", "queued", ""]
    filtered = client.get("/jobs?format=csv&tag=night&status=failed")
    assert filtered.headers["X-Total-Count"] == "1"
    assert [row[1] for row in rows_of(filtered)[1:]] == ["second"]
    for unsupported in ("limit=5", "cursor=x", "counts=true"):
        assert client.get(f"/jobs?format=csv&{unsupported}").status_code == 400


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-5", "-5"),
        ("+1e-3", "+1e-3"),
        ("-inf", "'-inf"),
        ('a "quoted", name', 'a "quoted", name'),
        ("ü ✓", "ü ✓"),
    ],
)
def test_no_cell_of_a_csv_file_can_be_a_formula(client: FlaskClient, submit: Submit, text: str, cell: str) -> None:
    job_id = submit(client, name=text, **({"tags": [text]} if "," not in text else {}))
    client.patch(f"/jobs/{job_id}", json={"note": text})
    table = rows_of(client.get("/jobs?format=csv&columns=name,tags,note"))
    assert table[1][1] == cell
    assert table[1][3] == cell
    assert "," in text or table[1][2] == cell


def test_csv_is_read_in_batches_and_has_a_row_limit(
    app: Flask, client: FlaskClient, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        submit(client, name=f"n{number}")
    monkeypatch.setattr("service.web.jobs.views._BATCH_SIZE", 2)
    assert [row[1] for row in rows_of(client.get("/jobs?format=csv&sort=name"))[1:]] == [f"n{at}" for at in range(7)]
    monkeypatch.setattr("service.web.jobs.views.MAX_CSV_ROWS", 3)
    answer = client.get("/jobs?format=csv")
    assert (len(rows_of(answer)), answer.headers["X-Total-Count"]) == (4, "7")


def test_a_list_can_be_sorted_by_the_size_of_files(either_app: Flask, jobs: dict[str, str]) -> None:
    assert names(either_app, jobs, "sort=-size_bytes&status=succeeded,failed") == ["first", "second"]
    listed = get_json(either_app, "/jobs?columns=size_bytes&sort=size_bytes&limit=100")["data"]
    sizes = [job["columns"]["size_bytes"] for job in listed]
    assert sizes == sorted(sizes)
    assert sizes == [job["size_bytes"] for job in listed]
    assert sizes[-1] > 30_000
    assert {"size_bytes", "cpu_seconds", "peak_memory_bytes"} <= {
        item["name"] for item in get_json(either_app, "/jobs/columns")["data"]
    }


def test_an_empty_name_is_treated_as_missing(either_app: Flask, submit: Submit) -> None:
    client = either_app.test_client()
    unnamed, named = submit(client, name=""), submit(client, name="first")
    client.patch(f"/jobs/{named}", json={"name": ""})
    for address in ("/jobs?without=name", "/jobs"):
        listed = get_json(either_app, address)["data"]
        assert {item["id"]: item["name"] for item in listed} == {unnamed: None, named: None}


def test_lists_show_nothing_of_another_owners_jobs(make_app: Any, sqlite_url: str) -> None:
    app = make_app(sqlite_url, auth="keys", api_keys=("a" * 20, "b" * 20))
    mine, theirs = ({"Authorization": f"Bearer {letter * 20}"} for letter in "ab")
    client = app.test_client()
    spec = {"kind": "classifier", "name": "secret", "tags": ["hidden"], "optimizer": {"learning_rate": 0.123}}
    job_id = client.post("/jobs", json=spec, headers=mine).json["id"]
    child = client.post("/jobs", json={"kind": "classifier", "name": "bobs"}, headers=theirs).json["id"]
    with app.extensions[EXTENSION].database.write() as session:
        session.get(Job, child).parent_id = job_id  # only a bug could cause this
    for address in (
        "/jobs?counts=true&columns=parent",
        "/jobs?format=csv&columns=name,tags",
        "/jobs?q=hidden",
        f"/jobs?parent={job_id}&columns=name",
        "/jobs/groups?by=tag",
        "/jobs/groups?by=name",
        "/jobs/columns",
        "/?group=tag",
    ):
        answer = client.get(address, headers=theirs)
        assert answer.status_code == 200
        assert "secret" not in answer.text
        assert "0.123" not in answer.text
        assert '"hidden"' not in answer.text
    assert sum(client.get("/jobs?counts=true", headers=theirs).json["counts"].values()) == 1
    assert len(client.get("/jobs/groups?by=tag", headers=theirs).json["data"]) == 1
