"""The Python client with its users' inputs: paths as strings, folders, NumPy numbers, records with NaN."""

from __future__ import annotations

import datetime as dt
import io
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from flask import Flask
from PIL import Image

from service.cli import main
from tapeline import ApiError, Client, UnreadableImage
from tests.service.web.datasets.test_tables import ROWS, TABLE, job, people_dataset, training_cache
from tests.service.web.inference.test_photos import photo, trained

__all__ = ["job", "people_dataset", "trained", "training_cache"]


@pytest.fixture
def python_client(app: Flask, serve: Callable[[Flask], str]) -> Iterator[Client]:
    with Client(serve(app)) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of photos in two classes, with a file that is not an image, and a hidden one."""
    root = tmp_path / "photos"
    for number in range(16):
        path = root / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number, tint=20))
    (root / "notes.txt").write_text("mine")
    (root / "a" / ".hidden.png").write_text("no image")
    return root


def test_a_folder_becomes_the_same_dataset_as_its_archive(python_client: Client, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, path.relative_to(folder))
    datasets = [
        python_client.upload("one", str(folder), size="16"),
        python_client.upload("two", {"archive": folder}, size="16"),
        python_client.upload("three", tmp_path / "photos.zip", size="16"),
        python_client.upload("four", {"archive": str(tmp_path / "photos.zip")}, size="16"),
    ]
    linked = tmp_path / "linked"
    for path in sorted(folder.rglob("*.*")):
        (linked / path.parent.relative_to(folder)).mkdir(parents=True, exist_ok=True)
        (linked / path.relative_to(folder)).symlink_to(path)
    datasets.append(python_client.upload("five", linked, size="16"))
    classes = tmp_path / "classes"
    classes.mkdir()
    (classes / "a").symlink_to(folder / "a")
    shutil.copytree(folder / "b", classes / "b")
    (classes / "b" / "around").symlink_to(classes)
    (classes / "notes.txt").write_text("mine")
    datasets.append(python_client.upload("six", classes, size="16"))
    assert [dataset["class_names"] for dataset in datasets] == [["a", "b"]] * 6
    assert len({dataset["sha256"] for dataset in datasets}) == 1
    assert [entry["file"] for entry in datasets[0]["report"]["left_out"]["files"]] == ["notes.txt"]


def test_an_invalid_folder_is_rejected_with_a_reason(python_client: Client, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableImage, match=r"empty contains no images; files ending in \.png, "):
        python_client.upload("none", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError):
        python_client.upload("none", "no-such-folder/")
    shutil.copy(folder / "notes.txt", folder / "a" / "broken.png")
    with pytest.raises(UnreadableImage, match=r"broken\.png"):
        python_client.upload("some", folder, size="16")
    dataset = python_client.upload("some", folder, size="16", on_bad="skip")
    assert "a/broken.png" in [entry["file"] for entry in dataset["report"]["left_out"]["files"]]


def test_predict_accepts_photos_as_paths_bytes_and_arrays(python_client: Client, trained: Any, tmp_path: Path) -> None:
    job_id, _ = trained(tint=20, channels="auto", size="24x16")
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo(1, tint=20))
    trained_job = python_client.job(job_id)
    expected = trained_job.predict([path])["probabilities"]
    for photos in ([str(path)], str(path), path, path.read_bytes(), (item for item in [path])):
        assert trained_job.predict(photos)["probabilities"] == expected
    with pytest.raises(FileNotFoundError, match=r"'no\.jpg' is neither a file nor an image in base64"):
        trained_job.predict(["no.jpg"])
    with pytest.raises(FileNotFoundError, match="is neither a file nor"):
        trained_job.predict(["!" * 100_000])
    pixels = np.asarray(Image.new("RGB", (24, 16), (200, 30, 30))) / np.float32(255)
    of_numbers = trained_job.predict([pixels.tolist()])["probabilities"]
    for array in (pixels, [pixels], pixels.tolist()):
        assert trained_job.predict(array)["probabilities"] == of_numbers
    red = Image.new("RGB", (24, 16), (200, 30, 30))
    for image in (red, [red], np.asarray(red), red.convert("CMYK").convert("RGB")):
        assert trained_job.predict(image)["probabilities"][0] == pytest.approx(of_numbers[0], abs=1e-5)
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row of pixels is the right edge of the upright photo
    Image.open(path).save(tmp_path / "turned.png", exif=exif)
    turned = Image.open(tmp_path / "turned.png")
    assert trained_job.predict(turned)["probabilities"] == trained_job.predict(turned.filename)["probabilities"]
    clear = np.dstack([pixels, np.ones((16, 24, 1), np.float32)])
    assert trained_job.predict(clear)["probabilities"] == of_numbers
    both = trained_job.predict([red, path])
    assert np.allclose(both["probabilities"], of_numbers + expected, atol=1e-5)
    (tmp_path / "folder").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "folder" / name).write_bytes(path.read_bytes())
    assert np.allclose(trained_job.predict(tmp_path / "folder")["probabilities"], expected * 2, atol=1e-5)


def test_rows_accept_numpy_values_and_missing_values(python_client: Client, job: str) -> None:
    plain = [{"age": 7, "city": "Oslo", "since": "2024-01-05", "noise": None}]
    expected = python_client.job(job).predict(rows=plain)["probabilities"]
    for age in (np.int64(7), np.float32(7), np.float64(7), 7.0):
        for since in (dt.date(2024, 1, 5), dt.datetime(2024, 1, 5), np.datetime64("2024-01-05", "ns")):  # noqa: DTZ001
            for noise in (math.nan, np.float32("nan"), np.datetime64("NaT")):
                row = {"age": age, "city": np.str_("Oslo"), "since": since, "noise": noise}
                assert python_client.job(job).predict(rows=[row])["probabilities"] == expected
    with pytest.raises(TypeError, match=r"object .* is not a value of JSON"):
        python_client.job(job).predict(rows=[{"age": object()}])


def test_rows_are_given_as_frames_mappings_and_lists_and_answered_with_labels(
    python_client: Client, job: str, tmp_path: Path
) -> None:
    trained_job = python_client.job(job)
    rows = [
        {"age": 7, "city": "Oslo", "since": "2024-01-05", "noise": None},
        {"age": 70, "city": "Bern", "since": "2024-02-05", "noise": 0.5},
    ]
    expected = trained_job.predict(rows)
    frame = pd.DataFrame(rows)
    frame["since"] = pd.to_datetime(frame["since"])
    positional = [list(row.values()) for row in rows]
    for given in (frame, [row for _, row in frame.iterrows()], positional, list(map(tuple, positional))):
        assert trained_job.predict(given) == expected
    alone = trained_job.predict(rows[1:])
    for given in (rows[1], frame.iloc[1], positional[1], np.array(positional[1], object), list(frame.iloc[1])):
        assert trained_job.predict(given) == alone
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert trained_job.predict(str(tmp_path / "rows.csv"))["classes"] == expected["classes"]
    names = expected["class_names"]
    assert expected.labels == [names[index] for index in expected["classes"]]
    assert expected.predictions[0] == {
        "label": expected.labels[0],
        "probability": max(expected["probabilities"][0]),
        "probabilities": dict(zip(names, expected["probabilities"][0], strict=True)),
    }
    table = expected.to_frame()
    assert list(table.columns) == ["label", "probability", *(f"probability of {name}" for name in names)]
    with pytest.raises(ValueError, match=r"a row has 2 values, and the model 4 columns: age, city, since, noise"):
        trained_job.predict([[7, "Oslo"]])


def test_positional_rows_keep_the_columns_of_the_version_that_was_trained_on(
    python_client: Client, job: str, tmp_path: Path
) -> None:
    trained_job, row = python_client.job(job), [7, "Oslo", "2024-01-05", 3]
    expected = trained_job.predict(row)
    pd.read_csv(io.BytesIO(TABLE))[["city", "age", "since", "noise", "label"]].to_csv(tmp_path / "p.csv", index=False)
    assert python_client.upload("people", tmp_path / "p.csv")["columns"][0]["name"] == "city"
    assert trained_job.predict(row) == python_client.handle(job).predict(row) == expected


def test_columns_that_the_model_does_not_have_are_left_out_and_named_once(python_client: Client, job: str) -> None:
    trained_job = python_client.job(job)
    frame = pd.DataFrame({"age": [number % 90 for number in range(1200)], "city": "Oslo", "label": "low"})
    expected = trained_job.predict(frame)
    extended = frame.assign(**{"a/b": 1, "agee": 2})
    with pytest.warns(UserWarning, match="not used by the model") as caught:
        assert trained_job.predict(extended) == expected
    assert [str(warning.message) for warning in caught] == [
        "not used by the model: 'a/b', 'agee' (did you mean 'age'?)"
    ]
    with pytest.raises(ApiError, match="did you mean 'city'"):
        trained_job.predict({"age": 7, "City": "Oslo"})
    for row in ({"city": "Oslo", "age": "old", "x": 1}, {"x": 1}):
        with pytest.raises(ApiError, match=r"#/rows/0.*(must be a number|has none of the columns)"):
            trained_job.predict(row)


def test_many_rows_are_predicted_in_several_requests(python_client: Client, job: str) -> None:
    trained_job = python_client.job(job)
    rows = [{"age": number % 90, "city": "Atlantis" if number in (3, 1500) else "Oslo"} for number in range(2001)]
    joined = trained_job.predict(rows)
    assert joined["probabilities"] == [
        probabilities
        for start in (0, 1000, 2000)
        for probabilities in trained_job.predict(rows[start : start + 1000])["probabilities"]
    ]
    unknown = [(value["row"], value["value"]) for value in joined["unknown_values"]]
    assert unknown == [(3, "Atlantis"), (1500, "Atlantis")]
    assert joined["absent_columns"] == {"since": 2001, "noise": 2001}


def test_specs_accept_numpy_numbers(python_client: Client, people_dataset: Any) -> None:
    rate = np.linspace(0.25, 0.5, 3)[0]
    spec = {"kind": "classifier", "dataset": "people", "epochs": np.int64(3), "optimizer": {"learning_rate": rate}}
    resolved = python_client.submit(spec).resolved
    assert (resolved["epochs"], resolved["optimizer"]["learning_rate"]) == (3, 0.25)


def test_a_table_is_uploaded_by_its_path_and_its_rows_are_read_back(python_client: Client, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(TABLE)
    tried = python_client.upload("people", path, dry_run=True, spec={"epochs": 2})
    assert (tried["created"], tried["plan"]["resolved"]["dataset"]["name"]) == (False, "people")
    with pytest.raises(TypeError, match=r"spec is for dry_run=True; after an upload, submit\(spec\)"):
        python_client.upload("people", path, spec={})
    dataset = python_client.upload("people", str(path))
    assert dataset["created"] is True
    assert dataset["train_count"] + dataset["validation_count"] == ROWS.count("\n")
    rows = list(python_client.dataset_rows("people", part="validation"))
    assert rows == list(python_client.dataset_examples("people", part="validation"))
    assert len(rows) == dataset["validation_count"]
    assert len(list(python_client.dataset_rows("people", limit=2))) == 2


def test_a_job_and_the_client_return_the_same_evaluations_and_export(
    python_client: Client, job: str, tmp_path: Path
) -> None:
    trained_job = python_client.job(job)
    importance = trained_job.importance()
    assert [column["column"] for column in importance["columns"]] == ["age", "city", "since", "noise"]
    assert trained_job.importance(checkpoint="latest") == importance
    calibration, confusion, mistakes = trained_job.calibration(), trained_job.confusion(), trained_job.mistakes(limit=1)
    assert (len(calibration["bins"]), calibration) == (10, trained_job.calibration())
    total = sum(map(sum, confusion["matrix"]))
    assert total == calibration["validation_count"] == mistakes["validation_count"]
    assert (confusion["epoch"], confusion) == (trained_job.epoch, trained_job.confusion(epoch=trained_job.epoch))
    correct = sum(row[number] for number, row in enumerate(confusion["matrix"]))
    assert total - correct == mistakes["count"]
    assert len(mistakes["data"]) == min(mistakes["count"], 1)
    assert trained_job.mistakes(limit=1) == mistakes
    exported = trained_job.export("torch", tmp_path / "job.zip")
    assert exported.read_bytes() == trained_job.export("torch", tmp_path / "client.zip").read_bytes()


def test_a_list_of_jobs_is_filtered_and_is_a_table(python_client: Client, job: str) -> None:
    with pytest.raises(TypeError, match=r"change\(\) has no argument 'star': it changes .*, starred, tags$"):
        python_client.job(job).change(star=True)
    python_client.job(job).change(starred=True)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert [item.id for item in python_client.jobs(starred=True, created_since="2024-01-01T00:00Z")] == [job]
    assert list(python_client.jobs(created_since=later.isoformat())) == list(python_client.jobs(starred=False)) == []
    listed = python_client.jobs(columns="best:val_accuracy")
    frame = listed.to_frame()
    assert list(frame["id"]) == [item.id for item in listed] == [job]
    assert frame["best:val_accuracy"][0] >= frame["val_accuracy"][0]
    assert job in listed._repr_html_()


def test_the_command_lists_jobs_with_the_column_that_they_are_sorted_by(python_client: Client, job: str) -> None:
    def listed(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["--server", python_client.server, "jobs", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    python_client.job(job).change(starred=False)
    assert re.search(r"\tbest val accuracy [\d.]+%  val accuracy [\d.]+%  ", listed("--sort", "best:val_accuracy"))
    assert "\tval accuracy" in listed("--sort", "val_accuracy")
    assert job in listed("--since", "1d", "--dataset", "people")
    assert job not in listed("--starred") + listed("--dataset", "iris")
