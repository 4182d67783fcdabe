from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from service.client import ApiError, Client
from service.local import LocalStack
from tests.terminals import in_terminal, plain

Run = Callable[..., Result]
SPEC = {"kind": "classifier", "dataset": {"name": "stripes"}, "epochs": 1, "batch_size": 10}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    labels = np.arange(60) % 3
    images = (np.random.default_rng(0).integers(0, 60, (60, 6, 5)) + labels[:, None, None] * 60).astype(np.uint8)
    np.savez(tmp_path / "stripes.npz", images=images, labels=labels)
    return tmp_path / "stripes.npz"


def test_an_uploaded_dataset_is_listed_and_can_be_trained_on(run: Run, archive: Path) -> None:
    sent = run("upload", "stripes", str(archive))
    lines = ["stripes: 51 training and 9 validation images of 6 x 5 pixels, 3 classes: 0, 1, 2"]
    lines.append(
        "note: the images are bright: a classifier starts from the preset conv unless its spec names another, "
        "since fast diverges on such images"
    )
    lines.append("next: tapeline train --dataset stripes --watch")
    assert (sent.exit_code, sent.stdout.splitlines()) == (0, lines), sent.output
    listed = run("datasets").stdout
    assert listed.startswith("NAME\tSIZE\tCLASSES\tTRAINING\tVALIDATION\tNOTE\n")
    assert "stripes\t6 x 5\t3\t51\t9\tuploaded\n" in listed
    (item,) = (one for one in json.loads(run("datasets", "--json").stdout) if one["name"] == "stripes")
    assert (item["image_shape"], item["uploaded"]) == ([6, 5], True)
    trained = run("train", "-", "--watch", spec=json.dumps(SPEC))
    assert (trained.exit_code, trained.stdout.splitlines()[-1]) == (0, "succeeded"), trained.output


def test_the_same_data_twice_is_the_existing_version(run: Run, client: Client, archive: Path) -> None:
    first = json.loads(run("upload", "twice", str(archive), "--json").stdout)
    again = run("upload", "twice", str(archive))
    lines = ["twice: the service has exactly this data already", "next: tapeline train --dataset twice --watch"]
    assert (again.exit_code, again.stdout.splitlines(), again.stderr) == (0, lines, "")
    told: list[float] = []
    for options in ({}, {"on_reading": told.append}):
        found = client.upload("twice", archive, **options)
        assert found == client.dataset("twice") | {"created": False}
    assert first == found | {"created": True}
    assert found["versions"] == [first["version"]]


def test_the_data_of_an_older_version_are_named_by_it(run: Run, client: Client, archive: Path) -> None:
    older = client.upload("edited", archive)["version"]
    newer = archive.with_name("newer.npz")
    np.savez(newer, images=np.zeros((60, 6, 5), np.uint8), labels=np.arange(60) % 3)
    assert client.upload("edited", newer)["created"]
    again = run("upload", "edited", str(archive))
    assert again.exit_code == 0, again.output
    assert again.stdout.splitlines() == [
        f"edited: the service has exactly this data already, as {older}",
        f"next: tapeline train --dataset {older} --watch",
    ]
    assert client.upload("edited", archive)["version"] == older


def test_a_name_of_a_built_in_dataset_stays_refused(run: Run, client: Client, archive: Path) -> None:
    refused = run("upload", "iris", str(archive))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "there is already a dataset 'iris'; use another name" in refused.stderr
    with pytest.raises(ApiError, match="already a dataset 'iris'"):
        client.upload("iris", archive)


def test_files_that_are_not_pictures_are_rejected(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x-images").write_bytes(b"hello")
    (tmp_path / "x-labels").write_bytes(b"hello")
    refused = run("upload", "broken", str(tmp_path / "x-images"), str(tmp_path / "x-labels"))
    assert refused.exit_code != 0
    assert "Traceback" not in refused.output
    assert "broken" not in run("datasets").stdout


def test_a_second_upload_under_a_name_is_a_version(run: Run, tmp_path: Path) -> None:
    for seed in (1, 2):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 6, 5)).astype(np.uint8)
        np.savez(tmp_path / "a.npz", images=pixels, labels=(np.arange(40) % 4).astype(np.uint8))
        done = run("upload", "versioned", str(tmp_path / "a.npz"))
        assert done.exit_code == 0, done.output
        assert ("newest of 2 versions: versioned@" in done.stdout) is (seed == 2)


