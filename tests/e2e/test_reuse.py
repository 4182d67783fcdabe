"""Reuse on the whole service: what an answer costs, and what is not trained again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from service.cli import main
from service.local import LocalStack
from service.runtime.settings import Settings
from tapeline import Client
from tests.processor_time import cpu_seconds

SPEC: dict[str, Any] = {
    "kind": "classifier",
    "epochs": 2,
    "schedule": "constant",
    "layers": [{"units": 10, "activation": "softmax"}],
    "samples": {"count": 9},
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    home = tmp_path_factory.mktemp("home")
    environ = {"TAPELINE_HOME": str(home), "TAPELINE_PORT": "0", "TAPELINE_VERIFY_REUSED": "0"}
    with LocalStack(Settings.from_env(environ, cores=1)) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


@pytest.mark.nightly  # tests/faults/reproducibility/test_reuse.py
def test_an_equal_spec_is_answered_at_once_with_the_same_digest(
    stack: LocalStack, client: Client, tmp_path: Path
) -> None:
    first = client.submit(SPEC).wait(timeout_s=120)
    web = psutil.Process(stack.pids["web"])
    web_pids = [web.pid, *(child.pid for child in web.children())]
    for _ in range(3):
        before = cpu_seconds(web_pids)
        again = client.submit(SPEC | {"reuse": "exact"})
        assert cpu_seconds(web_pids) - before < 0.2
        assert (again.status, again.result_digest, again.reused_from) == ("succeeded", first.result_digest, first.id)
    assert again.history().series == first.history().series
    first.delete()
    assert again.download_checkpoint("best", tmp_path).stat().st_size > 0
    assert [event.type for event in again.events()][-1] == "end"


@pytest.mark.nightly  # tests/faults/reproducibility/test_reuse.py continues jobs in this process
def test_jobs_of_5_to_50_epochs_train_only_50_epochs_in_total(client: Client) -> None:
    lengths = range(5, 51, 5)
    alone = [client.submit(SPEC | {"epochs": length, "seed": 3}) for length in lengths]
    digests = [job.wait(timeout_s=300).result_digest for job in alone]
    for job in alone:
        job.delete()
    together = [
        client.submit(SPEC | {"epochs": length, "seed": 3, "reuse": "prefix"}).wait(timeout_s=300) for length in lengths
    ]
    assert [job.result_digest for job in together] == digests
    assert sum(job.epochs - job["reused_epochs"] for job in together) == 50


@pytest.mark.nightly  # tests/service/cli/commands/test_differing.py, and test_differences.py of the faults
def test_why_and_bisect_on_the_command_line(client: Client) -> None:
    rates = {"first": 0.05, "second": 0.1}
    jobs = {
        name: client.submit(SPEC | {"name": name, "optimizer": {"name": "sgd", "learning_rate": rate}})
        for name, rate in rates.items()
    }
    for job in jobs.values():
        job.wait(timeout_s=120)
    runner = CliRunner()
    result = runner.invoke(main, ["why", "first", "second", "--replay", "--server", client.server])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Epoch 1 is the first that differs, in ")
    assert "spec optimizer.learning_rate\t0.05 and 0.1" in lines
    assert lines[-1].startswith("The jobs first differ in epoch 1, batch 1 of ")
    explanation = json.loads(
        runner.invoke(main, ["why", "first", "second", "--json", "--server", client.server]).stdout
    )
    assert explanation["replay"] is None, "settings explain it"
    options = ["bisect", "first", "--metric", "val_accuracy", "--below", "1", "--server", client.server]
    result = runner.invoke(main, options)
    assert result.exit_code == 0, result.output
    assert "Epoch 1, the first that measured it, is already bad" in result.stdout
    options[5] = "0"
    result = runner.invoke(main, options)
    assert result.exit_code == 1
    assert "not below 0.00%, nor in any other epoch" in result.stderr
