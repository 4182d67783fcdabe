"""The commands that explain results: ``why`` two jobs differ, and ``bisect`` for where a metric turns bad."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tapeline import Client
from tests.service.cli.conftest import TINY, Run
from tests.tapeline.stub.scenes import Recordings
from tests.terminals import run_in_terminal

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


@pytest.fixture(scope="session")
def others(recordings: Recordings, pair: tuple[str, str]) -> None:
    """A job that is the same as the first of ``pair``, one with another network, and one on other data."""
    slow = SPEC | {"optimizer": {"name": "sgd", "learning_rate": 0.05}}
    hidden = [{"units": 64, "activation": "relu"}, {"type": "dropout", "rate": 0.2}]
    specs: dict[str, dict[str, Any]] = {
        "equal walk": slow,
        "deep walk": slow | {"layers": [*hidden, *SPEC["layers"]]},
        "flower walk": {"kind": "classifier", "dataset": "iris", "epochs": 2},
    }
    with recordings.scene("differing", "others") as url, Client(url) as client:
        jobs = [client.submit(spec | {"name": name}) for name, spec in specs.items()]
        assert [job.wait(timeout_s=120).status for job in jobs] == ["succeeded"] * 3


BEST = "\x1b[1;32m"


@pytest.mark.stack
@pytest.mark.usefixtures("others")
def test_jobs_on_different_data_get_no_verdict(run: Run, server_url: str, pair: tuple[str, str]) -> None:
    sentence = "The data differ: mnist-10k and iris. Scores on different data are not comparable."
    result = run("compare", pair[0], "flower walk")
    assert (result.exit_code, result.stderr) == (0, f"{sentence}\n")
    assert run("compare", pair[0], "flower walk", "--metric", "val_loss").stdout == f"{sentence}\n"
    lines = run("why", pair[0], "flower walk").stdout.splitlines()
    assert lines[0].startswith(sentence)
    assert "spec dataset.name\tmnist-10k and iris" in lines
    assert not [line for line in lines if line.startswith("checkpoint")]
    environ = {"COLUMNS": "80", "TERM": "xterm"}
    outputs = [
        run_in_terminal("--server", server_url, "compare", pair[0], other, environ=environ)[1]
        for other in ("flower walk", pair[1])
    ]
    assert [BEST in output for output in outputs] == [False, True]


@pytest.mark.usefixtures("others")
def test_two_equal_jobs_are_called_the_same(run: Run, pair: tuple[str, str]) -> None:
    assert run("why", pair[0], "equal walk").stdout == "These jobs are the same.\n"
    assert run("compare", pair[0], "equal walk").stderr == "These jobs are the same.\n"
    assert run("compare", pair[0], "equal walk", "--metric", "val_loss").stdout == "These jobs are the same.\n"


@pytest.mark.usefixtures("others")
def test_layers_are_described_in_words(run: Run, pair: tuple[str, str]) -> None:
    lines = run("why", pair[0], "deep walk").stdout.splitlines()
    layers = [line.split("\t")[1] for line in lines if line.startswith("spec layers\t")]
    assert layers == ["dense 10 softmax", "dense 64 relu, dropout 0.2, dense 10 softmax"]


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
