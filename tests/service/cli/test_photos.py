"""Uploads of a folder of photos from the command line."""

from __future__ import annotations

import html
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click
import httpx
import numpy as np
import pytest
from click.testing import Result
from PIL import Image, ImageDraw

from service.cli import main
from service.client import ApiError, Client, UnreadableImage
from service.datasets import cache
from service.local import LocalStack

Run = Callable[..., Result]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photos in each of two colours, in two sizes."""
    folder = tmp_path / "photos"
    for name, colour in (("limes", (40, 200, 60)), ("plums", (110, 40, 160))):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            image = Image.new("RGB", (40, 30) if index % 2 else (30, 40), colour)
            image.paste((250, 250, index), (10, 10, 14 + index, 20))
            image.save(folder / name / f"img_{index}.jpg")
    return folder


def upload(run: Run, *arguments: str) -> dict[str, Any]:
    result = run("upload", *arguments, "--json")
    assert result.exit_code == 0, result.output
    dataset: dict[str, Any] = json.loads(result.stdout)
    return dataset


@pytest.mark.parametrize(("channels", "shape"), [("1", [16, 16]), ("3", [16, 16, 3]), ("auto", [16, 16, 3])])
def test_channels_accepts_its_documented_values(run: Run, photos: Path, channels: str, shape: list[int]) -> None:
    dataset = upload(run, str(photos), "--name", f"channels-{channels}", "--size", "16", "--channels", channels)
    assert dataset["image_shape"] == shape


def test_on_bad_error_names_the_unreadable_file_and_on_bad_skip_leaves_it_out(
    run: Run, client: Client, photos: Path
) -> None:
    bad = photos / "limes" / "kaputt größe.jpg"
    bad.write_bytes(b"no image")
    advice = "remove or replace it, or leave it out with --on-bad skip"
    for option in ([], ["--on-bad", "error"]):
        refused = run("upload", str(photos), "--name", "bad", "--size", "16", *option)
        assert refused.exit_code == 1
        assert f"this file cannot be read; {advice}:\n  {bad} is not a PNG" in refused.stderr
    for path in photos.rglob("*.jpg"):  # all of one size, so that --size is not needed
        if path != bad:
            with Image.open(path) as image:
                image.resize((20, 20)).save(path)
    refused = run("upload", str(photos), "--name", "bad", "--on-bad", "error")
    assert refused.exit_code == 1
    assert "has one file that cannot be read: limes/kaputt größe.jpg is not a PNG" in refused.stderr
    assert advice in refused.stderr
    assert "bad" not in [dataset["name"] for dataset in client.datasets()]
    assert upload(run, str(photos), "--name", "bad", "--on-bad", "skip")["report"]["left_out"]["count"] == 1
    misspelled = run("upload", str(photos), "--name", "worse", "--on-bad", "ignore")
    assert (misspelled.exit_code, "'ignore' is not one of 'error', 'skip'" in misspelled.stderr) == (2, True)


def test_a_skipped_file_is_listed_on_the_page_under_its_own_name(run: Run, stack: LocalStack, photos: Path) -> None:
    (photos / "limes" / "kaputt größe.jpg").write_bytes(b"no image")
    result = run("upload", str(photos), "--name", "left", "--size", "16", "--on-bad", "skip")
    assert result.exit_code == 0, result.output
    assert "left out 1 file:\n  limes/kaputt größe.jpg is not a PNG" in result.stderr
    dataset = json.loads(run("datasets", "show", "left", "--json").stdout)
    assert dataset["train_count"] + dataset["validation_count"] == 24
    assert dataset["report"]["channels"] == {"value": 3, "reason": "limes/img_0.jpg has colours"}
    page = httpx.get(f"{stack.url}/ui/datasets/left", headers={"Accept": "text/html"}).raise_for_status().text
    assert "limes/kaputt größe.jpg" in page
    assert ".jpg.png" not in page


def test_size_and_validation_fraction_are_applied(run: Run, photos: Path) -> None:
    options = ("--size", "16x12", "--validation-fraction", "0.5")
    dataset = upload(run, str(photos), "--name", "share", *options)
    assert (dataset["image_shape"], dataset["train_count"], dataset["validation_count"]) == ([12, 16, 3], 12, 12)


def choices(command: click.Command, path: str) -> list[tuple[str, click.Choice[Any]]]:
    """The options with a fixed set of values, of a command and its subcommands."""
    options = [
        (f"{path} {parameter.name}", parameter.type)
        for parameter in command.params
        if isinstance(parameter.type, click.Choice)
    ]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            options += choices(subcommand, f"{path} {name}")
    return options


def test_every_choice_is_offered_by_its_value() -> None:
    """For a member of an enumeration, click accepts its name, such as SKIP, and not the documented value."""
    options = choices(main, "tapeline")
    assert len(options) > 5
    assert {name for name, choice in options for value in choice.choices if type(value) is not str} == set()


def test_files_that_are_not_images_are_counted_and_named(run: Run, client: Client, photos: Path) -> None:
    for name in ("limes/Notizen.txt", "IMG_1.heic", "limes/.DS_Store", "plums/Thumbs.db", "plums/desktop.ini"):
        (photos / name).write_text("not for the network")
    result = run("upload", str(photos), "--name", "with-notes", "--size", "16")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("with-notes: 22 training and 2 validation images")
    heic = "  IMG_1.heic has the format HEIC, which is not read: convert it to JPEG or PNG"
    lines = ["left out 2 files:", heic, "  limes/Notizen.txt is not an image file"]
    assert result.stderr.splitlines() == lines
    assert (client.dataset("with-notes")["report"] or {})["left_out"]["count"] == 2


def test_no_name_of_a_non_image_file_makes_an_upload_fail(run: Run, client: Client, photos: Path) -> None:
    strange = ["a:b.txt", "\\x.txt", "x\\..\\y.txt", "C:\\z.txt"]
    for name in (*strange, *(f"limes/{number}.txt" for number in range(60))):
        (photos / name).write_text("not for the network")
    result = run("upload", str(photos), "--name", "strange", "--size", "16")
    assert result.exit_code == 0, result.output
    assert "left out 64 files:" in result.stderr
    assert "  a:b.txt is not an image file" in result.stderr
    assert (client.dataset("strange")["report"] or {})["left_out"]["count"] == 50


def test_a_folder_with_an_invalid_dataset_name_gets_a_valid_one_suggested(run: Run, photos: Path) -> None:
    refused = run("upload", str(photos.rename(photos.with_name("Meine Äpfel"))), "--size", "16")
    assert refused.exit_code == 1
    message = " ".join(refused.stderr.split())
    assert message.startswith("tapeline: 'Meine Äpfel' cannot be the name of a dataset")
    assert message.endswith("; try --name meine-aepfel")


def test_a_dataset_is_deleted_unless_a_job_needs_it(run: Run, client: Client, photos: Path) -> None:
    upload(run, str(photos), "--name", "gone", "--size", "16")
    job = client.submit({"kind": "classifier", "dataset": "gone", "epochs": 5000})
    refused = run("datasets", "delete", "gone")
    assert (refused.exit_code, job.id in refused.stderr) == (1, True), refused.output
    job.cancel()
    job.wait(timeout_s=120)
    result = run("datasets", "delete", "gone")
    assert (result.exit_code, result.stdout) == (0, "gone  deleted\n"), result.output
    assert "gone" not in run("datasets").stdout


@pytest.fixture
def fruits(tmp_path: Path) -> Path:
    """Bright photos of four fruits, which differ in shape and colour."""
    folder, rng = tmp_path / "fruits", np.random.default_rng(0)
    colours = {"banana": (230, 200, 60), "cherry": (200, 40, 40), "lime": (60, 160, 60), "plum": (90, 60, 160)}
    for number, (name, colour) in enumerate(colours.items()):
        (folder / name).mkdir(parents=True)
        for index in range(60):
            photo = Image.new("RGB", (64, 48), (int(rng.integers(170, 240)),) * 3)
            x, y, half_height = rng.integers(20, 44), rng.integers(16, 32), 4 + 3 * number
            ImageDraw.Draw(photo).ellipse((x - 14, y - half_height, x + 14, y + half_height), fill=colour)
            photo.save(folder / name / f"{index}.jpg")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("channels", ["1", "3"])
def test_photos_are_learned_by_the_default_preset(
    run: Run, stack: LocalStack, client: Client, fruits: Path, channels: str
) -> None:
    """With the command from the dataset's page and the guide, which names no preset."""
    name = f"fruits-{channels}"
    dataset = upload(run, str(fruits), "--name", name, "--size", "32", "--channels", channels)
    assert dataset["default_preset"] == "conv"
    page = httpx.get(f"{stack.url}/ui/datasets/{name}", headers={"Accept": "text/html"}).raise_for_status().text
    match = re.search(r"-d &#39;(.+?)&#39;</pre>|-d '(.+?)'</pre>", page)
    assert match is not None, page
    spec = json.loads(html.unescape(match[1] or match[2]))
    assert spec == {"kind": "classifier", "dataset": {"name": name}}
    forecast = json.loads(run("train", "-", "--dry-run", "--json", spec=spec).stdout)
    assert forecast["resolved"]["preset"] == "conv"
    trained = run("train", "-", "--watch", spec=spec | {"name": name})
    assert (trained.exit_code, trained.stdout.splitlines()[-1]) == (0, "succeeded"), trained.output
    metrics = client.job(name).metrics
    assert metrics is not None
    assert metrics["val_accuracy"] > 0.9


