"""Programs that the documents name, and that no other test runs, are at least up to date with the code they use."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["page", "self_comparisons", "sweeps"])
def test_a_program_can_be_loaded(name: str) -> None:
    assert callable(import_module(f"benchmarks.{name}").main)
