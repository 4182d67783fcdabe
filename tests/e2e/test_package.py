"""The result of `pip install .`: the package, built like a release, in an environment without the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SAMPLE = """
from pathlib import Path

from tapeline import ApiError, Client, Job


def accuracy(server: str) -> float:
    with Client(server) as client:
        job: Job = client.submit({"kind": "classifier", "name": "first"}).wait()
        fork = client.job("first").fork({"epochs": 9})
        prediction = fork.wait().predict([Path("digit.png")], explain=True)
        first: float = prediction["probabilities"][0][0]
        paths: list[Path] = fork.download("files")
        for event in fork.events():
            print(event.type, event.data, paths)
        series: list[float | None] = job.history().series["val_loss"]
        return job.metrics["val_accuracy"] or first or series[-1] or 0.0
"""
SAMPLE_WITH_TYPE_ERRORS = """
from tapeline import Client

with Client("http://127.0.0.1:8000") as client:
    client.job("first").metrics.append(1)
    client.submit({"kind": "classifier"}).wait(timeout="soon")
    client.jobs(limit="many")
"""

pytestmark = pytest.mark.stack


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Without the source tree: imports must come from the installed package.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the package, built from an sdist, and its dependencies."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    source.mkdir()
    for name in ("engine", "migrations", "service", "tapeline", "workers"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import setuptools.build_meta as backend; print(backend.build_sdist('..'))"
    building = run(sys.executable, "-c", build, cwd=source)
    assert building.returncode == 0, building.stderr
    (sdist,) = folder.glob("tapeline-*.tar.gz")

    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    interpreter = environment / "bin" / "python"
    # The dependencies come from the environment of the tests, as a plain path, whose .pth files are not read.
    print_purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(interpreter, "-c", print_purelib, cwd=folder).stdout.strip())
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", interpreter]
    installation = run(*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", sdist, cwd=folder)
    assert installation.returncode == 0, installation.stderr
    return interpreter


def test_the_client_can_be_imported_from_the_installed_tapeline_package(python: Path, tmp_path: Path) -> None:
    program = "import tapeline, service; from tapeline import Client, Job; print(tapeline.__file__, service.__file__)"
    result = run(python, "-c", program, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert all(str(python.parent.parent) in path for path in result.stdout.split())


def test_the_command_runs_from_the_installed_package(python: Path, tmp_path: Path) -> None:
    for command in ([python.parent / "tapeline"], [python, "-m", "tapeline"]):
        result = run(*command, "--help", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("Usage: tapeline ")


def test_a_users_program_is_type_checked_against_the_package(python: Path, tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text(SAMPLE)
    (tmp_path / "wrong.py").write_text(SAMPLE_WITH_TYPE_ERRORS)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache"]
    right = run(*mypy, "sample.py", cwd=tmp_path)
    assert right.returncode == 0, right.stdout + right.stderr
    wrong = run(*mypy, "wrong.py", cwd=tmp_path)
    assert [line.split(":")[1] for line in wrong.stdout.splitlines() if ": error:" in line] == ["5", "6", "7"], (
        wrong.stdout
    )
