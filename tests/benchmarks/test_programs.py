"""Programs that documents mention and no other test runs still match the code that they import."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["page", "self_comparisons", "sweeps"])
def test_a_program_can_be_imported(name: str) -> None:
    assert callable(import_module(f"benchmarks.{name}").main)
