from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from tapeline import ApiError, Client

Run = Callable[..., Result]
SPEC = {"kind": "classifier", "dataset": {"name": "stripes"}, "epochs": 1, "batch_size": 10}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    labels = np.arange(60) % 3
    images = (np.random.default_rng(0).integers(0, 60, (60, 6, 5)) + labels[:, None, None] * 60).astype(np.uint8)
    np.savez(tmp_path / "stripes.npz", images=images, labels=labels)
    return tmp_path / "stripes.npz"


def test_an_uploaded_dataset_is_listed_and_can_be_trained_on(run: Run, archive: Path) -> None:
    result = run("upload", "stripes", str(archive))
    lines = ["stripes: 51 training and 9 validation images of 6 x 5 pixels, 3 classes: 0, 1, 2"]
    lines.append(
        "note: the images are bright: a classifier starts from the preset conv unless its spec names another, "
        "since fast diverges on such images"
    )
    lines.append("next: tapeline train --dataset stripes --watch")
    assert (result.exit_code, result.stdout.splitlines()) == (0, lines), result.output
    listed = run("datasets").stdout
    assert listed.startswith("NAME\tSIZE\tCLASSES\tTRAINING\tVALIDATION\tNOTE\n")
    assert "stripes\t6 x 5\t3\t51\t9\tuploaded\n" in listed
    (item,) = (dataset for dataset in json.loads(run("datasets", "--json").stdout) if dataset["name"] == "stripes")
    assert (item["image_shape"], item["uploaded"]) == ([6, 5], True)
    trained = run("train", "-", "--watch", spec=json.dumps(SPEC))
    assert (trained.exit_code, trained.stdout.splitlines()[-1]) == (0, "succeeded"), trained.output


def test_uploading_the_same_data_again_returns_the_existing_version(run: Run, client: Client, archive: Path) -> None:
    first = json.loads(run("upload", "twice", str(archive), "--json").stdout)
    again = run("upload", "twice", str(archive))
    lines = ["twice: the service has exactly this data already", "next: tapeline train --dataset twice --watch"]
    assert (again.exit_code, again.stdout.splitlines(), again.stderr) == (0, lines, "")
    fractions: list[float] = []
    for options in ({}, {"on_reading": fractions.append}):
        dataset = client.upload("twice", archive, **options)
        assert dataset == client.dataset("twice") | {"created": False}
    assert first == dataset | {"created": True}
    assert dataset["versions"] == [first["version"]]


def test_uploading_the_data_of_an_older_version_returns_that_version(run: Run, client: Client, archive: Path) -> None:
    older = client.upload("edited", archive)["version"]
    newer = archive.with_name("newer.npz")
    np.savez(newer, images=np.zeros((60, 6, 5), np.uint8), labels=np.arange(60) % 3)
    assert client.upload("edited", newer)["created"]
    result = run("upload", "edited", str(archive))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"edited: the service has exactly this data already, as {older}",
        f"next: tapeline train --dataset {older} --watch",
    ]
    assert client.upload("edited", archive)["version"] == older


def test_the_name_of_a_built_in_dataset_is_refused(run: Run, client: Client, archive: Path) -> None:
    refused = run("upload", "iris", str(archive))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "there is already a dataset 'iris'; use another name" in refused.stderr
    with pytest.raises(ApiError, match="already a dataset 'iris'"):
        client.upload("iris", archive)


def test_files_that_are_not_images_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x-images").write_bytes(b"hello")
    (tmp_path / "x-labels").write_bytes(b"hello")
    refused = run("upload", "broken", str(tmp_path / "x-images"), str(tmp_path / "x-labels"))
    assert refused.exit_code != 0
    assert "Traceback" not in refused.output
    assert "broken" not in run("datasets").stdout


def test_a_second_upload_under_a_name_is_a_new_version(run: Run, tmp_path: Path) -> None:
    for seed in (1, 2):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 6, 5)).astype(np.uint8)
        np.savez(tmp_path / "a.npz", images=pixels, labels=(np.arange(40) % 4).astype(np.uint8))
        result = run("upload", "versioned", str(tmp_path / "a.npz"))
        assert result.exit_code == 0, result.output
        assert ("newest of 2 versions: versioned@" in result.stdout) is (seed == 2)


