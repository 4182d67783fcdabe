"""Two machines that share no disk, with a kill of each process and server."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from migrations import roles
from tests.faults.two_machines import DELAY_S, TARGETS, can_separate, open_two_machines, train_references

# outages/test_object_stores.py kills one worker and one store at a time; `make soak JOBS=200` kills for longer.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]


def test_machines_that_share_no_disk_finish_each_job_once_with_the_same_digest(tmp_path: Path) -> None:
    if not can_separate():
        pytest.skip("processes cannot have mounts of their own here (it takes root, or unprivileged namespaces)")
    references = train_references(tmp_path / "references")
    (tmp_path / "machines").mkdir()
    with open_two_machines(tmp_path / "machines", seed=1) as machines:
        machines.run(12, targets=TARGETS, kills=len(TARGETS), pause_s=(1, 3), outage_s=(0, 2))
        login = machines.logins[roles.WORKER].replace("+psycopg", "")
        with closing(psycopg.connect(login)) as connection:
            started = time.monotonic()
            connection.execute("SELECT 1")
            assert time.monotonic() - started > DELAY_S, "each round trip takes longer"
        machines.check(references)
        assert machines.kills == dict.fromkeys(TARGETS, 1)
