"""One more kind of job: a folder, and a line in two modules. In a copy of the tree, it trains, sweeps and has pages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COPIED = ("engine", "service", "workers", "migrations", "tapeline", "tests")
MAX_FILES, MAX_OUTSIDE = 12, 2
OUTSIDE = {
    "service/states.py": (
        ('    REGRESSOR = "regressor"\n', '    REGRESSOR = "regressor"\n    QUANTILE = "quantile"\n'),
    ),
    "service/kinds/__init__.py": (
        (
            "from service.kinds.regressor import REGRESSOR\n",
            "from service.kinds.quantile import QUANTILE\nfrom service.kinds.regressor import REGRESSOR\n",
        ),
        ("GAN, PREDICTION)", "GAN, PREDICTION, QUANTILE)"),
    ),
}
"""The edits outside the folder of the kind, which predicts numbers, as a regressor does."""
USE = """
import os, subprocess, sys
from service.jobs import leases
from service.runtime import logs
from service.runtime.settings import Settings
from service.storage.database import Database
from service.web.app import create_app
from tests.faults.conftest import NoSupervisor
from workers.training import run

subprocess.run([sys.executable, "-m", "migrations.upgrade"], check=True)
logs.configure("worker")
settings = Settings.from_env(os.environ, cores=1)
database, client = Database(settings.database_url), create_app(settings).test_client()

def show(name, response):
    body = response.get_data().decode(errors="replace")
    assert response.status_code < 300, f"{name}: {response.status_code} {body[:500]}"
    return body

spec = {"kind": "quantile", "dataset": "diabetes", "epochs": 2}
job_id = client.post("/jobs", json=spec).get_json()["id"]
print(run.train(settings, leases.claim(database, "w", 30), NoSupervisor(database)))
sweep = {"base": spec, "space": {"optimizer.learning_rate": {"choice": [0.01, 0.001]}}}
print("sweeps by", client.post("/sweeps?dry_run=true", json=sweep).get_json()["resolved"]["objective"]["metric"])
print("plots:", *client.get(f"/jobs/{job_id}/results").get_json()["plots"])
print("section:", 'id="residuals"' in show("page", client.get(f"/ui/jobs/{job_id}")))
for path in ("/ui/play/{}", "/ui/compare?jobs={}", "/jobs/{}/residuals", "/jobs/{}/export/pytorch", "/ui/new", "/"):
    show(path, client.get(path.format(job_id)))
print("schema:", "QuantileSpec" in show("schema", client.get("/openapi.json")))
print("refused:", client.get(f"/jobs/{job_id}/confusion").get_json()["detail"])
"""


def add_kind(tree: Path) -> list[str]:
    """Add a kind like that of regressors to a copy of the tree; returns the files that were added or changed."""
    folder = tree / "service" / "kinds" / "quantile"
    shutil.copytree(tree / "service" / "kinds" / "regressor", folder)
    added = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in added:
        text = path.read_text("utf-8")
        for old, new in (("regressor", "quantile"), ("Regressor", "Quantile"), ("REGRESSOR", "QUANTILE")):
            text = text.replace(old, new)
        text = text.replace("engine.QuantileTrainer", "engine.RegressorTrainer")
        path.write_text(text, "utf-8")
    for name, edits in OUTSIDE.items():
        text = (tree / name).read_text("utf-8")
        for old, new in edits:
            assert old in text, f"{name}: {old!r}"
            text = text.replace(old, new)
        (tree / name).write_text(text, "utf-8")
    return [path.relative_to(tree).as_posix() for path in added] + [*OUTSIDE]


@pytest.mark.stack
def test_one_more_kind_is_a_folder_and_two_lines(tmp_path: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name)
    changed = add_kind(tmp_path)
    assert len(changed) <= MAX_FILES
    assert len(OUTSIDE) <= MAX_OUTSIDE
    environment = {"PATH": "/usr/bin:/bin", "TAPELINE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = re.sub(r"^\{.*\n", "", done.stdout, flags=re.MULTILINE)
    assert shown.splitlines() == [
        "succeeded",
        "sweeps by val_rmse",
        "plots: curves residuals",
        "section: True",
        "schema: True",
        "refused: the job is a quantile; what it gets wrong: GET /jobs/{}/residuals".format(
            re.findall(r"/jobs/(job_\w+)/residuals", shown)[0]
        ),
    ]
