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
from tests.tapeline.verify import making

ROOT = Path(__file__).parents[2]
MAX_BYTES = 1_000_000
PROGRAM = """
from tapeline import Client

with Client() as client:
    job = client.submit({"kind": "classifier", "dataset": "iris", "epochs": 1}).wait(timeout_s=120)
    print(job.status, client.server)
"""

NO_NETWORK = """
import runpy, socket, sys

def refuse(*arguments, **options):
    raise AssertionError("the network is not needed")

socket.socket.connect = socket.getaddrinfo = refuse
sys.argv[0] = "tapeline.verify"
runpy.run_module("tapeline.verify", run_name="__main__", alter_sys=True)
"""
"""``python -m tapeline.verify`` without a network."""

pytestmark = pytest.mark.stack


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


def test_a_certificate_is_verified_with_the_wheel_alone_and_no_network(wheel: Path, tmp_path: Path) -> None:
    signer = making.signer(tmp_path / "home")
    folder, environment = making.make(tmp_path / "certificate", signer), tmp_path / "environment"
    key = tmp_path / "key.pub"
    key.write_text(signer.public_key)
    venv.create(environment, with_pip=False)
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)

    def verify(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-W", "error", "-c", NO_NETWORK, str(folder), *arguments]
        environ = {"PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    without = verify()
    assert without.returncode == 2
    assert "pip install 'tapeline-client[verify]'" in without.stderr
    subprocess.run([*pip, f"{wheel}[verify]"], check=True, capture_output=True)
    result = verify("--public-key", str(key))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("verified  1 of 1 files")
    assert signer.kid in result.stdout
    (folder / "checkpoint.safetensors").write_bytes(b"")
    result = verify("--public-key", str(key))
    assert result.returncode == 1
    assert result.stderr.startswith("mismatch: checkpoint.safetensors was changed")


def test_the_wheel_works_in_an_empty_environment_beside_a_users_service_and_workers(
    wheel: Path, stack: LocalStack, tmp_path: Path
) -> None:
    environment, folder = tmp_path / "environment", tmp_path / "mine"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
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
