"""The Helm library, loaded on first use: its threads would not survive the fork of the processes that run the tests."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("Chart", "lint", "HelmError", "HelmValuesError"):  # pytest asks for others
        raise AttributeError(name)
    import helm_python.chart
    import helm_python.errors

    module = helm_python.errors if name.endswith("Error") else helm_python.chart
    return getattr(module, name)
