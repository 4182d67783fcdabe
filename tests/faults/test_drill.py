"""The disaster-recovery drill with little data: everything is lost, and a backup restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.drill import drill

# tests/service/maintenance restores damaged and whole backups; here, running workers are killed, too.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]


def test_backed_up_jobs_survive_a_total_loss(postgres_server: str, tmp_path: Path) -> None:
    outcome = drill(tmp_path, postgres_server, jobs=1, later=1, epochs=60)
    assert (outcome.jobs, outcome.lost_jobs, outcome.same_digests, outcome.resumed) == (4, 1, 2, 2)
    assert outcome.lost_epochs >= 10 + 2 * 3
