"""The processors and the memory that a process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.runtime import machine_limits

COUNT = "import os, sys; sys.stdin.readline(); from service.runtime import machine_limits as m; print(m.processors())"


def processors_of_a_child(cgroup: Path | None = None, affinity: set[int] | None = None) -> int:
    child = subprocess.Popen([sys.executable, "-c", COUNT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if cgroup is not None:
        (cgroup / "cgroup.procs").write_text(str(child.pid))
    if affinity is not None:
        os.sched_setaffinity(child.pid, affinity)
    return int(child.communicate("go\n", timeout=60)[0])


@pytest.mark.stack
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_affinity_limits_the_processors() -> None:
    first = min(os.sched_getaffinity(0))
    assert processors_of_a_child(affinity={first}) == 1
    assert processors_of_a_child() <= len(os.sched_getaffinity(0))


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A control group with half of a processor."""
    folder = Path(f"/sys/fs/cgroup/cpu/tapeline-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "cpu.cfs_period_us").write_text("100000")
        (folder / "cpu.cfs_quota_us").write_text("50000")
    except OSError:
        pytest.skip("control groups of version 1 cannot be created here (it takes root)")
    yield folder
    folder.rmdir()


@pytest.mark.stack
def test_the_quota_of_a_control_group_limits_the_processors(cgroup: Path) -> None:
    assert processors_of_a_child(cgroup) == 1


@pytest.mark.parametrize(
    ("line", "files", "limit"),
    [
        ("0::/pod/app", {"pod/cpu.max": "150000 100000", "pod/app/cpu.max": "max 100000"}, 2),
        ("0::/", {"cpu.max": "100000 100000"}, 1),
        ("4:cpu,cpuacct:/pod", {"cpu/pod/cpu.cfs_quota_us": "-1", "cpu/pod/cpu.cfs_period_us": "100000"}, 64),
        ("4:cpu,cpuacct:/pod", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ("0::/gone", {}, 64),
    ],
)
def test_the_smallest_quota_of_all_enclosing_groups_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, files: dict[str, str], limit: int
) -> None:
    simulate(tmp_path, monkeypatch, line, files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert machine_limits.processors() == limit


def simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, files: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    (tmp_path / "of-this-process").write_text(line + "\n")
    monkeypatch.setattr(machine_limits, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine_limits, "_OWN_CGROUPS", tmp_path / "of-this-process")


def test_the_memory_of_a_container_is_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tmp_path, monkeypatch, "0::/", {"memory.max": "1000000", "memory.current": "400000"})
    assert machine_limits.memory_bytes() == (1_000_000, 600_000)
    (tmp_path / "memory.max").write_text("max\n")
    total, available = machine_limits.memory_bytes()
    assert total == psutil.virtual_memory().total
    assert 0 < available < total
