"""One table of cells that are easily misread: service, import, prediction file and exports read the same, or refuse."""

from __future__ import annotations

import ast
import datetime as dt
import functools
import json
import math
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.datasets.tables import prediction_files
from service.datasets.tables.detection import ColumnScan
from service.datasets.tables.prediction_files import RowsRefused
from service.datasets.tables.preprocessing import Preprocessing
from service.datasets.tables.rows import read_rows
from service.kinds.supervised.model import network as supervised
from service.models.exports.creation import Pictures
from service.models.exports.huggingface_folder import to_huggingface
from service.models.exports.onnx_graph import to_onnx
from service.models.exports.torch_module import to_torch
from service.models.exports.trained_network import TrainedModel
from service.models.prediction_csv import cell_of
from service.spec.schema import ClassifierSpec
from service.spec.validation import resolve
from tests.service.models.test_export_layers import FACTS
from tests.service.onnx_sessions import session

FITTED = {"mean": 100.0, "scale": 50.0, "indicator": True}
PLAIN = {"name": "x", "type": "number", **FITTED}
COMMA = PLAIN | {"decimal": ","}
GERMAN = COMMA | {"group": "."}
ENGLISH = GERMAN | {"decimal": ".", "group": ","}
SPACED = COMMA | {"group": " "}
PERCENT = ENGLISH | {"percent": True}
DOLLAR = ENGLISH | {"currency": "$"}
ISO = {"name": "x", "type": "date", "format": "iso", **FITTED}
DOTTED, TIME = ISO | {"format": "%d.%m.%Y"}, ISO | {"format": "time"}
NAMES = ["300", "Caf\u00e9", "NaN", "Red", "inf", "none", "red", "true"]
COLOURS = {"name": "x", "type": "category", "categories": NAMES, "indicator": True}
CODES = COLOURS | {"categories": ["007", "300", "7.5", "False", "TRUE"]}
MISSING, REFUSED, UNKNOWN = math.nan, ValueError, None
DAY = 19_786.0
"""2024-03-04."""

