"""Uploads of a folder of photos from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from PIL import Image

from service.cli import main
from tapeline import ApiError, Client, UnreadableImage

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
            subcommand = command.resolve_command(context, [name])[1]
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


def test_an_invalid_dataset_name_gets_a_valid_one_suggested(run: Run, photos: Path) -> None:
    refused = run("upload", str(photos), "--name", "Meine Äpfel", "--size", "16")
    assert refused.exit_code == 1
    message = " ".join(refused.stderr.split())
    assert message.startswith("tapeline: 'Meine Äpfel' cannot be the name of a dataset")
    assert message.endswith("; try --name Meine-Aepfel")


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
