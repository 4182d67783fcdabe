"""``docs/notebook.ipynb`` runs as it is, with the whole service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.local import LocalStack

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"

pytestmark = pytest.mark.nightly


def test_the_notebook_runs_and_shows_what_it_says(stack: LocalStack, tmp_path: Path) -> None:
    environ = os.environ | {
        "TAPELINE_PORT": stack.url.rpartition(":")[2],
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "tests.tapeline.notebooks", str(NOTEBOOK)]
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    sources = [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    cells = dict(zip(sources, map(json.loads, ran.stdout.splitlines()), strict=True))

    def cell(text: str) -> dict[str, object]:
        (found,) = (shown for source, shown in cells.items() if text in source)
        return found

    def html(text: str) -> str:
        return cell(text)["shown"][-1]["text/html"]  # type: ignore[index, no-any-return]

    assert "setosa" in html('client.dataset("iris")')
    watched = cell("job.watch()")
    assert watched["updates"], "the display is updated in place"
    assert "succeeded" in html("job.watch()")
    assert html("job.watch()").count("<svg") == 2
    assert "probability of setosa" in html("frame.head(3)).to_frame()")
    assert "3 of 3 trials done" in html("sweep.watch()")
    assert "iris-rates trial" in str(cell("client.compare")["text"])
    assert "data:image/png;base64," in html("painter = ")
    assert "image/png" in cell("generate_picture")["shown"][-1]  # type: ignore[index]


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
