from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.jobs import submissions
from service.jobs.submissions import Submission
from service.spec.validation import resolve
from service.storage.database import Database

Submit = Callable[..., str]


@pytest.fixture
def submit(database: Database) -> Submit:
    """Store a job and give its id."""

    def submit(owner: str | None = None, **spec: Any) -> str:
        document = {"kind": "classifier", "epochs": 4, **spec}
        submission = Submission(spec=document, resolved=resolve(document), steps=40, owner=owner)
        answer, _ = submissions.submit(database, submission, idempotency=None, represent=lambda job: {"id": job.id})
        return str(answer["id"])

    return submit
