"""The progress of a large upload, which the service reads for seconds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from service.local import LocalStack
from tapeline import Client
from tests.terminals import run_in_terminal, strip_ansi


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that the service reads for seconds, so that it reports its progress several times."""
    rows = np.random.default_rng(0).random((1_000, 12)).round(6).tolist()
    lines = "".join(",".join(map(str, row)) + f",{'ab'[n % 2]}\n" for n, row in enumerate(rows))
    path = tmp_path_factory.mktemp("large") / "large.csv"
    path.write_text(",".join([*(f"c{n}" for n in range(12)), "label"]) + "\n" + 300 * lines)
    return path


@pytest.mark.nightly
def test_a_progress_bar_shows_how_much_the_service_has_read(stack: LocalStack, large: Path) -> None:
    environ = {"COLUMNS": "100", "TERM": "xterm"}
    exit_code, output = run_in_terminal("--server", stack.url, "upload", str(large), "--name", "bar", environ=environ)
    assert exit_code == 0, strip_ansi(output)
    assert "uploading" in strip_ansi(output)
    percentages = [int(percent) for percent in re.findall(r"reading[^\n%]* (\d+)%", strip_ansi(output))]
    assert percentages == sorted(percentages)
    assert any(0 < percent < 100 for percent in percentages), strip_ansi(output)
    assert "255,000 training and 45,000 validation rows" in strip_ansi(output)


@pytest.mark.nightly  # the progress bar shows what the client reports
def test_the_client_reports_how_much_the_service_has_read(client: Client, large: Path) -> None:
    fractions: list[float] = []
    dataset = client.upload("told", {"table": large}, on_reading=fractions.append)
    assert dataset["train_count"] == 255_000
    assert fractions == sorted(fractions)
    assert any(0 < fraction < 1 for fraction in fractions)
