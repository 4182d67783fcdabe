"""The operator's commands, as they are typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migrations.upgrade import upgrade
from service.cli import main
from service.contract.artifacts import ArtifactFolder
from service.contract.database import Database
from tests.service.upkeep.conftest import House


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    """The state folder of an embedded service."""
    made = House(
        Database(f"sqlite:///{tmp_path / 'home' / 'tapeline.db'}"), ArtifactFolder(tmp_path / "home" / "artifacts")
    )
    upgrade(made.database)
    yield made
    made.database.close()


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env={"TAPELINE_HOME": str(folder)})


def test_gc_shows_what_would_go_and_deletes_only_where_told_to(home: House, tmp_path: Path) -> None:
    job_id = home.train(ended_days_ago=8)
    shown = run(tmp_path / "home", "gc", "--keep-checkpoints", "7")
    assert shown.exit_code == 0, shown.output
    assert "3 checkpoints" in shown.output
    assert "nothing was deleted" in shown.output
    assert home.epochs_kept(job_id) == [1, 2, 3, 4, 5]
    document = json.loads(run(tmp_path / "home", "gc", "--dry-run", "--keep-jobs", "7", "--json").output)
    assert (document["deleted"], [item["name"] for item in document["jobs"]]) == (False, [job_id])
    deleted = run(tmp_path / "home", "gc", "--keep-checkpoints", "7", "--delete")
    assert "freed" in deleted.output
    assert home.epochs_kept(job_id) == [2, 5]


def test_a_backup_of_one_home_is_restored_into_another(home: House, tmp_path: Path) -> None:
    job_id = home.train()
    saved = run(tmp_path / "home", "backup", str(tmp_path / "saved.tar"))
    assert saved.exit_code == 0, saved.output
    assert "1 jobs" in saved.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "saved.tar"]
    restored = run(tmp_path / "new", "restore", str(tmp_path / "saved.tar"))
    assert restored.exit_code == 0, restored.output
    database = Database(f"sqlite:///{tmp_path / 'new' / 'tapeline.db'}")
    assert House(database, ArtifactFolder(tmp_path / "new" / "artifacts")).epochs_kept(job_id) == [1, 2, 3, 4, 5]
    database.close()
    again = run(tmp_path / "new", "restore", str(tmp_path / "saved.tar"))
    assert again.exit_code == 1
    assert "the database is not empty" in again.output


def test_where_no_service_is_the_commands_say_so_and_make_none(tmp_path: Path) -> None:
    for command in (("gc",), ("backup", str(tmp_path / "saved.tar"))):
        refused = run(tmp_path / "nowhere", *command)
        assert refused.exit_code == 1
        assert "TAPELINE_HOME" in refused.output
    assert list(tmp_path.iterdir()) == []
