"""The level of each test: where it may run, and what it may do.

A ``unit`` test stays in its process and does not sleep: what has no other level. ``stack`` tests run real processes,
servers and browsers. ``nightly`` tests take long, or another test covers the same at a cheaper level; with both words,
a test is ``nightly``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from service.datasets import sandbox
from service.datasets.info import OnProgress

_FOLDER: Final = Path(__file__).parents[1]
_STARTS_OF_PROCESSES: Final = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
_REAL_PROCESSES: Final = {"stack", "either_stack", "running", "running_on_sqlite", "moto", "seaweedfs"}
"""Fixtures that start some: a test that uses one is of the level ``stack``."""
_DATABASE_IS_THE_SUBJECT: Final = (
    "faults/concurrency",
    "migrations",
    "service/access",
    "service/features",
    "service/jobs",
    "service/storage",
    "service/sweeps",
    "workers",
)
"""Folders of tests that run on both databases at their own level. Elsewhere, PostgreSQL is left to the night."""


class _State:
    is_unit_test = False
    started: str | None = None
    """The program that a unit test has started."""


def level_of(item: pytest.Item) -> str:
    """The level of a test."""
    return next(level for level in ("nightly", "stack", "unit") if item.get_closest_marker(level))


@contextmanager
def server_for_all_tests() -> Iterator[None]:
    """A block in which a unit test may start a process: a server for all tests, such as a database."""
    before, _State.is_unit_test = _State.is_unit_test, False
    try:
        yield
    finally:
        _State.is_unit_test = before


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import what the level leaves out: libraries of the browser and of containers."""
    if config.option.markexpr == "unit" and collection_path.name in ("browser", "compose"):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its level."""
    for item in items:
        folder = item.path.relative_to(_FOLDER).as_posix() if item.path.is_relative_to(_FOLDER) else ""
        if "[postgresql" in item.name and not folder.startswith(_DATABASE_IS_THE_SUBJECT):
            item.add_marker(pytest.mark.nightly)
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if not _REAL_PROCESSES.isdisjoint(
            {*getattr(item, "fixturenames", ()), *(v for v in values if isinstance(v, str))}
        ):
            item.add_marker(pytest.mark.stack)
        if not any(item.get_closest_marker(level) for level in ("stack", "nightly")):
            item.add_marker(pytest.mark.unit)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold a unit test to its level; what it uploads is read in its process, without the limits of the sandbox."""
    if level_of(item) != "unit":
        return (yield)
    _State.is_unit_test, _State.started = True, None
    in_process, sandbox._run = sandbox._run, _read_in_process
    try:
        return (yield)
    finally:
        _State.is_unit_test, sandbox._run = False, in_process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a unit test that has started a process."""
    yield
    started, _State.started = _State.started, None
    if started is not None:
        pytest.fail(
            f"a unit test stays in its process, and this one has started {started}: mark it stack", pytrace=False
        )


def _read_in_process(
    request: Mapping[str, Any],
    *,
    cpu_s: int,
    on_progress: OnProgress = lambda done: None,
    pass_fds: Sequence[int] = (),
) -> dict[str, Any]:
    """What a process of the sandbox responds."""
    sent = json.loads(json.dumps(request))
    if "output" in sent:
        sent["output"] = os.dup(sent["output"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sandbox, "apply_limits", lambda cpu_s, memory_bytes: None)
        return dict(json.loads(json.dumps(sandbox.respond(sent, on_progress))))


def _on_audited_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _State.is_unit_test and event in _STARTS_OF_PROCESSES:
        _State.started = " ".join(map(str, arguments[1])) if event == "subprocess.Popen" else event


sys.addaudithook(_on_audited_event)
