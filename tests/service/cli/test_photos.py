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
    """Twelve photos of each of two colours, of two sizes."""
    folder = tmp_path / "photos"
    for name, colour in (("limes", (40, 200, 60)), ("plums", (110, 40, 160))):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            image = Image.new("RGB", (40, 30) if index % 2 else (30, 40), colour)
            image.paste((250, 250, index), (10, 10, 14 + index, 20))
            image.save(folder / name / f"img_{index}.jpg")
    return folder


def uploaded(run: Run, *arguments: str) -> dict[str, Any]:
    sent = run("upload", *arguments, "--json")
    assert sent.exit_code == 0, sent.output
    found: dict[str, Any] = json.loads(sent.stdout)
    return found


@pytest.mark.parametrize(("channels", "shape"), [("1", [16, 16]), ("3", [16, 16, 3]), ("auto", [16, 16, 3])])
def test_channels_takes_its_documented_values(run: Run, photos: Path, channels: str, shape: list[int]) -> None:
    made = uploaded(run, str(photos), "--name", f"channels-{channels}", "--size", "16", "--channels", channels)
    assert made["image_shape"] == shape


def test_on_bad_takes_its_documented_values(run: Run, photos: Path) -> None:
    bad = photos / "limes" / "kaputt größe.jpg"
    bad.write_bytes(b"no image")
    advice = "remove or replace it, or leave it out with --on-bad skip"
    refused = run("upload", str(photos), "--name", "bad", "--size", "16", "--on-bad", "error")
    assert refused.exit_code == 1
    assert f"this file cannot be read; {advice}:\n  {bad} is not a PNG" in refused.stderr
    for path in photos.rglob("*.jpg"):  # of one size, so that none is needed
        if path != bad:
            with Image.open(path) as image:
                image.resize((20, 20)).save(path)
    refused = run("upload", str(photos), "--name", "bad", "--on-bad", "error")
    assert refused.exit_code == 1
    assert "has one file that cannot be read: limes/kaputt größe.jpg is not a PNG" in refused.stderr
    assert advice in refused.stderr


def test_what_was_left_out_is_on_the_page_under_its_own_name(run: Run, stack: LocalStack, photos: Path) -> None:
    (photos / "limes" / "kaputt größe.jpg").write_bytes(b"no image")
    sent = run("upload", str(photos), "--name", "left", "--size", "16", "--on-bad", "skip")
    assert sent.exit_code == 0, sent.output
    assert "left out 1 file:\n  limes/kaputt größe.jpg is not a PNG" in sent.stderr
    item = json.loads(run("datasets", "show", "left", "--json").stdout)
    assert item["train_count"] + item["validation_count"] == 24
    assert item["report"]["channels"] == {"value": 3, "reason": "limes/img_0.jpg has colours"}
    page = httpx.get(f"{stack.url}/ui/datasets/left", headers={"Accept": "text/html"}).raise_for_status().text
    assert "limes/kaputt größe.jpg" in page
    assert ".jpg.png" not in page


def test_size_and_validation_share_are_used(run: Run, photos: Path) -> None:
    options = ("--size", "16x12", "--validation-fraction", "0.5")
    made = uploaded(run, str(photos), "--name", "share", *options)
    assert (made["image_shape"], made["train_count"], made["validation_count"]) == ([12, 16, 3], 12, 12)


def choices(command: click.Command, path: str) -> list[tuple[str, click.Choice[Any]]]:
    """Each option with a choice, of a command and those below it."""
    found = [
        (f"{path} {parameter.name}", parameter.type)
        for parameter in command.params
        if isinstance(parameter.type, click.Choice)
    ]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += choices(below, f"{path} {name}")
    return found


def test_every_choice_is_offered_by_its_value() -> None:
    """Of a member of an enumeration, click takes the name, such as SKIP, and not the documented value."""
    found = choices(main, "tapeline")
    assert len(found) > 5
    assert {name for name, choice in found for one in choice.choices if type(one) is not str} == set()


