"""Imports of tables, called as in the sandbox: types, missing values, rejected rows, arrays."""

from __future__ import annotations

import codecs
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.datasets.cache import open_arrays
from service.datasets.formats.options import TableOptions
from service.datasets.importer import UploadRefused
from service.datasets.info import DatasetInfo, ImportedDataset
from service.datasets.sandbox import import_in_sandbox
from service.datasets.tables.importing import import_table
from service.states import Task

HEAD = "age,city,since,label\n"


def line(number: int) -> str:
    age = "" if number % 10 == 9 else str(20 + number % 5)
    return (
        f"{age},{('Oslo', 'Bergen', 'NA')[number % 3]},2024-01-{number % 28 + 1:02},{'yes' if number % 2 else 'no'}\n"
    )


PLAIN = HEAD + "".join(map(line, range(60)))


@dataclass
class Imported:
    dataset: ImportedDataset
    train: Any
    validation: Any
    test: Any

    @property
    def columns(self) -> dict[str, Any]:
        return {column["name"]: column for column in self.dataset.columns or ()}

    @property
    def report(self) -> Any:
        return self.dataset.report

    @property
    def inputs(self) -> Any:
        return np.concatenate([self.train.inputs, self.validation.inputs])


def read(tmp_path: Path, data: bytes | str, *, sandbox: bool = False, **options: Any) -> Imported:
    path, folder = tmp_path / "table", tmp_path / f"arrays-{len(list(tmp_path.iterdir()))}"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    folder.mkdir()
    table = TableOptions(
        target=options.get("target"),
        task=options.get("task"),
        types=options.get("types", {}),
        split=options.get("split"),
    )
    if sandbox:
        dataset = import_in_sandbox({"table": path}, folder, fraction=None, table=table)
    else:
        dataset = import_table(path, folder, fraction=options.get("fraction"), options=table)
    info = DatasetInfo(
        name="t", title="t", kind=dataset.kind, image_shape=(), columns=tuple(dataset.columns or ()),
        classes=dataset.classes, train_count=dataset.train_count, validation_count=dataset.validation_count,
        class_names=tuple(dataset.class_names or ()), report=dataset.report, source="", licence="",
        sha256=None, available=True,
    )  # fmt: skip
    arrays = open_arrays(folder, info)
    assert arrays.sha256 == dataset.sha256
    return Imported(dataset, arrays.train, arrays.validation, arrays.test)


def refusal(tmp_path: Path, data: bytes | str, **options: Any) -> str:
    with pytest.raises(UploadRefused) as caught:
        read(tmp_path, data, **options)
    return str(caught.value)


def test_types_and_missing_values_are_detected(tmp_path: Path) -> None:
    imported = read(tmp_path, PLAIN, sandbox=True)
    assert {name: (column["type"], column["missing"]) for name, column in imported.columns.items()} == {
        "age": ("number", 6),
        "city": ("category", 20),
        "since": ("date", 0),
    }
    assert imported.columns["city"]["categories"] == ["Bergen", "Oslo"]
    assert (imported.dataset.class_names, imported.dataset.classes) == (["no", "yes"], 2)
    assert imported.report["target"] == "label"
    assert (imported.report["rows"], imported.report["rejected_count"]) == (60, 0)
    assert (imported.dataset.train_count, imported.dataset.validation_count) == (52, 8)
    assert imported.train.inputs.dtype == np.float64
    assert imported.train.inputs.shape == (52, 3)
    assert imported.train.labels.dtype == np.uint8
    assert np.bincount(imported.validation.labels).tolist() == [4, 4]  # equally many of each class
    assert np.isnan(imported.inputs).sum(axis=0).tolist() == [6, 20, 0]
    assert set(imported.inputs[:, 1][~np.isnan(imported.inputs[:, 1])]) == {0.0, 1.0}
    assert imported.inputs[:, 2].min() == 19723  # 2024-01-01


def test_the_validation_rows_are_deterministic(tmp_path: Path) -> None:
    first, second = read(tmp_path, PLAIN), read(tmp_path, PLAIN)
    np.testing.assert_array_equal(first.validation.inputs, second.validation.inputs)
    assert first.dataset.sha256 == second.dataset.sha256
    assert read(tmp_path, PLAIN.replace("Oslo", "Bodø")).dataset.sha256 != first.dataset.sha256  # with equal numbers
    assert read(tmp_path, PLAIN, fraction=0.5).dataset.validation_count == 30


