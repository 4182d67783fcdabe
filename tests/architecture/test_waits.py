"""No test waits for a fixed time, or bounds a duration, without a reason."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {"attack_cases.py", "attacks.py", "drill.py", "reader_fuzz.py", "screenshots.py", "soak.py"}
"""Programs that are run by hand, for as long as they are told to."""
CLOCKS = {"monotonic", "perf_counter"}
SIMULATED = ROOT / "tests" / "simulation"
"""Waits by a clock of its own, which takes no time."""
PATHS = [
    path
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if path.name not in PROGRAMS and not path.is_relative_to(SIMULATED)
]


def called(node: ast.AST) -> str:
    """The name of the method that ``node`` calls, if it does."""
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def fixed_waits(node: ast.AST, in_poll: bool = False) -> Iterator[ast.expr]:
    """Waits outside a ``while``, which ends with a condition."""
    for child in ast.iter_child_nodes(node):
        polls = (in_poll or isinstance(child, ast.While)) and not isinstance(child, ast.FunctionDef | ast.Lambda)
        if isinstance(child, ast.expr) and called(child) in {"sleep", "wait_for_timeout"} and not polls:
            yield child
        yield from fixed_waits(child, polls)


def bounded_durations(tree: ast.AST) -> Iterator[ast.stmt]:
    """Assertions without a message that something took less than a duration."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and node.msg is None and isinstance(node.test, ast.Compare):
            reads_clock = any(called(part) in CLOCKS for part in ast.walk(node.test))
            if reads_clock and isinstance(node.test.ops[-1], ast.Lt | ast.LtE):
                yield node


@pytest.mark.parametrize("find", [fixed_waits, bounded_durations])
def test_each_fixed_wait_and_bounded_duration_has_its_reason_beside_it(
    find: Callable[[ast.AST], Iterator[ast.stmt | ast.expr]],
) -> None:
    found, unexplained = 0, []
    for path in PATHS:
        text = path.read_text(encoding="utf-8")
        lines = ["", *text.splitlines()]
        numbers = [node.lineno for node in find(ast.parse(text))]
        found += len(numbers)
        without = [n for n in numbers if "#" not in lines[n] and not lines[n - 1].lstrip().startswith("#")]
        unexplained += [f"{path.relative_to(ROOT)}:{number}" for number in without]
    assert found > 0
    assert unexplained == []


def test_a_wait_and_a_bound_without_a_reason_are_found() -> None:
    code = "began = time.monotonic()\nfor _ in range(3):\n    time.sleep(1)\nassert time.monotonic() - began < 4\n"
    poll = "while not ready():\n    time.sleep(0.1)\nassert time.monotonic() - began < 4, 'the promise'\n"
    assert [len([*find(ast.parse(code))]) for find in (fixed_waits, bounded_durations)] == [1, 1]
    assert [len([*find(ast.parse(poll))]) for find in (fixed_waits, bounded_durations)] == [0, 0]
