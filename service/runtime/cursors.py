"""Pagination cursors: a position in a list, encoded as opaque text."""

from __future__ import annotations

import base64
import json
from typing import Any

from service.errors import InvalidCursor


def write(position: list[Any]) -> str:
    """Encode a position."""
    text = json.dumps(position, ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(cursor: str, *types: type) -> list[Any]:
    """Decode a position of values of these types; ``object``: any, which the caller checks.

    Raises:
        InvalidCursor: this service did not issue it.
    """
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as error:
        raise InvalidCursor("the cursor was not issued by this service") from error
    if not isinstance(position, list) or len(position) != len(types):
        raise InvalidCursor("the cursor was not issued by this service")
    for part, kind in zip(position, types, strict=True):
        # A boolean is not a number here, and a number is in the range of the databases.
        if kind is not object and (type(part) is not kind or (isinstance(part, int) and abs(part) >= 2**63)):
            raise InvalidCursor("the cursor was not issued by this service")
    return position
