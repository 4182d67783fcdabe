"""`tapeline train` without a spec file: from data, from a dataset of the service, and with settings."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from service.cli.commands.training import settings_of, with_folds, with_settings
from service.spec import validation
from tapeline import Client

Run = Callable[..., Result]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("x,kind\n" + "".join(f"{n % 7},{'ab'[n % 2]}\n" for n in range(40)))
    return path


def resolved(run: Run, *arguments: str, spec: Any = None) -> dict[str, Any]:
    result = run("train", *arguments, "--dry-run", "--json", spec=spec)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)["resolved"]
    return document


def test_train_uploads_a_table_once_and_trains_on_that_version_again(run: Run, client: Client, rows: Path) -> None:
    first = run("train", "rows.csv", "--name", "one-command", "--epochs", "1", "--watch")
    assert (first.exit_code, first.stdout.splitlines()[-1]) == (0, "succeeded"), first.output
    assert first.stderr.startswith("one-command: 34 training and 6 validation rows of 1 column, 2 classes: a, b\n")
    second = run("train", "rows.csv", "--name", "one-command", "--set", "epochs=1", "--set", "seed=3")
    assert (second.exit_code, second.stderr) == (0, "one-command: the service has exactly this data already\n")
    job = client.job(second.stdout.strip())
    assert (job.name, job.resolved["dataset"]["name"].partition("@")[0]) == ("one-command", "one-command")
    assert (job.epochs, job.resolved["seed"]) == (1, 3)
    first_version, text = client.dataset("one-command")["version"], rows.read_text()
    rows.write_text(f"{text}5,b\n")
    assert run("upload", "rows.csv", "--name", "one-command").exit_code == 0
    rows.write_text(text)
    third = run("train", "rows.csv", "--name", "one-command", "--epochs", "1")
    assert client.job(third.stdout.strip()).resolved["dataset"]["name"] == first_version, "not the newest version"


def test_a_spec_is_made_from_a_dataset_of_the_service_and_options(run: Run) -> None:
    spec = resolved(
        run, "--dataset", "mnist-10k", "--preset", "conv", "--epochs", "5", "--set", "optimizer.epsilon=0.1"
    )
    assert (spec["name"], spec["kind"], spec["preset"], spec["epochs"]) == ("mnist-10k", "classifier", "conv", 5)
    assert spec["optimizer"]["epsilon"] == 0.1
    assert resolved(run, "--dataset", "mnist-10k", "--kind", "gan", "--name", "art")["name"] == "art"
    assert resolved(run, "--set", "dataset=iris")["dataset"]["name"] == "iris"


def test_options_override_the_fields_of_a_spec(run: Run) -> None:
    spec = {"kind": "classifier", "dataset": "iris", "optimizer": "sgd", "epochs": 3}
    options = ("--set", "optimizer.learning_rate=0.5", "--epochs", "2", "--seed", "7")
    merged = resolved(run, "-", *options, spec=spec)
    assert (merged["optimizer"]["name"], merged["optimizer"]["learning_rate"]) == ("sgd", 0.5)
    assert (merged["epochs"], merged["seed"]) == (2, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to train on: give a folder, a file with a table, a spec, or --dataset NAME"),
        (["rows.csv", "--dataset", "iris"], "either data to upload (rows.csv) or a dataset of the service"),
        (["--dataset", "iris", "--size", "32"], "--size applies to data that is uploaded"),
        (["spec.json", "--target", "x"], "--target applies to data that is uploaded"),
        (["--dataset", "iris", "--epochs", "2", "--set", "epochs=3"], "--epochs and --set are both given for epochs"),
        (["--dataset", "iris", "--set", "dataset=mnist"], "--dataset and --set are both given for dataset.name"),
        (["pets"], "pets does not exist; for a dataset of the service, use --dataset pets"),
    ],
)
def test_missing_and_contradictory_arguments_are_refused(
    run: Run, rows: Path, arguments: list[str], message: str
) -> None:
    Path("spec.json").write_text('{"kind": "classifier"}')
    refused = run("train", *arguments)
    assert refused.exit_code == 2, refused.output
    assert message in " ".join(refused.stderr.split())
    assert refused.stdout == ""


@pytest.mark.stack
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_spec_in_yaml_is_refused_with_a_command_that_converts_it(run: Run, command: str) -> None:
    Path("my spec.yaml").write_text("kind: classifier\nepochs: 2\n")
    refused = run(command, "my spec.yaml")
    assert (refused.exit_code, refused.stdout) == (2, "")
    conversion = refused.stderr.partition("specs are JSON; convert the file: ")[2].strip()
    subprocess.run(conversion.replace("python", shlex.quote(sys.executable), 1), shell=True, check=True)
    assert json.loads(Path("my spec.json").read_text()) == {"kind": "classifier", "epochs": 2}


@pytest.mark.parametrize(
    "spec",
    ['{"dataset": "iris", "dataset": "mnist-10k"}', '{"seed": 1e999}', '{"a":' * 50_000 + "1" + "}" * 50_000],
    ids=["twice", "infinite", "deep"],
)
def test_options_leave_a_malformed_spec_for_the_service_to_refuse(spec: str) -> None:
    assert with_settings(spec.encode(), {"epochs": 1}) == spec.encode()
    assert with_folds(spec.encode(), 5) == spec.encode()


def test_settings_are_merged_as_the_service_merges_a_preset() -> None:
    document = b'{"optimizer": {"name": "adam", "beta1": 0.8}, "dataset": "mine"}'
    for values, optimizer in (
        (["optimizer.learning_rate=1"], {"name": "adam", "beta1": 0.8, "learning_rate": 1}),
        (["optimizer.name=sgd"], {"name": "sgd"}),
        (["optimizer=sgd"], "sgd"),
    ):
        assert json.loads(with_settings(document, settings_of(values)))["optimizer"] == optimizer
    assert json.loads(with_folds(document, 3))["dataset"] == {"name": "mine", "folds": 3}
    for unreadable in (b"{", b"[]", b'{"dataset": 3}'):
        assert with_folds(unreadable, 3) == unreadable


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"optimizer": {"name": "adam", "beta1": 0.8}, "dataset": {"name": "mine", "validation_fraction": 0.2}},
        {"optimizer": "adam", "dataset": "mine"},
    ],
)
@pytest.mark.parametrize(
    "value",
    [
        "optimizer.learning_rate=0.5",
        "optimizer.name=adam",
        "optimizer.name=sgd",
        "optimizer=sgd",
        "dataset.name=iris",
        "dataset=iris",
        "epochs=3",
        "checkpoint.keep_last=2",
    ],
)
def test_a_spec_with_settings_resolves_to_what_the_service_makes_of_both(document: dict[str, Any], value: str) -> None:
    spec, settings = {"kind": "classifier", **document}, settings_of([value])
    merged = json.loads(with_settings(json.dumps(spec).encode(), settings))
    assert validation.resolve(merged) == validation.overlaid(validation.resolve(spec), settings)


def test_show_by_name_shows_the_newest_cross_validation_with_that_name(run: Run, client: Client) -> None:
    """One command shows its means. A longer name with the same prefix is another cross-validation."""
    names = ("crossed", "crossed", "crossed-2")
    job_ids = [
        run("train", "--dataset", "iris", "--name", name, "--folds", "2", "--epochs", "1").stdout.split()
        for name in names
    ]
    for job_id in job_ids[1]:
        client.job(job_id).wait(timeout_s=120)
    result = run("show", "crossed")
    assert result.exit_code == 0, result.output
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert ["Name", "crossed"] in lines
    assert ["Status", "2 of 2 folds finished"] in lines
    assert [text.split()[0] for title, text in lines if title == "Jobs"] == job_ids[1]
    mean = next(text for title, text in lines if title == "Metrics")
    assert re.fullmatch(r"val accuracy [\d.]+% \(mean of 2 folds, 95% CI over folds [\d.]+% to [\d.]+%\)", mean)
    document = json.loads(run("show", "crossed", "--json").stdout)
    assert run("show", document["fold_group"]).stdout == result.stdout
    fold = run("show", "crossed (fold 1 of 2)")
    assert fold.stdout.startswith(f"Job\t{job_ids[1][0]}\n")
    assert run("watch", "crossed").exit_code == 1, "a command that follows or changes a job needs one"


def test_a_kind_alone_trains_on_the_data_of_its_default_preset(run: Run) -> None:
    plan = run("train", "--kind", "gan", "--dry-run").stdout
    assert plan.startswith("Job\tgan, preset "), plan
    assert "dataset mnist-10k\n" in plan
    assert "or --dataset NAME" in run("train", "--dry-run").stderr
