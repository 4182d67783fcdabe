"""Ids of jobs, files and datasets."""

from __future__ import annotations

from ulid import ULID


def new_id(prefix: str) -> str:
    """A new id that sorts by creation time: ``job_01J...``."""
    return f"{prefix}_{ULID()}"
