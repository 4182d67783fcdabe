"""The content of datasets: class counts, pages of images, and the web pages that show them."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from service.web.datasets import views
from tests.service.web.jobs.test_test_part import squares, write_folder
from tests.service.web.markup import one_line

HTML = {"Accept": "text/html"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset with a test part."""
    write_folder(tmp_path / "data" / "squares", test_seed=3)
    return tmp_path / "data" / "squares"


def decode(example: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(example["image"]))))


def fetch_examples(client: FlaskClient, query: str, *, name: str = "squares") -> list[dict[str, Any]]:
    """Fetch all examples, page by page."""
    examples, cursor = [], ""
    while True:
        answer = client.get(f"/datasets/{name}/examples?{query}{cursor}")
        assert answer.status_code == 200, answer.text
        examples += answer.json["data"]
        assert answer.json["has_more"] is (answer.json["next_cursor"] is not None)
        if not answer.json["has_more"]:
            return examples
        cursor = f"&cursor={answer.json['next_cursor']}"


@pytest.mark.parametrize(("part", "seed", "count"), [("train", 1, 200), ("validation", 2, 60), ("test", 3, 80)])
def test_examples_are_the_images_of_the_part_in_order(
    client: FlaskClient, folder: Path, part: str, seed: int, count: int
) -> None:
    images, labels = squares(count, seed)
    examples = fetch_examples(client, f"part={part}&limit=37")
    assert [example["index"] for example in examples] == list(range(count))
    assert [example["label"] for example in examples] == labels.tolist()
    assert [example["class_name"] for example in examples] == [str(label) for label in labels]
    assert np.array_equal(np.stack([decode(example) for example in examples]), images)
    class_examples = fetch_examples(client, f"part={part}&class=2&limit=7")
    assert [example["index"] for example in class_examples] == np.flatnonzero(labels == 2).tolist()
    assert client.get(f"/datasets/squares/examples?part={part}&class=200").json["data"] == []


def test_mixed_examples_alternate_between_the_classes(client: FlaskClient, folder: Path) -> None:
    labels = squares(200, 1)[1]
    counts = np.bincount(labels)
    examples = fetch_examples(client, "part=train&limit=37&order=mixed")
    assert sorted(example["index"] for example in examples) == list(range(200))
    indices_by_class: dict[int, list[int]] = {}
    for example in examples:
        indices_by_class.setdefault(example["label"], []).append(example["index"])
    assert [indices_by_class[label] for label in sorted(indices_by_class)] == [
        np.flatnonzero(labels == label).tolist() for label in range(len(counts))
    ]
    assert {example["label"] for example in examples[: len(counts)]} == set(range(len(counts)))
    balanced = min(counts) * len(counts)
    assert np.bincount([example["label"] for example in examples[:balanced]]).tolist() == [min(counts)] * len(counts)
    assert client.get("/datasets/squares/examples?order=random").status_code == 400


def test_classes_are_counted_in_each_part(client: FlaskClient, folder: Path) -> None:
    counts = client.get("/datasets/squares").json["class_counts"]
    expected = {
        part: np.bincount(squares(n, seed)[1]).tolist()
        for part, n, seed in (("train", 200, 1), ("validation", 60, 2), ("test", 80, 3))
    }
    assert counts == expected
    assert client.get("/datasets/mnist").json["class_counts"] is None  # not downloaded
    assert "class_counts" not in client.get("/datasets").json["data"][0]


def test_the_page_has_a_bar_for_each_class_and_part(client: FlaskClient, folder: Path) -> None:
    assert client.get("/datasets/squares", headers=HTML).headers["Location"] == "/ui/datasets/squares"
    page = one_line(client.get("/ui/datasets/squares").text)
    bars = re.findall(r'<rect class="(\w+)" x="([\d.]+)" width="([\d.]+)"', page)
    assert [part for part, _, _ in bars] == ["train", "validation", "test"] * 4
    counts = client.get("/datasets/squares").json["class_counts"]
    totals = np.sum(list(counts.values()), axis=0)
    drawn = np.array([float(width) for _, _, width in bars]).reshape(4, 3)
    assert drawn == pytest.approx(100 * np.array(list(counts.values())).T / totals.max(), abs=0.001)
    assert drawn.sum(axis=1).max() == pytest.approx(100, abs=0.01)
    assert '"squares"' in page
    assert 'href="/ui/new?dataset=squares"' in page


def test_the_datasets_page_is_a_table(client: FlaskClient, folder: Path) -> None:
    assert client.get("/datasets", headers=HTML).headers["Location"] == "/ui/datasets"
    page = client.get("/ui/datasets").text
    (row,) = [row for row in re.findall(r'<tr class="dataset">.*?</tr>', page, re.DOTALL) if "squares" in row]
    cells = re.findall(r'<td data-label="(\w+)"[^>]*>(.*?)</td>', row, re.DOTALL)
    texts = {name: re.sub(r"<[^>]+>|\s+", " ", text).strip() for name, text in cells}
    assert texts == {
        "Dataset": "squares", "Kind": "images, 6 \u00d7 6", "Classes": "4", "Training": "200", "Validation": "60",
        "Test": "80", "State": "ready",
    }  # fmt: skip
    assert 'id="no-uploads"' in page


def test_the_page_of_a_dataset_links_to_its_jobs(client: FlaskClient, folder: Path, submit: Any) -> None:
    job_id = submit(client, name="on-squares", dataset="squares")
    submit(client, name="elsewhere")
    page = client.get("/ui/datasets/squares").text
    assert f'<a href="/ui/jobs/{job_id}">on-squares</a>' in page
    assert "elsewhere" not in page


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/datasets/nowhere/examples", 404, "dataset_not_found"),
        ("/datasets/mnist/examples", 404, "not_yet"),
        ("/datasets/squares/rows", 409, "wrong_dataset_kind"),
        ("/datasets/squares/columns", 409, "wrong_dataset_kind"),
        ("/datasets/squares/examples?part=best", 400, "invalid_parameter"),
        ("/datasets/squares/examples?class=256", 400, "invalid_parameter"),
        ("/datasets/squares/examples?limit=101", 400, "invalid_parameter"),
        ("/datasets/squares/examples?cursor=-1", 400, "invalid_parameter"),
        ("/ui/datasets/nowhere", 404, "dataset_not_found"),
    ],
)
def test_invalid_requests_for_content_are_rejected_with_a_code(
    client: FlaskClient, folder: Path, path: str, status: int, code: str
) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_a_cursor_after_the_end_returns_nothing(client: FlaskClient, folder: Path) -> None:
    for query in ("cursor=200", "cursor=999999999", "cursor=999999999&class=1"):
        answer = client.get(f"/datasets/squares/examples?{query}").json
        assert (answer["data"], answer["next_cursor"]) == ([], None)


def test_large_images_come_in_smaller_pages(client: FlaskClient, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_MAX_NUMBERS", 16 * 36 + 35)
    first = client.get("/datasets/squares/examples?limit=100").json
    assert (len(first["data"]), first["next_cursor"]) == (16, "16")
    assert len(fetch_examples(client, "limit=100")) == 200


def test_the_page_of_a_damaged_dataset_reports_the_problem(client: FlaskClient, folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"junk")
    page = client.get("/ui/datasets/squares")
    assert page.status_code == 200
    assert "is not an IDX file" in page.text
    assert 'id="train"' not in page.text
    answer = client.get("/datasets/squares").json
    assert (answer["state"], answer["class_counts"]) == ("unavailable", None)
