"""Cursors: a place in a list as text that a client gives back as it got it."""

from __future__ import annotations

import base64
import json
from typing import Any

from service.errors import InvalidCursor


def write(place: list[Any]) -> str:
    """The cursor of a place."""
    text = json.dumps(place, ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(cursor: str, length: int) -> list[Any]:
    """The place of a cursor: so many values, of any type.

    Raises:
        InvalidCursor: it is not one of ours.
    """
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as error:
        raise InvalidCursor("the cursor was not issued by this service") from error
    if not isinstance(place, list) or len(place) != length:
        raise InvalidCursor("the cursor was not issued by this service")
    return place
