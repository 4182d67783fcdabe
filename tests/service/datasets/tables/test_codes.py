"""Numeric codes, such as postal codes and long identifiers: classes and categories exactly as written."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.datasets.tables.rows import named_row, read_rows
from tests.service.datasets.tables.test_importing import read, refusal


def table(targets: list[str], rows: int = 60, header: str = "size,label\n") -> str:
    return header + "".join(f"{n % 13},{targets[n % len(targets)]}\n" for n in range(rows))


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (["90210", "00501", "02134"], ["00501", "02134", "90210"]),
        (["7", "007", "07"], ["007", "07", "7"]),
        (["10", "9", "08"], ["08", "9", "10"]),
        (
            ["9007199254740993", "9007199254740992", "9007199254740995"],
            ["9007199254740992", "9007199254740993", "9007199254740995"],
        ),
        (["-18446744073709551617", "18446744073709551616"], ["-18446744073709551617", "18446744073709551616"]),
        (["0.1", "0.10000000000000000001", "2"], ["0.1", "0.10000000000000000001", "2"]),
        (["-0", "1e3", "1E-99999999999999999999"], ["0", "1000"]),
    ],
)
def test_class_names_are_the_target_values_of_the_file(tmp_path: Path, targets: list[str], names: list[str]) -> None:
    imported = read(tmp_path, table(targets), sandbox=targets[0] == "90210")
    assert imported.dataset.class_names == names
    counts = [0] * len(names)
    for label in [*imported.train.labels, *imported.validation.labels]:
        counts[label] += 1
    assert sum(counts) == 60
    if len(names) == len(targets):
        assert counts == [60 // len(names)] * len(names)


def test_the_report_notes_how_targets_were_read(tmp_path: Path) -> None:
    [note] = read(tmp_path, table(["00501", "90210"])).report["notes"]
    assert note == "column 'label': values such as 00501 are classes as they are written, with leading zeros"
    [note] = read(tmp_path, table(["1", "2", "1.0"])).report["notes"]
    assert note == "column 'label': 1 and 1.0 are one class, 1; set the type category to keep them apart"
    numbers = read(tmp_path, table(["007", "7", "8"]), types={"label": "number"})
    assert numbers.dataset.class_names == ["7", "8"]
    assert not read(tmp_path, table(["1", "2"])).report["notes"]
    message = refusal(tmp_path, table([f"0{n}" for n in range(300)], rows=900))
    assert "has 300 different values; at most 256 classes are supported" in message


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        (["90210", "00501", "02134"], "00501 has a leading zero"),
        (["9007199254740993", "9007199254740992"], "9007199254740993 has more digits than a number keeps"),
    ],
)
def test_codes_become_categories_and_predictions_accept_the_same_texts(
    tmp_path: Path, codes: list[str], reason: str
) -> None:
    data = "code,size,label\n" + "".join(f"{codes[n % len(codes)]} ,{n % 13},{'ab'[n // 7 % 2]}\n" for n in range(2100))
    imported = read(tmp_path, data)
    assert imported.columns["code"]["categories"] == sorted(codes)
    assert imported.columns["size"]["type"] == "number"
    assert imported.report["notes"] == [
        f"column 'code': {reason}: its values are categories, unless you set the type number"
    ]
    rows = read_rows([{"code": code, "size": 1} for code in codes], imported.dataset.columns or (), ignored=())
    assert not rows.unknown
    assert not rows.faults
    assert [named_row(row, imported.dataset.columns or ())["code"] for row in rows.inputs] == codes
    if all(code.isdecimal() for code in codes) and len({int(code) for code in codes}) == len(codes):
        rows = read_rows([{"code": int(code), "size": 1} for code in codes], imported.dataset.columns or (), ignored=())
        assert [named_row(row, imported.dataset.columns or ())["code"] for row in rows.inputs] == codes, (
            "of other programs"
        )
    assert read(tmp_path, data, types={"code": "number"}).columns["code"]["type"] == "number"


def test_codes_with_too_many_values_for_categories_stay_numbers_with_a_note(tmp_path: Path) -> None:
    rows = (f"{n * 37 % 701:05},{n % 13},{'ab'[n % 2]}\n" for n in range(2000))
    imported = read(tmp_path, "code,size,label\n" + "".join(rows))
    assert imported.columns["code"]["type"] == "number"
    [note] = imported.report["notes"]
    assert note == (
        "column 'code': 00000 has a leading zero, but there are too many values for categories; "
        "set the type ignore if it holds codes"
    )
    counter_rows = (f"{n:05},{n % 13},{'ab'[n % 2]}\n" for n in range(2000))
    ignored = read(tmp_path, "code,size,label\n" + "".join(counter_rows)).report["ignored"]
    assert ignored == [{"name": "code", "reason": "counts the rows"}]


@pytest.mark.parametrize("written", [("True", "False"), ("true", "false")])
def test_booleans_are_the_categories_that_a_frame_writes(tmp_path: Path, written: tuple[str, str]) -> None:
    text = "smokes,label\n" + "".join(f"{written[n % 2]},{'ab'[n % 2]}\n" for n in range(40))
    columns = read(tmp_path, text).dataset.columns or ()
    given = read_rows([{"smokes": value} for value in (True, False)], columns, ignored=())
    of_file = read_rows([{"smokes": value} for value in written], columns, ignored=())
    assert (given.inputs.tolist(), given.unknown) == (of_file.inputs.tolist(), [])
    neither = read_rows([{"smokes": True}], [{**columns[0], "categories": ["no", "yes"]}], ignored=())
    assert neither.unknown == [(0, "smokes", "True")]
