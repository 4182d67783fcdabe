"""Each feature can be removed: its folder and its line in the list."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.declarations import installed
from service.web.app import build_app

ROOT = Path(__file__).parents[3]
COPIED = ("engine", "service", "workers", "migrations", "tapeline")
USE = """
import json, os, re
import httpx
from service.cli import COMMANDS
from service.local import LocalStack
from service.runtime.settings import Settings
from tapeline import Client

spec = {"kind": "classifier", "dataset": "iris", "epochs": 2, "layers": [{"units": 3, "activation": "softmax"}]}
with LocalStack(Settings.from_env(os.environ, cores=1)) as running, Client(running.url) as client:
    trained = client.submit(spec).wait(timeout_s=120)
    status, job = trained.status, trained.id
    prediction = {"kind": "prediction", "model": job, "dataset": "iris"}
    predicted = client.submit(prediction).wait(timeout_s=120).status
    pages = ["/", f"/ui/jobs/{job}", "/ui/usage", "/docs"]
    answers = [httpx.get(running.url + page, headers={"Accept": "text/html"}) for page in pages]
    links = {link for answer in answers for link in re.findall('(?:href|src)="(/[^"#?]*)', answer.text)}
    dead = [link for link in links if '"code": "not_found"' in httpx.get(running.url + link).text]
    paths = [*httpx.get(running.url + "/openapi.json").json()["paths"]]
found = {"job": status, "prediction": predicted, "pages": [answer.status_code for answer in answers], "dead": dead}
print(json.dumps({**found, "paths": paths, "commands": [*COMMANDS]}))
"""


def paths_of(name: str) -> set[str]:
    """The paths of a feature's endpoints and pages, as in ``/openapi.json``."""
    app = build_app()
    views = {endpoint for endpoint, view in app.view_functions.items() if f".features.{name}." in view.__module__}
    paths = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint in views}
    return {path.replace("<", "{").replace(">", "}") for path in paths}


FIRST, *OTHERS = (item.name for item in reversed(installed()))
"""CI removes the one that was added last, on which no other depends."""


@pytest.mark.stack
@pytest.mark.parametrize("name", [FIRST, *(pytest.param(name, marks=pytest.mark.nightly) for name in OTHERS)])
def test_without_a_feature_the_service_starts_a_job_trains_and_pages_are_shown(name: str, tmp_path: Path) -> None:
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.rmtree(tmp_path / "service" / "features" / name)
    listed = tmp_path / "service" / "features" / "__init__.py"
    text, count = re.subn(rf'^    "{name}",\n', "", listed.read_text("utf-8"), flags=re.MULTILINE)
    assert count == 1
    listed.write_text(text, "utf-8")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "TAPELINE_PORT": "0"}
    environment["TAPELINE_HOME"] = str(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["job"] == found["prediction"] == "succeeded"
    assert set(found["pages"]) == {200}
    assert found["dead"] == []
    feature = next(item for item in installed() if item.name == name)
    assert len(found["paths"]) > 100
    assert paths_of(name).isdisjoint(found["paths"])
    assert feature.commands.items.keys().isdisjoint(found["commands"])
