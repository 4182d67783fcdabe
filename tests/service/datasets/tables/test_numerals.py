"""Numbers with thousands separators and percent signs: imported as they were meant, and read alike in predictions."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.client.inputs.values import as_rows
from service.datasets.tables.detection import ColumnScan, ColumnType
from service.datasets.tables.rows import named_row, read_rows
from tests.service.datasets.tables.test_importing import read

NOTATIONS = [(".", ","), (".", " "), (".", "'"), (".", "\u2019"), (",", "."), (",", " "), (",", "\u202f"), (",", "'")]


def written(value: float, decimal: str, group: str) -> str:
    """As a spreadsheet writes it."""
    return f"{value:,.2f}".translate({ord(","): group, ord("."): decimal})


def scanned(texts: list[str], *, decimal_comma: bool, wanted: ColumnType | None = None, block: int = 3) -> Any:
    """The description of a column, or why it is left out, and its values."""
    scan = ColumnScan("price", wanted, decimal_comma=decimal_comma)
    blocks = [texts[start : start + block] for start in range(0, len(texts), block)]
    for part in blocks:
        scan.add(part)
    about = scan.describe()
    if isinstance(about, str):
        return about, []
    return about, np.concatenate([scan.values(part, about) for part in blocks]).tolist()


@given(
    cents=st.lists(st.integers(-(10**12), 10**12), min_size=2, max_size=12, unique=True),
    notation=st.sampled_from(NOTATIONS),
    percent=st.sampled_from(["", "%", " %"]),
    decimal_comma=st.booleans(),
    missing=st.integers(0, 12),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_numbers_come_back_in_every_notation(
    cents: list[int], notation: tuple[str, str], percent: str, decimal_comma: bool, missing: int
) -> None:
    values = [123456.5, *(number / 100 for number in cents)]  # the first one has both signs
    texts = [written(value, *notation) + percent for value in values]
    texts.insert(missing, "n/a".upper())
    about, found = scanned(texts, decimal_comma=decimal_comma)
    assert about["type"] == "number"
    assert [value for value in found if not np.isnan(value)] == values
    assert (about["min"], about["max"]) == (min(values), max(values))
    rows = read_rows([{"price": text} for text in texts], [about], ignored=())
    assert not rows.faults
    np.testing.assert_array_equal(rows.inputs[:, 0], found)
    told = read_rows([{"price": value} for value in values], [about], ignored=())
    assert told.inputs[:, 0].tolist() == values


@pytest.mark.parametrize(
    ("texts", "decimal_comma", "expected"),
    [
        (["1.234", "5.678", "9.5"], True, [1.234, 5.678, 9.5]),
        (["1.234", "5.678"], True, [1.234, 5.678]),
        (["1,234", "5,678"], True, [1.234, 5.678]),
        (["1.234", "2.345.678"], True, [1234, 2345678]),
        (["1,234", "2,345,678"], False, [1234, 2345678]),
        (["0,123", "1.234,5"], True, [0.123, 1234.5]),
        (["91,6%", "7%", "100 %"], True, [91.6, 7, 100]),
        (["91,600%", "7%"], True, [91.6, 7]),
        (["91.600%", "7%"], True, [91.6, 7]),
        (["1 000", "12 345"], False, [1000, 12345]),
        (["1.234", "5.678", "7", "1.234,5"], True, [1234, 5678, 7, 1234.5]),
    ],
)
def test_ambiguous_columns_keep_the_plain_reading(texts: list[str], decimal_comma: bool, expected: list[float]) -> None:
    about, found = scanned(texts, decimal_comma=decimal_comma)
    assert about["type"] == "number"
    assert found == expected


@pytest.mark.parametrize(
    "texts", [["1,234", "5,678"], ["1,5", "2,5"], ["50%", "60"], ["1.234,5", "1,234.5"], ["12,34,567", "1"]]
)
def test_texts_that_may_be_something_else_stay_categories(texts: list[str]) -> None:
    about, _ = scanned(texts, decimal_comma=False)
    assert about["categories"] == sorted(texts)


def test_a_person_may_say_that_a_comma_separates_thousands() -> None:
    about, found = scanned(["1,234", "5,678"], decimal_comma=False, wanted=ColumnType.NUMBER)
    assert found == [1234, 5678]
    assert about["group"] == ","


def test_a_german_price_list_is_read_whole(tmp_path: Path) -> None:
    prices = [round(1000 + 37.45 * n, 2) for n in range(120)]
    lines = (
        f"{written(price, ',', '.')};{n % 100},{n % 10}%;{'ja' if n % 2 else 'nein'}\n"
        for n, price in enumerate(prices)
    )
    data = ("Preis;Anteil;Status\n" + "".join(lines)).encode("cp1252")
    for types in ({}, {"Preis": "number"}):
        found = read(tmp_path, data, types=types)
        assert found.report["ignored"] == []
        assert sorted(found.inputs[:, 0].tolist()) == prices
        assert found.columns["Anteil"]["percent"] is True
        assert "column 'Preis': 1.000,00 was read as the number 1000" in found.report["notes"]


def test_a_column_that_is_nearly_numbers_says_which_text_is_none(tmp_path: Path) -> None:
    rows = "".join(f"{written(1000 + n, ',', '.')};{n};{'ab'[n % 2]}\n" for n in range(50))
    found = read(tmp_path, "Preis;x;label\n" + "auf Anfrage;7;a\n" + rows)
    assert found.report["ignored"][0] == {
        "name": "Preis",
        "reason": "has 51 different texts in 51 rows; most look like numbers, but 'auf Anfrage' is none: "
        "empty such cells, or set the type number, which rejects their rows",
    }


@pytest.mark.parametrize(
    ("form", "example"),
    [("iso", "2024-12-31"), ("%d.%m.%Y", "31.12.2024 or 2024-12-31"), ("%m/%d/%Y", "12/31/2024 or 2024-12-31")],
)
def test_a_wrong_date_is_explained_by_an_example(form: str, example: str) -> None:
    column = {"name": "since", "type": "date", "format": form}
    (fault,) = read_rows([{"since": "tomorrow"}], [column], ignored=()).faults
    assert fault[2] == f"must be a date such as {example}, not 'tomorrow'"


@pytest.mark.parametrize("form", ["iso", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y"])
@pytest.mark.parametrize(
    "moment",
    [
        date(2024, 2, 3),
        datetime(2024, 2, 3, tzinfo=UTC),
        np.datetime64("2024-02-03"),
        np.datetime64("2024-02-03", "ns"),
    ],
)
def test_iso_dates_are_read_in_every_column_of_dates(form: str, moment: Any) -> None:
    column = {"name": "since", "type": "date", "format": form}
    (sent,) = as_rows([{"since": moment}])
    asked = read_rows([sent], [column], ignored=())
    assert asked.faults == []
    assert asked.inputs.tolist() == [[19756]]
    assert named_row(asked.inputs[0], [column]) == {"since": "2024-02-03"}  # and rows can be sent back


@pytest.mark.parametrize("form", ["iso", "%Y/%m/%d", "%d.%m.%Y"])
@pytest.mark.parametrize("text", ["03/04/2024", "3-4-2024", "2024-02", "20240203"])
def test_dates_in_other_notations_are_not_guessed(form: str, text: str) -> None:
    assert read_rows([{"since": text}], [{"name": "since", "type": "date", "format": form}], ignored=()).faults


def test_times_of_day_are_no_dates() -> None:
    column = {"name": "at", "type": "date", "format": "time"}
    assert read_rows([{"at": "2024-02-03"}], [column], ignored=()).faults
    assert named_row(np.array([0.5]), [column]) == {"at": "12:00"}


@pytest.mark.parametrize("missing", ["NA ", "- ", " N/A", "NA"])
def test_a_blank_beside_a_missing_value_is_no_number_to_show(tmp_path: Path, missing: str) -> None:
    rows = "".join(f"{written(1000 + 7.15 * n, '.', ',')};{'ab'[n % 2]}\n" for n in range(1, 21))
    found = read(tmp_path, f"price;label\n{missing};a\n{rows}")
    assert found.columns["price"]["missing"] == 1
    assert "column 'price': 1,007.15 was read as the number 1007.15" in found.report["notes"]


def test_numbers_with_points_only_are_shown_as_they_were_read(tmp_path: Path) -> None:
    rows = "".join(f"192.168.{100 + n}.200;{'ab'[n % 2]}\n" for n in range(20))
    found = read(tmp_path, f"host;label\n{rows}")
    assert "column 'host': 192.168.100.200 was read as the number 192168100200" in found.report["notes"]