def test_files_that_are_no_images_are_counted_and_named(run: Run, client: Client, photos: Path) -> None:
    for name in ("limes/Notizen.txt", "IMG_1.heic", "limes/.DS_Store", "plums/Thumbs.db", "plums/desktop.ini"):
        (photos / name).write_text("not for the network")
    sent = run("upload", str(photos), "--name", "with-notes", "--size", "16")
    assert sent.exit_code == 0, sent.output
    assert sent.stdout.startswith("with-notes: 22 training and 2 validation images")
    heic = "  IMG_1.heic has the format HEIC, which is not read: convert it to JPEG or PNG"
    lines = ["left out 2 files:", heic, "  limes/Notizen.txt is not an image file"]
    assert sent.stderr.splitlines() == lines
    assert (client.dataset("with-notes")["report"] or {})["left_out"]["count"] == 2


def test_no_name_of_a_file_that_is_no_image_refuses_an_upload(run: Run, client: Client, photos: Path) -> None:
    strange = ["a:b.txt", "\\x.txt", "x\\..\\y.txt", "C:\\z.txt"]
    for name in (*strange, *(f"limes/{number}.txt" for number in range(60))):
        (photos / name).write_text("not for the network")
    sent = run("upload", str(photos), "--name", "strange", "--size", "16")
    assert sent.exit_code == 0, sent.output
    assert "left out 64 files:" in sent.stderr
    assert "  a:b.txt is not an image file" in sent.stderr
    assert (client.dataset("strange")["report"] or {})["left_out"]["count"] == 50


def test_a_folder_whose_name_cannot_be_a_datasets_gets_one_suggested(run: Run, photos: Path) -> None:
    refused = run("upload", str(photos.rename(photos.with_name("Meine Äpfel"))), "--size", "16")
    assert refused.exit_code == 1
    told = " ".join(refused.stderr.split())
    assert told.startswith("tapeline: 'Meine Äpfel' cannot be the name of a dataset")
    assert told.endswith("; try --name meine-aepfel")


def test_a_dataset_is_deleted_unless_a_job_needs_it(run: Run, client: Client, photos: Path) -> None:
    uploaded(run, str(photos), "--name", "gone", "--size", "16")
    job = client.submit({"kind": "classifier", "dataset": "gone", "epochs": 5000})
    refused = run("datasets", "delete", "gone")
    assert (refused.exit_code, job.id in refused.stderr) == (1, True), refused.output
    job.cancel()
    job.wait(timeout_s=120)
    done = run("datasets", "delete", "gone")
    assert (done.exit_code, done.stdout) == (0, "gone  deleted\n"), done.output
    assert "gone" not in run("datasets").stdout


@pytest.fixture
def fruits(tmp_path: Path) -> Path:
    """Bright photos of four fruits, which differ in shape and colour."""
    folder, rng = tmp_path / "fruits", np.random.default_rng(0)
    kinds = {"banana": (230, 200, 60), "cherry": (200, 40, 40), "lime": (60, 160, 60), "plum": (90, 60, 160)}
    for number, (name, colour) in enumerate(kinds.items()):
        (folder / name).mkdir(parents=True)
        for index in range(60):
            photo = Image.new("RGB", (64, 48), (int(rng.integers(170, 240)),) * 3)
            x, y, tall = rng.integers(20, 44), rng.integers(16, 32), 4 + 3 * number
            ImageDraw.Draw(photo).ellipse((x - 14, y - tall, x + 14, y + tall), fill=colour)
            photo.save(folder / name / f"{index}.jpg")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("channels", ["1", "3"])