@pytest.mark.parametrize(
    ("data", "encoding", "delimiter"),
    [
        (PLAIN.replace("Oslo", "Bodø").encode(), "utf-8", ","),
        (codecs.BOM_UTF8 + PLAIN.encode(), "utf-8", ","),
        (PLAIN.replace("Oslo", "Bodø").encode("utf-16"), "utf-16", ","),
        (PLAIN.replace("Oslo", "Bodø").encode("utf-16-le"), "utf-16-le", ","),
        (PLAIN.replace("Oslo", "Bodø").encode("cp1252"), "cp1252", ","),
        (PLAIN.replace("Oslo", "Bod\x81").encode("latin-1"), "latin-1", ","),
        (PLAIN.replace(",", "\t").encode(), "utf-8", "\t"),
        (PLAIN.replace(",", ";").replace("\n", "\r\n").encode(), "utf-8", ";"),
        (PLAIN.replace("\n", "\r").encode(), "utf-8", ","),
        (PLAIN.replace("Oslo", '"Os, ""lo"""').encode(), "utf-8", ","),
        (gzip.compress(PLAIN.encode()), "utf-8", ","),
        (PLAIN.replace("\n", "\n\n").encode(), "utf-8", ","),
        (PLAIN.replace(",", " , ").encode(), "utf-8", ","),
    ],
)
def test_encodings_delimiters_and_quotes_are_detected(
    tmp_path: Path, data: bytes, encoding: str, delimiter: str
) -> None:
    imported = read(tmp_path, data)
    assert (imported.report["encoding"], imported.report["delimiter"]) == (encoding, delimiter)
    assert [column["type"] for column in imported.dataset.columns or ()] == ["number", "category", "date"]
    np.testing.assert_array_equal(imported.inputs[:, 0], read(tmp_path, PLAIN).inputs[:, 0])
    assert imported.report["rejected_count"] == 0


def test_decimal_commas_and_ambiguous_dates_are_noted(tmp_path: Path) -> None:
    data = "size;day;label\n" + "".join(f"{n},5;0{n % 9 + 1}/0{n % 7 + 1}/2024;{'ab'[n % 2]}\n" for n in range(30))
    imported = read(tmp_path, data)
    assert imported.columns["size"] == {
        "name": "size",
        "type": "number",
        "missing": 0,
        "min": 0.5,
        "max": 29.5,
        "decimal": ",",
    }
    assert imported.columns["day"]["format"] == "%m/%d/%Y"
    assert len(imported.report["notes"]) == 2
    assert "month/day/year" in " ".join(imported.report["notes"])
    unambiguous = read(tmp_path, data.replace(";03/", ";23/"))
    assert unambiguous.columns["day"]["format"] == "%d/%m/%Y"


def test_columns_with_the_same_note_share_it(tmp_path: Path) -> None:
    text = "a;b;c;label\n" + "".join(f"1,{n};2,{n};3,{n};{'xy'[n % 2]}\n" for n in range(20))
    assert read(tmp_path, text).report["notes"] == ["columns 'a', 'b' and 'c': commas were read as decimal commas"]


def test_rejected_rows_are_counted_and_named_by_line(tmp_path: Path) -> None:
    text = PLAIN + "1,Oslo\n" + '5,"Oslo" x,2024-01-01,yes\n' + "6,Oslo,2024-01-01,?\n" * 150
    report = read(tmp_path, text).report
    assert report["rows"] == 60
    assert report["rejected_count"] == 152
    assert len(report["rejected"]) == 100
    assert report["rejected"][:3] == [
        {"line": 62, "reason": "has 2 fields instead of 4"},
        {"line": 63, "reason": "has characters after a quotation mark"},
        {"line": 64, "reason": "has no target value"},
    ]


def test_uninformative_columns_are_ignored_with_a_reason(tmp_path: Path) -> None:
    header = "row,id,same,empty,text,size,label\n"
    rows = (f"{n + 1},u{n * 7919},x,,{'long ' * 30},{n * 37 % 11},{'ab'[n % 2]}\n" for n in range(50))
    imported = read(tmp_path, header + "".join(rows))
    assert list(imported.columns) == ["size"]
    assert {column["name"]: column["reason"] for column in imported.report["ignored"]} == {
        "row": "counts the rows",
        "id": "has 50 different texts in 50 rows",
        "same": "has the same value in every row",
        "empty": "has no values",
        "text": "has texts of more than 100 characters",
    }


