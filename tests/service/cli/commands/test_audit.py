"""The commands ``tapeline audit verify`` and ``export``, on both databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert, text

from service.access import audit_file, audit_seals, keys, owners
from service.access.audit import Actor
from service.access.audit_chain import verify
from service.access.keys import Scope
from service.cli import main
from service.storage.database import Database, now_ms
from service.storage.tables import AUDIT

Run = Callable[..., Result]

DAY_MS = 24 * 60 * 60 * 1000


@pytest.fixture
def run(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": migrated_url}
    return lambda *arguments, **options: CliRunner().invoke(main, list(arguments), env=environ, **options)


def add(database: Database, *days_ago: float) -> None:
    """Add two entries of each age, and seal the two together."""
    for days in days_ago:
        with database.write() as session:
            values = {"at_ms": now_ms() - int(days * DAY_MS), "action": "submit", "owner": "ann", "detail": {"n": 1}}
            for subject in ("job_ä", "job_b"):
                session.execute(insert(AUDIT).values(**values, subject=subject))
        audit_seals.seal(database, grace_s=0)


def tamper(database: Database, statement: str) -> None:
    with database.write() as session:
        if database.is_sqlite:
            session.execute(text("DROP TRIGGER audit_is_append_only"))
        else:
            session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(text(statement))


def test_the_log_is_verified_and_its_head_printed(database: Database, run: Run) -> None:
    assert "head none" in run("audit", "verify").output
    add(database, 40, 1)
    report = json.loads(run("audit", "verify", "--json").output)
    assert (report["ok"], report["entries"], report["seals"]) == (True, 4, 2)
    assert audit_seals.remove_expired(database, 30) == 2
    add(database, 0)
    result = run("audit", "verify", "--head", report["head"])
    assert result.exit_code == 0, result.output
    assert "4 entries in 2 sealed ranges match" in result.output
    words = " ".join(result.output.split())
    oldest = datetime.fromtimestamp(time.time() - 86400, UTC).strftime("%Y-%m-%dT")
    assert f"removed by retention: 2 entries in 1 older range; the oldest kept entry is from {oldest}" in words
    assert f"head {current_head(database)}" in result.output
    mismatched = run("audit", "verify", "--head", "f" * 64)
    assert mismatched.exit_code == 1
    assert "no seal has the digest" in mismatched.output
    tamper(database, "UPDATE audit SET owner = 'bob' WHERE id = (SELECT max(id) FROM audit)")
    refused = run("audit", "verify")
    assert refused.exit_code == 1
    assert "seal 3" in refused.output
    assert json.loads(run("audit", "verify", "--json").output)["ok"] is False
    assert len(run("audit", "--json").output.splitlines()) == 4  # the log itself is still shown


def current_head(database: Database) -> str:
    return str(verify(audit_seals.items(database)).head)


def test_an_exported_log_is_verified_without_the_database(database: Database, run: Run, tmp_path: Path) -> None:
    add(database, 40, 1, 0)
    audit_seals.remove_expired(database, 30)
    with database.write() as session:
        session.execute(insert(AUDIT).values(at_ms=now_ms(), action="submit", detail={}))
    result = run("audit", "export", "-o", "audit.jsonl")
    assert result.exit_code == 0, result.output
    assert "exported 5 entries and 3 seals" in result.output
    assert sorted(path.name for path in tmp_path.glob("audit*")) == ["audit.jsonl"]
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert [next(iter(json.loads(line))) for line in lines] == [
        *("format", "seal", "entry", "entry", "seal", "entry", "entry", "seal", "entry", "end")
    ]
    assert run("audit", "export").stdout.splitlines() == lines
    offline = {"env": {"TAPELINE_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none"}}
    report = CliRunner().invoke(main, ["audit", "verify", "audit.jsonl", "--json"], **offline)  # type: ignore[arg-type]
    expected = json.loads(run("audit", "verify", "--json").output)
    assert (report.exit_code, json.loads(report.output)) == (0, expected)
    piped = run("audit", "verify", "-", "--head", expected["head"], input="\n".join(lines) + "\n")
    assert (piped.exit_code, expected["unsealed"]) == (0, 1)
    for number, damage, reason in [
        (3, lambda line: line.replace("ann", "bob"), "seal 2"),
        (3, lambda line: "", "entries are missing"),
        (8, lambda line: "", "the right counts"),
        (1, lambda line: line.replace('"count":2', '"count":"2"'), "not an entry, a seal, or an end line"),
        (4, lambda line: line[:-2], "line 5: not JSON"),
        (2, lambda line: line.replace('"owner"', '"owner":"x","owner"'), "a key is repeated"),
        (9, lambda line: "", "truncated"),
        (9, lambda line: line + "\n" + line, "data after the end line"),
        (0, lambda line: "", "not an audit log exported"),
    ]:
        changed = [*lines[:number], *filter(None, [damage(lines[number])]), *lines[number + 1 :]]
        (tmp_path / "damaged.jsonl").write_text("\n".join(changed) + "\n")
        refused = run("audit", "verify", "damaged.jsonl")
        assert refused.exit_code == 1, (number, refused.output)
        assert reason in " ".join(refused.output.split()), (number, refused.output)


@pytest.mark.nightly
@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_export_and_verification_use_constant_memory(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_seals, "MAX_ENTRIES_PER_SEAL", 100)
    monkeypatch.setattr(audit_seals, "_ENTRIES_PER_READ", 200)
    row = {"at_ms": 1, "action": "submit", "owner": "ann", "detail": {"text": "x" * 500}}
    with database.write() as session:
        session.execute(insert(AUDIT), [row] * 8000)
    audit_seals.seal(database, grace_s=0)
    tracemalloc.start()
    try:
        with (tmp_path / "audit.jsonl").open("w") as file:
            assert audit_file.write(audit_seals.items(database), file) == (8000, 80)
        with (tmp_path / "audit.jsonl").open() as file:
            assert verify(audit_file.read(file)).entries == 8000
        assert verify(audit_seals.items(database)).entries == 8000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "audit.jsonl").stat().st_size > 5_000_000
    assert peak < 2_500_000


def test_what_was_changed_of_an_owner_is_shown(database: Database, run: Run) -> None:
    keys.create(database, name="ann", owner="ann", scope=Scope.SUBMIT)
    by = Actor(owner="root")
    owners.change(database, "ann", {"display_name": "Özlem", "weight": 2.0, "running_jobs": None}, by=by)
    owners.change(database, owners.EVERYBODY, {"max_priority": 3}, by=by)
    rows = [line.split("\t")[1:] for line in run("audit", "--action", "change_owner").stdout.splitlines()]
    assert rows[1:] == [
        ["change_owner", "ann: display_name Özlem, weight 2.0, running_jobs default", "root"],
        ["change_owner", "-: max_priority 3", "root"],
    ]


def test_an_empty_log_is_explained(run: Run) -> None:
    result = run("audit")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no entries: requests are recorded only while API keys are required\n"
    assert run("audit", "--json").output == ""


def test_the_help_fits_80_columns(run: Run) -> None:
    assert max(map(len, run("audit", "--help").stdout.splitlines())) <= 80


@pytest.mark.nightly
def test_output_to_a_closed_pipe_ends_a_command_without_a_message_and_with_exit_code_1(tmp_path: Path) -> None:
    code = "from service.cli import main; main()"
    read, write = os.pipe()
    os.close(read)
    environ = os.environ | {"TAPELINE_HOME": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "-c", code, "doctor"], stdout=write, stderr=subprocess.PIPE, env=environ, check=False
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (1, b"")