def test_photos_are_learned_by_the_default_preset(
    run: Run, stack: LocalStack, client: Client, fruits: Path, channels: str
) -> None:
    """The command on the dataset's page, and the guide's, without a preset."""
    name = f"fruits-{channels}"
    made = uploaded(run, str(fruits), "--name", name, "--size", "32", "--channels", channels)
    assert made["default_preset"] == "conv"
    page = httpx.get(f"{stack.url}/ui/datasets/{name}", headers={"Accept": "text/html"}).raise_for_status().text
    sent = re.search(r"-d &#39;(.+?)&#39;</pre>|-d '(.+?)'</pre>", page)
    assert sent is not None, page
    spec = json.loads(html.unescape(sent[1] or sent[2]))
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
    said = run("upload", "scans", str(tmp_path / "scans.npz"))
    assert "note: the images are bright: a classifier starts from the preset conv" in said.stdout
    trained = run("train", "-", "--watch", spec={"kind": "classifier", "dataset": "scans", "name": "scans"})
    assert (trained.exit_code, trained.stdout.splitlines()[-1]) == (0, "succeeded"), trained.output
    metrics = client.job("scans").metrics
    assert metrics is not None
    assert metrics["val_accuracy"] > 0.85


def test_the_same_photos_are_the_same_version_whatever_packed_them(
    run: Run, client: Client, photos: Path, tmp_path: Path
) -> None:
    """A zip keeps the order of the folder on the disk, which is arbitrary; the command line sorts and scales."""
    for path in photos.glob("plums/*"):  # names that begin alike
        path.rename(path.with_name(path.name.replace("img_1", "img").replace("_", " ")))
    files = sorted(path for path in photos.rglob("*") if path.is_file())
    with zipfile.ZipFile(tmp_path / "reversed.zip", "w") as archive:
        for path in reversed(files):
            archive.write(path, path.relative_to(tmp_path))
    with tarfile.open(tmp_path / "mixed.tar", "w") as tar:
        for path in files[1::2] + files[::2]:
            tar.add(path, path.relative_to(photos))
    by_command = uploaded(run, str(photos), "--name", "by-command", "--size", "16")
    by_zip = client.upload("by-zip", {"archive": tmp_path / "reversed.zip"}, size="16")
    by_tar = client.upload("by-tar", {"archive": tmp_path / "mixed.tar"}, size="16")
    assert by_command["sha256"] == by_zip["sha256"] == by_tar["sha256"]


@pytest.mark.parametrize("channels", [None, "1"])
def test_the_client_scales_a_folder_as_the_command_line_does(
    run: Run, client: Client, photos: Path, channels: Literal["1"] | None
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise).save(photos / "limes" / "turned.jpg", exif=turned)
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(photos / "plums" / "deep.png")
    options = ["--channels", channels] if channels else []
    by_command = uploaded(run, str(photos), "--name", "by-command", "--size", "16x12", *options)
    sent: list[int] = []
    by_client = client.upload("by-client", photos, size="16x12", channels=channels, on_progress=sent.append)
    assert by_client["sha256"] == by_command["sha256"]
    assert sum(sent) < 100_000 < (photos / "limes" / "turned.jpg").stat().st_size
    with tarfile.open(photos.parent / "as-they-are.tar", "w") as tar:
        tar.add(photos, ".")
    as_they_are = client.upload("as-they-are", photos.parent / "as-they-are.tar", size="16x12", channels=channels)
    assert by_client["sha256"] == as_they_are["sha256"]


def test_the_client_names_broken_images_of_a_folder_before_it_sends_them(client: Client, photos: Path) -> None:
    (photos / "limes" / "img_3.jpg").write_bytes(b"not an image")
    sent: list[int] = []
    with pytest.raises(UnreadableImage, match=r"img_3\.jpg is not a PNG.*, JPEG"):
        client.upload("broken", photos, size="16", on_progress=sent.append)
    assert not sent
    made = client.upload("broken", photos, size="16", on_bad="skip")
    assert made["report"]["left_out"]["count"] == 1
    assert "limes/img_3.jpg" in str(made["report"]["left_out"]["files"])
    with pytest.raises(ApiError, match="size"):
        client.upload("sizeless", photos, size="small")
