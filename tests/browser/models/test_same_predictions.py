"""The same predictions by page, command line, client, and fifteen lines of NumPy with the checkpoint."""

from __future__ import annotations

import base64
import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from playwright.sync_api import Page, Response, expect
from safetensors import safe_open
from safetensors.numpy import load_file

from service.cli import main
from service.local import LocalStack
from tapeline import Client
from tapeline.images.files import SENT_UNCHANGED_BYTES
from tests import coloured_shapes
from tests.browser.conftest import Finish, Visit

SIDE = 16
ROWS: list[dict[str, Any]] = [
    {"age": 41, "city": "Oslo", "since": "2024-01-05"},
    {"age": None, "city": "Bergen", "since": "2024-01-28"},
    {"age": 7.5, "city": None, "since": None},
    {"age": -3, "city": "Bodø", "since": "2023-12-31"},
]


def predict_with_numpy(checkpoint: Path, rows: list[dict[str, Any]] | None = None, levels: Any = None) -> Any:
    """Probabilities of rows by column (dates as days since 1970-01-01) or of images as levels 0 to 255."""
    w = load_file(checkpoint)
    with safe_open(checkpoint, "np") as file:
        spec, state = (json.loads(file.metadata()[name]) for name in ("spec", "state"))
    low, high = spec["dataset"]["scale"]
    x = [] if levels is None else levels.reshape(len(levels), -1) / 255 * (high - low) + low
    for column in [] if rows is None else state["preprocessing"]["columns"]:
        values = [row[column["name"]] for row in rows]
        categories = column.get("categories")
        missing = np.array([value is None if categories is None else value not in categories for value in values])
        if categories is None:
            x.append(np.array([0 if value is None else (value - column["mean"]) / column["scale"] for value in values]))
        x += (
            [] if categories is None else [np.array([value == category for value in values]) for category in categories]
        )
        x += [missing] if column["indicator"] else []
    x = np.stack(x, 1) if rows is not None else x
    for number, layer in enumerate(spec["layers"]):
        if layer.get("type", "dense") == "dense":
            x = x @ w[f"layers.{number}.weight"] + w[f"layers.{number}.bias"]
            x = np.maximum(x, 0) if layer["activation"] == "relu" else np.exp(x) / np.exp(x).sum(1, keepdims=True)
    return x


def _has_rows(rows: list[dict[str, str | None]], response: Response) -> bool:
    return response.url.endswith("/predict") and response.request.post_data_json["rows"] == rows


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.safetensors"


def upload(http: httpx.Client, name: str, table: str | bytes) -> None:
    content = table.encode() if isinstance(table, str) else table
    http.post("/datasets", data={"name": name}, files={"table": ("x.csv", content)}).raise_for_status()


def train(http: httpx.Client, finish: Finish, dataset: str, preset: str) -> dict[str, Any]:
    spec = {"kind": "classifier", "dataset": dataset, "preset": preset, "epochs": 3, "name": f"same {dataset}"}
    return finish(http.post("/jobs", json=spec).raise_for_status().json())


def train_on_shapes(http: httpx.Client, finish: Finish, name: str, folder: Path) -> dict[str, Any]:
    archive = coloured_shapes.write_archive(folder / "shapes.zip", 240, side=SIDE)
    with archive.open("rb") as file:
        http.post("/datasets", data={"name": name}, files={"archive": file}).raise_for_status()
    return train(http, finish, name, "fast")


def check_identical(page_answer: Any, cli_answer: Any, client_answer: Any) -> None:
    """All three predictions are identical to the last bit."""
    assert page_answer["probabilities"] == cli_answer["probabilities"] == client_answer["probabilities"]
    assert page_answer["classes"] == cli_answer["classes"] == client_answer["classes"]


