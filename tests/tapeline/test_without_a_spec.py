"""The client at home: from data to a job or a sweep without a spec, and what these show of themselves."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tapeline import Client, NotUploadable
from tapeline.operations.datasets import Dataset
from tapeline.operations.training import spec_of
from tests.terminals import run_in_terminal


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "leaf shapes.csv"
    path.write_text("kind,length\n" + "".join(f"{'ab'[n % 2]},{n % 7}\n" for n in range(40)))
    return path


def test_a_table_is_uploaded_once_and_trained_on(client: Client, rows: Path) -> None:
    job = client.train(rows, target="kind", epochs=1, settings={"optimizer.learning_rate": 0.01, "seed": 3})
    assert (job.name, job.kind, job.epochs) == ("leaf-shapes", "classifier", 1)
    assert (job.resolved["optimizer"]["learning_rate"], job.resolved["seed"]) == (0.01, 3)
    first, text = client.dataset("leaf-shapes")["version"], rows.read_text()
    rows.write_text(f"{text}b,3\n")
    newer = client.train(str(rows), target="kind", name="leaf-shapes", epochs=1)
    assert newer["dataset_sha256"] != job["dataset_sha256"]
    rows.write_text(text)
    again = client.train(rows, target="kind", epochs=1)
    assert again.resolved["dataset"]["name"] == first, "not the newest version"
    assert again["dataset_sha256"] == job["dataset_sha256"]
    assert len(client.dataset("leaf-shapes")["versions"]) == 2
    assert job.wait(timeout_s=120).predict([[3], [3]]).labels == job.predict({"length": 3}).labels * 2


def test_a_frame_is_trained_on_under_the_name_that_it_is_given(client: Client, rows: Path) -> None:
    frame = pd.read_csv(rows)
    job = client.train(frame, name="Blätter", target="kind", epochs=1, preset="table")
    assert (job.name, job.resolved["dataset"]["name"].partition("@")[0]) == ("Blätter", "Blaetter")
    assert job.resolved["preset"] == "table"
    unnamed = client.train(frame, target="kind", epochs=1)
    assert (unnamed.name, unnamed.resolved["dataset"]["name"].partition("@")[0]) == ("table", "table")


def test_photos_of_different_sizes_are_fitted_with_a_warning(client: Client, tmp_path: Path) -> None:
    for name, level in (("dark", 20), ("light", 220)):
        (tmp_path / "Meine Fotos" / name).mkdir(parents=True)
        for number in range(12):
            size = (40, 30) if number % 2 else (30, 40)
            Image.new("L", size, level + number).save(tmp_path / "Meine Fotos" / name / f"{number:02}.png")
    folder = tmp_path / "Meine Fotos"
    with pytest.warns(UserWarning, match=r"different sizes, such as .*: they are fitted to 32 x 32; choose with size="):
        job = client.train(folder, epochs=1)
    assert (job.name, client.dataset("Meine-Fotos")["image_shape"]) == ("Meine-Fotos", [32, 32])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.train(folder, epochs=1, size="16", name="small")
    assert client.dataset("small")["image_shape"] == [16, 16]
    image = np.full((40, 30), 225, np.uint8)
    assert job.wait(timeout_s=120).predict(image).labels == job.predict(Image.fromarray(image)).labels


def test_a_dataset_of_the_service_is_trained_on(client: Client) -> None:
    job = client.train(dataset="iris", epochs=2, settings={"dataset.validation_fraction": 0.4})
    assert job.spec == {
        "kind": "classifier",
        "name": "iris",
        "epochs": 2,
        "dataset": {"name": "iris", "validation_fraction": 0.4},
    }
    for arguments in ({}, {"data": "rows.csv", "dataset": "iris"}):
        with pytest.raises(TypeError, match="needs either data"):
            client.train(**arguments)
    with pytest.raises(TypeError, match="sweep"):
        client.sweep(space={"batch_size": [16]})


def test_the_kind_is_the_one_that_suits_the_target(client: Client) -> None:
    prices = Dataset(client._connection, {"name": "prices", "task": "regression"})
    assert spec_of(prices, {})["kind"] == "regressor"
    assert spec_of(prices, {"kind": "classifier"})["kind"] == "classifier"


def test_files_that_are_no_dataset_together_are_refused(client: Client, rows: Path) -> None:
    with pytest.raises(NotUploadable, match="are tables, and a dataset is one"):
        client.upload("two", [rows, rows])


def test_a_sweep_is_made_of_a_dataset_a_space_and_seeds(client: Client) -> None:
    sweep = client.sweep(dataset="iris", space={"batch_size": [16, 64]}, seeds=2, epochs=2, name="sizes")
    assert sweep.wait(timeout_s=120).status == "succeeded"
    assert (sweep["resolved"]["seeds"], sweep["resolved"]["base"]["epochs"]) == ([0, 1], 2)
    frame = sweep.trials().to_frame()
    assert sorted(frame["batch_size"]) == [16, 64]
    shown = sweep._repr_html_()
    assert "2 of 2 trials done" in shown
    assert "batch_size</th>" in shown


@pytest.mark.stack
def test_waiting_shows_lines_where_it_is_asked_to(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    job = client.train(dataset="iris", epochs=2, name="shown").wait(timeout_s=120)
    assert capsys.readouterr() == ("", ""), "not in a file"
    job.wait(progress=True)
    best = r"best epoch [12]: val accuracy [\d.]+% \(of 21, 95% CI [\d.]+% to [\d.]+%\), val loss [\d.]+"
    assert re.fullmatch(rf"shown  succeeded  epoch 2/2 \(100%\)  {best}\n", capsys.readouterr().err)
    program = f"from tapeline import Client; Client({client.server!r}).handle({job.id!r}).wait()"
    code, output = run_in_terminal(program=program, environ={"COLUMNS": "45"})
    assert code == 0, output
    assert output == "\r\x1b[2K" + "shown  succeeded  epoch 2/2 (100%)  best epoch"[:44] + "\r\n"


def test_a_display_that_cannot_be_read_says_why(client: Client) -> None:
    with Client("http://127.0.0.1:9") as absent:
        shown = absent.handle("job_" + 26 * "0")._repr_html_()
    assert "not read yet" in shown
    assert "no response from http://127.0.0.1:9" in shown


def test_jobs_and_datasets_display_themselves(client: Client, rows: Path) -> None:
    job = client.train(dataset="iris", epochs=3, name="<b>curves</b>").wait(timeout_s=120)
    shown = next(client.jobs(name="<b>curves</b>"))._repr_html_()
    assert "&lt;b&gt;curves&lt;/b&gt;" in shown
    assert "<b>" not in shown
    assert shown.count("<svg") == 2, "loss and accuracy"
    assert "train loss" in shown
    digits = client.train(dataset="mnist-10k", epochs=1, settings={"samples.count": 4}).wait(timeout_s=120)
    assert "data:image/png;base64," in digits._repr_html_()
    assert client.dataset("mnist-10k")._repr_html_().count("data:image/png;base64,") == 12
    table = client.dataset("iris")._repr_html_()
    assert all(word in table for word in ("129 training rows", "setosa", "petal_length_cm"))
    assert "probability of setosa" in job.predict([[5.1, 3.5, 1.4, 0.2]])._repr_html_()
    assert "val_accuracy" in job.history()._repr_html_()


def test_a_dataset_of_numbers_displays_its_target_with_its_range(client: Client) -> None:
    dataset = client.dataset("diabetes")
    assert repr(dataset) == (
        "<Dataset 'diabetes': 376 training rows, 66 validation rows, 10 columns, target progression>"
    )
    shown = dataset._repr_html_()
    assert "10 columns, target progression from 25 to 346" in shown
    assert ">progression</th>" in shown
    assert ">151</td>" in shown
