"""Numbers with thousands separators and percent signs: imported as intended, and the same in predictions."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.datasets.tables.detection import ColumnScan, ColumnType
from service.datasets.tables.rows import named_row, read_rows
from tapeline.inputs.values import as_rows
from tests.service.datasets.tables.test_importing import read

NOTATIONS = [(".", ","), (".", " "), (".", "'"), (".", "\u2019"), (",", "."), (",", " "), (",", "\u202f"), (",", "'")]


def formatted(value: float, decimal: str, group: str) -> str:
    """Format the value as a spreadsheet does."""
    return f"{value:,.2f}".translate({ord(","): group, ord("."): decimal})


def scan_column(texts: list[str], *, decimal_comma: bool, wanted: ColumnType | None = None, block: int = 3) -> Any:
    """Return a column's description, or the reason why it is ignored, and its values."""
    scan = ColumnScan("price", wanted, decimal_comma=decimal_comma)
    blocks = [texts[start : start + block] for start in range(0, len(texts), block)]
    for part in blocks:
        scan.add(part)
    description = scan.describe()
    if isinstance(description, str):
        return description, []
    return description, np.concatenate([scan.values(part, description) for part in blocks]).tolist()


@given(
    cents=st.lists(st.integers(-(10**12), 10**12), min_size=2, max_size=12, unique=True),
    notation=st.sampled_from(NOTATIONS),
    percent=st.sampled_from(["", "%", " %"]),
    decimal_comma=st.booleans(),
    missing=st.integers(0, 12),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_numbers_round_trip_in_every_notation(
    cents: list[int], notation: tuple[str, str], percent: str, decimal_comma: bool, missing: int
) -> None:
    values = [123456.5, *(number / 100 for number in cents)]  # the first has both separators
    texts = [formatted(value, *notation) + percent for value in values]
    texts.insert(missing, "n/a".upper())
    description, read_back = scan_column(texts, decimal_comma=decimal_comma)
    assert description["type"] == "number"
    assert [value for value in read_back if not np.isnan(value)] == values
    assert (description["min"], description["max"]) == (min(values), max(values))
    rows = read_rows([{"price": text} for text in texts], [description], ignored=())
    assert not rows.faults
    np.testing.assert_array_equal(rows.inputs[:, 0], read_back)
    from_numbers = read_rows([{"price": value} for value in values], [description], ignored=())
    assert from_numbers.inputs[:, 0].tolist() == values


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
def test_ambiguous_numbers_are_decimals_unless_another_value_shows_grouping(
    texts: list[str], decimal_comma: bool, expected: list[float]
) -> None:
    description, values = scan_column(texts, decimal_comma=decimal_comma)
    assert description["type"] == "number"
    assert values == expected


@pytest.mark.parametrize(
    "texts", [["1,234", "5,678"], ["1,5", "2,5"], ["50%", "60"], ["1.234,5", "1,234.5"], ["12,34,567", "1"]]
)
def test_texts_in_ambiguous_notations_stay_categories(texts: list[str]) -> None:
    description, _ = scan_column(texts, decimal_comma=False)
    assert description["categories"] == sorted(texts)


def test_the_type_number_makes_an_ambiguous_comma_a_thousands_separator() -> None:
    description, values = scan_column(["1,234", "5,678"], decimal_comma=False, wanted=ColumnType.NUMBER)
    assert values == [1234, 5678]
    assert description["group"] == ","


def test_a_german_price_list_is_imported_completely(tmp_path: Path) -> None:
    prices = [round(1000 + 37.45 * n, 2) for n in range(120)]
    lines = (
        f"{formatted(price, ',', '.')};{n % 100},{n % 10}%;{'ja' if n % 2 else 'nein'}\n"
        for n, price in enumerate(prices)
    )
    data = ("Preis;Anteil;Status\n" + "".join(lines)).encode("cp1252")
    for types in ({}, {"Preis": "number"}):
        imported = read(tmp_path, data, types=types)
        assert imported.report["ignored"] == []
        assert sorted(imported.inputs[:, 0].tolist()) == prices
        assert imported.columns["Anteil"]["percent"] is True
        assert "column 'Preis': 1.000,00 was read as the number 1000" in imported.report["notes"]


def test_an_almost_numeric_column_names_the_offending_text(tmp_path: Path) -> None:
    rows = "".join(f"{formatted(1000 + n, ',', '.')};{n};{'ab'[n % 2]}\n" for n in range(50))
    imported = read(tmp_path, "Preis;x;label\n" + "auf Anfrage;7;a\n" + rows)
    assert imported.report["ignored"][0] == {
        "name": "Preis",
        "reason": "has 51 different texts in 51 rows; most look like numbers, but 'auf Anfrage' is none: "
        "empty such cells, or set the type number, which rejects their rows",
    }


@pytest.mark.parametrize(
    ("date_format", "example"),
    [("iso", "2024-12-31"), ("%d.%m.%Y", "31.12.2024 or 2024-12-31"), ("%m/%d/%Y", "12/31/2024 or 2024-12-31")],
)
def test_an_invalid_date_is_rejected_with_an_example(date_format: str, example: str) -> None:
    column = {"name": "since", "type": "date", "format": date_format}
    (fault,) = read_rows([{"since": "tomorrow"}], [column], ignored=()).faults
    assert fault[2] == f"must be a date such as {example}, not 'tomorrow'"


@pytest.mark.parametrize("date_format", ["iso", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y"])
@pytest.mark.parametrize(
    "moment",
    [
        date(2024, 2, 3),
        datetime(2024, 2, 3, tzinfo=UTC),
        np.datetime64("2024-02-03"),
        np.datetime64("2024-02-03", "ns"),
    ],
)
def test_iso_dates_are_accepted_in_every_date_column(date_format: str, moment: Any) -> None:
    column = {"name": "since", "type": "date", "format": date_format}
    (sent,) = as_rows([{"since": moment}])
    prediction_rows = read_rows([sent], [column], ignored=())
    assert prediction_rows.faults == []
    assert prediction_rows.inputs.tolist() == [[19756]]
    assert named_row(prediction_rows.inputs[0], [column]) == {"since": "2024-02-03"}  # so a named row can be sent again


@pytest.mark.parametrize("date_format", ["iso", "%Y/%m/%d", "%d.%m.%Y"])
@pytest.mark.parametrize("text", ["03/04/2024", "3-4-2024", "2024-02", "20240203"])
def test_dates_in_other_notations_are_not_guessed(date_format: str, text: str) -> None:
    assert read_rows([{"since": text}], [{"name": "since", "type": "date", "format": date_format}], ignored=()).faults


def test_a_time_column_rejects_dates() -> None:
    column = {"name": "at", "type": "date", "format": "time"}
    assert read_rows([{"at": "2024-02-03"}], [column], ignored=()).faults
    assert named_row(np.array([0.5]), [column]) == {"at": "12:00"}


@pytest.mark.parametrize("missing", ["NA ", "- ", " N/A", "NA"])
def test_a_missing_value_is_not_quoted_as_a_number_even_with_a_blank(tmp_path: Path, missing: str) -> None:
    rows = "".join(f"{formatted(1000 + 7.15 * n, '.', ',')};{'ab'[n % 2]}\n" for n in range(1, 21))
    imported = read(tmp_path, f"price;label\n{missing};a\n{rows}")
    assert imported.columns["price"]["missing"] == 1
    assert "column 'price': 1,007.15 was read as the number 1007.15" in imported.report["notes"]


def test_a_number_grouped_by_points_is_noted_as_written_and_as_read(tmp_path: Path) -> None:
    rows = "".join(f"192.168.{100 + n}.200;{'ab'[n % 2]}\n" for n in range(20))
    imported = read(tmp_path, f"host;label\n{rows}")
    assert "column 'host': 192.168.100.200 was read as the number 192168100200" in imported.report["notes"]
