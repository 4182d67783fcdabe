"""The client's wheel, alone in an environment, with a user's modules that are named like packages of the server."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from service.local import LocalStack
from tapeline.version import VERSION

ROOT = Path(__file__).parents[2]
MAX_BYTES = 1_000_000
PROGRAM = """
from tapeline import Client

with Client() as client:
    job = client.submit({"kind": "classifier", "dataset": "iris", "epochs": 1}).wait(timeout_s=120)
    print(job.status, client.server)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    (recipe,) = re.findall(r"(?m)^client-wheel:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text())
    commands = recipe.replace("\t@", "").replace("$(BIN)/pip", f"{sys.executable} -m pip")
    commands = commands.replace("dist/client", f"{folder}/client").replace("--wheel-dir dist", f"--wheel-dir {folder}")
    subprocess.run(["bash", "-e", "-c", commands], cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("tapeline_client-*.whl")
    return path


def test_the_wheel_is_small_and_has_every_module_and_the_version_of_the_server(wheel: Path) -> None:
    assert wheel.stat().st_size < MAX_BYTES
    assert wheel.name.split("-")[1] == VERSION == importlib.metadata.version("tapeline")
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], check=True, capture_output=True, text=True
    )
    packed = {line.split()[0] for line in listing.stdout.splitlines() if line.startswith("tapeline/")}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tapeline").rglob("*.py")}
    assert packed == sources | {"tapeline/py.typed"}


def test_the_wheel_works_in_an_empty_environment_beside_a_users_service_and_workers(
    wheel: Path, stack: LocalStack, tmp_path: Path
) -> None:
    environment, folder = tmp_path / "environment", tmp_path / "mine"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", str(wheel)], check=True, capture_output=True)
    installed = subprocess.run([*pip, "list", "--format=freeze"], check=True, capture_output=True, text=True).stdout
    names = {line.partition("==")[0].lower() for line in installed.splitlines()}
    assert names == {"tapeline-client", "httpx", "httpx-sse", "httpcore", "anyio", "h11", "idna", "certifi"} | (
        {"typing-extensions", "typing_extensions"} & names  # on older Pythons
    )
    folder.mkdir()
    for name in ("service", "workers", "engine"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')\n")
    (folder / "program.py").write_text(PROGRAM)
    environ = {"TAPELINE_PORT": stack.url.rpartition(":")[2], "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [str(python), "-W", "error", "program.py"], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert result.stdout == f"succeeded {stack.url}\n", result.stderr
    for name in ("service", "workers", "engine"):
        (folder / f"{name}.py").unlink()
    command = subprocess.run([str(python), "-m", "tapeline"], cwd=folder, capture_output=True, text=True, check=False)
    assert command.returncode == 1
    assert "the command comes with the server" in command.stderr
    assert shutil.which("tapeline", path=str(python.parent)) is None
