"""The hash chain by itself: verification detects every change of a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from service.access.audit_chain import GENESIS, Entry, Item, Range, Seal, verify

_TEXT = st.none() | st.text(max_size=8)
_DETAIL = st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=4), max_size=2)


def made(sizes: Sequence[int], details: Sequence[Any] = (), *, removed: int = 0) -> list[Item]:
    """A sealed log with ranges of these sizes, of which the first ``removed`` are gone."""
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
    return made(sizes, details, removed=draw(st.integers(0, len(sizes) - 1)))


def drop(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    place = draw(st.integers(0, len(log) - 1))
    return [*log[:place], *log[place + 1 :]]


def swap(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    one, other = draw(st.integers(0, len(log) - 1)), draw(st.integers(0, len(log) - 1))
    changed = list(log)
    changed[one], changed[other] = changed[other], changed[one]
    return changed


def insert(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    place, number = draw(st.integers(0, len(log) - 1)), draw(st.integers(-3, 50))
    new = Entry(number, {"id": number, "at_ms": draw(st.integers(0, 500)), "owner": draw(_TEXT), "detail": {}})
    return [*log[:place], new, *log[place:]]


def repeat(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    return [*log[: (place := draw(st.integers(0, len(log) - 1)))], log[place], *log[place:]]


def change(log: list[Item], draw: Callable[..., Any]) -> list[Item]:
    place = draw(st.integers(0, len(log) - 1))
    item = log[place]
    if isinstance(item, Entry):
        name = draw(st.sampled_from(sorted(item.columns)))
        value = draw({"id": st.integers(0, 50), "at_ms": st.integers(), "owner": _TEXT, "detail": _DETAIL}[name])
        new: Item = Entry(value if name == "id" else item.id, item.columns | {name: value})
    else:
        name = draw(st.sampled_from(["id", "first_id", "last_id", "count", "created_ms", "digest", "entries_digest"]))
        new = replace(item, **{name: draw(st.text(max_size=64) if "digest" in name else st.integers(0, 50))})
    return [*log[:place], new, *log[place + 1 :]]


@given(logs())
def test_an_unmodified_log_is_intact(log: list[Item]) -> None:
    found = verify(log)
    assert found.fault is None
    assert found.entries == sum(isinstance(item, Entry) for item in log)
    seals = [item for item in log if isinstance(item, Seal)]
    assert found.head == seals[-1].digest
    assert all(verify(log, head=seal.digest).fault is None for seal in seals)


@given(logs(), st.lists(st.sampled_from([drop, swap, insert, repeat, change]), min_size=1, max_size=3), st.data())
def test_every_edit_of_a_sealed_log_is_found(log: list[Item], edits: Sequence[Any], data: st.DataObject) -> None:
    head = verify(log).head
    edited = log
    for edit in edits:
        edited = edit(edited, data.draw)
        assume(edited)
    assume(edited != log)
    assert verify(edited, head=head).fault is not None


def test_without_a_head_only_the_end_can_be_cut_off() -> None:
    log = made([2, 3, 1])
    assert verify(log[:7]).fault is None
    assert verify(log[:7], head=verify(log).head).fault is not None


def test_equal_values_have_one_text_and_other_types_another() -> None:
    def digest(**columns: Any) -> str:
        link = Range(GENESIS)
        link.add(Entry(1, columns))
        return link.seal(1, 1).digest

    assert digest(a=1, b="ü\ud800") == digest(b="ü\ud800", a=1)
    assert len({digest(a=1), digest(a="1"), digest(a=None), digest(a=1.5), digest(a=[1]), digest()}) == 6