CELLS: list[tuple[Mapping[str, Any], Any, Any]] = [
    *((PLAIN, cell, 1234.0) for cell in ("1234", " 1234 ", "\u00a01234\t", "+1234", "1234.", "01234", "1.234e3", 1234)),
    *(
        (PLAIN, cell, 1234.0)
        for cell in ("\uff11\uff12\uff13\uff14", "\u0661\u0662\u0663\u0664", 1234.0, np.int64(1234))
    ),
    *((PLAIN, cell, 1.5) for cell in ("1.5", 1.5, np.float32(1.5))),
    *(
        (PLAIN, cell, REFUSED)
        for cell in ("1,5", "1_000", "1 000", "0x10", "1e", "12a", "1.2.3", "\u22125", "\u00bd", "--5")
    ),
    *(
        (PLAIN, cell, REFUSED)
        for cell in (True, False, np.True_, "True", "true", "yes", [1], {}, "1e400", "None", "NaT")
    ),
    *(
        (PLAIN, cell, MISSING)
        for cell in (None, "", " ", "NA", "n/a", "null", "?", "-", "k. A.", math.nan, np.float64("nan"))
    ),
    *((PLAIN, cell, MISSING) for cell in ("nan", "NaN", "NAN", "+nan", "inf", "-Infinity", "INF", math.inf, -np.inf)),
    *((PLAIN, cell, float(cell)) for cell in ("1e308", "-1e308", "1e-308", "5e-324", "-0", "123456789012345678901")),
    (COMMA, "1,5", 1.5),
    (COMMA, "1.5", 1.5),
    (COMMA, 1.234, 1.234),
    (COMMA, "1.234,5", REFUSED),
    (COMMA, "1,2,3", REFUSED),
    (GERMAN, "1.234", 1234.0),
    (GERMAN, "1.234,5", 1234.5),
    (GERMAN, "1234", 1234.0),
    (GERMAN, 1.234, 1.234),
    (GERMAN, "1.23", 1.23),
    (GERMAN, "1,234.5", REFUSED),
    (GERMAN, "1_000", REFUSED),
    (GERMAN, True, REFUSED),
    (GERMAN, "inf", MISSING),
    (GERMAN, "-1.234", -1234.0),
    (GERMAN, np.float64(1.234), 1.234),
    (ENGLISH, "1,234", 1234.0),
    (ENGLISH, "1.234", 1.234),
    (ENGLISH, "12,34", REFUSED),
    (ENGLISH, "0,123", REFUSED),
    (SPACED, "1\u00a0234,5", 1234.5),
    (SPACED, "1 234", 1234.0),
    (SPACED, "1\u202f234", 1234.0),
    (SPACED, "1 23", REFUSED),
    (PERCENT, "91.6%", 91.6),
    (PERCENT, "91.6 %", 91.6),
    (PERCENT, 91.6, 91.6),
    (DOLLAR, "$1,234.50", 1234.5),
    (DOLLAR, "\u20ac1,234.50", REFUSED),
    *(
        (ISO, cell, DAY)
        for cell in ("2024-03-04", " 2024-03-04 ", "2024-03-04T00:00", "2024-03-04 00:00:00Z", "2024-W10-1")
    ),
    *(
        (ISO, cell, DAY)
        for cell in (dt.date(2024, 3, 4), dt.datetime(2024, 3, 4, tzinfo=dt.UTC), np.datetime64("2024-03-04", "ns"))
    ),
    (ISO, "2024-03-04T12:00", DAY + 0.5),
    (ISO, "2024-03-04T01:00+02:00", DAY - 1 / 24),
    *(
        (ISO, cell, REFUSED)
        for cell in ("20240304", 20_240_304, "19786", "04.03.2024", "2024-02-30", "3/4/2024", True, "1_000")
    ),
    *((ISO, cell, MISSING) for cell in (None, "", "NA", np.datetime64("NaT"))),
    *((ISO, cell, REFUSED) for cell in ("inf", math.inf, "NaT", "+nan")),
    (DOTTED, "04.03.2024", DAY),
    (DOTTED, "2024-03-04", DAY),
    (DOTTED, "20240304", REFUSED),
    (DOTTED, "03/04/2024", REFUSED),
    (TIME, "14:30", 14.5 / 24),
    (TIME, "2:30 pm", 14.5 / 24),
    (TIME, "25:00", REFUSED),
    (TIME, "0.5", REFUSED),
    (TIME, dt.time(14, 30), 14.5 / 24),
    *((COLOURS, cell, NAMES.index("red")) for cell in ("red", " red ", "red\u00a0")),
    *((COLOURS, cell, NAMES.index("300")) for cell in ("300", 300, 300.0, np.int64(300), np.float64(300))),
    *((COLOURS, cell, NAMES.index("true")) for cell in (True, "true", np.True_)),
    (COLOURS, "Red", NAMES.index("Red")),
    (COLOURS, "Caf\u00e9", NAMES.index("Caf\u00e9")),
    (COLOURS, "inf", NAMES.index("inf")),
    (COLOURS, "NaN", NAMES.index("NaN")),
    (COLOURS, "none", NAMES.index("none")),
    (COLOURS, math.inf, NAMES.index("inf")),
    *((COLOURS, cell, MISSING) for cell in (None, "", "NA", "nan", math.nan, "?")),
    *((COLOURS, cell, UNKNOWN) for cell in ("RED", "Cafe\u0301", "True", False, 301, 300.5, "None", "300.0")),
    *((CODES, cell, 0) for cell in ("007", 7)),
    (CODES, 7.5, 2),
    (CODES, False, 3),
    (CODES, True, 4),
    (CODES, "7", UNKNOWN),
]


