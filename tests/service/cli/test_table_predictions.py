"""Predictions for files whose columns or number notation differ from those of the training data."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from service.wording import counted
from tapeline import Client
from tests.tapeline.stub.scenes import Recordings
from tests.terminals import run_in_terminal, strip_ansi

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def model(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier of two numeric columns, one with thousands separators, and a categorical one."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("points") / "points.csv"
    rows = [f'{n % 9 + rng.random():.3f},"{1000 + 37 * n:,}.5",{"ABC"[n % 3]},{"ab"[n % 9 > 4]}\n' for n in range(120)]
    path.write_text("x,price,city,kind\n" + "".join(rows))
    with recordings.scene("table_predictions", "model") as url, Client(url) as client:
        client.upload("notation", {"table": path})
        spec = {"kind": "classifier", "name": "notation", "dataset": "notation", "epochs": 1}
        assert client.submit(spec).wait(timeout_s=120).status == "succeeded"
    return "notation"


def predict(run: Run, model: str, text: str) -> dict[str, Any]:
    Path("rows.csv").write_text(text)
    result = run("predict", model, "rows.csv", "--json")
    assert result.exit_code == 0, result.output
    predictions: dict[str, Any] = json.loads(result.stdout)
    return predictions


def test_json_has_the_predictions_of_a_table(run: Run, model: str) -> None:
    predictions = predict(run, model, "x,price,city\n1.5,1000,A\n8.5,1000,B\n")
    assert (predictions["table"], predictions["rows"], predictions["class_names"], predictions["checkpoint"]) == (
        "rows.csv",
        2,
        ["a", "b"],
        1,
    )
    for predicted_class, probabilities in zip(predictions["classes"], predictions["probabilities"], strict=True):
        assert probabilities[predicted_class] == max(probabilities)
    assert [len(probabilities) for probabilities in predictions["probabilities"]] == [2, 2]
    result = run("predict", model, "rows.csv", "--json", "-o", "out.csv")
    assert json.loads(result.stdout)["output"] == "out.csv"
    assert len(Path("out.csv").read_text().splitlines()) == 3


@pytest.mark.stack
def test_mistakes_confusion_and_importance_match_the_api(run: Run, model: str, server_url: str) -> None:
    with Client(server_url) as client:
        job = client.job(model)
        mistakes, confusion, columns = job.mistakes(limit=2), job.confusion(), job.importance()["columns"]
        first, best = job.confusion(checkpoint=1), job.confusion(checkpoint="best")
        assert (confusion, job.best and job.best["epoch"]) == (best, best["epoch"])
    titles, *lines = (line.split("\t") for line in run("mistakes", model, "--limit", "2").stdout.splitlines())
    assert titles == ["ROW", "CLASS", "PREDICTED", "CONFIDENCE", "CELLS"]
    assert [line[0] for line in lines] == [str(item["index"]) for item in mistakes["data"]]
    assert all(line[1] != line[2] and "price " in line[4] for line in lines)
    shown = run("confusion", model)
    assert shown.stderr == f"in epoch {best['epoch']}\n"
    titles, *lines = (line.split("\t") for line in shown.stdout.splitlines())
    assert [line[:2] for line in lines] == [[row["class_name"], str(row["support"])] for row in confusion["per_class"]]
    for true_class, line in enumerate(lines):
        misclassified = [
            count
            for predicted_class, count in enumerate(confusion["matrix"][true_class])
            if predicted_class != true_class and count
        ]
        assert [text.partition(": ")[2] for text in (line[5:] and line[5].split(", "))] == [
            counted(count, "time") for count in misclassified
        ]
    for options, expected in (
        (("--checkpoint", "1"), first),
        (("--epoch", "1"), first),
        (("--checkpoint", "best"), best),
    ):
        assert json.loads(run("confusion", model, *options, "--json").stdout) == expected
    titles, *lines = (line.split("\t") for line in run("importance", model).stdout.splitlines())
    ranked = sorted(columns, key=lambda item: -item["mean"])
    assert [line[:2] for line in lines] == [[item["column"], f"{100 * item['mean']:.2f}"] for item in ranked]
    for command in ("mistakes", "confusion", "importance"):
        exit_code, output = run_in_terminal(
            "--server", server_url, command, model, environ={"COLUMNS": "80", "TERM": "xterm"}
        )
        assert exit_code == 0
        assert max(map(len, strip_ansi(output).splitlines())) <= 80
        assert isinstance(json.loads(run(command, model, "--json").stdout), dict)


def test_numbers_are_read_in_the_notation_of_the_file(run: Run, model: str) -> None:
    """In the second case, every cell of one column is ambiguous; it is read like the other column."""
    expected = predict(run, model, 'x,price,city\n6.976,"1,234.5",A\n1.25,1250,B\n')
    decimal_commas = predict(run, model, "x;price;city\n6,976;1.234,5;A\n1,25;1250;B\n")
    assert decimal_commas["probabilities"] == expected["probabilities"]
    expected = predict(run, model, "x,price,city\n6.5,1.234,A\n")
    assert predict(run, model, "x;price;city\n6,5;1,234;A\n")["probabilities"] == expected["probabilities"]
    expected = predict(run, model, "x,price,city\n6.976,1250,A\n")
    assert predict(run, model, "x;price;city\n6,976;1250;A\n")["probabilities"] == expected["probabilities"]


def test_wrong_columns_are_reported_once_each_and_a_bad_number_with_its_line(run: Run, model: str) -> None:
    Path("rows.csv").write_text("p,q\n" + "1,2\n" * 3)
    unmatched = run("predict", model, "rows.csv")
    assert unmatched.stderr == (
        "tapeline: rows.csv: has none of the columns of the model: 'x', 'price', 'city'; "
        "line 1 must have the names of the columns, and has 'p', 'q'\n"
    )
    Path("rows.csv").write_text("x,pricee,City\n" + "1,2,A\n" * 3)
    assert run("predict", model, "rows.csv").stderr == (
        "tapeline: rows.csv: column 'pricee' is unknown; did you mean 'price'? Rename it, or remove it\n"
        "rows.csv: column 'City' is unknown; did you mean 'city'? Rename it, or remove it\n"
    )
    Path("rows.csv").write_text("x,price,city\n" + "much,2,A\n" * 3)
    refused = run("predict", model, "rows.csv")
    Path("quoted.csv").write_text('x,price,city\n1,2,"A\nB"\nmuch,2,A\n')
    assert run("predict", model, "quoted.csv").stderr == "tapeline: line 4: 'x' must be a number, not 'much'\n"
    assert refused.stderr == "tapeline: line 2: 'x' must be a number, not 'much' (and further lines)\n"


def test_unused_columns_are_copied_and_an_output_can_be_the_next_input(run: Run, model: str) -> None:
    Path("rows.csv").write_text("x,price,city,kind,prediction,note\n1.5,1100,A,a,mine,hello\n")
    for source, target in (("rows.csv", "one.csv"), ("one.csv", "two.csv")):
        result = run("predict", model, source, "-o", target)
        assert result.exit_code == 0, result.output
        assert result.stderr.startswith("not used by the model, only copied: 'prediction', 'note'"), (
            "the target is known"
        )
        assert len(result.stderr.splitlines()) == 1
    (row,) = csv.DictReader(Path("two.csv").read_text().splitlines())
    assert (row["prediction"], row["note"]) == ("mine", "hello")
    assert row["prediction (2)"] == row["prediction (3)"]
    header = Path("two.csv").read_text().splitlines()[0].split(",")
    assert len(set(header)) == len(header) == 6 + 2 * 4


def test_an_output_is_written_completely_or_not_at_all(run: Run, model: str) -> None:
    """Pipes and symbolic links stay what they are, and an error leaves the old content."""
    Path("rows.csv").write_text("x,price,city\n" + "1,2,A\n" * 600)
    Path("real.csv").write_text("old")
    Path("link.csv").symlink_to("real.csv")
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("predict", model, "rows.csv", "-o", "pipe").exit_code == 0
        assert os.read(reader, 12) == b"x,price,city"
    finally:
        os.close(reader)
    assert Path("pipe").is_fifo()
    assert run("predict", model, "rows.csv", "-o", "link.csv").exit_code == 0
    assert Path("link.csv").is_symlink()
    complete = Path("real.csv").read_text()
    assert len(complete.splitlines()) == 601
    with Path("rows.csv").open("a") as file:
        file.write("much,2,A\n")
    assert "line 602: 'x' must be a number" in run("predict", model, "rows.csv", "-o", "real.csv").stderr
    assert Path("real.csv").read_text() == complete
    assert sorted(path.name for path in Path().iterdir()) == ["link.csv", "pipe", "real.csv", "rows.csv"]


def test_classes_without_validation_rows_are_named_beside_the_scores(run: Run, client: Client) -> None:
    rows = "".join(f"{number},{'ab'[number % 2]}\n" for number in range(40))
    Path("rare.csv").write_text(f"n,label\n{rows}7,selten\n")
    assert "note: the class 'selten' (1 row) has no validation rows" in run("upload", "rare", "rare.csv").output
    assert run("train", "-", "--watch", spec='{"kind": "classifier", "dataset": "rare", "epochs": 1}').exit_code == 0
    job = next(client.jobs(limit=1))
    assert job.confusion()["unscored_classes"] == ["selten"]
    assert "no score covers selten: the validation data has none of it" in run("show", job.id).output


def test_what_a_job_of_another_kind_is_asked_names_the_command_that_answers(run: Run, model: str) -> None:
    refused = run("residuals", model)
    job_id = json.loads(run("show", model, "--json").stdout)["id"]
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"tapeline: the job is a classifier; what it gets wrong: tapeline mistakes {job_id[-6:]}\n"
    )


def test_a_row_is_predicted_from_the_command_line(run: Run, model: str) -> None:
    predicted = run("predict", model, "x=1.5", "price=1000", "city=Z", "pric=3")
    assert predicted.exit_code == 0, predicted.output
    assert sorted(line.split("\t")[0] for line in predicted.stdout.splitlines()) == ["a", "b"]
    assert predicted.stderr.splitlines() == [
        "tapeline: not used by the model: 'pric' (did you mean 'price'?)",
        "city: 'Z' is not a known category, treated as missing",
    ]
    (known,) = json.loads(run("predict", model, "x=1.5", "price=1000", "--json").stdout)["probabilities"]
    assert [f"{max(known):.1%}"] == [predicted.stdout.split()[1]]
    refused = run("predict", model, "x=wide")
    assert (refused.exit_code, refused.stderr) == (1, "tapeline: x must be a number, not 'wide'\n")


def test_a_table_is_predicted_from_the_standard_input(run: Run, model: str) -> None:
    text = "x,price,city\n1.5,1000,A\n8.5,1000,B\n"
    piped = run("predict", model, "-", spec=text)
    assert (piped.exit_code, piped.stdout.splitlines()[0]) == (
        0,
        "x,price,city,prediction,probability,probability of a,probability of b",
    )
    Path("rows.csv").write_text(text)
    assert piped.stdout == run("predict", model, "rows.csv").stdout
    assert run("predict", model, "-", spec="").stderr == "tapeline: standard input: is empty\n"


def test_the_rows_with_the_largest_residuals_have_their_numbers_in_the_part(run: Run, client: Client) -> None:
    job = client.train(dataset="diabetes", epochs=1, name="progression").wait(timeout_s=120)
    worst = job.residuals(limit=3)
    titles, *lines = (line.split("\t") for line in run("residuals", "progression", "--limit", "3").stdout.splitlines())
    assert titles == ["ROW", "progression", "PREDICTION", "RESIDUAL", "CELLS"]
    assert [int(line[0]) for line in lines] == [item["index"] + 1 for item in worst.document["worst"]]
    for line, row in zip(lines, worst, strict=True):
        assert float(line[1]) - float(line[2]) == pytest.approx(float(line[3]), abs=0.2)
        assert float(line[3]) == pytest.approx(row["residual"], rel=1e-3)
    refused = run("mistakes", "progression")
    assert "tapeline residuals" in refused.stderr
