"""The recipes: each names the files to touch, and those with snippets work in a copy of the tree."""

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
FOLLOWED = [title for title, body in SECTIONS.items() if "```diff" in body]
WRITTEN = {"tapeline/methods/upload_options.py"}
COPIED = ("engine", "service", "workers", "migrations", "tapeline", "tests", "docs", "deploy")
MYPY_CACHE = ".mypy_cache"
"""What `make check` leaves: with it, mypy reads again only what recipes change, and what imports that."""
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
import json, os, threading
from pathlib import Path
from click.testing import CliRunner
from werkzeug.serving import make_server
from service.access.audit import Actor
from service.cli import main
from service.features.bookmarks import bookmarks
from service.runtime.settings import Settings
from service.web.app import create_app
from service.web.core.quotas import QuotaExceeded
from service.web.core.core import EXTENSION
from tapeline import ApiError, Client

app = create_app(Settings.from_env(os.environ, cores=1))
server = make_server("127.0.0.1", 0, app, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.port}"
with Client(url) as client:
    client.change_owner("-", running_jobs=3)
    print("page:", "/owners/{owner_id}/settings" in client.fetch("/docs/administration").decode())
    print(CliRunner().invoke(main, ["--server", url, "owners", "reset", "everybody"]).output)
    client.change_owner("-", running_jobs=3)
    print("method:", client.reset_owner("-")["limits"]["running_jobs"])
    form = client.fetch("/ui/datasets").decode()
    print("form:", "Decimal sign<select" in form, '<option value="comma">comma' in form)
    rows = "".join(f"{index % 7},{index};{'xyz'[index % 3]}\\n" for index in range(60))
    Path("prices.csv").write_text("price;class\\n" + rows)
    print("comma:", client.upload("prices", "prices.csv", dry_run=True, decimal="comma")["columns"][0]["type"])
    try:
        client.upload("prices", "prices.csv", dry_run=True, decimal="point")
    except ApiError as error:
        print("point:", error)
    done = CliRunner().invoke(main, ["--server", url, "upload", "prices", "prices.csv", "--decimal", "huh"])
    print("option:", "'huh' is not one of 'point', 'comma'" in done.output)
    done = CliRunner().invoke(main, ["--server", url, "owners", "set", "everybody", "--bytes-per-upload", "10"])
    print(done.output, "label:", "Bytes of one upload<input" in client.fetch("/ui/owners").decode())
    try:
        app.extensions[EXTENSION].quotas.check_upload("", 11)
    except QuotaExceeded as error:
        print("enforced:", error)
    next(client.jobs()).register("irises")
    model = client.model("irises")
    model.set_gates("champion", [{"min_epoch": 5}])
    print("found:", [found["sentence"] for found in model.move("champion", 1, dry_run=True)["findings"]])
    print(CliRunner().invoke(main, ["--server", url, "models", "gates", "irises", "champion"]).output)
    added = client.add_bookmark("/ui/usage")
    print(CliRunner().invoke(main, ["--server", url, "bookmarks", "add", "/ui/learn"]).output)
    print("bookmarks:", [item["path"] for item in client.bookmarks()])
    print("bookmark page:", '<a href="/ui/learn">' in client.fetch("/ui/bookmarks").decode())
    print(CliRunner().invoke(main, ["--server", url, "bookmarks", "delete", added["id"], "--yes"]).output)
    print("left:", [item["path"] for item in client.bookmarks()])
    try:
        client.add_bookmark("//example.org")
    except ApiError as error:
        print("refused:", error.errors[0]["detail"])
    bookmarks.add(app.extensions[EXTENSION].database, "/ui/keys", owner="ann", by=Actor(owner="ann"))
    print("audit:", *(entry["action"] for entry in json.loads(client.fetch("/audit?action=add_bookmark"))["data"]))
    print("gate form:", "Trained for this many epochs" in client.fetch("/ui/models/irises").decode())
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
        changed = {path for path, _ in snippets(title)}
        assert [path for path in listed if not (ROOT / path).is_file() and path not in changed] == [], title
        if title in FOLLOWED:
            assert changed >= set(listed) - WRITTEN, title


@pytest.mark.stack
def test_what_recipes_with_snippets_add_works(tmp_path: Path) -> None:
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    if (ROOT / MYPY_CACHE).exists():
        shutil.copytree(ROOT / MYPY_CACHE, tmp_path / MYPY_CACHE)
    for title in FOLLOWED:
        for path, lines in snippets(title):
            old = "".join(line[1:] for line in lines if line[0] != "+")
            new = "".join(line[1:] for line in lines if line[0] != "-")
            text = (tmp_path / path).read_text(encoding="utf-8") if old else ""
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            assert not old or text.count(old) == 1, f"{title}: {path} has {old!r} {text.count(old)} times"
            (tmp_path / path).write_text(text.replace(old, new, 1), encoding="utf-8")
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
    run("-m", "tests.service.web.docs.upload_options")
    assert "| `decimal`, `--decimal` | The decimal sign of a table" in (tmp_path / "docs/spec.md").read_text("utf-8")
    assert "### Bookmarks\n" in (tmp_path / "docs" / "api.md").read_text(encoding="utf-8")
    row = "| `DELETE /owners/{owner_id}/settings` | set all defaults of an owner again (scope `admin`) |"
    assert row in (tmp_path / "docs" / "api.md").read_text(encoding="utf-8")
    output = run("-u", "-c", CALL)
    assert "page: True" in output
    assert "Running jobs\tno limit (default)" in output
    assert "method: None" in output
    for line in ("form: True True", "comma: number", "point: These files could not be read", "option: True"):
        assert f"\n{line}" in output
    for line in ("One upload\t10 B", " label: True", "enforced: an upload has at most 10 bytes"):
        assert f"\n{line}" in output
    for line in ("found: ['irises:1 was trained for 2 epochs; it needs 5']", "trained for 5 epochs", "gate form: True"):
        assert f"\n{line}" in output
    for line in ("bookmarks: ['/ui/usage', '/ui/learn']", "bookmark page: True", "left: ['/ui/learn']"):
        assert f"\n{line}" in output
    for line in ("refused: does not have the form ^/ui/", "audit: add_bookmark\n"):
        assert f"\n{line}" in output
