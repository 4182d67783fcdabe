"""A table as a German spreadsheet program writes it, from upload to predictions that the program can open."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
HEADER = "Größe;Preis;Quote;Stadt;Status"
CITIES = ("Köln", "Bonn", "Köln")


def line(number: int) -> str:
    price = f"{1000 + 37.45 * number:,.2f}".translate({ord(","): ".", ord("."): ","})
    return f"{number % 7},5;{price};{number % 10},5%;{CITIES[number % 3]};{'gekündigt' if number % 2 else 'aktiv'}"


@pytest.fixture
def trained(run: Run) -> str:
    Path("kunden.csv").write_bytes("\n".join([HEADER, *map(line, range(120))]).encode("cp1252"))
    result = run("upload", "kunden", "kunden.csv")
    assert "column 'Preis': 1.000,00 was read as the number 1000" in result.output, result.output
    spec = json.dumps({"kind": "classifier", "name": "kunden", "dataset": "kunden", "epochs": 2})
    assert run("train", "-", "--watch", spec=spec).exit_code == 0
    return "kunden"


def test_predictions_have_the_format_of_the_input(run: Run, trained: str) -> None:
    rows = [line(3), line(4), line(4).replace("Bonn", "Wien")]
    Path("neu.csv").write_bytes("\n".join([HEADER, *rows]).encode("cp1252"))
    result = run("predict", trained, "neu.csv", "-o", "out.csv")
    assert result.exit_code == 0, result.output
    assert result.stderr == "1 unknown category (Stadt: Wien), treated as missing\n"
    text = Path("out.csv").read_bytes().decode("cp1252")
    assert '"' not in text
    assert text.startswith(f"{HEADER};prediction;")
    written = list(csv.DictReader(text.splitlines(), delimiter=";"))
    assert [";".join(list(row.values())[:5]) for row in written] == rows
    for row in written:
        probabilities = [float(row[f"probability of {name}"].replace(",", ".")) for name in ("aktiv", "gekündigt")]
        assert "." not in row["probability"]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] in ("aktiv", "gekündigt")
    refused = run("generate", trained)
    assert refused.stderr == "tapeline: kunden is a classifier; use: tapeline predict kunden FILE\n"