@pytest.mark.parametrize("start", [0, 1, 1000, -7])
def test_a_row_counter_is_ignored_for_any_start_value(tmp_path: Path, start: int) -> None:
    rows = [f"{start + n},{n * 37 % 11},{'ab'[n % 2]}\n" for n in range(5000)]
    imported = read(tmp_path, "Kunde-Nr,size,label\n" + "".join(rows))
    assert imported.report["ignored"] == [{"name": "Kunde-Nr", "reason": "counts the rows"}]
    forced = read(tmp_path, "Kunde-Nr,size,label\n" + "".join(rows), types={"Kunde-Nr": "number"})
    assert list(forced.columns) == ["Kunde-Nr", "size"]
    rows[4321] = rows[4321].replace(str(start + 4321), str(start + 4320))
    assert list(read(tmp_path, "Kunde-Nr,size,label\n" + "".join(rows)).columns) == ["Kunde-Nr", "size"]
    halves = (f"{start + n}.5,{n * 37 % 11},{'ab'[n % 2]}\n" for n in range(100))
    assert list(read(tmp_path, "time,size,label\n" + "".join(halves)).columns) == ["time", "size"]


@pytest.mark.parametrize("missing", ["k.A.", "k. A.", "n/a", "#N/A", "--", "."])
def test_common_markers_of_missing_values_are_recognized(tmp_path: Path, missing: str) -> None:
    rows = (f"{missing if n % 9 == 0 else n * 7 % 31 + 0.5},{'ab'[n % 2]}\n" for n in range(90))
    column = read(tmp_path, "Gewicht,label\n" + "".join(rows)).columns["Gewicht"]
    assert (column["type"], column["missing"]) == ("number", 10)


def test_users_can_set_the_types_of_columns(tmp_path: Path) -> None:
    types = {"age": "category", "city": "ignore"}
    imported = read(tmp_path, PLAIN, types=types)
    assert imported.columns["age"]["categories"] == ["20", "21", "22", "23", "24"]
    assert imported.report["ignored"] == [{"name": "city", "reason": "because of types"}]
    odd = PLAIN.replace("23,", "old,", 1)
    assert read(tmp_path, odd).columns["age"]["type"] == "category"
    forced = read(tmp_path, odd, types={"age": "number"})
    assert forced.report["rejected"] == [{"line": 5, "reason": "column 'age': 'old' is not a number"}]
    assert forced.dataset.train_count + forced.dataset.validation_count == 59


def test_numeric_classes_are_sorted_by_value_and_any_column_can_be_the_target(tmp_path: Path) -> None:
    data = "grade,size\n" + "".join(f"{(10, 9, 2)[n % 3]}{'.0' * (n % 2)},{n % 13}\n" for n in range(60))
    assert read(tmp_path, data, target="grade").dataset.class_names == ["2", "9", "10"]
    assert read(tmp_path, data, target="grade", types={"grade": "category"}).dataset.class_names[:2] == ["10", "10.0"]  # type: ignore[index]


def test_a_type_that_appears_late_in_the_file_is_detected(tmp_path: Path) -> None:
    rows = [f"{n % 7},{'ab'[n % 2]}\n" for n in range(9000)]
    late = "x,label\n" + "".join(rows[:8500]) + "".join(row.replace("3,", "three,") for row in rows[8500:])
    column = read(tmp_path, late).columns["x"]
    assert column["type"] == "category"
    assert column["categories"] == ["0", "1", "2", "3", "4", "5", "6", "three"]
    sparse = "x,label\n" + "".join(f",{'ab'[n % 2]}\n" for n in range(5000)) + "".join(rows[:5000])
    sparse_column = read(tmp_path, sparse).columns["x"]
    assert (sparse_column["type"], sparse_column["missing"]) == ("number", 5000)


def test_literals_that_are_numbers_only_to_python_are_categories(tmp_path: Path) -> None:
    odd = "x,y,label\n" + "".join(f"1_{n % 3},{'1e999' if n % 3 else 2},{'ab'[n % 2]}\n" for n in range(60))
    imported = read(tmp_path, odd)
    assert [column["type"] for column in imported.dataset.columns or ()] == ["category", "category"]


