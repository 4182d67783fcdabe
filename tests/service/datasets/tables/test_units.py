"""Amounts of money, times of day and infinite numbers: read the same in columns and in predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.datasets.exploration import statistics
from service.datasets.tables.detection import ColumnType
from service.datasets.tables.preprocessing import Preprocessing
from service.datasets.tables.rows import named_row, read_rows
from tests.service.datasets.tables.test_importing import read, refusal
from tests.service.datasets.tables.test_numerals import NOTATIONS, formatted, scan_column


@given(
    cents=st.lists(st.integers(-(10**9), 10**9), min_size=2, max_size=6, unique=True),
    notation=st.sampled_from(NOTATIONS),
    sign=st.sampled_from(["$", "€", "£", "¥"]),
    place=st.sampled_from(["before", "behind", "between"]),
    space=st.sampled_from(["", " ", "\u00a0"]),
)
@settings(deadline=None, max_examples=60)
def test_amounts_round_trip(cents: list[int], notation: tuple[str, str], sign: str, place: str, space: str) -> None:
    values = [123456.5, *(number / 100 for number in cents)]

    def amount(value: float) -> str:
        text = formatted(value, *notation)
        if place == "between" and value < 0:
            return f"-{sign}{space}{text.removeprefix('-')}"
        return f"{text}{space}{sign}" if place == "behind" else f"{sign}{space}{text}"

    texts = [amount(value) for value in values]
    description, read_back = scan_column([*texts, "N/A"], decimal_comma=False)
    assert (description["type"], description["currency"], description["missing"]) == ("number", sign, 1)
    assert read_back[:-1] == values
    [fitted] = Preprocessing.fit([description], np.array([read_back]).T).document()["columns"]
    rows = read_rows([{"price": text} for text in texts] + [{"price": 5}, {"price": "7.5"}], [fitted], ignored=())
    assert rows.inputs[:-2, 0].tolist() == values
    assert rows.inputs[-2, 0] == 5
    other_currency = read_rows([{"price": "$5" if sign == "€" else "€5"}], [fitted], ignored=())
    assert "must be a number" in other_currency.faults[0][2]


@pytest.mark.parametrize(
    ("texts", "decimal_comma", "expected"),
    [
        (["$1,234", "$5,678"], False, [1234, 5678]),
        (["$1,234", "$5,678"], True, [1.234, 5.678]),
        (["1,50 €", "2,25 €"], False, [1.5, 2.25]),
        (["$-5", "-$6"], False, [-5, -6]),
    ],
)
def test_amounts_are_read_in_their_local_notation(texts: list[str], decimal_comma: bool, expected: list[float]) -> None:
    description, values = scan_column(texts, decimal_comma=decimal_comma)
    assert (description["type"], values) == ("number", expected)


@pytest.mark.parametrize("texts", [["$5", "€6"], ["$5", "6"], ["€1,234", "€5,678"], ["-$-5", "$6"], ["$5$", "$6"]])
def test_ambiguous_or_malformed_amounts_stay_categories(texts: list[str]) -> None:
    description, _ = scan_column(texts, decimal_comma=False)
    assert description["categories"] == sorted(texts)


def test_prices_and_times_become_numeric_inputs(tmp_path: Path) -> None:
    rows = (f'"$1,{n:03}.50",{n % 24}:{n % 60:02},{"ab"[n % 2]}\n' for n in range(120))
    imported = read(tmp_path, "price,at,label\n" + "".join(rows), sandbox=True)
    assert imported.report["ignored"] == []
    assert sorted(imported.inputs[:, 0].tolist()) == [1000.5 + n for n in range(120)]
    assert imported.report["notes"] == ["column 'price': $1,000.50 was read as the number 1000.5"]
    assert (imported.columns["at"]["type"], imported.columns["at"]["format"]) == ("date", "time")
    assert sorted(imported.inputs[:, 1].tolist()) == sorted((60 * (n % 24) + n % 60) / 1440 for n in range(120))
    column_statistics = statistics([imported.inputs], imported.dataset.columns or ()).columns[1]
    assert (column_statistics.low, column_statistics.high) == ("00:00", "23:59")


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["14:30", "9:05", "00:00"], ["14:30", "09:05", "00:00"]),
        (["14:30:15", "23:59:59.25", "N/A"], ["14:30:15", "23:59:59", None]),
        (["14:30:15", "23:59:59.9999"], ["14:30:15", "23:59:59"]),
        (["2:30 PM", "12:00 am", "12:15p.m."], ["14:30", "00:00", "12:15"]),
    ],
)
def test_times_of_day_are_read_the_same_in_predictions(texts: list[str], shown: list[str | None]) -> None:
    description, values = scan_column(texts, decimal_comma=False)
    assert description["format"] == "time"
    rows = read_rows([{"price": text} for text in texts], [description], ignored=())
    np.testing.assert_array_equal(rows.inputs[:, 0], values)
    assert [named_row(row, [description])["price"] for row in rows.inputs] == shown
    (fault,) = read_rows([{"price": "25:00"}], [description], ignored=()).faults
    assert fault[2] == "must be a time of day such as 14:30, not '25:00'"


@pytest.mark.parametrize("texts", [["14:30", "25:00"], ["14:60", "1:00"], ["0:30 pm", "1:00"], ["14:30 pm", "1:00"]])
def test_invalid_times_of_day_stay_categories(texts: list[str]) -> None:
    assert scan_column(texts, decimal_comma=False)[0]["categories"] == sorted(texts)


@pytest.mark.parametrize("word", ["inf", "-inf", "Infinity", "+INF"])
def test_infinite_numbers_count_as_missing_and_are_noted(tmp_path: Path, word: str) -> None:
    rows = (f"{word if n % 10 == 9 else n % 7},{n % 5},{'ab'[n % 2]}\n" for n in range(100))
    imported = read(tmp_path, "x,y,label\n" + "".join(rows))
    assert (imported.columns["x"]["type"], imported.columns["x"]["missing"]) == ("number", 10)
    assert (imported.columns["x"]["min"], imported.columns["x"]["max"]) == (0, 6)
    assert np.isnan(imported.inputs[:, 0]).sum() == 10
    assert imported.report["notes"] == ["column 'x': infinite numbers count as missing, in 10 rows"]
    prediction_rows = read_rows([{"x": word, "y": 1}], imported.dataset.columns or (), ignored=())
    assert not prediction_rows.faults
    assert np.isnan(prediction_rows.inputs[0, 0])


def test_a_word_for_infinity_is_text_in_a_column_of_texts(tmp_path: Path) -> None:
    description, values = scan_column(["1", "inf", "2", "NA", "fin", "3"], decimal_comma=False)
    assert (description["categories"], description["missing"]) == (["1", "2", "3", "fin", "inf"], 1)
    assert values[1] == 4
    description, _ = scan_column(["inf", "inf", "2024-01-01", "2024-01-02"], decimal_comma=False, block=2)
    assert description["type"] == "category"
    assert scan_column(["inf", "NA"], decimal_comma=False)[0] == "has no values"
    assert "has no values" in refusal(tmp_path, "x,label\n" + "inf,a\ninf,b\n" * 30)
    forced, _ = scan_column(["inf", "7"], decimal_comma=False, wanted=ColumnType.NUMBER)
    assert (forced["min"], forced["max"], forced["missing"]) == (7, 7, 1)


def test_an_almost_numeric_category_is_noted(tmp_path: Path) -> None:
    rows = (f"{'old' if n == 5 else n % 7},{n % 5},{'ab'[n % 2]}\n" for n in range(100))
    imported = read(tmp_path, "x,y,label\n" + "".join(rows))
    assert imported.columns["x"]["type"] == "category"
    [note] = imported.report["notes"]
    assert note == (
        "column 'x': its values are categories; most look like numbers, but 'old' is none: "
        "empty such cells, or set the type number, which rejects their rows"
    )
