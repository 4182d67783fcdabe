"""A zip of coloured shapes, uploaded over HTTP and trained on by a worker with the convolutional preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.local import LocalStack
from service.runtime.settings import Settings
from tests import coloured_shapes

LEAST_ACCURACY = 0.98
MOST_SECONDS = 180.0
"""Of one core."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_colour_is_learned_in_colour_and_cannot_be_in_grey(tmp_path: Path) -> None:
    archive = coloured_shapes.archive(tmp_path / "shapes.zip")
    settings = Settings.from_env(
        {"TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_PORT": "0", "TAPELINE_WORKERS": "1"}, cores=1
    )
    with LocalStack(settings) as stack, httpx.Client(base_url=stack.url, timeout=900) as http:

        def trained(name: str, channels: str) -> dict[str, Any]:
            with archive.open("rb") as file:
                form = {"name": name, "channels": channels}
                sent = http.post("/datasets", data=form, files={"archive": file}).raise_for_status().json()
            assert (sent["classes"], sent["train_count"], sent["validation_count"]) == (12, 5_100, 900)
            spec = {"kind": "classifier", "preset": "conv", "dataset": name}
            job = http.post("/jobs", json=spec).raise_for_status().json()
            http.get(job["urls"]["stream"])
            ended: dict[str, Any] = http.get(job["urls"]["self"]).json()
            assert ended["status"] == "succeeded", ended["error"]
            return ended

        colour, grey = trained("shapes", "auto"), trained("grey-shapes", "1")
    accuracy, seconds = colour["metrics"]["val_accuracy"], colour["cpu_seconds"]
    print(f"colour {accuracy:.2%} in {seconds:.0f} s of one core, grey {grey['metrics']['val_accuracy']:.2%}")  # noqa: T201  # with -s: the figures of docs/results.md
    assert accuracy >= LEAST_ACCURACY
    assert seconds < MOST_SECONDS
    assert grey["metrics"]["val_accuracy"] < coloured_shapes.GREY_LIMIT + 0.1
