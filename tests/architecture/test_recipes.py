"""The recipes: each names the files to touch, and the snippets of four of them work in a copy of the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", TEXT, re.M))
COUNTS = {title: int(count) for title, count in re.findall(r"^\| \[(.+?)\]\(.+?\).* \| (\d+) \|", TEXT, re.M)}
FOLLOWED = ("Layer", "Metric on the job page", "Setting", "Endpoint")
COPIED = ("engine", "service", "workers", "migrations", "tapeline", "tests", "docs", "deploy")
FILES = ("docker-compose.yml", ".env.example", "pyproject.toml")
TRAIN = """
import os, subprocess, sys
from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.datasets.repository import DatasetRepository
from service.jobs import leases
from service.jobs.queries import lookup
from service.runtime import logs
from service.runtime.settings import Settings
from service.spec import metric_info
from service.storage.stores import ArtifactFolder
from service.storage.database import Database
from service.web.jobs import tiles
from tests.faults.conftest import NoSupervisor
from workers.training import run

subprocess.run([sys.executable, "-m", "migrations.upgrade"], check=True)
logs.configure("worker")
settings = Settings.from_env(os.environ, cores=1)
database = Database(settings.database_url)
specs = SpecChecks(database=database, datasets=DatasetRepository(settings, database))
layers = [{"type": "scale", "factor": 2.0}, {"units": 4, "activation": "relu"}, {"units": 3, "activation": "softmax"}]
spec = {"kind": "classifier", "dataset": "iris", "epochs": 2, "layers": layers}
job_id = Jobs(database=database, artifacts=ArtifactFolder(settings.artifacts), specs=specs).submit(spec).answer["id"]
print(run.train(settings, leases.claim(database, "w", 30), NoSupervisor(database)))
with database.read() as session:
    job = lookup.get(session, job_id)
    shown = tiles.read(session, job, lookup.epochs(session, job_id)[-1])[0]
    print("first tile:", shown.label, shown.value, *metric_info.describe(shown.name).kinds)
    print("scaled:", job.resolved["layers"][0])
"""
CALL = """
import os, threading
from click.testing import CliRunner
from werkzeug.serving import make_server
from service.cli import main
from service.runtime.settings import Settings
from service.web.app import create_app
from tapeline import Client

server = make_server("127.0.0.1", 0, create_app(Settings.from_env(os.environ, cores=1)), threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.port}"
with Client(url) as client:
    client.change_owner("-", running_jobs=3)
    print("page:", "/owners/{owner_id}/settings" in client.fetch("/docs/administration").decode())
    print(CliRunner().invoke(main, ["--server", url, "owners", "reset", "everybody"]).output)
    client.change_owner("-", running_jobs=3)
    print("method:", client.reset_owner("-")["limits"]["running_jobs"])
os._exit(0)
"""


def snippets(title: str) -> list[tuple[str, list[str]]]:
    """The snippets of a recipe, each a file and the lines of a diff."""
    found = re.findall(r'^```diff title="(.+)"\n((?:[-+ ].*\n)+)```', SECTIONS[title], re.M)
    return [(path, lines.splitlines(keepends=True)) for path, lines in found]


def test_each_recipe_names_as_many_files_as_the_table_says_and_they_exist() -> None:
    assert COUNTS.keys() == SECTIONS.keys()
    for title, body in SECTIONS.items():
        listed = re.findall(r"`([^`]+)`", body.partition("Files:")[2].partition("\n\n")[0])
        assert len(listed) == COUNTS[title], title
        assert [path for path in listed if not (ROOT / path).is_file()] == [], title
        if title in FOLLOWED:
            assert {path for path, _ in snippets(title)} >= set(listed), title


@pytest.mark.stack
def test_a_layer_a_metric_a_setting_and_an_endpoint_are_added_by_their_recipes(tmp_path: Path) -> None:
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    for title in FOLLOWED:
        for path, lines in snippets(title):
            old = "".join(line[1:] for line in lines if line[0] != "+")
            new = "".join(line[1:] for line in lines if line[0] != "-")
            text = (tmp_path / path).read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{title}: {path} has {old!r} {text.count(old)} times"
            (tmp_path / path).write_text(text.replace(old, new), encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", "TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_LOG_METRICS": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("-m", "tests.deploy.settings_documents")
    assert "| `TAPELINE_LOG_METRICS` |" in (tmp_path / "docs" / "configuration.md").read_text(encoding="utf-8")
    output = run("-c", TRAIN)
    assert re.search(r"^succeeded\nfirst tile: val error rate \d+\.\d\d% classifier\n", output, re.M)
    assert "scaled: {'type': 'scale', 'factor': 2.0}" in output
    assert len(re.findall(r"val_error_rate", output)) == 2  # one line of the log for each epoch
    types = run("-m", "mypy", "service/models/exports", "service/spec")
    assert "Success" in types
    run("-m", "tests.service.web.docs.client_methods")
    run("-m", "tests.service.web.docs.api_tables")
    row = "| `DELETE /owners/{owner_id}/settings` | set all defaults of an owner again (scope `admin`) |"
    assert row in (tmp_path / "docs" / "api.md").read_text(encoding="utf-8")
    output = run("-u", "-c", CALL)
    assert "page: True" in output
    assert "Running jobs\tno limit (default)" in output
    assert "method: None" in output
