"""The version of this installation."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The version of the package; ``0`` in a tree that is not installed."""
    try:
        return version("tapeline")
    except PackageNotFoundError:
        return "0"
