"""The commands in README, guide, lessons and the page of the API, run as a user would paste them. Those of all but the
lessons run twice: they must be repeatable."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from service.local import LocalStack
from tapeline import Client

ROOT = Path(__file__).parent.parent.parent
LESSONS = ROOT / "docs" / "learn"
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
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the session needs curl"),
]


def session(text: str) -> str:
    """All code of a document as one bash program, in which blocks of Python run as if pasted."""
    parts = [SHELL]
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for language, code in blocks:
        parts.append(code if language == "sh" else f"python - <<'END OF PYTHON'\n{code}END OF PYTHON\n")
    return "\n".join(parts)


def run(stack: LocalStack, program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a session in the reader's folder, against the stack; it must end without an error."""
    port = stack.url.rpartition(":")[2]
    # The link to the interpreter leads out of its environment, so the packages of that are listed here.
    packages = os.pathsep.join([os.environ["PYTHONPATH"], *(path for path in sys.path if "site-packages" in path)])
    result = subprocess.run(
        ["bash", "-c", program.replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
        cwd=folder,
        env=os.environ | {"TAPELINE_PORT": port, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert result.returncode == 0, f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result


@pytest.fixture(params=["stack", pytest.param("in_bucket", marks=pytest.mark.nightly)])
def service(request: pytest.FixtureRequest) -> LocalStack:
    """The whole service, with a folder as its store and with a bucket."""
    running: LocalStack = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reader's folder, with an environment that puts tapeline and python on the PATH."""
    reader_folder = tmp_path / "reader"
    activate = reader_folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'PATH="{reader_folder / ".venv" / "bin"}:$PATH"\n')
    tapeline = activate.parent / "tapeline"
    tapeline.write_text(f"#!{sys.executable}\nfrom service.cli import main\nmain(prog_name='tapeline')\n")
    tapeline.chmod(0o755)
    (activate.parent / "python").symlink_to(sys.executable)
    return reader_folder


@pytest.mark.stack
def test_the_session_of_the_readme_runs_without_errors(service: LocalStack, folder: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    program = session(text.partition("\n## From POST to download\n")[2].partition("\n## ")[0])
    with Client(service.url) as client:
        existing_ids = {job.id for job in client.jobs()}
    for run_number in (1, 2):
        result = run(service, f". .venv/bin/activate\n{program}", folder)
        assert "event: end" in result.stdout
        with Client(service.url) as client:
            new_jobs = [job for job in client.jobs() if job.id not in existing_ids]
            assert {job.name for job in new_jobs} == {"digits", None}
            assert len(new_jobs) == 2 * run_number
            assert {job.status for job in new_jobs} == {"succeeded"}
            (checkpoint,) = folder.glob(f"{client.job('digits').id}-epoch-*.safetensors")
        assert "layers.0.weight" in load_file(checkpoint)
        assert len(list((folder / "files").iterdir())) > 5, "all files of the job"


@pytest.mark.nightly  # its commands are in tests/service/cli, and their options in test_documented_options.py
def test_the_session_of_the_guide_runs_without_errors(service: LocalStack, folder: Path) -> None:
    program = session((ROOT / "docs" / "guide.md").read_text(encoding="utf-8"))
    with Client(service.url) as client:
        existing_ids = {job.id for job in client.jobs()}
    first_run = run(service, program, folder)
    assert "bit-identical to" in first_run.stdout
    second_run = run(service, program, folder)
    assert "2 jobs are named 'first'; using the newest" in second_run.stderr

    with Client(service.url) as client:
        first = client.job("first")
        new_jobs = [job for job in client.jobs() if job.id not in existing_ids]
        names = {job.name for job in new_jobs}
        assert {job.wait(timeout_s=500).status for job in new_jobs} == {"succeeded"}
    assert names >= {"first", "first-2", "first-3", "first (reproduced)", "second", "third", "painter"}
    assert len(list((folder / first.id).iterdir())) > 5, "all files of the job"
    check_pictures(folder, "digit.png", "grid.png", "walk.gif")


@pytest.mark.nightly
def test_the_session_with_curl_runs_without_errors(service: LocalStack, folder: Path) -> None:
    program = session((ROOT / "docs" / "api.md").read_text(encoding="utf-8"))
    with Client(service.url) as client:
        existing_ids = {job.id for job in client.jobs()}
    for _ in range(2):
        assert "event: end" in run(service, program, folder).stdout
    with Client(service.url) as client:
        first = client.job("curl")
        new_jobs = [job for job in client.jobs() if job.id not in existing_ids]
        assert {job.wait(timeout_s=500).status for job in new_jobs} == {"succeeded"}
        names = {job.name for job in new_jobs}
    assert names >= {"curl", "curl-2", "curl-3", "curl (reproduced)", "curl-painter"}
    (checkpoint,) = folder.glob(f"{first.id}-epoch-*.safetensors")
    assert "layers.0.weight" in load_file(checkpoint)
    check_pictures(folder, "curves.png", "film.gif", "digit.png", "grid.png")


def check_pictures(folder: Path, *names: str) -> None:
    for name in names:
        with Image.open(folder / name) as image:
            image.load()


@pytest.mark.nightly
@pytest.mark.parametrize("lesson", [pytest.param(path, id=path.stem) for path in sorted(LESSONS.glob("*.md"))])
def test_the_commands_of_a_lesson_run_and_show_what_it_says(stack: LocalStack, folder: Path, lesson: Path) -> None:
    program = session(lesson.read_text(encoding="utf-8"))
    output = run(stack, f". .venv/bin/activate\n{program}", folder).stdout
    with Client(stack.url) as client:
        match lesson.stem:
            case "tape":
                norms = client.job("lesson-tape").history().series["grad_norm"]
                assert norms[-1] < norms[0]
                assert "weights, each with its gradient in every step" in output
            case "classifier":
                by_heart, shifted = (client.job(f"lesson-{name}").history().series for name in ("by-heart", "shifted"))
                assert by_heart["val_loss"][-1] > min(by_heart["val_loss"])
                assert by_heart["train_loss"][-1] < 0.01 < shifted["train_loss"][-1]
                assert shifted["val_loss"][-1] < by_heart["val_loss"][-1]
            case "gan":
                collapsed, cured = (client.job(f"lesson-{name}") for name in ("collapsed", "cured"))
                assert "mode_collapse" in {finding["code"] for finding in collapsed["health"]}
                assert cured["health"] == []
                assert collapsed.metrics["mode_coverage"] <= 0.2 < 0.8 <= cured.metrics["mode_coverage"]
                assert cured.metrics["frechet_distance"] < collapsed.metrics["frechet_distance"] / 2
            case "seeds":
                assert "The mean of lesson-rates trial 1 is 8.57 points higher" in output
                assert "lesson-rates trial 2 is better than lesson-rates trial 0" in output
            case _:
                pytest.fail("no claims of this lesson are tested")


@pytest.mark.nightly
def test_the_demo_runs_twice_in_one_state_folder(tmp_path: Path) -> None:
    environ = os.environ | {"TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_PORT": "0"}
    shorten = "demo.SPECS = tuple(spec | {'epochs': 1} for spec in demo.SPECS)"
    program = f"from service.cli import main; from service.cli.commands import demo; {shorten}; main()"
    inodes = set()
    for _ in range(2):
        command = [sys.executable, "-c", program, "demo"]
        result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "of unseen digits classified correctly" in result.stdout
        files = list((tmp_path / "demo").iterdir())
        assert len(files) == 8
        for path in files:
            if path.suffix == ".safetensors":
                assert np.isfinite(next(iter(load_file(path).values()))).all()
            else:
                with Image.open(path) as picture:
                    picture.load()
        inodes.add((tmp_path / "demo" / "classifier.safetensors").stat().st_ino)
    assert len(inodes) == 2, "the second demo writes its own files"