@pytest.mark.parametrize(
    ("data", "options", "word"),
    [
        ("", {}, "is empty"),
        (HEAD, {}, "no rows"),
        ("a\n1\n2\n", {}, "one column"),
        ("a,a\n1,2\n", {}, "same name"),
        ("1,2\n3,4\n", {}, "column names"),
        (PLAIN, {"target": "labels"}, "did you mean 'label'?"),
        (PLAIN, {"target": "zzzzzz"}, "the columns are 'age', 'city', 'since', 'label'"),
        (PLAIN, {"types": {"Age": "number"}}, "did you mean 'age'?"),
        (PLAIN.replace("yes", "no"), {}, "nothing to tell apart"),
        (PLAIN, {"target": "age", "types": {"label": "ignore", "since": "ignore", "city": "ignore"}}, "no column"),
        (
            "x,y\n" + "".join(f"{n % 5},{n / 7}\n" for n in range(400)),
            {"task": Task.CLASSIFICATION},
            "classes are supported",
        ),
        (PLAIN.replace("Oslo", "Os\0lo"), {}, "line 2 contains a NUL"),
    ],
)
def test_unsuitable_tables_are_rejected(tmp_path: Path, data: str, options: Any, word: str) -> None:
    assert word in refusal(tmp_path, data, **options)


def shuffled_numbers(count: int, *, repeated: int = 0) -> str:
    """A table with customer numbers that separate the classes, in no order; some may be repeated."""
    codes = [1000 + (7 * n) % count for n in range(count - repeated)] + [1000] * repeated
    return "Nr,x,label\n" + "".join(f"{nr},{n % 9},{'ab'[nr > 1000 + count // 2]}\n" for n, nr in enumerate(codes))


def test_integers_that_never_repeat_are_identifiers_unless_their_type_is_set(tmp_path: Path) -> None:
    imported = read(tmp_path, shuffled_numbers(5000))
    assert list(imported.columns) == ["x"]
    [ignored] = imported.report["ignored"]
    assert (ignored["name"], "a different integer in each row" in ignored["reason"]) == ("Nr", True)
    assert list(read(tmp_path, shuffled_numbers(5000), types={"Nr": "number"}).columns) == ["Nr", "x"]
    assert list(read(tmp_path, shuffled_numbers(5000, repeated=2)).columns) == ["Nr", "x"]
    assert list(read(tmp_path, shuffled_numbers(20)).columns) == ["Nr", "x"], "too few rows to tell"
    amounts = "amount,label\n" + "".join(f"{2000 + 7919 * n % 90_000},{'ab'[n % 2]}\n" for n in range(300))
    assert list(read(tmp_path, amounts).columns) == ["amount"], "different by chance"


def test_columns_and_report_survive_json(tmp_path: Path) -> None:
    dataset = read(tmp_path, PLAIN).dataset
    assert json.loads(json.dumps([dataset.columns, dataset.report])) == [dataset.columns, dataset.report]


def split_table(*words: str, header: str = "age,part,label\n") -> str:
    """A table that repeats these words in the column ``part``; the class alternates with each repetition."""
    rows = (f"{n % 37},{words[n % len(words)]},{'ab'[n // len(words) % 2]}\n" for n in range(20 * len(words)))
    return header + "".join(rows)


