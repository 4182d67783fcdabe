"""A zip of coloured shapes, uploaded over HTTP and trained on by a worker with the convolutional preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.local import LocalStack
from service.runtime.settings import Settings
from tests import coloured_shapes

MIN_ACCURACY = 0.98
MAX_CPU_S = 180.0
"""CPU time of one core."""


@pytest.mark.nightly  # tests/service/cli/sessions/test_photo_training.py learns fewer photos
@pytest.mark.timeout(1200)
def test_colour_classes_are_learned_from_colour_images_but_not_from_grey_ones(tmp_path: Path) -> None:
    archive = coloured_shapes.write_archive(tmp_path / "shapes.zip")
    settings = Settings.from_env(
        {"TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_PORT": "0", "TAPELINE_WORKERS": "1"}, cores=1
    )
    with LocalStack(settings) as stack, httpx.Client(base_url=stack.url, timeout=900) as http:

        def train(name: str, channels: str) -> dict[str, Any]:
            with archive.open("rb") as file:
                form = {"name": name, "channels": channels}
                dataset = http.post("/datasets", data=form, files={"archive": file}).raise_for_status().json()
            assert (dataset["classes"], dataset["train_count"], dataset["validation_count"]) == (12, 5_100, 900)
            spec = {"kind": "classifier", "preset": "conv", "dataset": name}
            job = http.post("/jobs", json=spec).raise_for_status().json()
            http.get(job["urls"]["stream"])
            finished: dict[str, Any] = http.get(job["urls"]["self"]).json()
            assert finished["status"] == "succeeded", finished["error"]
            return finished

        colour, grey = train("shapes", "auto"), train("grey-shapes", "1")
    accuracy, seconds = colour["metrics"]["val_accuracy"], colour["cpu_seconds"]
    print(f"colour {accuracy:.2%} in {seconds:.0f} s of one core, grey {grey['metrics']['val_accuracy']:.2%}")  # noqa: T201  # with -s: the figures of docs/results.md
    assert accuracy >= MIN_ACCURACY
    assert seconds < MAX_CPU_S
    assert grey["metrics"]["val_accuracy"] < coloured_shapes.MAX_GREY_ACCURACY + 0.1
