"""The commands that submit and watch jobs, and the demo: in a pipe, in a terminal, and as JSON."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.cli.commands import demo as demo_command
from service.cli.progress import sparkline
from tapeline import Client
from tests.service.cli.conftest import TINY, Run
from tests.terminals import run_in_terminal, strip_ansi

DIVERGING = TINY | {
    "layers": [{"units": 10, "activation": "linear"}],
    "loss": {"name": "squared_error", "reduction": "sum"},
    "optimizer": {"name": "sgd", "learning_rate": 10},
    "schedule": {"name": "constant"},
}


def test_a_job_renamed_after_it_ended_can_be_watched(run: Run, client: Client) -> None:
    job = client.submit(TINY).wait(timeout_s=120).change(name="kept")
    result = run("watch", job.id, "--json")
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["type"] for line in result.stdout.splitlines()].count("end") == 1


def test_a_pipe_gets_one_plain_line_per_epoch(run: Run) -> None:
    result = run("train", "-", "--watch", spec=TINY)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\r" not in result.output
    head, *lines = result.stdout.splitlines()
    assert re.fullmatch(r"job_\w+  http://127\.0\.0\.1:\d+/ui/jobs/job_\w+", head)
    assert lines[-1] == "succeeded"
    outcome = result.stderr.splitlines()
    assert re.fullmatch(
        r"best epoch [12]: val accuracy \d\d\.\d\d% \(of 1,500, 95% CI [\d.]+% to [\d.]+%\)", outcome[0]
    )
    short_id = head.partition(" ")[0][-6:]
    assert outcome[-2:] == [f"next: tapeline mistakes {short_id}", f"next: tapeline predict {short_id} FILE"]
    epochs = [line for line in lines if line.startswith("epoch")]
    assert len(epochs) == 2
    number = r"\d+(\.\d+)?"
    values = rf"val accuracy \d\d\.\d\d%  train loss {number}  val loss {number}"
    assert re.fullmatch(rf"epoch 1/2  {values}", epochs[0]), "which data each value is of"


def test_a_gan_shows_both_losses(run: Run) -> None:
    gan = {
        "kind": "gan",
        "epochs": 1,
        "generator": {"layers": [{"units": 784, "activation": "tanh"}]},
        "discriminator": {"layers": [{"units": 1, "activation": "sigmoid"}]},
    }
    result = run("train", "-", "--watch", spec=gan)
    losses = r"^epoch 1/1  generator loss \d+\.\d+  discriminator loss \d+\.\d+"
    assert re.search(losses, result.stdout, re.MULTILINE)


def test_watching_as_json_prints_every_event_in_order(run: Run) -> None:
    result = run("train", "-", "--watch", "--json", spec=TINY)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[0]["type"] == "snapshot"
    assert events[-1]["type"] == "end"
    assert events[-1]["data"]["status"] == "succeeded"
    numbered = [event["seq"] for event in events if event["seq"] is not None]
    assert numbered == list(range(1, len(numbered) + 1))


def test_train_prints_only_the_job_id(run: Run) -> None:
    assert re.fullmatch(r"job_\w+\n", run("train", "-", spec=TINY).stdout)


def test_the_same_idempotency_key_returns_the_same_job(run: Run) -> None:
    first = run("train", "-", "--idempotency-key", "k1", spec=TINY)
    assert run("train", "-", "--idempotency-key", "k1", spec=TINY).stdout == first.stdout


def test_a_dry_run_reports_the_cost(run: Run) -> None:
    result = run("train", "-", "--dry-run", "--json", spec={"kind": "gan"})
    assert json.loads(result.stdout)["parameters"] > 100_000
    rows = dict(
        line.split("\t")
        for line in run(
            "train", "-", "--dry-run", spec={name: value for name, value in TINY.items() if name != "checkpoint"}
        ).stdout.splitlines()[:7]
    )
    assert list(rows) == ["Job", "Parameters", "Steps", "Memory", "Checkpoint size", "Files", "Estimated time"]
    assert rows["Files"].startswith("at most ")
    assert (rows["Job"], rows["Parameters"]) == ("classifier, preset fast, dataset mnist-10k", "7,850")
    assert rows["Checkpoint size"].endswith(" kB")
    settings = [
        line
        for line in run(
            "train", "-", "--dry-run", spec={name: value for name, value in TINY.items() if name != "checkpoint"}
        ).stdout.splitlines()
        if "Settings" in line
    ]
    assert settings[0] == "Settings\tepochs: 2 (preset: 3)"
    assert settings[1].startswith("Settings\tlayers: dense 10 softmax (preset: dense 392 relu, ")


def test_each_spec_fault_is_printed_on_its_own_line(run: Run) -> None:
    result = run("train", "-", spec={"kind": "classifier", "epochs": 0, "optimiser": {}})
    assert result.exit_code == 1
    assert result.stdout == ""
    first, *faults = result.stderr.splitlines()
    assert first.startswith("tapeline: ")
    assert len(faults) == 2
    assert faults[0].startswith("  #/epochs: ")
    assert faults[1].startswith("  #/optimiser: unknown field; did you mean 'optimizer'?")


def test_with_json_a_spec_fault_is_printed_as_a_problem_document(run: Run) -> None:
    result = run("train", "-", "--json", spec={"kind": "classifier", "epochs": 0})
    assert result.exit_code == 1
    problem = json.loads(result.stderr)["error"]
    assert problem["code"] == "invalid_spec"
    assert [fault["pointer"] for fault in problem["errors"]] == ["#/epochs"]


def test_malformed_json_is_reported_with_line_and_column(run: Run) -> None:
    result = run("train", "-", spec='{"kind": "gan",\n "epochs": NaN}')
    assert result.exit_code == 1
    assert "line 2, column 12" in result.stderr


def test_a_missing_spec_file_is_a_usage_error(run: Run) -> None:
    result = run("train", "missing.json")
    assert result.exit_code == 2
    assert "missing.json" in result.stderr


def test_an_unknown_job_is_reported_in_one_line(run: Run) -> None:
    result = run("watch", "job_01ABC")
    assert result.exit_code == 1
    assert re.fullmatch(r"tapeline: .*job_01ABC.*\n", result.stderr)


def test_a_failed_job_is_reported_with_its_cause_and_a_remedy(run: Run) -> None:
    result = run("train", "-", "--watch", spec=DIVERGING)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "failed"
    assert re.fullmatch(r"tapeline: job job_\w+ failed: .*finite.*learning rate.*\n", result.stderr)


def test_watching_an_ended_job_prints_its_states_in_order(run: Run, trained: str) -> None:
    lines = run("watch", trained).stdout.splitlines()
    assert [line for line in lines if not line.startswith("epoch")] == ["queued", "running", "succeeded"]


def test_an_unreachable_service_is_reported_in_one_line_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = CliRunner().invoke(main, ["jobs", "--server", f"http://127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert re.fullmatch(r"tapeline: no response from http://127\.0\.0\.1:\d+ .*tapeline up\n", result.stderr)


def test_an_invalid_setting_is_reported_in_one_line() -> None:
    result = CliRunner(env={"TAPELINE_PORT": "many"}).invoke(main, ["up"])
    assert result.exit_code == 1
    assert re.fullmatch(r"tapeline: TAPELINE_PORT must be a number.*\n", result.stderr)


@pytest.mark.stack
def test_a_terminal_shows_a_progress_bar(server_url: str) -> None:
    environ = {"TERM": "xterm-256color", "COLUMNS": "120"}
    exit_code, output = run_in_terminal(
        "train", "-", "--watch", "--server", server_url, stdin=json.dumps(TINY).encode(), environ=environ
    )
    assert exit_code == 0
    assert "\x1b[?25l" in output  # hides the cursor while the bar is drawn
    assert output.count("\x1b[?25h") >= 1  # and shows it again
    *lines, best, _, _ = strip_ansi(output).rstrip().splitlines()
    last_lines = lines[-4:]
    assert "best epoch" in best
    assert re.search(r"classifier .*epoch 2/2  val accuracy \d\d\.\d\d%  train loss [\d.]+  .*succeeded", last_lines[0])
    assert re.search(r"val accuracy  \d\d\.\d\d% \S\S \d\d\.\d\d%", last_lines[1])
    assert re.search(r"train loss +[\d.]+ █▁ [\d.]+", last_lines[2])


@pytest.mark.stack
def test_a_progress_bar_with_metrics_fits_into_80_columns(server_url: str) -> None:
    environ = {"TERM": "xterm-256color", "COLUMNS": "80"}
    exit_code, output = run_in_terminal(
        "train", "-", "--watch", "--server", server_url, stdin=json.dumps(TINY).encode(), environ=environ
    )
    assert exit_code == 0
    bars = [line for line in strip_ansi(output).splitlines() if "epoch 2/2" in line]
    assert re.search(r"epoch 2/2  val accuracy \d\d\.\d\d%  train loss [\d.]+  succeeded", bars[-1])


def test_the_demo_writes_its_files_and_exits(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_specs = tuple(spec | {"epochs": 1} for spec in demo_command.SPECS)
    monkeypatch.setattr(demo_command, "SPECS", short_specs)
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert "classifier  epoch 1/1  val accuracy" in result.stdout
    assert "gan  epoch 1/1  generator loss" in result.stdout
    assert re.search(r"\d\d\.\d\d% of unseen digits classified correctly", result.stdout)
    folder = tmp_path / "demo"
    for path in folder.iterdir():
        assert f"demo/{path.name}" in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == [
        "classifier-confusion.png",
        "classifier-curves.png",
        "classifier-digits.png",
        "classifier.safetensors",
        "gan-curves.png",
        "gan-film.gif",
        "gan-samples.png",
        "gan.safetensors",
    ]


def test_a_sparkline_scales_values_to_blocks_and_fits_the_width() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 20) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5, 5], 20) == "▁▁▁"
    assert sparkline([0, 0, 1, 1], 2) == "▁█"
    assert len(sparkline([float(value) for value in range(1000)], 37)) == 37


def test_values_that_a_preset_adapts_to_the_dataset_are_not_listed_as_changed(run: Callable[..., Result]) -> None:
    result = run("train", "-", "--dry-run", spec={"kind": "classifier", "dataset": "iris", "seed": 5})
    assert result.exit_code == 0, result.output
    assert [line for line in result.stdout.splitlines() if line.startswith("Settings")] == [
        "Settings\tseed: 5 (preset: 0)"
    ]


def test_a_command_of_another_name_is_suggested() -> None:
    refused = CliRunner().invoke(main, ["list"])
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (
        2,
        "Error: No such command 'list'. Did you mean 'jobs'?",
    )