def test_a_split_column_assigns_rows_to_parts(tmp_path: Path) -> None:
    data = split_table("train", "Training", " val", "TEST", "train")
    imported = read(tmp_path, data, sandbox=True, split="part")
    counts = (imported.dataset.train_count, imported.dataset.validation_count, imported.dataset.test_count)
    assert counts == (60, 20, 20)
    assert list(imported.columns) == ["age"]  # the split column is not an input
    assert imported.report["split"] == "part"
    for rows, places in ((imported.train, (0, 1, 4)), (imported.validation, (2,)), (imported.test, (3,))):
        expected = [n % 37 for n in range(100) if n % 5 in places]
        assert rows.inputs[:, 0].tolist() == expected
        assert rows.labels.tolist() == [n // 5 % 2 for n in range(100) if n % 5 in places]


def test_the_default_target_is_the_last_column_other_than_the_split(tmp_path: Path) -> None:
    data = split_table("train", "val").replace("age,part,label", "age,label,x")
    swapped = "\n".join(",".join((a, c, b)) for a, b, c in (row.split(",") for row in data.split() if row))
    imported = read(tmp_path, swapped, split="label")
    assert imported.report["target"] == "x"


def test_test_rows_become_validation_rows_if_there_are_none(tmp_path: Path) -> None:
    imported = read(tmp_path, split_table("train", "test"), split="part")
    assert (imported.dataset.train_count, imported.dataset.validation_count, imported.dataset.test_count) == (20, 20, 0)
    assert "its test rows are used for validation" in imported.report["notes"][0]
    train_only = read(tmp_path, split_table("train"), split="part", fraction=0.5)
    assert (train_only.dataset.train_count, train_only.dataset.validation_count) == (10, 10)


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (
            split_table("train", "val", "holdout", "train", "", "holdout"),
            {},
            (
                "column 'part' must say train, validation (or val) or test in every row; "
                "it says 'holdout' in 40 rows, nothing in 20 rows"
            ),
        ),
        (split_table(*(f"w{n}" for n in range(2000))), {}, "more than 1,000 different values that are no parts"),
        (split_table("val", "test"), {}, "column 'part' assigns no row to train"),
        (split_table("train", "val") + "1,val,c\n", {}, "rows of the class 'c' to validation, but none to train"),
        (split_table("train", "val") + "1,test,c\n", {}, "rows of the class 'c' to test, but none to train"),
        (split_table("train", "val"), {"fraction": 0.2}, "validation_fraction: is for tables without validation rows"),
        (split_table("train", "val"), {"split": "prat"}, "split: 'prat' is no column; did you mean 'part'?"),
        (split_table("train", "val"), {"split": "label", "target": "label"}, "'label' is the target"),
        (split_table("train", "val"), {"types": {"part": "category"}}, "'part' assigns rows to parts, and has no type"),
    ],
)
def test_invalid_split_columns_are_rejected_with_the_reason(
    tmp_path: Path, data: str, options: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(tmp_path, data, **{"split": "part", **options})


def test_every_class_with_two_rows_gets_a_validation_row(tmp_path: Path) -> None:
    counts = {"a": 40, "b": 6, "c": 2}
    imported = read(
        tmp_path, "n,label\n" + "".join(f"{n},{name}\n" for name, count in counts.items() for n in range(count))
    )
    assert np.bincount(imported.validation.labels).tolist() == [6, 1, 1]
    assert np.bincount(imported.train.labels).tolist() == [34, 5, 1]
    assert imported.report["notes"] == []
    most = read(tmp_path, "n,label\n" + "1,a\n2,a\n3,b\n4,b\n", fraction=0.99)
    assert np.bincount(most.train.labels).tolist() == [1, 1]


def test_a_class_without_validation_rows_is_noted(tmp_path: Path) -> None:
    rows = "n,part,label\n" + "".join(
        f"{n},{part},{name}\n" for n in range(4) for part in ("train", "val") for name in "ab"
    )
    assigned = read(tmp_path, rows + "8,train,rare\n9,train,rare\n", split="part")
    assert assigned.report["notes"] == ["the class 'rare' (2 rows) has no validation rows: no score covers it"]
    single = [f"{n},only {n}\n" for n in range(7)]
    drawn = read(tmp_path, "n,label\n" + "".join(f"{n},a\n" for n in range(20)) + "".join(single))
    (note,) = drawn.report["notes"]
    assert note.startswith("the classes 'only 0' (1 row), 'only 1' (1 row), ")
    assert note.endswith("and 2 more have no validation rows: no score covers them")
    with pytest.raises(UploadRefused, match=r"table: has only one row of each class: .* at least two rows$"):
        read(tmp_path, "n,label\n1,a\n2,b\n", fraction=0.9)


def test_a_column_that_alone_predicts_the_class_is_noted(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).permutation(300)
    rows = "".join(f"{number},{number % 7},{'abc'[number // 100]}\n" for number in numbers.tolist())
    imported = read(tmp_path, "Nr,size,label\n" + rows, types={"Nr": "number"})
    assert imported.report["leak"] == "column 'Nr' alone predicts the class: check for a leak"
    without = read(tmp_path, "Nr,size,label\n" + rows)
    assert (set(without.columns), "leak" in without.report) == ({"size"}, False), "a number for each row is left out"