IN_OTHER_NOTATION = {"1,5": 1.5, "1 000": 1000, "1.234,5": 1234.5, "1,234.5": 1234.5, "12,34": 12.34, "0,123": 0.123}
"""Cells that can be read in one way only, in the notation of a whole file, which may differ from that of the training
data."""


def model_of(column: Mapping[str, Any]) -> TrainedModel:
    """A classifier with random weights, whose rows have this column."""
    layers = [{"units": 3, "activation": "linear"}, {"type": "layer_norm"}, {"units": 2, "activation": "softmax"}]
    spec = resolve({"kind": "classifier", "preset": "fast", "layers": layers})
    assert isinstance(spec, ClassifierSpec)
    rng = np.random.default_rng(0)

    def initial(shape: tuple[int, ...], _: Any, dtype: Any) -> Any:
        return rng.normal(size=shape).astype(dtype)

    network = supervised(spec, (1, Preprocessing((column,)).width), initial)
    return TrainedModel(spec, network, (), ["a", "b"], [column])


def by_service(column: Mapping[str, Any], cell: Any, _: Path) -> Any:
    result = read_rows([{"x": cell}], [column], ignored=())
    if result.faults:
        raise ValueError(result.faults)
    return UNKNOWN if result.unknown else result.inputs[0, 0]


def by_import(column: Mapping[str, Any], cell: str, _: Path) -> Any:
    """As the import reads a cell of a column that it has described so, above an empty cell."""
    scan = ColumnScan("x", None, decimal_comma=column.get("decimal") == ",")
    value, _ = scan.values([cell, ""], column)
    return value


def by_file(column: Mapping[str, Any], cell: str, folder: Path) -> Any:
    (folder / prediction_files.ROWS).write_text(f"x;y\n{cell};0\n", "utf-8")
    prepared = prediction_files.prepare(folder, columns=[column], unused=["y"], class_names=["a", "b"])
    return UNKNOWN if prepared.summary["unknown_values"] else np.fromfile(folder / prediction_files.INPUTS)[0]


@functools.cache
def card(document: str, folder: Path) -> dict[str, Any]:
    """The program of a model card, for a column as JSON."""
    files = to_huggingface(model_of(json.loads(document)), FACTS, Pictures(samples=[], curves=lambda: b""))
    for name in ("model.safetensors", "preprocessing.json"):
        (folder / name).write_bytes(files[name])
    program = files["README.md"].decode().split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {}
    with chdir(folder):
        exec(compile(program, "card", "exec"), namespace)
    return namespace


@functools.cache
def module(document: str) -> dict[str, Any]:
    """``model.py`` without its network, so that it runs where torch is not installed."""
    tree = ast.parse(to_torch(model_of(json.loads(document)), FACTS)["model.py"].decode())
    kept = [node for node in tree.body if not {"torch", "nn", "F"} & set(re.findall(r"\w+", ast.unparse(node)))]
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module(kept, []), "model.py", "exec"), namespace)
    return namespace


def by_card(column: Mapping[str, Any], cell: Any, folder: Path) -> Any:
    return card(json.dumps(column), folder)["_features"]({"x": cell})


def by_torch(column: Mapping[str, Any], cell: Any, _: Path) -> Any:
    return module(json.dumps(column))["_features"]({"x": cell})


Reader = Callable[[Mapping[str, Any], Any, Path], Any]


@pytest.mark.parametrize("read", [by_service, by_import, by_file])
def test_a_cell_means_the_same_in_each_way_into_the_service(read: Reader, tmp_path: Path) -> None:
    wrong = []
    for column, cell, expected in CELLS:
        if not isinstance(cell, str) and (read is not by_service or isinstance(cell, np.generic)):
            continue  # a file has texts, and JSON no objects of NumPy
        try:
            found = read(column, cell, tmp_path)
        except (ValueError, RowsRefused):
            found = REFUSED
        if found is REFUSED and read is by_import:
            continue  # a column of an import has one format: it rejects more rows, but reads none otherwise
        if read is by_file and cell in IN_OTHER_NOTATION:
            expected = IN_OTHER_NOTATION[cell] if expected is REFUSED else expected
        # In a stored column, categories are all that it has: an unknown one cannot occur, and is read as missing.
        shown = MISSING if expected is UNKNOWN and read is by_import else expected
        if not same(found, shown):
            wrong.append((column, cell, found, shown))
    assert not wrong


