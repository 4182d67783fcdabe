from __future__ import annotations

import pytest

from service import declarations
from service.declarations import Entries, Room, extended, installed, load
from service.hooks import Hooks, Upkeep


def test_entries_of_features_follow_the_entry_that_they_name() -> None:
    table = {"a": 1, "b": 2}
    added = [Entries("a", {"x": 3, "y": 4}), Entries("x", {"z": 5}), Entries("gone", {"last": 6})]
    assert list(extended(table, added).items()) == [("a", 1), ("x", 3), ("z", 5), ("y", 4), ("b", 2), ("last", 6)]
    assert table == {"a": 1, "b": 2}


def test_a_table_has_each_entry_once() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        extended({"a": 1}, [Entries("a", {"a": 2})])


def test_each_feature_declares_the_rooms_that_it_has() -> None:
    there = {item.name: {room for room in Room if (item.folder / f"{room}.py").is_file()} for item in installed()}
    assert there == {item.name: set(item.rooms) for item in installed()}


def test_a_room_exports_what_the_kernel_expects() -> None:
    assert len(load(Room.HOOKS, Hooks)) == sum(Room.HOOKS in item.rooms for item in installed()) > 0
    with pytest.raises(TypeError, match="is no Upkeep"):
        declarations.load(Room.HOOKS, Upkeep)
