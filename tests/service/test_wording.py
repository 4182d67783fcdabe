"""Numbers of things and lists in sentences."""

from __future__ import annotations

import pytest

from service.wording import counted, listed


@pytest.mark.parametrize(("number", "text"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (12_000, "12,000 jobs")])
def test_only_one_thing_is_singular(number: int, text: str) -> None:
    assert counted(number, "job") == text


@pytest.mark.parametrize(
    ("parts", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "", "b", "c"], "a, b and c")],
)
def test_the_last_of_a_list_follows_and(parts: list[str], text: str) -> None:
    assert listed(parts) == text