def test_two_files_for_one_place_are_named(run: Run, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a-images", "b-images")]
    for path in paths:
        path.write_bytes(b"")
    refused = run("upload", "pair", *map(str, paths))
    assert refused.exit_code != 0
    assert "a-images" in refused.stderr
    assert "b-images" in refused.stderr


def test_a_folder_of_photos_is_packed_sent_and_trained_on(run: Run, tmp_path: Path) -> None:
    """Large photos of two sizes, of which small ones are sent; the class has the folder's name up to the prediction."""
    photos = tmp_path / "photos"
    for name, level in (("day", 220), ("night", 30)):
        (photos / name).mkdir(parents=True)
        for index in range(20):
            image = Image.new("RGB", (320, 240) if index % 2 else (240, 320), (level, level - index, level))
            image.save(photos / name / f"{index}.jpg")
    (photos / "notes.txt").write_text("mine")
    refused = run("upload", f"{photos}/")
    assert refused.exit_code != 0
    assert "2 sizes" in refused.stderr
    sent = run("upload", f"{photos}/", "--name", "sky", "--size", "16x12")
    assert (sent.exit_code, sent.stdout) == (
        0,
        (
            "sky: 34 training and 6 validation images of 12 x 16 pixels, 2 classes: day, night\n"
            "next: tapeline train --dataset sky --watch\n"
        ),
    ), sent.output
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


def test_a_split_column_is_named_on_the_command_line(run: Run, tmp_path: Path) -> None:
    rows = "".join(
        f"{n % 13},{'train' if n % 4 else 'test' if n % 8 else 'val'},{'ab'[n // 8 % 2]}\n" for n in range(160)
    )
    (tmp_path / "parts.csv").write_text("age,part,label\n" + rows)
    sent = run("upload", "parts.csv", "--split", "part")
    assert sent.exit_code == 0, sent.output
    assert sent.stdout.startswith(
        "parts: 120 training and 20 validation rows, 20 test rows, of 1 column, 2 classes: a, b"
    )
    refused = run("upload", "parts.csv", "--name", "other", "--split", "age")
    assert refused.exit_code != 0
    assert "must say train, validation (or val) or test in every row; it says '0' in 13 rows" in refused.stderr


def test_columns_that_are_left_out_are_told_in_options_of_the_command(run: Run, tmp_path: Path) -> None:
    rows = [f"{n + 1000},{'k.W.' if n == 5 else n * 1.5 + n % 7},{n % 13},{'ab'[n % 2]}\n" for n in range(300)]
    (tmp_path / "t.csv").write_text("Kunde-Nr,Gewicht,Alter,Art\n" + "".join(rows))
    wrong = run("upload", "t.csv", "--name", "kunden", "--type", "Gewicht=zahl")
    assert "--type: 'Gewicht' cannot have the type 'zahl'; types are number, category" in wrong.stderr
    wrong = run("upload", "t.csv", "--name", "kunden", "--type", "Gewich=number", "--type", "Kunde=ignore")
    assert "--type: 'Gewich' is not a column; did you mean 'Gewicht'?; 'Kunde' is not a column" in wrong.stderr
    sent = run("upload", "t.csv", "--name", "kunden", "--type", "Kunde-Nr=ignore")
    assert "left out: column Kunde-Nr because of --type Kunde-Nr=ignore\n" in sent.stdout
    remedy = "'k.W.' is none: empty such cells, or use --type Gewicht=number, which rejects their rows\n"
    assert remedy in sent.stdout
    done = run("upload", "t.csv", "--name", "kunden", "--type", "Gewicht=number")
    assert "rejected: 1 row: line 7" in done.stdout


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that takes the service seconds to read: several intervals in which it reports."""
    rows = np.random.default_rng(0).random((1_000, 12)).round(6).tolist()
    lines = "".join(",".join(map(str, row)) + f",{'ab'[n % 2]}\n" for n, row in enumerate(rows))
    path = tmp_path_factory.mktemp("large") / "large.csv"
    path.write_text(",".join([*(f"c{n}" for n in range(12)), "label"]) + "\n" + 300 * lines)
    return path


@pytest.mark.slow
def test_a_bar_shows_how_much_the_service_has_read(stack: LocalStack, large: Path) -> None:
    environ = {"COLUMNS": "100", "TERM": "xterm"}
    code, shown = in_terminal("--server", stack.url, "upload", str(large), "--name", "bar", environ=environ)
    assert code == 0, plain(shown)
    assert "uploading" in plain(shown)
    shares = [int(found) for found in re.findall(r"reading[^\n%]* (\d+)%", plain(shown))]
    assert shares == sorted(shares)
    assert any(0 < done < 100 for done in shares), plain(shown)
    assert "255,000 training and 45,000 validation rows" in plain(shown)


def test_the_client_reports_how_much_the_service_has_read(client: Client, large: Path) -> None:
    told: list[float] = []
    made = client.upload("told", {"table": large}, on_reading=told.append)
    assert made["train_count"] == 255_000
    assert told == sorted(told)
    assert any(0 < done < 1 for done in told)


def test_names_of_several_lines_stay_on_one(run: Run) -> None:
    cities = ("two\nlines", "Bonn")
    rows = "".join(f'{n % 7},"{cities[n % 2]}",{"ab"[n % 3 == 0]}\n' for n in range(60))
    Path("lines.csv").write_text(f"n,city,label\n{rows}")
    assert run("upload", "lines.csv", "--name", "lines").exit_code == 0
    (line,) = (line for line in run("datasets", "show", "lines").output.splitlines() if "city" in line)
    assert "two\N{RETURN SYMBOL}lines 30" in line
