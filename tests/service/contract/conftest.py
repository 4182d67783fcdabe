from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.contract import jobs
from service.contract.database import Database
from service.contract.jobs import Submission
from service.contract.validation import resolve

Submit = Callable[..., str]


@pytest.fixture
def submit(database: Database) -> Submit:
    """Store a job and give its id."""

    def submit(owner: str | None = None, **spec: Any) -> str:
        document = {"kind": "classifier", "epochs": 4, **spec}
        submission = Submission(spec=document, resolved=resolve(document), steps=40, owner=owner)
        answer, _ = jobs.submit(database, submission, idempotency=None, represent=lambda job: {"id": job.id})
        return str(answer["id"])

    return submit
