"""The first lines of tables: a stated delimiter, missing column names, a missing header."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.datasets.formats.delimited import open_delimited
from service.datasets.tables.rows import read_rows
from tests.service.datasets.tables.test_importing import read, refusal

ROWS = [(f"{n % 7},{n % 5}", ("Oslo", "Bergen")[n % 2], "abc"[n % 3]) for n in range(60)]
SEMICOLONS = "size;city;label\n" + "".join(f"{';'.join(row)}\n" for row in ROWS)


DELIMITER_CASES = {
    "a bar in a quoted name": ('x;"a|b";y\n1;"c|d";2\n', ";"),
    "more bars than columns in quotes": ('x;"a|b|c|d"\n1;"e|f|g|h"\n', ";"),
    "commas in quotes in all rows but few": ('n;"city, state";y\n1;"Bergen, NO";2\n2;Oslo;3\n', ";"),
    "doubled quotation marks": ('x;"say ""a|b"", c|d";y\n1;"e|""|f";2\n', ";"),
    "a quoted line break": ('x,"a;b\nc;d;e"\n1,"f;g\n\n;h"\n', ","),
    "spaces before a quotation mark": ('x, "a|b|c",y\n1,  "d|e|f",2\n', ","),
    "CRLF": ('x;"a,b,c"\r\n\r\n1;"d,e,f"\r\n', ";"),
    "CR": ('x;"a,b,c"\r1;"d,e,f"\r', ";"),
    "quotation marks inside a text": ('name|say\nAnn|He said, "a|b" and left, again\nBo|no, never\nCy|ok, fine\n', "|"),
    "inches": ('size;5" x\n7" ;8"\n1,5;2,5\n', ";"),
    "a quotation mark that is never closed": ('x;y\n1;2\n3;4\n5;"6,7,8\n9,9,9\n', ";"),
    "lines of spaces and tabs": ("x;y\n   \n1;2\n\t\n3;4\n", ";"),
    "equal shares": ("a,b;c;d\n1,2;3;4\n5,6;7;8\n", ";"),
    "two rows of ninety": ("a;b,c,d\n" + "1;2,3,4\n" * 88 + "1;2\n", ";"),
    "the most common width": ("a,b;c\n1;2\n3;4\n5;6\n", ";"),
    "one column": ('"a;b"\n"c;d"\n', ","),
    "tabs": ('a\t"b,c,d"\n1\t"2,3,4"\n', "\t"),
    "a cut last line": ("a,b;c\n" + f"1,2;{'x' * 2**16},\n", ","),
    "long names of two bytes": (f"{'é' * 40_000};b\n1;2,5\n", ";"),
    "more rows in quotes than lines are sampled": ('x;"' + "a,b,c\n" * 150 + '"\n' + "1;2\n" * 9, ";"),
}
"""Beginnings of tables and their delimiters. The page and the service must detect the same one."""


@pytest.mark.parametrize(("text", "delimiter"), DELIMITER_CASES.values(), ids=DELIMITER_CASES)
def test_the_delimiter_is_detected_outside_quotation_marks(tmp_path: Path, text: str, delimiter: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode())
    assert open_delimited(path, max_bytes=2**20).delimiter == delimiter


@pytest.mark.timeout(20)
@pytest.mark.parametrize("fragment", [',"', ',"x', ',"x""', ',"""', '"', '""', ', "a" b', ',   "a"', "\n ", '"a",   x'])
def test_delimiter_detection_takes_linear_time(tmp_path: Path, fragment: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"a;b\n{fragment * 70_000}", newline="")
    assert open_delimited(path, max_bytes=2**20).header


@pytest.mark.parametrize(
    "data",
    [
        f"sep=;\n{SEMICOLONS}".encode(),
        codecs.BOM_UTF8 + f"sep=;\n{SEMICOLONS}".replace("\n", "\r\n").encode(),
        f'"sep=;"\n{SEMICOLONS}'.encode("utf-16"),
        f"SEP=;\n{SEMICOLONS}".replace("Oslo", "Bodø").encode("cp1252"),
        f"sep=;\n{SEMICOLONS}".replace("\n", "\r").encode(),
        gzip.compress(f"sep=;\n\n{SEMICOLONS}".encode()),
        f"sep=\t\n{SEMICOLONS}".replace(";", "\t").encode(),
        f"sep=|\n{SEMICOLONS}".replace(";", "|").encode(),
    ],
)
def test_a_leading_sep_line_states_the_delimiter(tmp_path: Path, data: bytes) -> None:
    imported = read(tmp_path, data)
    assert list(imported.columns) == ["size", "city"]
    assert imported.report["rejected_count"] == 0
    np.testing.assert_array_equal(imported.inputs[:, 0], read(tmp_path, SEMICOLONS).inputs[:, 0])


