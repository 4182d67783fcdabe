"""``tapeline predict JOB --dataset NAME``: a job that predicts a dataset, from submission to file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tapeline import Client
from tests.service.cli.conftest import Run
from tests.tapeline.stub.scenes import Recordings

VALIDATION = ("--dataset", "iris", "--part", "validation")


@pytest.fixture(scope="session")
def flowers(recordings: Recordings) -> str:
    """A trained classifier of iris, whose validation part has 21 rows."""
    with recordings.scene("dataset_predictions", "flowers") as url, Client(url) as client:
        job = client.train(dataset="iris", epochs=2).wait(timeout_s=120)
        assert job.status == "succeeded"
        return job.id


def test_a_dataset_is_predicted_into_a_file(run: Run, flowers: str, tmp_path: Path) -> None:
    result = run("predict", flowers, *VALIDATION, "-o", "out.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("out.csv  21 rows  checkpoint of epoch ")
    header, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith(
        "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm,species,prediction,probability"
    )
    assert len(rows) == 21
    assert "succeeded" in result.stderr, "the progress is not between the rows"


def test_without_a_file_the_rows_go_to_standard_output(run: Run, flowers: str) -> None:
    result = run("predict", flowers, *VALIDATION, "--checkpoint", "latest")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 22


def test_the_job_is_only_submitted_and_then_shown(run: Run, flowers: str) -> None:
    options = (*VALIDATION, "--name", "nightly")
    job = run("predict", flowers, *options, "--no-wait").stdout.strip()
    assert run("watch", job).exit_code == 0
    shown = run("show", job).stdout
    assert f"prediction of iris (validation) by {flowers}, epoch " in shown
    assert f"named as {flowers}@best" in shown
    assert "succeeded, 21 of 21 rows" in shown
    document = json.loads(run("predict", flowers, *options, "--json").stdout)
    assert (document["kind"], document["name"], document["status"]) == ("prediction", "nightly", "succeeded")


def test_a_prediction_has_no_metrics_and_is_not_compared_or_forked(run: Run, flowers: str) -> None:
    job = json.loads(run("predict", flowers, *VALIDATION, "--json").stdout)["id"]
    assert run("metrics", job).stderr == f"tapeline: {job} is a prediction job: it has no metrics\n"
    compared = run("compare", job, flowers).stderr
    assert compared == f"tapeline: a prediction has no metrics or weights to compare: {job}\n"
    assert "cannot be forked" in run("fork", job).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "iris", "digit.png"), "--dataset cannot be combined with files, --fit or --invert"),
        (("--part", "test"), "--part, --name and --no-wait apply to --dataset"),
        ((), "nothing to predict: give files, COLUMN=VALUE, or --dataset NAME"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run("predict", "some", *arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_the_faults_of_a_dataset_that_does_not_fit_are_printed(run: Run, flowers: str) -> None:
    result = run("predict", flowers, "--dataset", "mnist-10k")
    assert result.exit_code == 1
    assert "mnist-10k has images, and the model predicts rows with the columns 'sepal_length_cm'" in result.stderr