@pytest.mark.slow
def test_dark_ink_on_white_is_learned_by_the_default_preset(run: Run, client: Client, tmp_path: Path) -> None:
    digits = cache.load("mnist-10k", tmp_path, cache_root=tmp_path / "cache").train
    np.savez(tmp_path / "scans.npz", images=255 - digits.inputs[:1200], labels=digits.labels[:1200])
    result = run("upload", "scans", str(tmp_path / "scans.npz"))
    assert "note: the images are bright: a classifier starts from the preset conv" in result.stdout
    trained = run("train", "-", "--watch", spec={"kind": "classifier", "dataset": "scans", "name": "scans"})
    assert (trained.exit_code, trained.stdout.splitlines()[-1]) == (0, "succeeded"), trained.output
    metrics = client.job("scans").metrics
    assert metrics is not None
    assert metrics["val_accuracy"] > 0.85


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


@pytest.mark.parametrize("channels", [None, "1"])
def test_the_client_scales_a_folder_as_the_command_line_does(
    run: Run, client: Client, photos: Path, channels: Literal["1"] | None
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(photos / "limes" / "turned.jpg", exif=exif)
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(photos / "plums" / "deep.png")
    options = ["--channels", channels] if channels else []
    by_command = upload(run, str(photos), "--name", "by-command", "--size", "16x12", *options)
    sent_bytes: list[int] = []
    by_client = client.upload("by-client", photos, size="16x12", channels=channels, on_progress=sent_bytes.append)
    assert by_client["sha256"] == by_command["sha256"]
    assert sum(sent_bytes) < 100_000 < (photos / "limes" / "turned.jpg").stat().st_size
    with tarfile.open(photos.parent / "as-they-are.tar", "w") as tar:
        tar.add(photos, ".")
    unscaled = client.upload("as-they-are", photos.parent / "as-they-are.tar", size="16x12", channels=channels)
    assert by_client["sha256"] == unscaled["sha256"]


def test_the_client_names_broken_images_of_a_folder_before_it_sends_anything(client: Client, photos: Path) -> None:
    (photos / "limes" / "img_3.jpg").write_bytes(b"not an image")
    sent_bytes: list[int] = []
    with pytest.raises(UnreadableImage, match=r"img_3\.jpg is not a PNG.*, JPEG"):
        client.upload("broken", photos, size="16", on_progress=sent_bytes.append)
    assert not sent_bytes
    dataset = client.upload("broken", photos, size="16", on_bad="skip")
    assert dataset["report"]["left_out"]["count"] == 1
    assert "limes/img_3.jpg" in str(dataset["report"]["left_out"]["files"])
    with pytest.raises(ApiError, match="size"):
        client.upload("sizeless", photos, size="small")
