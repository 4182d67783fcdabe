"""``tapeline predict JOB --dataset NAME``: a job that predicts a dataset, from submission to file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.service.cli.conftest import Run


def test_a_dataset_is_predicted_into_a_file(run: Run, trained: str, tmp_path: Path) -> None:
    result = run("predict", trained, "--dataset", "mnist-10k", "--part", "validation", "-o", "out.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("out.csv  1,500 rows  checkpoint of epoch ")
    header, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith("index,part,class,prediction,probability")
    assert len(rows) == 1500
    assert "succeeded" in result.stderr, "the progress is not between the rows"


def test_without_a_file_the_rows_go_to_standard_output(run: Run, trained: str) -> None:
    result = run("predict", trained, "--dataset", "mnist-10k", "--part", "validation", "--checkpoint", "1")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1501


def test_the_job_is_only_submitted_and_then_shown(run: Run, trained: str) -> None:
    options = ("--dataset", "mnist-10k", "--part", "validation", "--name", "nightly")
    job = run("predict", trained, *options, "--no-wait").stdout.strip()
    assert run("watch", job).exit_code == 0
    shown = run("show", job).stdout
    assert f"prediction of mnist-10k (validation) by {trained}, epoch " in shown
    assert f"named as {trained}@best" in shown
    assert "succeeded, 1,500 of 1,500 rows" in shown
    document = json.loads(run("predict", trained, *options, "--json").stdout)
    assert (document["kind"], document["name"], document["status"]) == ("prediction", "nightly", "succeeded")


def test_a_prediction_has_no_metrics_and_is_not_compared_or_forked(run: Run, trained: str) -> None:
    options = ("--dataset", "mnist-10k", "--part", "validation")
    job = json.loads(run("predict", trained, *options, "--json").stdout)["id"]
    assert run("metrics", job).stderr == f"tapeline: {job} is a prediction: it has no metrics\n"
    compared = run("compare", job, trained).stderr
    assert compared == f"tapeline: a prediction has no metrics or weights to compare: {job}\n"
    assert "cannot be forked" in run("fork", job).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "iris", "digit.png"), "--dataset takes no files, --fit and --invert"),
        (("--part", "test"), "--part, --name and --no-wait apply to --dataset"),
        ((), "nothing to predict: give files, COLUMN=VALUE, or --dataset NAME"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run("predict", "some", *arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_the_faults_of_a_dataset_that_does_not_fit_are_printed(run: Run, trained: str) -> None:
    result = run("predict", trained, "--dataset", "iris")
    assert result.exit_code == 1
    assert "iris is a table, and the model predicts images of 28 x 28" in result.stderr
