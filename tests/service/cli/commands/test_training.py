"""`tapeline train` without a spec file: from data, from a dataset of the service, and with settings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from service.cli.specs import settings_of, with_folds, with_settings
from service.client import Client

Run = Callable[..., Result]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("x,kind\n" + "".join(f"{n % 7},{'ab'[n % 2]}\n" for n in range(40)))
    return path


def resolved(run: Run, *arguments: str, spec: Any = None) -> dict[str, Any]:
    told = run("train", *arguments, "--dry-run", "--json", spec=spec)
    assert told.exit_code == 0, told.output
    found: dict[str, Any] = json.loads(told.stdout)["resolved"]
    return found


def test_a_table_trains_with_one_command_and_trains_again(run: Run, client: Client, rows: Path) -> None:
    first = run("train", "rows.csv", "--name", "one-command", "--epochs", "1", "--watch")
    assert (first.exit_code, first.stdout.splitlines()[-1]) == (0, "succeeded"), first.output
    assert first.stderr.startswith("one-command: 34 training and 6 validation rows of 1 column, 2 classes: a, b\n")
    again = run("train", "rows.csv", "--name", "one-command", "--set", "epochs=1", "--set", "seed=3")
    assert (again.exit_code, again.stderr) == (0, "one-command: the service has exactly this data already\n")
    job = client.get(again.stdout.strip())
    assert (job.name, job.resolved["dataset"]["name"].partition("@")[0]) == ("one-command", "one-command")
    assert (job.epochs, job.resolved["seed"]) == (1, 3)
    earlier, text = client.dataset("one-command")["version"], rows.read_text()
    rows.write_text(f"{text}5,b\n")
    assert run("upload", "rows.csv", "--name", "one-command").exit_code == 0
    rows.write_text(text)
    back = run("train", "rows.csv", "--name", "one-command", "--epochs", "1")
    assert client.get(back.stdout.strip()).resolved["dataset"]["name"] == earlier, "not the newest version"


def test_a_dataset_of_the_service_and_options_make_a_spec(run: Run) -> None:
    found = resolved(
        run, "--dataset", "mnist-10k", "--preset", "conv", "--epochs", "5", "--set", "optimizer.epsilon=0.1"
    )
    assert (found["name"], found["kind"], found["preset"], found["epochs"]) == ("mnist-10k", "classifier", "conv", 5)
    assert found["optimizer"]["epsilon"] == 0.1
    assert resolved(run, "--dataset", "mnist-10k", "--kind", "gan", "--name", "art")["name"] == "art"
    assert resolved(run, "--set", "dataset=iris")["dataset"]["name"] == "iris"


def test_options_override_the_fields_of_a_spec(run: Run) -> None:
    spec = {"kind": "classifier", "dataset": "iris", "optimizer": "sgd", "epochs": 3}
    found = resolved(run, "-", "--set", "optimizer.learning_rate=0.5", "--epochs", "2", spec=spec)
    assert (found["optimizer"]["name"], found["optimizer"]["learning_rate"], found["epochs"]) == ("sgd", 0.5, 2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to train on: give a folder, a file with a table, a spec, or --dataset NAME"),
        (["rows.csv", "--dataset", "iris"], "either data to upload (rows.csv) or a dataset of the service"),
        (["--dataset", "iris", "--size", "32"], "--size applies to data that is uploaded"),
        (["spec.json", "--target", "x"], "--target applies to data that is uploaded"),
        (["--dataset", "iris", "--epochs", "2", "--set", "epochs=3"], "--epochs and --set are both given for epochs"),
        (["--dataset", "iris", "--set", "dataset=mnist"], "--dataset and --set are both given for dataset.name"),
        (["rows.csv", "--dry-run"], "upload the data first, then use: tapeline train --dataset rows --dry-run"),
        (["pets"], "pets does not exist; for a dataset of the service, use --dataset pets"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(
    run: Run, rows: Path, arguments: list[str], told: str
) -> None:
    Path("spec.json").write_text('{"kind": "classifier"}')
    refused = run("train", *arguments)
    assert refused.exit_code == 2, refused.output
    assert told in " ".join(refused.stderr.split())
    assert refused.stdout == ""


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


def test_the_name_of_a_cross_validation_shows_the_newest_one(run: Run, client: Client) -> None:
    """Its means, in one command. Another name that begins with it is another one."""
    names = ("crossed", "crossed", "crossed-2")
    started = [
        run("train", "--dataset", "iris", "--name", name, "--folds", "2", "--epochs", "1").stdout.split()
        for name in names
    ]
    for job_id in started[1]:
        client.wait(job_id, timeout_s=120)
    shown = run("show", "crossed")
    assert shown.exit_code == 0, shown.output
    lines = [line.split("\t") for line in shown.stdout.splitlines()]
    assert ["Name", "crossed"] in lines
    assert ["Status", "2 of 2 folds finished"] in lines
    assert [text.split()[0] for title, text in lines if title == "Jobs"] == started[1]
    mean = next(text for title, text in lines if title == "Metrics")
    assert re.fullmatch(r"val accuracy \d+\.\d\d% ± \d+\.\d\d% \(mean of 2 folds, 95% interval\)", mean)
    found = json.loads(run("show", "crossed", "--json").stdout)
    assert run("show", found["fold_group"]).stdout == shown.stdout
    fold = run("show", "crossed (fold 1 of 2)")
    assert fold.stdout.startswith(f"Job\t{started[1][0]}\n")
    assert run("watch", "crossed").exit_code == 1, "a command that follows or changes a job needs one"
