"""The Python client with what its users have at hand: paths as text, folders, NumPy's numbers, records with NaN."""

from __future__ import annotations

import datetime as dt
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from PIL import Image

from service.client import Client, UnreadableImage
from tests.service.web.inference.test_photos import photo, trained
from tests.service.web.resources.service.test_tables import ROWS, TABLE, job, sent, trainings

__all__ = ["job", "sent", "trained", "trainings"]


@pytest.fixture
def python(app: Flask, serve: Callable[[Flask], str]) -> Iterator[Client]:
    with Client(serve(app)) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of photos in two classes, with a file that is no image, and one that nobody sees."""
    found = tmp_path / "photos"
    for number in range(16):
        place = found / "ab"[number % 2] / f"{number:02}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(photo(number, tint=20))
    (found / "notes.txt").write_text("mine")
    (found / "a" / ".hidden.png").write_text("no image")
    return found


def test_a_folder_is_uploaded_like_its_archive(python: Client, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, path.relative_to(folder))
    made = [
        python.upload("one", str(folder), size="16"),
        python.upload("two", {"archive": folder}, size="16"),
        python.upload("three", tmp_path / "photos.zip", size="16"),
        python.upload("four", {"archive": str(tmp_path / "photos.zip")}, size="16"),
    ]
    linked = tmp_path / "linked"
    for path in sorted(folder.rglob("*.*")):
        (linked / path.parent.relative_to(folder)).mkdir(parents=True, exist_ok=True)
        (linked / path.relative_to(folder)).symlink_to(path)
    made.append(python.upload("five", linked, size="16"))
    assert [item["class_names"] for item in made] == [["a", "b"]] * 5
    assert len({item["sha256"] for item in made}) == 1
    assert [note["file"] for note in made[0]["report"]["left_out"]["files"]] == ["notes.txt"]


def test_a_folder_that_cannot_be_uploaded_says_why(python: Client, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableImage, match=r"empty contains no images; files ending in \.png, "):
        python.upload("none", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError):
        python.upload("none", "no-such-folder/")
    shutil.copy(folder / "notes.txt", folder / "a" / "broken.png")
    with pytest.raises(UnreadableImage, match=r"broken\.png"):
        python.upload("some", folder, size="16")
    made = python.upload("some", folder, size="16", on_bad="skip")
    assert "a/broken.png" in [one["file"] for one in made["report"]["left_out"]["files"]]


def test_photos_are_given_by_their_paths(python: Client, trained: Any, tmp_path: Path) -> None:
    job_id, _ = trained(tint=20, channels="auto", size="24x16")
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo(1, tint=20))
    found = python.job(job_id)
    expected = found.predict([path])["probabilities"]
    for given in ([str(path)], str(path), path, path.read_bytes(), (one for one in [path])):
        assert found.predict(given)["probabilities"] == expected
    with pytest.raises(FileNotFoundError, match=r"'no\.jpg' is neither a file nor an image in base64"):
        found.predict(["no.jpg"])
    with pytest.raises(FileNotFoundError, match="is neither a file nor"):
        found.predict(["!" * 100_000])
    pixels = np.asarray(Image.new("RGB", (24, 16), (200, 30, 30))) / np.float32(255)
    assert found.predict([pixels])["probabilities"] == found.predict([pixels.tolist()])["probabilities"]


def test_rows_may_have_values_of_numpy_and_no_value(python: Client, job: str) -> None:
    plain = [{"age": 7, "city": "Oslo", "since": "2024-01-05", "noise": None}]
    expected = python.predict(job, rows=plain)["probabilities"]
    for age in (np.int64(7), np.float32(7), np.float64(7), 7.0):
        for since in (dt.date(2024, 1, 5), dt.datetime(2024, 1, 5), np.datetime64("2024-01-05", "ns")):  # noqa: DTZ001
            for noise in (math.nan, np.float32("nan"), np.datetime64("NaT")):
                row = {"age": age, "city": np.str_("Oslo"), "since": since, "noise": noise}
                assert python.predict(job, rows=[row])["probabilities"] == expected
    with pytest.raises(TypeError, match=r"object .* is not a value of JSON"):
        python.predict(job, rows=[{"age": object()}])


def test_specs_may_have_numbers_of_numpy(python: Client, sent: Any) -> None:
    rate = np.linspace(0.25, 0.5, 3)[0]
    spec = {"kind": "classifier", "dataset": "people", "epochs": np.int64(3), "optimizer": {"learning_rate": rate}}
    resolved = python.submit(spec).resolved
    assert (resolved["epochs"], resolved["optimizer"]["learning_rate"]) == (3, 0.25)


def test_a_table_is_uploaded_and_read_by_its_path(python: Client, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(TABLE)
    item = python.upload("people", str(path))
    assert item["train_count"] + item["validation_count"] == ROWS.count("\n")
    rows = list(python.dataset_rows("people", part="validation"))
    assert rows == list(python.dataset_examples("people", part="validation"))
    assert len(rows) == item["validation_count"]
    assert len(list(python.dataset_rows("people", limit=2))) == 2


def test_a_network_is_evaluated(python: Client, job: str, tmp_path: Path) -> None:
    found = python.job(job)
    importance = found.importance()
    assert [column["column"] for column in importance["columns"]] == ["age", "city", "since", "noise"]
    assert python.importance(job, checkpoint="latest") == importance
    calibration, confusion, mistakes = found.calibration(), found.confusion(), found.mistakes(limit=1)
    assert (len(calibration["bins"]), calibration) == (10, python.calibration(job))
    total = sum(map(sum, confusion["matrix"]))
    assert total == calibration["validation_count"] == mistakes["validation_count"]
    assert (confusion["epoch"], confusion) == (found.epoch, python.confusion(job, epoch=found.epoch))
    right = sum(row[number] for number, row in enumerate(confusion["matrix"]))
    assert total - right == mistakes["count"]
    assert len(mistakes["data"]) == min(mistakes["count"], 1)
    assert python.mistakes(job, limit=1) == mistakes
    exported = found.export("torch", tmp_path / "job.zip")
    assert exported.read_bytes() == python.export(job, "torch", tmp_path / "client.zip").read_bytes()
