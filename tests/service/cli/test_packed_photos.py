"""Folders of photos that the command line packs, as the service reads them: with the app in this process."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import pytest
from flask import Flask
from PIL import Image
from structlog.testing import capture_logs

from tapeline import Client
from tests.service.cli.conftest import Run, runner
from tests.service.cli.test_photos import photos, upload
from tests.service.web.conftest import app, make_app, serve

__all__ = ["app", "make_app", "photos", "serve"]


@pytest.fixture
def url(app: Flask, serve: Callable[[Flask], str]) -> Iterator[str]:
    with capture_logs():  # the app logs to the standard output, which is that of the command, too
        yield serve(app)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def run(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(url, tmp_path, monkeypatch)


def test_a_skipped_file_is_listed_on_the_page_under_its_own_name(run: Run, url: str, photos: Path) -> None:
    (photos / "limes" / "kaputt größe.jpg").write_bytes(b"no image")
    result = run("upload", str(photos), "--name", "left", "--size", "16", "--on-bad", "skip")
    assert result.exit_code == 0, result.output
    assert "left out 1 file:\n  limes/kaputt größe.jpg is not a PNG" in result.stderr
    dataset = json.loads(run("datasets", "show", "left", "--json").stdout)
    assert dataset["train_count"] + dataset["validation_count"] == 24
    assert dataset["report"]["channels"] == {"value": 3, "reason": "limes/img_0.jpg has colours"}
    page = httpx.get(f"{url}/ui/datasets/left", headers={"Accept": "text/html"}).raise_for_status().text
    assert "limes/kaputt größe.jpg" in page
    assert ".jpg.png" not in page


def test_no_name_of_a_non_image_file_makes_an_upload_fail(run: Run, client: Client, photos: Path) -> None:
    strange = ["a:b.txt", "\\x.txt", "x\\..\\y.txt", "C:\\z.txt"]
    for name in (*strange, *(f"limes/{number}.txt" for number in range(60))):
        (photos / name).write_text("not for the network")
    result = run("upload", str(photos), "--name", "strange", "--size", "16")
    assert result.exit_code == 0, result.output
    assert "left out 64 files:" in result.stderr
    assert "  a:b.txt is not an image file" in result.stderr
    assert (client.dataset("strange")["report"] or {})["left_out"]["count"] == 50


def test_the_same_photos_have_the_same_digest_however_they_are_packed(
    run: Run, client: Client, photos: Path, tmp_path: Path
) -> None:
    """A zip keeps the folder's order on disk, which is arbitrary; the command line sorts and scales."""
    for path in photos.glob("plums/*"):  # names with a common prefix
        path.rename(path.with_name(path.name.replace("img_1", "img").replace("_", " ")))
    files = sorted(path for path in photos.rglob("*") if path.is_file())
    with zipfile.ZipFile(tmp_path / "reversed.zip", "w") as archive:
        for path in reversed(files):
            archive.write(path, path.relative_to(tmp_path))
    with tarfile.open(tmp_path / "mixed.tar", "w") as tar:
        for path in files[1::2] + files[::2]:
            tar.add(path, path.relative_to(photos))
    by_command = upload(run, str(photos), "--name", "by-command", "--size", "16")
    by_zip = client.upload("by-zip", {"archive": tmp_path / "reversed.zip"}, size="16")
    by_tar = client.upload("by-tar", {"archive": tmp_path / "mixed.tar"}, size="16")
    assert by_command["sha256"] == by_zip["sha256"] == by_tar["sha256"]


@pytest.mark.parametrize(("channels", "fit"), [(None, None), ("1", "pad"), (None, "pad")])
def test_the_client_scales_a_folder_as_the_command_line_does(
    run: Run, client: Client, photos: Path, channels: Literal["1"] | None, fit: Literal["pad"] | None
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(photos / "limes" / "turned.jpg", exif=exif)
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(photos / "plums" / "deep.png")
    options = [*(["--channels", channels] if channels else []), *(["--fit", fit] if fit else [])]
    by_command = upload(run, str(photos), "--name", "by-command", "--size", "16x12", *options)
    sent_bytes: list[int] = []
    by_client = client.upload(
        "by-client", photos, size="16x12", fit=fit, channels=channels, on_progress=sent_bytes.append
    )
    assert by_client["sha256"] == by_command["sha256"]
    assert sum(sent_bytes) < 100_000 < (photos / "limes" / "turned.jpg").stat().st_size
    with tarfile.open(photos.parent / "as-they-are.tar", "w") as tar:
        tar.add(photos, ".")
    unscaled = client.upload("as-they-are", photos.parent / "as-they-are.tar", size="16x12", fit=fit, channels=channels)
    assert by_client["sha256"] == unscaled["sha256"]


def test_a_folder_of_any_name_and_sizes_is_uploaded_as_on_the_page(run: Run, client: Client, photos: Path) -> None:
    folder = photos.rename(photos.with_name("Meine Äpfel"))
    result = run("train", str(folder), "--epochs", "1")
    assert result.exit_code == 0, result.output
    first, second = result.stderr.splitlines()[:2]
    assert first == "note: the dataset is named Meine-Aepfel"
    assert second.startswith("note: the images have different sizes, such as 30 x 40 and 40 x 30: they are cropped to")
    assert client.dataset("Meine-Aepfel")["image_shape"] == [32, 32, 3]
    named = run("train", str(folder), "--name", "Mein Job", "--size", "16", "--fit", "pad")
    job = client.job(named.stdout.strip())
    assert (job.name, job.resolved["dataset"]["name"]) == ("Mein Job", "Mein-Job")
    assert (client.dataset("Mein-Job")["report"] or {})["fit"] == "pad"


def test_images_of_one_size_are_scaled_only_if_they_are_too_large(run: Run, client: Client, photos: Path) -> None:
    for path in photos.rglob("*.jpg"):
        Image.open(path).resize((20, 20)).save(path)
    assert "note" not in run("upload", str(photos), "--name", "small").stderr
    for path in photos.rglob("*.jpg"):
        Image.new("RGB", (513, 4)).save(path)
    assert "513 x 4 pixels, more than 512 on a side" in run("upload", str(photos), "--name", "large").stderr


def test_a_dry_run_with_files_checks_them_and_estimates_the_job(run: Run, client: Client, photos: Path) -> None:
    result = run("train", str(photos), "--size", "16", "--epochs", "7", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("photos: 22 training and 2 validation images of 16 x 16 x 3 pixels, 2 classes")
    rows = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert rows["Job"] == "classifier, preset conv, dataset photos"
    assert "7 epochs" in rows["Steps"]
    cost = json.loads(run("train", str(photos), "--size", "16", "--dry-run", "--json").stdout)
    assert cost["resolved"]["layers"][-1]["units"] == 2
    refused = run("train", str(photos), "--size", "16", "--set", "epochs=0", "--dry-run")
    assert (refused.exit_code, "#/epochs: must be greater" in refused.stderr) == (1, True), refused.output
    assert "photos" not in {dataset["name"] for dataset in client.datasets()}
    assert list(client.jobs()) == []
