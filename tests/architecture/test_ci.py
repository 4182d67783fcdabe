"""CI runs a failed test once more, alone, and is green if it passes; some tests have no second chance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FAILS_ONCE = """
from pathlib import Path

def test_that_holds():
    assert True

def test_by_chance():
    seen = Path(__file__).with_suffix(".seen")
    first, _ = not seen.exists(), seen.touch()
    assert not first
"""
FAILS_ALWAYS = "def test_a_fault():\n    assert False\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with the programs of CI and no tests."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci", ignore=shutil.ignore_patterns("results", "flaky.txt"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def add(folder: Path, path: str, code: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(code)


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f".ci/{program}", *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.nightly
def test_a_test_that_passes_the_second_time_is_named_as_flaky_and_ci_is_green(folder: Path) -> None:
    add(folder, "tests/service/test_jobs.py", FAILS_ONCE)
    suite = run(folder, "suite.py", "default", "tests")
    assert (suite.returncode, "1 failed, 1 passed" in suite.stdout) == (0, True), suite.stdout
    verdict = run(folder, "once_more.py")
    assert verdict.returncode == 0
    name = "tests/service/test_jobs.py::test_by_chance"
    assert verdict.stdout.endswith(f"\n2 passed, 0 failed, 0 skipped\nflaky: 1\n{name}\n")
    assert (folder / ".ci" / "flaky.txt").read_text() == f"{name}\n"


@pytest.mark.stack
def test_a_test_that_fails_twice_makes_ci_red(folder: Path) -> None:
    add(folder, "tests/service/test_jobs.py", FAILS_ONCE + FAILS_ALWAYS)
    assert run(folder, "suite.py", "default", "tests").returncode == 0
    verdict = run(folder, "once_more.py")
    assert verdict.returncode == 1
    assert (
        "\nfailed: tests/service/test_jobs.py::test_a_fault\n2 passed, 1 failed, 0 skipped\nflaky: 1\n"
        in verdict.stdout
    )


@pytest.mark.stack
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("tests/engine/test_ops.py", FAILS_ONCE),
        ("tests/security/test_owners.py", FAILS_ONCE),
        ("tests/workers/test_kills.py", FAILS_ONCE.replace("assert not first", "digest = not first; assert digest")),
    ],
    ids=["engine", "security", "other bits"],
)
def test_a_test_of_the_engine_of_security_or_of_bits_has_no_second_chance(folder: Path, path: str, code: str) -> None:
    add(folder, path, code)
    assert run(folder, "suite.py", "default", "tests").returncode == 1
    assert run(folder, "once_more.py").returncode == 1
    assert (folder / ".ci" / "flaky.txt").read_text() == ""


@pytest.mark.nightly
@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_a_module_that_cannot_be_imported_has_no_second_chance(folder: Path, processes: tuple[str, ...]) -> None:
    """With xdist, pytest runs the other tests, and its exit code is that of failed tests."""
    add(folder, "tests/service/test_jobs.py", "import nothing_of_this_name\n")
    add(folder, "tests/service/test_sweeps.py", FAILS_ONCE)
    assert run(folder, "suite.py", "default", *processes, "tests").returncode in (1, 2)
    assert run(folder, "once_more.py").returncode == 1


@pytest.mark.stack
def test_a_suite_of_which_nothing_ran_is_no_success(folder: Path) -> None:
    add(folder, "tests/browser/test_page.py", "import pytest\ndef test_page():\n    pytest.skip('no Chromium')\n")
    assert run(folder, "suite.py", "browser", "tests").returncode == 1
    assert run(folder, "suite.py", "compose", "tests").returncode == 0


@pytest.mark.nightly
def test_many_failures_are_no_chance(folder: Path) -> None:
    add(folder, "tests/service/test_jobs.py", FAILS_ONCE + "".join(f"def test_{n}(): assert 0\n" for n in range(5)))
    assert run(folder, "suite.py", "default", "tests").returncode == 1
    result = json.loads((folder / ".ci" / "results" / "default.json").read_text())
    assert (len(result["failed"]), result["again"]) == (6, False)
