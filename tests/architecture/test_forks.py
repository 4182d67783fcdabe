"""Tests that run in forked processes have the results of tests that run in one, and none is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack  # each case starts several pytest processes

ROOT = Path(__file__).parents[2]
MODULE = """
import os, signal
import pytest

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("shared")
    yield path
    assert path.exists()

@pytest.mark.parametrize("number", range(30))
def test_number(number, shared, tmp_path):
    tmp_path.joinpath("file").write_text("x")
    assert number != 7, "seven"

@pytest.mark.skip(reason="not now")
def test_skipped():
    pass

def test_subtests(subtests):
    for number in range(2):
        with subtests.test(number=number):
            assert number == 0
"""
CRASH = """
def test_crash():
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.parametrize("number", range(5))
def test_after_it(number):
    pass
"""


def run(folder: Path, code: str, *options: str) -> tuple[int, str]:
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name in ("a", "b"):
        (folder / f"test_{name}.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "tests.running.forks", "-p", "no:xdist", *options, str(folder)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environ |= {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def counts(output: str) -> dict[str, str]:
    return {word: number for number, word in re.findall(r"(\d+) (\w+)", output.splitlines()[-1])}


def test_the_results_are_those_of_one_process(tmp_path: Path) -> None:
    options = ("-q", "-ra", "-k", "not subtests", "--basetemp", str(tmp_path / "t"))
    code, output = run(tmp_path, MODULE, "--forks", "3", *options)
    assert code == 1
    assert "AssertionError: seven" in output
    assert "SKIPPED [1] test_a.py" in output
    alone_code, alone = run(tmp_path, MODULE, *options)
    assert (code, counts(output)) == (alone_code, counts(alone)), output


def test_a_failed_subtest_is_reported(tmp_path: Path) -> None:
    code, output = run(tmp_path, MODULE, "--forks", "2", "-q", "-ra", "-k", "subtests")
    assert (code, output.count("SUBFAILED")) == (1, 2), output


def test_a_process_that_dies_fails_its_test_and_no_other(tmp_path: Path) -> None:
    code, output = run(
        tmp_path, MODULE.replace("number != 7", "True") + CRASH, "--forks", "2", "-q", "-k", "not subtests"
    )
    assert code == 1
    crashed = re.findall(r"^fork\d+ crashed while running (\S+)", output, re.MULTILINE)
    assert sorted(crashed) == ["test_a.py::test_crash", "test_b.py::test_crash"], output
    assert (counts(output)["failed"], counts(output)["passed"]) == ("2", "70"), output


def test_the_first_failure_ends_the_run_if_it_should(tmp_path: Path) -> None:
    code, output = run(tmp_path, MODULE, "--forks", "2", "-q", "-x")
    assert code == 1
    assert "stopping after 1 failures" in output


def test_threads_before_the_first_test_are_refused(tmp_path: Path) -> None:
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
    code, output = run(tmp_path, thread + MODULE, "--forks", "2")
    assert code == 4
    assert "threads before the first test" in output
