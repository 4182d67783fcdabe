"""The commands that show results of jobs: show, open, metrics and compare, and shell completion."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from service.cli import COMMANDS, main
from service.cli.commands import showing
from tapeline import Client, Job
from tests.service.cli.conftest import TINY, Run
from tests.tapeline.stub.scenes import Recordings
from tests.terminals import run_in_terminal, strip_ansi

ADAM = {"name": "adam", "learning_rate": 0.005}


@pytest.fixture(scope="session")
def jobs(recordings: Recordings) -> dict[str, str]:
    """Job ids by name: a job, its fork, its reproduction, and one with another optimizer."""
    with recordings.scene("showing_results", "jobs") as url, Client(url) as client:
        original = client.submit(TINY | {"name": "plain", "tags": ["kept"]}).wait(timeout_s=120)
        submitted = [original, original.fork({"epochs": 3}), original.reproduce()]
        submitted.append(client.submit(TINY | {"name": "adam", "optimizer": ADAM}))
        assert {job.wait(timeout_s=120).status for job in submitted} == {"succeeded"}
        return {str(job.name): job.id for job in submitted}


def rows(result: Result) -> dict[str, list[str]]:
    """The values in lines of title and value, by title."""
    assert result.exit_code == 0, result.output
    values: dict[str, list[str]] = {}
    for line in result.stdout.splitlines():
        title, _, value = line.partition("\t")
        values.setdefault(title, []).append(value)
    return values


def test_show_prints_everything_about_a_job(run: Run, jobs: dict[str, str], client: Client) -> None:
    fields = rows(run("show", "adam"))
    assert fields["Job"] == [jobs["adam"]]
    assert fields["Spec"] == ["classifier, preset fast, dataset mnist-10k, seed 0"]
    assert fields["Status"] == ["succeeded, epoch 2/2"]
    job = client.job("adam")
    accuracy = f"{job.metrics['val_accuracy']:.2%}"
    line, interval = next(pair for pair in itertools.pairwise(fields["Metrics"]) if pair[0].startswith("val accuracy"))
    assert accuracy in line.split()
    assert re.fullmatch(r"  of 1,500, 95% CI( +\d\d\.\d% to \d\d\.\d%| +\d+% to \d+%){2}", interval)
    assert fields["Settings"][0].startswith("optimizer: adam (learning_rate 0.005")
    assert "(preset: sgd" in fields["Settings"][0]
    assert "epochs: 2 (preset: 3)" in fields["Settings"]
    assert re.fullmatch(r"\d+:\d\d in finished epochs, \d+:\d\d from start to end", fields["Time"][0])
    assert fields["Page"] == [job.page]
    assert "checkpoints of epochs 1, 2; best: " in fields["Files"][1]
    assert "Lineage" not in fields
    document = json.loads(run("show", "adam", "--json").stdout)
    assert (document["id"], document["results"]["final"]) == (jobs["adam"], True)


def test_show_tells_settings_from_changes_of_the_preset_and_names_another_provenance(
    run: Run, jobs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {
        "epochs": "2 (preset: 3)",
        "optimizer.momentum": "0.9 (preset: 0)",
        "schedule": "constant (preset: step)",
    }
    monkeypatch.setattr(showing, "changed_settings", lambda client, spec: changed)
    message = "continued with another provenance (numpy): the bits may differ from an undisturbed run"
    known = Job.results
    monkeypatch.setattr(Job, "results", lambda self: known(self) | {"mixed_provenance": [message]})
    fields = rows(run("show", "adam"))
    assert fields["Job"] == [jobs["adam"]]
    assert fields["Settings"] == ["epochs: 2 (preset: 3)"], "what the spec has that was sent"
    assert fields["Preset"] == [
        "has changed since: optimizer.momentum: 0.9 (preset: 0)",
        "has changed since: schedule: constant (preset: step)",
    ]
    assert fields["Provenance"] == [f"mixed_provenance: {message}"]


@pytest.mark.stack
def test_the_advice_for_an_overfitting_table_can_be_pasted_and_submitted(
    run: Run, client: Client, server_url: str, tmp_path: Path
) -> None:
    spec = {
        "kind": "classifier",
        "name": "memorizes",
        "dataset": "breast-cancer",
        "layers": [{"units": 100, "activation": "relu"}, {"units": 2, "activation": "softmax"}],
        "optimizer": ADAM,
        "epochs": 60,
    }
    job = client.submit(spec).wait(timeout_s=120)
    assert job.status == "succeeded"
    assert run("jobs", "-q", "memorizes").stdout.splitlines()[1].split("\t")[5].startswith("overfitting  val accuracy ")
    for width in (80, 140):
        command = ("--server", server_url, "jobs", "-q", "memorizes")
        output = strip_ansi(run_in_terminal(*command, environ={"COLUMNS": str(width), "TERM": "xterm"})[1])
        assert ("overfitting  val accuracy" if width == 140 else "overfitting") in output
        assert max(map(len, output.splitlines())) <= width
    health = rows(run("show", "memorizes"))["Health"]
    (start,) = (index for index, line in enumerate(health) if line.endswith("memorizes the training data. Try:"))
    dropout, stopping, smaller = health[start + 1 : start + 4]
    assert dropout.endswith("}]'  # dropout with rate 0.3 after each hidden layer")
    assert smaller == "- fewer units or layers"
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    options = shlex.split(f"{dropout}\n{stopping}", comments=True)
    planned = json.loads(run("train", str(tmp_path / "spec.json"), *options, "--dry-run", "--json").stdout)["resolved"]
    assert planned["early_stopping"]["patience"] == 5
    assert [layer["type"] for layer in planned["layers"]] == ["dense", "dropout", "dense"]
    advised = client.train(dataset="breast-cancer", epochs=1, settings=job.health[0]["advice"][0]["settings"])
    assert advised.resolved["layers"] == planned["layers"]


def test_show_prints_the_origin_of_a_job(run: Run, jobs: dict[str, str]) -> None:
    assert rows(run("show", "plain-2"))["Lineage"] == [f"fork of plain ({jobs['plain']}) after epoch 2"]
    lineage = rows(run("show", "plain (reproduced)"))["Lineage"]
    assert lineage == [f"reproduction of plain ({jobs['plain']}): bit-identical"]


def test_show_prints_why_a_job_failed(run: Run, client: Client) -> None:
    diverging: dict[str, Any] = {
        "layers": [{"units": 10, "activation": "linear"}],
        "loss": {"name": "squared_error", "reduction": "sum"},
        "optimizer": {"name": "sgd", "learning_rate": 10},
        "schedule": {"name": "constant"},
    }
    client.submit(TINY | diverging | {"name": "lost"}).wait(timeout_s=120)
    fields = rows(run("show", "lost"))
    assert fields["Status"][0].startswith("failed")
    assert "learning rate" in fields["Error"][0]
    assert run("show", "nothing").exit_code == 1


def test_metrics_are_written_as_csv_at_full_precision(run: Run, jobs: dict[str, str], client: Client) -> None:
    history = client.job("plain").history().document
    result = run("metrics", "plain", "--csv")
    table = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [int(row["epoch"]) for row in table] == [1, 2]
    assert [float(row["val_loss"]) for row in table] == history["series"]["val_loss"]
    assert set(table[0]) == {"epoch", *history["series"], "seconds"}
    assert run("metrics", "plain", "-o", "plain.csv").exit_code == 0
    assert Path("plain.csv").read_text() == result.stdout
    selected = json.loads(run("metrics", "plain", "--metric", "val_loss", "--json").stdout)
    assert selected["series"] == {"val_loss": history["series"]["val_loss"]}
    lines = run("metrics", "plain").stdout.splitlines()
    assert lines[0].split() == ["EPOCH", "val", "accuracy", "val", "loss", "train", "loss", "seconds"]
    unknown = run("metrics", "plain", "--metric", "accuracy")
    assert (unknown.exit_code, "val_accuracy" in unknown.stderr) == (2, True)


def test_compare_shows_only_the_settings_that_differ(run: Run, jobs: dict[str, str]) -> None:
    result = run("compare", "plain", "adam", "plain-2")
    assert result.exit_code == 0, result.output
    table = {row[0]: row[1:] for row in (line.split("\t") for line in result.stdout.splitlines())}
    assert table[""] == ["plain", "adam", "plain-2"]
    assert table["epochs"] == ["2", "2", "3"]
    assert table["optimizer"][1].startswith("adam (learning_rate 0.005")
    assert "batch_size" not in table
    assert list(table).index("val accuracy") < list(table).index("epochs")
    assert all(cell.endswith("%") for cell in table["val accuracy"])
    document = json.loads(run("compare", "plain", "adam", "--json").stdout)
    assert [job["id"] for job in document["jobs"]] == [jobs["plain"], jobs["adam"]]
    assert list(document["settings"]) == ["optimizer"]
    assert run("compare", "plain").exit_code == 2


def test_compare_of_two_kinds_leaves_out_settings_that_only_one_job_has(
    run: Run, client: Client, jobs: dict[str, str]
) -> None:
    gan = client.submit({"kind": "gan", "name": "other-kind", "epochs": 1, "batch_size": 500})
    gan.cancel()
    titles = [line.split("\t")[0] for line in run("compare", "plain", "adam", "other-kind").stdout.splitlines()]
    assert {"layers", "batch_size"} <= set(titles)
    assert not [title for title in titles if title.startswith(("generator", "discriminator"))]


def test_notes_of_a_comparison_name_the_jobs(run: Run, client: Client, jobs: dict[str, str]) -> None:
    waiting = client.submit(TINY | {"name": "waiting", "epochs": 5000, "seed": 5})
    result = run("compare", "plain", "waiting", "--metric", "val_accuracy")
    waiting.cancel()
    assert f"waiting ({waiting.id[-6:]})" in result.stderr, result.output
    assert waiting.id not in result.stderr


@pytest.mark.stack
def test_compare_of_many_jobs_fits_into_a_terminal(server_url: str, jobs: dict[str, str]) -> None:
    names = [*jobs, *jobs]
    environ = {"COLUMNS": "80", "TERM": "xterm"}
    exit_code, output = run_in_terminal("--server", server_url, "compare", *names, environ=environ)
    assert exit_code == 0
    lines = strip_ansi(output).splitlines()
    assert max(map(len, lines)) <= 80
    ids = [word for line in lines if line.startswith("id ") for word in line.split()[1:]]
    assert [jobs[name] for name in names] == [
        next(job_id for job_id in jobs.values() if job_id.endswith(word)) for word in ids
    ]


def test_open_prints_the_url_of_the_page(run: Run, jobs: dict[str, str], client: Client) -> None:
    assert run("open", "adam").stdout == f"{client.server}/ui/jobs/{jobs['adam']}\n"
    assert json.loads(run("open", "adam", "--json").stdout)["url"].endswith(jobs["adam"])


def test_download_before_the_first_epoch_names_the_remedy(run: Run, client: Client) -> None:
    job = client.submit({"kind": "gan", "name": "waiting", "epochs": 1000, "batch_size": 1})
    result = run("download", "waiting")
    assert result.exit_code == 0
    assert "tapeline watch" in result.stderr
    assert list(Path().iterdir()) == []
    job.cancel().wait(timeout_s=120)


HEAVY_MODULES = (
    *("numpy", "PIL", "matplotlib", "pydantic", "sqlalchemy", "flask", "celery", "httpx", "rich"),
    *("tapeline.client", "service.jobs", "service.storage", "service.local"),
)


@pytest.mark.stack
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_load_no_heavy_modules(arguments: list[str]) -> None:
    program = (
        "import sys; from service.cli import main\n"
        f"try: main({arguments!r})\n"
        f"finally: print([name for name in {HEAVY_MODULES!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stderr == "[]\n"


def test_the_command_list_shows_whole_summaries_that_begin_like_the_help_of_their_command() -> None:
    listed = " ".join(CliRunner().invoke(main, ["--help"]).stdout.partition("\nCommands:\n")[2].split())
    for name, (_, summary) in COMMANDS.items():
        assert f" {name} {summary}" in f" {listed}"
        command = main.resolve_command(click.Context(main), [name])[1]
        assert command is not None, name
        assert command.get_short_help_str(200).split()[0] == summary.split()[0], name
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options or name in ("up", "worker", "keys", "signing-keys", "store"), f"{name} has no --json"


def test_a_mistyped_command_gets_a_suggestion(run: Run) -> None:
    result = run("jbos")
    assert result.exit_code == 2
    assert "Did you mean 'jobs'?" in result.stderr


def test_control_and_bidi_characters_in_names_and_tags_are_not_printed(run: Run) -> None:
    name = "up\x9b2Aside\u202edown\u2066"
    result = run("train", "-", spec={"kind": "classifier", "name": name, "epochs": 1, "tags": ["a\x85b"]})
    assert result.exit_code == 0, result.output
    job_id = result.stdout.split()[0]
    for command in (["jobs", "-q", job_id], ["show", job_id], ["compare", job_id, job_id]):
        output = run(*command).stdout
        assert "up\N{REPLACEMENT CHARACTER}2Aside" in output.replace("\n", ""), command
        assert not set(output) & set("\x9b\x85\u202e\u2066"), command