def test_line_numbers_include_the_sep_line(tmp_path: Path) -> None:
    imported = read(tmp_path, f"sep=;\n{SEMICOLONS}1;2\n")
    assert imported.report["rejected"] == [{"line": 63, "reason": "has 2 fields instead of 3"}]
    assert "line 64 opens a quotation mark" in refusal(tmp_path, f'sep=;\n{SEMICOLONS}1;2;a\n"1;2;a\n')
    assert "has a header, but no rows" in refusal(tmp_path, "sep=;\nsize;label\n")
    assert "only one column" in refusal(tmp_path, "sep=;\n")


@pytest.mark.parametrize("count", [1, 3])
def test_trailing_delimiters_on_every_line_do_not_become_the_target(tmp_path: Path, count: int) -> None:
    imported = read(tmp_path, SEMICOLONS.replace("\n", ";" * count + "\n"))
    assert (imported.report["target"], list(imported.columns)) == ("label", ["size", "city"])
    reason = "has no name and no values: the lines end with a delimiter"
    assert imported.report["ignored"] == [{"name": f"column_{n + 4}", "reason": reason} for n in range(count)]
    filled = SEMICOLONS.replace("label\n", "label;\n").replace("a\n", "a;x\n").replace("b\n", "b;y\n")
    assert read(tmp_path, filled.replace("c\n", "c;\n")).report["target"] == "column_4"
    assert "no value in any row" in refusal(tmp_path, SEMICOLONS.replace("\n", ";\n"), target="column_4")
    assert "no column with values" in refusal(tmp_path, ";;\n;;\n")
    with_split = read(tmp_path, SEMICOLONS.replace("label\n", "label;part;\n").replace("a\n", "a;train;\n")
                   .replace("b\n", "b;train;\n").replace("c\n", "c;train;\n"), split="part")  # fmt: skip
    assert with_split.report["target"] == "label"


@pytest.mark.parametrize("trailing", [";", ";; "])
def test_trailing_delimiters_on_rows_only_are_skipped(tmp_path: Path, trailing: str) -> None:
    header, rows = SEMICOLONS.split("\n", 1)
    imported = read(tmp_path, f"{header}\n" + rows.replace("\n", f"{trailing}\n") + "1;2;a;;x\n1;2;;\n")
    assert imported.report["rejected"] == [
        {"line": 62, "reason": "has 5 fields instead of 3"},
        {"line": 63, "reason": "has no target value"},
    ]
    np.testing.assert_array_equal(imported.inputs, read(tmp_path, SEMICOLONS).inputs)


def test_prediction_rows_have_the_column_names_of_the_import(tmp_path: Path) -> None:
    """As pandas writes a table with its index: a column without a name in the header."""
    data = ",size,label,\n" + "".join(f"{n},{n % 7},{'ab'[n % 2]},\n" for n in range(60))
    imported = read(tmp_path, data)
    path = tmp_path / "rows.csv"
    path.write_text(",size,\n1,5,\n")
    table = open_delimited(path, max_bytes=1000).check()
    rows = [dict(zip(table.header, fields, strict=True)) for _, fields in table.rows()]
    ignored = {column["name"] for column in imported.report["ignored"]}
    assert rows == [{"column_1": "1", "size": "5", "column_3": ""}]
    prediction_rows = read_rows(rows, imported.dataset.columns or (), ignored={*ignored, "column_3"})
    assert not prediction_rows.faults
    assert prediction_rows.inputs.tolist() == [[5.0]]


def make_table(header: str, cells: Callable[[int], str] = lambda n: f"{n % 7 / 2},{n % 5},{'ab'[n % 2]}") -> str:
    return f"{header}\n" + "".join(f"{cells(n)}\n" for n in range(60))


def test_a_first_line_that_looks_like_a_row_is_noted(tmp_path: Path) -> None:
    [note] = read(tmp_path, make_table("5.1,3,a")).report["notes"]
    assert note == (
        "line 1 ('5.1', '3', 'a') is read as the column names, but looks like a row: is the header missing?"
    )
    texts = make_table("Oslo,2024-01-03,1,b", lambda n: f"{('Oslo', 'Bergen')[n % 2]},2024-02-{n % 9 + 1:02},{n % 3},a")
    assert len(read(tmp_path, texts + texts.replace(",a\n", ",b\n").split("\n", 1)[1]).report["notes"]) == 1
    message = refusal(tmp_path, make_table("3,3,a"))
    assert "columns 1 and 2 have the same name '3'; is line 1 a row?" in message


@pytest.mark.parametrize("header", ["size,count,a", "5.1,count,a", "2023,2024,label", "0,1,a", "Oslo,3,b"])
def test_a_plausible_header_is_not_noted(tmp_path: Path, header: str) -> None:
    assert read(tmp_path, make_table(header)).report["notes"] == []