@pytest.mark.parametrize("read", [by_card, by_torch])
def test_an_exported_program_gives_the_inputs_that_the_service_gives(read: Reader, tmp_path: Path) -> None:
    wrong = []
    for column, cell, expected in CELLS:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = read(column, cell, tmp_path)
        except ValueError:
            found = REFUSED
        if expected is REFUSED or found is REFUSED:
            agrees = found is expected
        else:
            stored = math.nan if expected is UNKNOWN else expected
            inputs = Preprocessing((column,)).apply(np.array([[stored]]))[0].tolist()
            agrees = found == inputs and bool(caught) == (expected is UNKNOWN)
        if not agrees:
            wrong.append((column, cell, found, expected))
    assert not wrong


def test_days_are_dates_for_exported_programs_and_only_there(tmp_path: Path) -> None:
    """Exports take days since 1970-01-01, like ONNX; the service refuses numbers that are dates."""
    inputs = Preprocessing((ISO,)).apply(np.array([[DAY]]))[0].tolist()
    assert by_card(ISO, DAY, tmp_path) == by_torch(ISO, int(DAY), tmp_path) == inputs
    with pytest.raises(ValueError, match="date"):
        by_service(ISO, DAY, tmp_path)


@pytest.mark.parametrize("column", [PLAIN, ISO, COLOURS, COLOURS | {"categories": [], "indicator": True}])
def test_onnx_gives_each_stored_number_the_meaning_that_it_has_for_the_service(column: Mapping[str, Any]) -> None:
    model = model_of(column)
    exported = session(to_onnx(model, FACTS))
    if column.get("categories") == []:
        fed, stored = np.array(["red", "", " "]), np.full(3, math.nan)
    elif "categories" in column:
        padded = [" red ", "\tCaf\u00e9\u00a0", "red\u2003\n"]
        codes = [*range(len(NAMES)), *(NAMES.index(text.strip()) for text in padded)]
        fed, stored = np.array([*NAMES, *padded, "", " ", "NA", "RED"]), np.array([*codes, *[math.nan] * 4])
    else:
        fed = np.array([100.0, -0.0, 5e-324, 1e308, -1e308, 1e9, math.nan, math.inf, -math.inf])
        stored = np.where(np.isinf(fed), math.nan, fed)
    inputs = Preprocessing((column,)).apply(stored[:, None]).astype(np.float32)
    expected = np.asarray(model.network(inputs))
    (found,) = exported.run(None, {"x": fed})
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("column", [PLAIN, COMMA, GERMAN, ENGLISH, SPACED])
@pytest.mark.parametrize("value", [1.234, -123.456, 1234.0, 1.5, 12.3456, 0.123, 1e22, 5e-324, math.nan])
def test_a_cell_of_a_prediction_job_is_the_same_number_when_its_file_is_sent_again(
    column: Mapping[str, Any], value: float, tmp_path: Path
) -> None:
    (tmp_path / prediction_files.ROWS).write_text(f"x,y\n{cell_of(value, column)},0\n", "utf-8")
    prediction_files.prepare(tmp_path, columns=[column], unused=["y"], class_names=["a", "b"])
    assert same(np.fromfile(tmp_path / prediction_files.INPUTS)[0], value)


def same(found: Any, expected: Any) -> bool:
    if expected is REFUSED or expected is UNKNOWN or found is REFUSED or found is UNKNOWN:
        return found is expected
    return math.isnan(found) if math.isnan(expected) else found == expected
