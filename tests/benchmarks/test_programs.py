"""Programs that documents mention and no other test runs still match the code that they import."""

from __future__ import annotations

from importlib import import_module

import pytest

from benchmarks import collapse
from service.spec.schema import Adam, GanSpec
from service.spec.validation import resolve


@pytest.mark.parametrize("name", ["page", "self_comparisons", "sweeps"])
def test_a_program_can_be_imported(name: str) -> None:
    assert callable(import_module(f"benchmarks.{name}").main)


def test_the_combination_against_collapse_is_what_its_name_says_whatever_the_preset_is() -> None:
    spec = resolve(collapse.document(collapse.STACKED, collapse.COMBINED, seed=0, epochs=30))
    assert isinstance(spec, GanSpec)
    assert isinstance(spec.optimizer, Adam)
    assert (spec.discriminator.r1, spec.discriminator.label_smoothing, spec.generator.average_decay) == (
        1.0,
        0.0,
        0.999,
    )
    assert (spec.schedule.name, spec.optimizer.learning_rate, spec.generator.optimizer) == ("cosine", 0.0005, None)
