"""Uploaded photos are learned by the preset that the service proposes for them."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.datasets import cache
from service.datasets.formats.array_folders import ArrayCache
from service.local import LocalStack
from tapeline import Client
from tests.service.cli.conftest import Run
from tests.service.cli.test_photos import upload


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


@pytest.mark.nightly
@pytest.mark.parametrize("channels", [pytest.param("1", marks=pytest.mark.nightly), "3"])
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


@pytest.mark.nightly  # the photos in colour train the same preset; test_datasets.py has the note
def test_dark_ink_on_white_is_learned_by_the_default_preset(run: Run, client: Client, tmp_path: Path) -> None:
    digits = cache.load("mnist-10k", tmp_path, cache=ArrayCache(tmp_path / "cache")).train
    np.savez(tmp_path / "scans.npz", images=255 - digits.inputs[:1200], labels=digits.labels[:1200])
    result = run("upload", "scans", str(tmp_path / "scans.npz"))
    assert "note: the images are bright: a classifier starts from the preset conv" in result.stdout
    trained = run("train", "-", "--watch", spec={"kind": "classifier", "dataset": "scans", "name": "scans"})
    assert (trained.exit_code, trained.stdout.splitlines()[-1]) == (0, "succeeded"), trained.output
    metrics = client.job("scans").metrics
    assert metrics is not None
    assert metrics["val_accuracy"] > 0.85
