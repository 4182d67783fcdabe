"""The sorting of job lists, and cursors, which encode a position in an order.

A position is the sort value of a job and its id, which makes it unique. Jobs without a sort value (no name, not
started, no such metric) come last, in ascending and in descending order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, UnaryExpression, and_, case, func, literal, or_, tuple_

from service.errors import InvalidCursor
from service.jobs.queries import columns
from service.jobs.queries.columns import Type, UnknownColumn
from service.runtime import cursors
from service.states import Status
from service.storage.tables import Job

_STATUS_ORDER: Final = (
    Status.RUNNING,
    Status.QUEUED,
    Status.PAUSED,
    Status.FAILED,
    Status.SUCCEEDED,
    Status.CANCELLED,
)
_MAX_TEXT_LENGTH: Final = 400
"""Longer than any name in lower case."""

MAX_CURSOR: Final = 2400
"""Maximum length of a cursor in characters, for a name of that length with four bytes per character."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A sort key."""

    value: ColumnElement[Any]
    type: type[int] | type[float] | type[str] = int
    nullable: bool = True


_KEYS: Final = {
    "created_at": _Key(Job.created_ms.expression, nullable=False),
    "priority": _Key(Job.priority.expression, nullable=False),
    "name": _Key(func.lower(Job.name), str),
    "status": _Key(case({status: rank for rank, status in enumerate(_STATUS_ORDER)}, value=Job.status), nullable=False),
    "started_at": _Key(Job.started_ms.expression),
    "finished_at": _Key(Job.finished_ms.expression),
    "duration": _Key(Job.finished_ms - Job.started_ms),
    "epoch": _Key(Job.epoch.expression, nullable=False),
}
SORTS: Final = tuple(sign + name for name in _KEYS for sign in ("", "-"))
"""Sort keys besides the columns: by facts that are not columns, or that have an index."""
_PYTHON_TYPES: Final[dict[Type, type[int] | type[float] | type[str]]] = {
    Type.TEXT: str, Type.JOB: str, Type.NUMBER: float, Type.METRIC: float, Type.SECONDS: float, Type.BYTES: int,
}  # fmt: skip


def of_column(name: str) -> str | None:
    """The ascending order by a column; ``None``: lists cannot be sorted by it."""
    if name in _KEYS:
        return name
    if name == "progress":
        return "epoch"
    return name if columns.parse(name).expression is not None else None


def _key(name: str) -> _Key:
    if name in _KEYS:
        return _KEYS[name]
    column = columns.parse(name)
    if column.expression is None or column.type not in _PYTHON_TYPES:
        raise UnknownColumn(name, "a list cannot be sorted by this column")
    return _Key(column.expression, _PYTHON_TYPES[column.type])


class SortOrder:
    """A sort order of jobs.

    Args:
        sort: one of ``SORTS``, or the name of a column; with a leading ``-`` for descending order.

    Raises:
        UnknownColumn: there is no such order.
    """

    def __init__(self, sort: str) -> None:
        self._sort = sort
        self._descending = sort.startswith("-")
        self._key = _key(sort.removeprefix("-"))

    @property
    def value(self) -> ColumnElement[Any]:
        """The sort value in SQL; ``cursor`` needs that of a page's last job."""
        return self._key.value

    @property
    def columns(self) -> Sequence[ColumnElement[Any] | UnaryExpression[Any]]:
        """The expressions for ``ORDER BY``."""
        value = self._key.value
        ordering = (value.desc(), Job.id.desc()) if self._descending else (value.asc(), Job.id.asc())
        return (value.is_(None), *ordering) if self._key.nullable else ordering

    def cursor(self, value: Any, job_id: str) -> str:
        """The cursor of the job with this sort value and id."""
        return cursors.write([self._sort, value, job_id])

    def after(self, cursor: str) -> ColumnElement[bool]:
        """The condition that a job comes after a cursor.

        Raises:
            InvalidCursor: this service did not issue the cursor, or it belongs to another order.
        """
        value, last_id = self._read(cursor)
        key, is_after_id = self._key, Job.id < last_id if self._descending else Job.id > last_id
        if value is None:
            return and_(key.value.is_(None), is_after_id)
        # Compare rows, so that both databases find the position in an index instead of scanning up to it.
        position = tuple_(key.value, Job.id)
        cursor_position = tuple_(literal(value, key.value.type), literal(last_id, Job.id.type))
        is_after = position < cursor_position if self._descending else position > cursor_position
        return or_(is_after, key.value.is_(None)) if key.nullable else is_after

    def _read(self, cursor: str) -> tuple[Any, str]:
        sort, value, job_id = cursors.read(cursor, object, object, object)
        if sort != self._sort or not self._is_valid_value(value) or not _is_plain(job_id):
            raise InvalidCursor("the cursor belongs to another list; start again without it")
        return value, job_id

    def _is_valid_value(self, value: Any) -> bool:
        """Whether a cursor's value has the type of this order and is safe to pass to the database."""
        if value is None:
            return self._key.nullable
        if self._key.type is str:
            return isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH and _is_storable(value)
        if self._key.type is float and type(value) is float:
            return math.isfinite(value)
        return type(value) is int and abs(value) < 2**63


def _is_plain(text: Any) -> bool:
    return isinstance(text, str) and text.isascii() and text.isprintable()


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
