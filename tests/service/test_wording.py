"""Counts, lists and numbers in sentences."""

from __future__ import annotations

import pytest

from service.wording import counted, listed, rounded


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        *[(0, "job", "0 jobs"), (1, "job", "1 job"), (2, "job", "2 jobs"), (12_000, "job", "12,000 jobs")],
        *[
            (1, "entry", "1 entry"),
            (2, "entry", "2 entries"),
            (2, "key", "2 keys"),
            (2, "running job", "2 running jobs"),
        ],
    ],
)
def test_only_a_count_of_one_is_singular(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("parts", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "", "b", "c"], "a, b and c")],
)
def test_and_precedes_the_last_item_of_a_list(parts: list[str], text: str) -> None:
    assert listed(parts) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.12346, "0.1235"),
        (-2.0, "-2"),
        (2024.4, "2024"),
        (9999.4, "9999"),
        (9999.7, "10,000"),
        (13_607.78, "13,608"),
        (-30_424.5, "-30,424"),
        (1_234_567.8, "1,234,568"),
        (12_345_678.0, "1.235e+07"),
        (0.00001234, "1.234e-05"),
    ],
)
def test_only_very_large_and_very_small_numbers_use_scientific_notation(value: float, text: str) -> None:
    assert rounded(value) == text