@pytest.mark.stack
def test_a_row_has_the_same_probabilities_everywhere(
    stack_visit: Visit, stack: LocalStack, stack_http: httpx.Client, finish: Finish, tmp_path: Path, checkpoint: Path
) -> None:
    lines = [
        f"{'' if n % 9 == 4 else n % 50},{('Oslo', 'Bergen')[n % 2]},2024-01-{n % 28 + 1:02},{'ab'[n % 50 > 24]}"
        for n in range(300)
    ]
    table = "\n".join(["age,city,since,label", *lines])
    stack_http.post(
        "/datasets", data={"name": "same-rows"}, files={"table": ("x.csv", table.encode())}
    ).raise_for_status()
    job = train(stack_http, finish, "same-rows", "table")
    with Client(stack.url) as client:
        by_client = client.job(job["id"]).predict(rows=ROWS)
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in ROWS]
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["age", "city", "since"])
        writer.writeheader()
        writer.writerows(texts)
    out = tmp_path / "out.csv"
    result = CliRunner().invoke(
        main, ["--server", stack.url, "predict", job["id"], str(tmp_path / "rows.csv"), "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    with out.open(encoding="utf-8", newline="") as file:
        predictions = list(csv.DictReader(file))
    assert [row["prediction"] for row in predictions] == [
        by_client["class_names"][number] for number in by_client["classes"]
    ]
    names = by_client["class_names"]
    for row, probabilities in zip(predictions, by_client["probabilities"], strict=True):
        assert [row[f"probability of {name}"] for name in names] == [
            f"{probability:.6g}" for probability in probabilities
        ]
    page = stack_visit.open(f"/ui/play/{job['id']}")
    for row, probabilities in zip(texts, by_client["probabilities"], strict=True):
        sent: dict[str, str | None] = {}
        for name, text in row.items():
            field = page.locator(f'[data-column="{name}"]')
            tag = field.evaluate("field => field.tagName")
            if tag == "SELECT" and text == "Bodø":  # a category that is not in the training data cannot be chosen
                text = ""
            field.select_option(text) if tag == "SELECT" else field.fill(text)
            sent[name] = text or None
        # A slow page may still get the response for a half-filled row.
        with page.expect_response(partial(_has_rows, [sent])) as response:
            page.locator('[data-column="age"]').dispatch_event("input")
        assert response.value.json()["probabilities"][0] == probabilities
    checkpoint.write_bytes(stack_http.get(f"/jobs/{job['id']}/checkpoints/best").content)
    days = [row["since"] and int(np.datetime64(row["since"]).astype(int)) for row in ROWS]
    by_numpy = predict_with_numpy(checkpoint, [row | {"since": since} for row, since in zip(ROWS, days, strict=True)])
    np.testing.assert_allclose(by_numpy, by_client["probabilities"], atol=1e-6)


def test_a_jpeg_has_the_same_probabilities_everywhere(
    stack_visit: Visit, stack: LocalStack, stack_http: httpx.Client, finish: Finish, tmp_path: Path, checkpoint: Path
) -> None:
    job = train_on_shapes(stack_http, finish, "same-shapes", tmp_path)
    (_, image), *_ = coloured_shapes.iter_images(1, SIDE, seed=8)
    photo, padded = tmp_path / "photo.jpg", Image.new("RGB", (SIDE + 14, SIDE), (200, 200, 200))
    padded.paste(image, (7, 0))
    padded.save(photo, quality=90)
    with Client(stack.url) as client:
        by_client = client.job(job["id"]).predict([photo])
    command = ["--server", stack.url, "predict", job["id"], str(photo), "--json"]
    by_command = json.loads(CliRunner().invoke(main, command).stdout)
    page = stack_visit.open(f"/ui/play/{job['id']}")
    encoded = base64.b64encode(photo.read_bytes()).decode()
    with page.expect_response(lambda reply: encoded in (reply.request.post_data or "")) as response:
        page.set_input_files("#file", str(photo))
    check_identical(response.value.json(), by_command, by_client)
    checkpoint.write_bytes(stack_http.get(f"/jobs/{job['id']}/checkpoints/best").content)
    with Image.open(photo) as opened:
        by_numpy = predict_with_numpy(checkpoint, levels=np.asarray(opened)[None, :, 7:-7])
    np.testing.assert_allclose(by_numpy, by_client["probabilities"], atol=1e-6)


def test_a_large_jpeg_has_the_same_probabilities_everywhere(
    stack_visit: Visit, stack: LocalStack, stack_http: httpx.Client, finish: Finish, tmp_path: Path
) -> None:
    job = train_on_shapes(stack_http, finish, "same-large", tmp_path)
    (_, image), *_ = coloured_shapes.iter_images(1, SIDE, seed=8)
    grain = np.random.default_rng(0).integers(0, 60, (750, 1000, 3), np.uint8)
    pixels = np.asarray(image.resize((1000, 750), Image.Resampling.NEAREST)) // 2 + grain
    photo = tmp_path / "large.jpg"
    Image.fromarray(pixels).resize((4000, 3000), Image.Resampling.BICUBIC).save(photo, quality=15)
    assert 250_000 < photo.stat().st_size <= SENT_UNCHANGED_BYTES
    with Client(stack.url) as client:
        by_client = client.job(job["id"]).predict([photo])
    command = ["--server", stack.url, "predict", job["id"], str(photo), "--json"]
    by_command = json.loads(CliRunner().invoke(main, command).stdout)
    page = stack_visit.open(f"/ui/play/{job['id']}")
    with page.expect_response(lambda reply: len(reply.request.post_data or "") > 250_000) as response:
        page.set_input_files("#file", str(photo))
    check_identical(response.value.json(), by_command, by_client)


def test_a_row_starts_with_usual_values_and_an_invalid_one_has_no_bars(
    stack_visit: Visit, stack_http: httpx.Client, finish: Finish
) -> None:
    lines = [f"{n % 50},{'Oslo' if n % 3 else 'Bergen'},2024-01-{n % 28 + 1:02},{'ab'[n % 2]}" for n in range(90)]
    table = "\n".join(["age,city,since,label", *lines])
    stack_http.post(
        "/datasets", data={"name": "usual-rows"}, files={"table": ("x.csv", table.encode())}
    ).raise_for_status()
    job = train(stack_http, finish, "usual-rows", "table")
    page = stack_visit.open(f"/ui/play/{job['id']}")
    expect(page.locator("#bars .winner")).to_have_count(1)
    city = page.locator('[data-column="city"]')
    assert city.input_value() == "Oslo"  # the most frequent value, not the first one
    assert page.locator('[data-column="age"]').input_value() == "22"  # the median, a number of the data
    stack_visit.error_log.expected.append("422")
    city.select_option("")
    page.locator('[data-column="since"]').fill("tomorrow")
    expect(page.locator("#row-error")).to_have_text("since must be a date such as 2024-12-31, not 'tomorrow'.")
    assert page.locator("#bars .probability").all_inner_texts() == ["\N{EN DASH}"] * 2  # not those of an earlier row
    expect(page.locator("#bars .winner")).to_have_count(0)
    page.get_by_role("button", name="Reset to usual values").click()
    expect(page.locator("#bars .winner")).to_have_count(1)
    expect(page.locator("#row-error")).to_be_hidden()
    assert city.input_value() == "Oslo"


def test_a_file_of_rows_gets_the_same_predictions_as_on_the_command_line(
    stack_visit: Visit, stack: LocalStack, stack_http: httpx.Client, finish: Finish, tmp_path: Path
) -> None:
    lines = [f"{n % 50},5;{('Malmö', 'A; B')[n % 2]!r};{'ab'[n % 50 > 24]}".replace("'", '"') for n in range(300)]
    table = "\n".join(["age;city;label", *lines]).encode("cp1252")
    upload(stack_http, "filed-rows", table)
    job = train(stack_http, finish, "filed-rows", "table")
    rows = [f'{n % 61},25;{("Malmö", "A; B", "Ulm")[n % 3]!r};"say ""{n}"""'.replace("'", '"') for n in range(1234)]
    rows_file, predicted_file = tmp_path / "given.csv", tmp_path / "out.csv"
    rows_file.write_bytes("\r\n".join(["age;city;label", *rows, ""]).encode("cp1252"))
    command = ["--server", stack.url, "predict", job["id"], str(rows_file), "-o", str(predicted_file)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output

    page = stack_visit.open(f"/ui/play/{job['id']}")
    page.set_input_files("#rows-file", str(rows_file))
    state = page.locator("#rows-state")
    expect(state).to_contain_text("1234 rows predicted with the checkpoint of epoch")
    expect(state).to_contain_text("1 unknown category (city: Ulm) in 411 rows, treated as missing.")
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Download predictions").click()
    assert downloaded.value.suggested_filename == "given-predicted.csv"
    with (
        downloaded.value.path().open(encoding="cp1252", newline="") as by_page,
        predicted_file.open(encoding="cp1252", newline="") as by_command,
    ):
        page_rows, command_rows = (list(csv.reader(file, delimiter=";")) for file in (by_page, by_command))
    assert page_rows == command_rows
    assert len(page_rows) == 1235
    assert [row[:3] for row in page_rows[1:]] == list(csv.reader(rows, delimiter=";"))
    assert any("," in row[4] for row in page_rows[1:]), "the decimal sign of the file"

    stack_visit.error_log.expected.append("422")
    rows_file.write_text("age;city\n1;Ulm\nnone at all;Ulm\n")
    page.set_input_files("#rows-file", str(rows_file))
    expect(state).to_contain_text("Line 3: 'age' must be a number")
    expect(page.locator("#rows-result")).to_be_hidden()
    rows_file.write_text("age;city\n1;Ulm\n2\n")
    page.set_input_files("#rows-file", str(rows_file))
    expect(state).to_have_text("Line 3 has 1 field instead of 2.")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")


def _predict_on_page(page: Page, rows_file: Path, *, rows: int, delimiter: str) -> list[list[str]]:
    """Open a file of rows on the page, and return the downloaded predictions."""
    page.set_input_files("#rows-file", str(rows_file))
    expect(page.locator("#rows-state")).to_contain_text(f"{rows} rows predicted with the checkpoint of epoch")
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="Download predictions").click()
    with downloaded.value.path().open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_page_and_command_line_read_the_same_files_of_rows(
    stack_visit: Visit, stack: LocalStack, stack_http: httpx.Client, finish: Finish, tmp_path: Path
) -> None:
    """Declared, trailing and quoted delimiters; nameless and unknown columns, and names that are in use."""
    lines = [f"{n % 50}.5;{n % 7};{('Oslo', 'Bergen')[n % 2]};{'ab'[n % 50 > 24]}" for n in range(300)]
    table = "\n".join(["age;;city;label", *lines])
    upload(stack_http, "odd-rows", table)
    job = train(stack_http, finish, "odd-rows", "table")
    rows_file, predicted_file = tmp_path / "given.csv", tmp_path / "out.csv"
    page = stack_visit.open(f"/ui/play/{job['id']}")
    state = page.locator("#rows-state")
    for prefix, delimiter, trailing in (("", ";", ";;"), ("sep=;\r\n", ";", ";"), ("\r\n", ",", "")):
        quoted = delimiter if trailing else "|"
        rows = [f'{n}.25;{n % 5};Oslo;"p|q";mine{trailing if n % 2 else ""}' for n in range(60)]
        lines = ['age;;city;"a|b";prediction', *rows, ""]
        text = "\r\n".join(lines).replace(";", delimiter).replace("|", quoted)
        rows_file.write_text(prefix + text, newline="")
        command = ["--server", stack.url, "predict", job["id"], str(rows_file), "-o", str(predicted_file)]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        page_rows = _predict_on_page(page, rows_file, rows=60, delimiter=delimiter)
        with predicted_file.open(encoding="utf-8", newline="") as file:
            command_rows = list(csv.reader(file, delimiter=delimiter))
        assert page_rows == command_rows
        assert page_rows[0][:6] == ["age", "column_2", "city", f"a{quoted}b", "prediction", "prediction (2)"]
    repeated = _predict_on_page(page, predicted_file, rows=60, delimiter=",")
    assert [row[:9] for row in repeated] == command_rows
    assert repeated[0][9:] == [
        f"{name} (3)" for name in ("prediction", "probability", *("probability of " + c for c in "ab"))
    ]
    assert [list(map(float, row[10:])) for row in repeated[1:]] == [
        list(map(float, row[6:])) for row in command_rows[1:]
    ]

    stack_visit.error_log.expected.append("422")
    rows_file.write_text("age;City\n1;Oslo\n")
    page.set_input_files("#rows-file", str(rows_file))
    expect(state).to_have_text("Column 'City' is unknown; did you mean 'city'? Rename it, or remove it.")


def test_page_and_command_line_read_numbers_in_the_notation_of_the_file(
    stack_visit: Visit, stack: LocalStack, stack_http: httpx.Client, finish: Finish, tmp_path: Path
) -> None:
    """If another column has a decimal point, 1.234 is not the 1234 that it was in training."""
    lines = [f"{n % 9 + 1}.{n:03},25;{n % 7};{'ab'[n % 9 > 4]}" for n in range(90)]
    table = "\n".join(["price;size;label", *lines])
    upload(stack_http, "price-rows", table)
    job = train(stack_http, finish, "price-rows", "table")
    rows_file, predicted_file = tmp_path / "given.csv", tmp_path / "out.csv"
    page = stack_visit.open(f"/ui/play/{job['id']}")
    command = ["--server", stack.url, "predict", job["id"], str(rows_file), "-o", str(predicted_file)]
    for text, note in (("1.234;7\n2.000;5\n", ""), ("1.234;7\n2.000;0.5\n", "column 'price': 1.234 is read as 1.234")):
        rows_file.write_text(f"price;size\n{text}")
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0
        assert note in result.stderr
        with predicted_file.open(encoding="utf-8", newline="") as file:
            command_rows = list(csv.reader(file, delimiter=";"))
        assert _predict_on_page(page, rows_file, rows=2, delimiter=";") == command_rows
        expect(page.locator("#rows-state")).to_contain_text(note.capitalize())
