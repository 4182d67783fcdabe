"""The text of a stored time."""

from __future__ import annotations

from datetime import UTC, datetime


def at_time(milliseconds: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    seconds, remainder_ms = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{remainder_ms:03d}Z"
