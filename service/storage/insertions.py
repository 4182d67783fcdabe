"""Inserts rows of several tables by one statement of PostgreSQL: a round trip takes longer than an insertion."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Connection,
    CursorResult,
    Dialect,
    String,
    Table,
    Update,
    bindparam,
    column,
    func,
    insert,
    select,
)
from sqlalchemy.types import TypeEngine

from service.storage.database import NOW_POSTGRESQL
from service.wording import at_time

_TIME_AS_TEXT: Final = "to_char(to_timestamp({} / 1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"


@dataclass(frozen=True, slots=True)
class TimeTemplate:
    """A text in which the time of the insertion (RFC 3339 in UTC, with milliseconds) replaces a placeholder."""

    text: str
    placeholder: str

    def at(self, now: int) -> str:
        """The text of an insertion at ``now``."""
        return self.text.replace(self.placeholder, at_time(now))


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to insert."""

    table: Table
    values: Mapping[str, Any]
    """By column; JSON as text."""
    times: Sequence[str] = ()
    """Columns that get the time of the insertion, by the database's clock."""


_Shape = tuple[str, tuple[str, ...], tuple[bool, ...], tuple[str, ...]]
"""Table, columns, which of them are dated, and columns of times."""

_STATEMENTS: Final[dict[tuple[tuple[_Shape, ...], bool], str]] = {}
"""Each is built once: there is one for each combination of columns and number of tags that occurs."""


def insert_rows(connection: Connection, rows: Sequence[NewRow], *, once: bool = False) -> int | None:
    """Insert rows in one transaction; returns their time.

    Args:
        rows: in the order of their foreign keys.
        once: if the first row exists already, nothing is inserted, and ``None`` is returned. The insertion waits for a
            concurrent one of the same row.
    """
    key = (tuple(_shape(row) for row in rows), once)
    statement = _STATEMENTS.get(key)
    if statement is None:
        statement = _STATEMENTS[key] = _combined_statement(rows, connection.dialect, once=once)
    result = connection.exec_driver_sql(statement, tuple(_parameters(rows))).scalar()
    return None if result is None else int(result)


def _shape(row: NewRow) -> _Shape:
    has_time = tuple(isinstance(value, TimeTemplate) for value in row.values.values())
    return row.table.name, tuple(row.values), has_time, tuple(row.times)


def _parameters(rows: Iterable[NewRow]) -> Iterable[Any]:
    for row in rows:
        for value in row.values.values():
            if isinstance(value, TimeTemplate):
                yield value.text
                yield value.placeholder
            else:
                yield value


def _combined_statement(rows: Sequence[NewRow], dialect: Dialect, *, once: bool) -> str:
    """All rows as one statement of PostgreSQL.

    Foreign keys are checked at its end. Rows that depend on the first one select from it, so nothing is
    inserted without it.
    """
    ctes = [f"clock AS MATERIALIZED (SELECT {NOW_POSTGRESQL} AS now)"]
    source = "clock"
    for index, row in enumerate(rows):
        values = [_value_expression(row.table.columns[name].type, dialect, value) for name, value in row.values.items()]
        selected = ", ".join([*values, *["now"] * len(row.times)])
        insertion = f"INSERT INTO {_target(row)} SELECT {selected} FROM {source}"  # noqa: S608 - our own names
        if once and index == 0:
            ctes.append(f"first AS ({insertion} ON CONFLICT DO NOTHING RETURNING {row.times[0]} AS now)")
            source = "first"
        else:
            ctes.append(f"row_{index} AS ({insertion})")
    return f"WITH {', '.join(ctes)} SELECT now FROM {source}"  # noqa: S608 - our own names


def _target(row: NewRow) -> str:
    names = ", ".join(f'"{name}"' for name in [*row.values, *row.times])
    return f"{row.table.name} ({names})"


def _value_expression(kind: TypeEngine[Any], dialect: Dialect, value: Any) -> str:
    # Without its length: a cast to VARCHAR(40) would truncate a longer value, which an insertion rejects.
    name = "VARCHAR" if isinstance(kind, String) else kind.compile(dialect)
    if isinstance(value, TimeTemplate):
        return f"CAST(replace(%s, %s, {_TIME_AS_TEXT.format('now')}) AS {name})"
    return f"CAST(%s AS {name})"


Values = Mapping[str, Any]
"""A row, by column."""


def insert_many(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    """Insert rows that have the same columns, without objects."""
    if rows:
        connection.execute(table.insert(), rows)


def update_with_rows(
    connection: Connection, statement: Update, values: Values, rows: Mapping[Table, Sequence[Values]]
) -> CursorResult[Any]:
    """Execute an update with these parameters after inserting rows.

    Args:
        statement: made once; it does not read the rows.
        rows: in the order of their foreign keys, with values for all columns of their tables.

    Returns:
        The result of the update.
    """
    if connection.dialect.name != "postgresql":
        for table, new in rows.items():
            insert_many(connection, table, new)
        return connection.execute(statement, values)
    documents = {f"new_{table.name}": new for table, new in rows.items()}
    return connection.execute(_with_rows(statement, tuple(rows)), {**values, **documents})


@functools.cache
def _with_rows(statement: Update, tables: Sequence[Table]) -> Update:
    """The update and the insertions as one statement, whose parameters include the rows of each table, as JSON."""
    for table in tables:
        documents = func.json_to_recordset(bindparam(f"new_{table.name}", type_=JSON()))
        rows = documents.table_valued(*(column(item.name, item.type) for item in table.columns)).render_derived(
            with_types=True
        )
        insertion = insert(table).from_select([item.name for item in table.columns], select(*rows.columns))
        statement = statement.add_cte(insertion.cte(f"inserted_{table.name}"))
    return statement
