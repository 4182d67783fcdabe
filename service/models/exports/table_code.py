"""The part of exported programs that reads rows of tables: the service's own rules, and what becomes of the numbers."""

from __future__ import annotations

import ast
import inspect
from typing import Final

from service.datasets.tables import cells

_SOURCE: Final = inspect.getsource(cells)
_STATEMENTS: Final = ast.parse(_SOURCE).body
_IMPORTS: Final = [node for node in _STATEMENTS if isinstance(node, ast.Import | ast.ImportFrom)]
_OWN_IMPORTS: Final = ("import warnings", "from difflib import get_close_matches")

TABLE_IMPORTS: Final = "\n".join(
    sorted(
        {*(ast.unparse(node) for node in _IMPORTS if getattr(node, "module", "") != "__future__"), *_OWN_IMPORTS},
        key=lambda line: (line.startswith("from"), line),
    )
)
"""The imports that ``TABLE_CODE`` needs."""

_CELLS: Final = "\n".join(_SOURCE.splitlines()[_IMPORTS[-1].lineno :]).strip("\n")

TABLE_CODE: Final = f"""\
# How a cell is read: the rules of the service.

{_CELLS}


# How a row becomes inputs of the network.

CODES = [{{text: code for code, text in enumerate(column.get("categories", ()))}} for column in COLUMNS]


def plain_value(value):
    \"\"\"A number or boolean of NumPy as that of Python.\"\"\"
    return value.item() if getattr(getattr(value, "dtype", None), "kind", "") in ("b", "i", "u", "f") else value


def stored_number(value, column, codes):
    if column["type"] != "date" or isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return read_cell(value, column, codes)
    if not FIRST_DAY <= value <= LAST_DAY:
        raise ValueError(f"must be a date, or days since 1970-01-01, not {{value!r}}")
    return float(value)


def _features(row):
    names, made = [column["name"] for column in COLUMNS], []
    for name in {{str(name) for name in row}}.difference(names, UNUSED_COLUMNS):
        raise ValueError(f"{{name!r}} is not a column; did you mean {{get_close_matches(name, names, 1, 0)[0]!r}}?")
    if not any(name in row for name in names):
        raise ValueError(f"a row has none of the columns: {{', '.join(names)}}")
    for column, codes in zip(COLUMNS, CODES):
        value = plain_value(row.get(column["name"]))
        try:
            read = stored_number(value, column, codes)
        except ValueError as error:
            raise ValueError(f"column {{column['name']!r}} {{error}}") from None
        if read is None:
            warnings.warn(f"column {{column['name']!r}}: the category {{value!r}} is unknown, and counts as missing")
        missing = read is None or read != read
        if "categories" in column:
            made += [float(not missing and read == code) for code in range(len(codes))]
        else:
            made.append(0.0 if missing else min(max((read - column["mean"]) / column["scale"], -1e6), 1e6))
        if column["indicator"]:
            made.append(float(missing))
    return made
"""
"""Converts a row, a dict by column name, to inputs of the network. It reads ``COLUMNS`` and ``UNUSED_COLUMNS``."""
