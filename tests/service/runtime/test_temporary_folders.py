from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from service.runtime import machine_limits

pytestmark = pytest.mark.stack

MAKE_AND_DIE = """
import os, signal
from service.runtime import machine_limits
print(machine_limits.new_folder("worker"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folders_of_killed_processes_are_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", MAKE_AND_DIE], env=environ, capture_output=True, text=True)
    abandoned = Path(killed.stdout.strip())
    assert (abandoned.parent, abandoned.is_dir()) == (tmp_path, True)
    of_live_process = tmp_path / f"tapeline-worker-{os.getppid()}-x"
    for folder in (of_live_process, tmp_path / "tapeline-worker-x-y", tmp_path / f"tapeline-metrics-{2**30}-x"):
        folder.mkdir()
    created = machine_limits.new_folder("worker")
    assert created.is_dir()
    assert not abandoned.exists()
    assert of_live_process.is_dir()
    assert len(list(tmp_path.iterdir())) == 4
