"""The hash chain alone: verification detects every change to a log."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from service.access.audit_chain import GENESIS, Entry, Item, Range, Seal, verify

_TEXT = st.none() | st.text(max_size=8)
_DETAIL = st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=4), max_size=2)


def sealed_log(sizes: Sequence[int], details: Sequence[Any] = (), *, removed: int = 0) -> list[Item]:
    """A sealed log with ranges of these sizes, of which retention has removed the first ``removed``."""
    items: list[Item] = []
    previous, number = GENESIS, 0
    for index, size in enumerate(sizes, start=1):
        link = Range(previous)
        for _ in range(size):
            number += 2  # PostgreSQL leaves gaps
            detail = details[number % len(details)] if details else {}
            entry = Entry(number, {"id": number, "at_ms": 10 * number, "owner": "ann", "detail": detail})
            link.add(entry)
            if index > removed:
                items.append(entry)
        seal = link.seal(index, 1000 + index)
        previous = seal.digest
        items.append(replace(seal, removed_ms=5 if index <= removed else None))
    return items


_SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@st.composite
def logs(draw: st.DrawFn) -> list[Item]:
    sizes = draw(_SIZES)
    details = draw(st.lists(_DETAIL, min_size=1, max_size=3))
    return sealed_log(sizes, details, removed=draw(st.integers(0, len(sizes) - 1)))


def drop(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    index = draw(st.integers(0, len(log) - 1))
    return [*log[:index], *log[index + 1 :]]


def swap(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    first, second = draw(st.integers(0, len(log) - 1)), draw(st.integers(0, len(log) - 1))
    changed = list(log)
    changed[first], changed[second] = changed[second], changed[first]
    return changed


def insert(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    index, number = draw(st.integers(0, len(log) - 1)), draw(st.integers(-3, 50))
    new = Entry(number, {"id": number, "at_ms": draw(st.integers(0, 500)), "owner": draw(_TEXT), "detail": {}})
    return [*log[:index], new, *log[index:]]


def repeat(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    return [*log[: (index := draw(st.integers(0, len(log) - 1)))], log[index], *log[index:]]


def change(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    index = draw(st.integers(0, len(log) - 1))
    item = log[index]
    if isinstance(item, Entry):
        name = draw(st.sampled_from(sorted(item.columns)))
        value = draw({"id": st.integers(0, 50), "at_ms": st.integers(), "owner": _TEXT, "detail": _DETAIL}[name])
        new: Item = Entry(value if name == "id" else item.id, item.columns | {name: value})
    else:
        name = draw(st.sampled_from(["id", "first_id", "last_id", "count", "created_ms", "digest", "entries_digest"]))
        new = replace(item, **{name: draw(st.text(max_size=64) if "digest" in name else st.integers(0, 50))})
    return [*log[:index], new, *log[index + 1 :]]


@given(logs())
def test_an_unmodified_log_passes_verification(log: list[Item]) -> None:
    verification = verify(log)
    assert verification.fault is None
    assert verification.entries == sum(isinstance(item, Entry) for item in log)
    seals = [item for item in log if isinstance(item, Seal)]
    assert verification.head == seals[-1].digest
    assert all(verify(log, head=seal.digest).fault is None for seal in seals)


@given(logs(), st.lists(st.sampled_from([drop, swap, insert, repeat, change]), min_size=1, max_size=3), st.data())
def test_every_edit_of_a_sealed_log_is_detected(log: list[Item], edits: Sequence[Any], data: st.DataObject) -> None:
    head = verify(log).head
    edited = log
    for edit in edits:
        edited = edit(edited, data.draw)
        assume(edited)
    assume(edited != log)
    verification = verify(edited, head=head)
    # An insertion and a swap can append an entry, which is not sealed yet: the sealed log is as it was.
    is_appended = edited[: len(log)] == log
    assert verification.fault is not None or (is_appended and verification.unsealed > 0)


def test_without_a_stored_head_only_the_end_of_a_log_can_be_cut_off_undetected() -> None:
    """Every part of the log is cut out, from each position to each later one."""
    log = sealed_log([2, 3, 1])
    head = verify(log).head
    for start, end in itertools.combinations(range(len(log) + 1), 2):
        shortened = log[:start] + log[end:]
        assert (verify(shortened).fault is None) == (end == len(log)), (start, end)
        assert verify(shortened, head=head).fault is not None
    partly_removed = sealed_log([2, 3, 1], removed=1)
    for start, end in itertools.combinations(range(len(partly_removed)), 2):
        assert verify(partly_removed[:start] + partly_removed[end:]).fault is not None


def test_the_digest_ignores_the_order_of_columns_and_distinguishes_types() -> None:
    def digest(**columns: Any) -> str:
        link = Range(GENESIS)
        link.add(Entry(1, columns))
        return link.seal(1, 1).digest

    assert digest(a=1, b="ü\ud800") == digest(b="ü\ud800", a=1)
    assert len({digest(a=1), digest(a="1"), digest(a=None), digest(a=1.5), digest(a=[1]), digest()}) == 6
