"""The README's session, word by word, as a reader pastes it: twice, since a second time must work as the first did."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import load_file

from service.client import Client
from service.local import LocalStack

README = Path(__file__).parent.parent.parent / "README.md"
SECTIONS = ("From POST to download", "Using a trained network")
SHELL = r"""
set -euo pipefail
curl() {  # an error of the API is an error of the session
  case " $* " in
    *" -f"*) command curl "$@" ;;
    *) command curl --fail-with-body "$@" ;;
  esac
}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the session needs curl"),
]


def session() -> str:
    """All code of the sections as one program of bash: blocks of Python run as one would paste them."""
    text = README.read_text(encoding="utf-8")
    parts = [SHELL]
    for title in SECTIONS:
        section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert blocks, title
        for language, code in blocks:
            parts.append(code if language == "sh" else f"python - <<'END OF PYTHON'\n{code}END OF PYTHON\n")
    return "\n".join(parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader is: a folder with an environment that puts tapeline and python on the PATH."""
    made = tmp_path_factory.mktemp("reader")
    activate = made / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'PATH="{made / ".venv" / "bin"}:$PATH"\n')
    tapeline = activate.parent / "tapeline"
    tapeline.write_text(f"#!{sys.executable}\nfrom service.cli import main\nmain(prog_name='tapeline')\n")
    tapeline.chmod(0o755)
    (activate.parent / "python").symlink_to(sys.executable)
    return made


@pytest.mark.parametrize("time", ["first", "second"])
def test_the_session_of_the_readme_runs_to_its_end(stack: LocalStack, folder: Path, time: str) -> None:
    port = stack.url.rpartition(":")[2]
    program = session().replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    # The link to the interpreter leads out of its environment, whose packages are named here.
    packages = os.pathsep.join([os.environ["PYTHONPATH"], *(path for path in sys.path if "site-packages" in path)])
    result = subprocess.run(
        ["bash", "-c", program],
        cwd=folder,
        env=os.environ | {"TAPELINE_PORT": port, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert result.returncode == 0, f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    if time == "second":
        assert "2 jobs are named 'first'; using the newest" in result.stderr

    with Client(stack.url) as client:
        first = client.job("first")
        names = {job.name for job in client.jobs()}
        assert {job.wait(timeout_s=120).status for job in client.jobs()} == {"succeeded"}
    assert names >= {"first", "first-2", "first-3", "first (reproduced)", "second", "third", "painter"}
    (checkpoint,) = folder.glob(f"{first.id}-epoch-*.safetensors")
    assert "layers.0.weight" in load_file(checkpoint)
    assert len(list((folder / first.id).iterdir())) > 5, "all files of the job"
    for name in ("curves.png", "film.gif", "digit.png", "grid.png", "walk.gif"):
        with Image.open(folder / name) as picture:
            picture.load()


def test_the_demo_runs_twice_in_one_state_folder(tmp_path: Path) -> None:
    environ = os.environ | {"TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_PORT": "0"}
    short = "demo.SPECS = tuple(spec | {'epochs': 1} for spec in demo.SPECS)"
    program = f"from service.cli.commands import demo, main; {short}; main()"
    seen = set()
    for _ in range(2):
        command = [sys.executable, "-c", program, "demo"]
        result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "of unseen digits classified correctly" in result.stdout
        assert len(list((tmp_path / "demo").iterdir())) == 8
        seen.add((tmp_path / "demo" / "classifier.safetensors").stat().st_ino)
    assert len(seen) == 2, "the second demo writes its own files"