def test_two_files_for_the_same_role_are_both_named(run: Run, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a-images", "b-images")]
    for path in paths:
        path.write_bytes(b"")
    refused = run("upload", "pair", *map(str, paths))
    assert refused.exit_code != 0
    assert "a-images" in refused.stderr
    assert "b-images" in refused.stderr


def test_a_folder_of_photos_is_packed_uploaded_and_trained_on(run: Run, tmp_path: Path) -> None:
    """Large photos in two sizes are sent scaled down; classes keep their folder's name up to the prediction."""
    photos = tmp_path / "photos"
    for name, level in (("day", 220), ("night", 30)):
        (photos / name).mkdir(parents=True)
        for index in range(20):
            image = Image.new("RGB", (320, 240) if index % 2 else (240, 320), (level, level - index, level))
            image.save(photos / name / f"{index}.jpg")
    (photos / "notes.txt").write_text("mine")
    result = run("upload", f"{photos}/", "--name", "sky", "--size", "16x12")
    assert (result.exit_code, result.stdout) == (
        0,
        (
            "sky: 34 training and 6 validation images of 12 x 16 pixels, 2 classes: day, night\n"
            "next: tapeline train --dataset sky --watch\n"
        ),
    ), result.output
    spec = {"kind": "classifier", "name": "sky", "dataset": {"name": "sky"}, "epochs": 3, "batch_size": 4}
    trained = run("train", "-", "--watch", spec=json.dumps(spec))
    assert (trained.exit_code, trained.stdout.splitlines()[-1]) == (0, "succeeded"), trained.output
    Image.new("L", (16, 12), 25).save(tmp_path / "dark.png")
    assert "\tnight\t" in run("predict", "sky", str(tmp_path / "dark.png")).stdout
    (photos / "day" / "broken.jpg").write_bytes(b"no image")
    refused = run("upload", str(photos), "--name", "sky", "--size", "16")
    assert refused.exit_code != 0
    assert "broken.jpg" in refused.stderr
    assert "remove" in refused.stderr


def test_a_split_column_can_be_given_on_the_command_line(run: Run, tmp_path: Path) -> None:
    rows = "".join(
        f"{n % 13},{'train' if n % 4 else 'test' if n % 8 else 'val'},{'ab'[n // 8 % 2]}\n" for n in range(160)
    )
    (tmp_path / "parts.csv").write_text("age,part,label\n" + rows)
    result = run("upload", "parts.csv", "--split", "part")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        "parts: 120 training and 20 validation rows, 20 test rows, of 1 column, 2 classes: a, b"
    )
    refused = run("upload", "parts.csv", "--name", "other", "--split", "age")
    assert refused.exit_code != 0
    assert "must say train, validation (or val) or test in every row; it says '0' in 13 rows" in refused.stderr


def test_left_out_columns_and_remedies_are_reported_as_command_line_options(run: Run, tmp_path: Path) -> None:
    rows = [f"{n + 1000},{'k.W.' if n == 5 else n * 1.5 + n % 7},{n % 13},{'ab'[n % 2]}\n" for n in range(300)]
    (tmp_path / "t.csv").write_text("Kunde-Nr,Gewicht,Alter,Art\n" + "".join(rows))
    refused = run("upload", "t.csv", "--name", "kunden", "--type", "Gewicht=zahl")
    assert "--type: 'Gewicht' cannot have the type 'zahl'; types are number, category" in refused.stderr
    refused = run("upload", "t.csv", "--name", "kunden", "--type", "Gewich=number", "--type", "Kunde=ignore")
    assert "--type: 'Gewich' is not a column; did you mean 'Gewicht'?; 'Kunde' is not a column" in refused.stderr
    result = run("upload", "t.csv", "--name", "kunden", "--type", "Kunde-Nr=ignore")
    assert "left out: column Kunde-Nr because of --type Kunde-Nr=ignore\n" in result.stdout
    remedy = "'k.W.' is none: empty such cells, or use --type Gewicht=number, which rejects their rows\n"
    assert remedy in result.stdout
    corrected = run("upload", "t.csv", "--name", "kunden", "--type", "Gewicht=number")
    assert "rejected: 1 row: line 7" in corrected.stdout


def test_category_names_with_line_breaks_are_shown_on_one_line(run: Run) -> None:
    cities = ("two\nlines", "Bonn")
    rows = "".join(f'{n % 7},"{cities[n % 2]}",{"ab"[n % 3 == 0]}\n' for n in range(60))
    Path("lines.csv").write_text(f"n,city,label\n{rows}")
    assert run("upload", "lines.csv", "--name", "lines").exit_code == 0
    (line,) = (line for line in run("datasets", "show", "lines").output.splitlines() if "city" in line)
    assert "two\N{RETURN SYMBOL}lines 30" in line


def test_a_dataset_of_numbers_is_shown_with_its_target(run: Run) -> None:
    lines = run("datasets", "show", "diabetes").stdout.splitlines()
    assert "Target\tprogression (number): 25 to 346, mean 152.1" in lines
    assert "Columns\tage (number): 19 to 79, mean 48.52" in lines
    assert not [line for line in lines if line.startswith("Classes")]
    assert "diabetes\t10 columns\tnumber\t376\t66\t\n" in run("datasets").stdout
    assert run("datasets", "diabetes").stdout.splitlines() == lines
    assert run("datasets", "list").stdout == run("datasets").stdout
