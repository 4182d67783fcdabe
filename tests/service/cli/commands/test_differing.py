"""The commands that explain results: ``why`` two jobs differ, and ``bisect`` for where a metric turns bad."""

from __future__ import annotations

import json

import pytest

from service.client import Client
from tests.service.cli.conftest import TINY, Run
from tests.service.client.stub.scenes import Recordings

SPEC = TINY | {"schedule": "constant", "samples": {"count": 9}}


@pytest.fixture(scope="session")
def pair(recordings: Recordings) -> tuple[str, str]:
    """The names of two jobs with different learning rates."""
    rates = {"slow walk": 0.05, "fast walk": 0.1}
    with recordings.scene("differing", "pair") as url, Client(url) as client:
        jobs = [
            client.submit(SPEC | {"name": name, "optimizer": {"name": "sgd", "learning_rate": rate}})
            for name, rate in rates.items()
        ]
        assert [job.wait(timeout_s=120).status for job in jobs] == ["succeeded"] * 2
    return "slow walk", "fast walk"


def test_why_names_the_settings_and_trains_again_to_find_the_first_batch(run: Run, pair: tuple[str, str]) -> None:
    result = run("why", *pair, "--replay")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Epoch 1 is the first that differs, in ")
    assert "spec optimizer.learning_rate\t0.05 and 0.1" in lines
    assert lines[-1].startswith("The jobs first differ in epoch 1, batch 1 of ")
    explanation = json.loads(run("why", *pair, "--json").stdout)
    assert explanation["replay"] is None, "settings explain it"


def test_bisect_finds_the_first_bad_epoch(run: Run, pair: tuple[str, str]) -> None:
    options = ["bisect", pair[0], "--metric", "val_accuracy", "--below"]
    result = run(*options, "1")
    assert result.exit_code == 0, result.output
    assert "Epoch 1, the first that measured it, is already bad" in result.stdout
    assert json.loads(run(*options, "1", "--json").stdout)["epoch"] == 1
    good = run(*options, "0")
    assert good.exit_code == 1
    assert "not below 0.00%, nor in any other epoch" in good.stderr
    assert run("bisect", pair[0], "--metric", "val_accuracy").exit_code == 2
