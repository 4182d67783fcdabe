"""The commands of the model registry, and references to models in other commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tapeline import Client
from tests.tapeline.stub.scenes import Recordings
from tests.terminals import run_in_terminal, strip_ansi

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def flowers(recordings: Recordings) -> list[str]:
    """The ids of two trained jobs with different settings, and of one that differs from the first in its seed."""
    with recordings.scene("models", "flowers") as url, Client(url) as client:
        settings = [{"optimizer.learning_rate": 0.001}, {"optimizer.learning_rate": 0.02}]
        settings.append(settings[0] | {"seed": 5})
        jobs = [client.train(dataset="iris", epochs=3, settings=setting) for setting in settings]
        return [job.wait(timeout_s=120).id for job in jobs]


def register(run: Run, name: str, jobs: list[str]) -> None:
    for number, job in enumerate(jobs, start=1):
        result = run("models", "register", job, name)
        assert (result.exit_code, result.stdout.split("  ")[0]) == (0, f"{name}:{number}"), result.output


def test_a_registered_job_is_listed_shown_and_named_in_other_commands(run: Run, flowers: list[str]) -> None:
    result = run("models", "register", flowers[0], "irises", "--note", "the first", "--checkpoint", "latest")
    assert result.stdout.startswith("irises:1  checkpoint of epoch 3 of iris")
    assert run("models", "move", "irises", "@champion", "1").stdout == "irises@champion is version 1\n"
    assert run("models", "move", "irises", "champion", "1").stdout == "irises@champion is version 1 already\n"
    header, *rows = run("models").stdout.splitlines()
    assert header.split("\t") == ["NAME", "KIND", "NEWEST", "ALIASES", "METRIC", "CREATED"]
    assert any(row.startswith("irises\tclassifier\tirises:1\t@champion 1\tval accuracy ") for row in rows)
    shown = run("models", "show", "irises").stdout
    assert all(text in shown for text in ("@champion\t1\t-\t", "1\t@champion\tval accuracy ", "\tthe first\n"))
    version = run("models", "show", "irises@champion").stdout
    assert all(
        text in version for text in ("Version\tirises:1\n", f"Job\t{flowers[0]}, epoch 3\n", "Note\tthe first\n")
    )
    assert json.loads(run("models", "show", "irises:1", "--json").stdout)["reference"] == "irises:1"
    row = ("sepal_length_cm=5", "sepal_width_cm=3", "petal_length_cm=1.4", "petal_width_cm=0.2")
    predicted = run("predict", "irises@champion", *row)
    assert predicted.exit_code == 0
    assert predicted.stdout == run("predict", flowers[0], "--checkpoint", "latest", *row).stdout
    assert run("export", "irises@latest", "--to", "torch", "-o", "model.zip").stdout.startswith("model.zip  ")
    assert "use: tapeline predict irises:1 FILE" in run("generate", "irises:1").stderr


def test_a_reference_that_means_nothing_is_refused_with_what_there_is(run: Run, flowers: list[str]) -> None:
    register(run, "few", flowers[:1])
    row = "sepal_length_cm=5"
    assert "version 3 of the model 'few' does not exist; the newest is 1" in run("predict", "few:3", row).stderr
    assert "no alias 'champion'; available: latest" in run("predict", "few@champion", row).stderr
    checkpoint = run("predict", "few:1", "--checkpoint", "latest", row)
    assert (checkpoint.exit_code, "few:1 is one checkpoint" in checkpoint.stderr) == (2, True)
    missing = run("models", "show", "unheard-of")
    assert (missing.exit_code, "list the models with: tapeline models" in missing.stderr) == (1, True)
    assert "is not a version" in run("models", "approve", "few").stderr
    assert "approvals need keys" in run("models", "approve", "few:1").stderr


def test_a_failed_gate_is_shown_with_its_evidence_and_what_is_missing_can_be_supplied(
    run: Run, flowers: list[str]
) -> None:
    register(run, "gated", flowers[:2])
    assert run("models", "move", "gated", "champion", "1").exit_code == 0
    better = {"better_than": "@champion", "metric": "val_loss", "seeds": 2, "confidence": 0.8}
    gates = run("models", "gates", "gated", "champion", "--set", '[{"reproduced": true}]', "--add", json.dumps(better))
    assert gates.stdout.splitlines() == [
        "reproduced bit for bit",
        "better than @champion in val loss, over 2 seeds, at 80% confidence",
    ]
    tried = run("models", "move", "gated", "champion", "2", "--dry-run")
    assert tried.exit_code == 1
    reproduced, compared, end = tried.stdout.splitlines()
    assert reproduced == f"✗ job {flowers[1]} has not been reproduced"
    assert compared.endswith("not all have been trained: 0 of 2 of gated:1, 0 of 2 of gated:2")
    assert end == "2 gates checked, nothing moved"
    refused = run("models", "move", "gated", "champion", "2")
    assert (refused.exit_code, refused.stdout.splitlines()) == (1, [reproduced, compared])
    assert refused.stderr.splitlines() == [
        "tapeline: gated:2 does not meet 2 of 2 gates of @champion",
        "  start what is missing, and try again: tapeline models move gated champion 2 --supply",
    ]
    problem = json.loads(run("models", "move", "gated", "champion", "2", "--json").stderr)["error"]
    assert [gate["passed"] for gate in problem["gates"]] == [False, False]
    moved = run("models", "move", "gated", "champion", "2", "--supply", "--reason", "learns faster")
    assert moved.exit_code == 0, moved.output
    assert moved.stdout.splitlines()[-1] == "gated@champion is version 2 (was 1)"
    assert "seeds of gated:1  succeeded" in moved.stderr
    assert [line[0] for line in moved.stdout.splitlines()[:2]] == ["✓", "✓"]
    history = run("models", "history", "gated", "champion").stdout.splitlines()
    assert [line.split("\t")[0] for line in history] == ["MOVE", "2", "1"]
    assert "learns faster ✓ " in history[1]


def test_a_move_is_forced_rolled_back_and_removed(run: Run, flowers: list[str], tmp_path: Path) -> None:
    register(run, "forced", flowers[:2])
    run("models", "move", "forced", "champion", "1")
    Path("gates.json").write_text('[{"metric": "val_accuracy", "min": 1}, {"max_bytes": 1}]')
    run("models", "gates", "forced", "champion", "--set", "gates.json")
    refused = run("models", "move", "forced", "champion", "2", "--supply")
    assert (refused.exit_code, "--supply" in refused.stderr) == (1, False), "nothing would help"
    assert "needs a reason" in run("models", "move", "forced", "champion", "2", "--force").stderr
    forced = run("models", "move", "forced", "champion", "2", "--force", "--reason", "the lens was replaced")
    assert forced.stdout.splitlines()[-1].endswith("is version 2 (was 1)  forced: gates were not met")
    assert "\t2\t" in run("models", "show", "forced").stdout
    assert run("models", "rollback", "forced", "champion").stdout == ("forced@champion is version 1 again (was 2)\n")
    assert run("models", "rollback", "forced", "champion").exit_code == 1
    rows = [line.split("\t")[2:4] for line in run("models", "history", "forced", "champion").stdout.splitlines()[1:]]
    assert rows == [["2 → 1", "rollback"], ["1 → 2", "move, forced"], ["- → 1", "move"]]
    held = run("models", "delete", "forced:1", "--yes")
    assert (held.exit_code, "held by @champion" in held.stderr) == (1, True)
    assert run("models", "remove", "forced", "champion").stdout == "forced@champion holds no version\n"
    assert run("models", "delete", "forced:1", "--yes").exit_code == 0
    assert "name the version itself" in run("models", "delete", "forced@latest", "--yes").stderr
    assert run("models", "delete", "forced", "--yes").exit_code == 1, "its alias has gates"
    run("models", "gates", "forced", "champion", "--set", "[]")
    assert run("models", "delete", "forced", "--yes").stderr == "deleted forced\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gates", "bad", "champion", "--add", "{"), "--add: not valid JSON"),
        (("gates", "bad", "champion", "--set", '{"max_bytes": 1}'), "--set takes a list of gates"),
        (("gates", "bad", "champion", "--add", '{"metric": "val_acuracy", "min": 1}'), "did you mean 'val_accuracy'?"),
        (("move", "bad", "latest", "1"), "is always the newest version"),
        (("move", "bad", "champion", "1", "--dry-run", "--supply"), "--dry-run moves and starts nothing"),
    ],
)
def test_a_command_that_cannot_be_carried_out_says_why(
    run: Run, flowers: list[str], arguments: tuple[str, ...], message: str
) -> None:
    register(run, "bad", flowers[:1])
    result = run("models", *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr


@pytest.mark.stack
def test_a_terminal_of_80_columns_shows_gates_beside_their_marks(run: Run, flowers: list[str], server_url: str) -> None:
    register(run, "narrow", flowers[:1])
    run("models", "gates", "narrow", "champion", "--set", '[{"metric": "val_loss", "max": 0.000001}, {"max_bytes": 9}]')
    command = ("--server", server_url, "models", "move", "narrow", "champion", "1")
    output = strip_ansi(run_in_terminal(*command, environ={"COLUMNS": "80", "TERM": "xterm"})[1])
    lines = [line.rstrip() for line in output.splitlines()]
    assert all(len(line) <= 80 for line in lines if not line.startswith("  "))
    assert len([line for line in lines if line.startswith("✗  ")]) == 2
