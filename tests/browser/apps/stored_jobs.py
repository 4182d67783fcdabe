"""Stores jobs that have ended for tests of the table of jobs, and scrolls through the table."""

from __future__ import annotations

import time

from playwright.sync_api import Page

from service.spec.validation import resolve, spec_hash
from service.states import Status
from service.storage.tables import JOB_TAGS, JOBS
from tests.browser.apps.simulated_worker import WebProcess

COLUMNS = "preset,optimizer.learning_rate,best:val_accuracy,val_loss,parent"
PRESETS = ("fast", "best", "conv")
JOB_COUNT = 40


def store_jobs(bare: WebProcess, count: int) -> None:
    """Store jobs that have ended: every third has the tag ``night``, and all but every fourth have a name."""
    rows, tags = [], []
    for number in range(count):
        rate = (0.1, 0.4)[number % 2]
        document = {"kind": "classifier", "preset": PRESETS[number % 3], "optimizer": {"learning_rate": rate}}
        spec = resolve(document)
        job_id = f"job_01A{count - number:023d}"
        job_tags = ["night"] if number % 3 == 0 else []
        accuracy = 0.9 + (number * 7 % count) / count / 10
        created_ms = 1_790_000_000_000 - 60_000 * number
        rows.append(
            {
                "id": job_id,
                "kind": "classifier",
                "name": f"run {number}" if number % 4 else None,
                "tags": job_tags,
                "priority": 5,
                "spec": document,
                "resolved": spec.model_dump(mode="json"),
                "spec_hash": spec_hash(spec),
                "parent_id": f"job_01A{count - 1:023d}" if number in (2, 3) else None,
                "start_epoch": 1 if number == 2 else 0,
                "reproduction": {"of": "x", "result_digest": "y", "match": True} if number == 3 else None,
                "status": (Status.SUCCEEDED, Status.FAILED)[number % 10 == 9],
                "attempt": 1,
                "deaths": 0,
                "lease": 1,
                "epoch": 3,
                "epochs": 3,
                "step": 30,
                "steps": 30,
                "metrics": {"val_accuracy": accuracy - 0.01, "val_loss": 1 - accuracy, "train_loss": 0.5},
                "extremes": {"val_accuracy": {"min": 0.1, "min_epoch": 1, "max": accuracy, "max_epoch": 2}},
                "health": [],
                "last_seq": 1,
                "created_ms": created_ms,
                "queued_ms": created_ms,
                "started_ms": created_ms,
                "finished_ms": created_ms + 40_000,
            }
        )
        tags += [{"tag": tag, "job_id": job_id} for tag in job_tags]
    with bare.core.database.write() as session:
        session.execute(JOBS.insert(), rows)
        session.execute(JOB_TAGS.insert(), tags)


def load_all_jobs(page: Page, count: int) -> None:
    """Scroll until every row has been loaded."""
    scroll_until(page, f"document.querySelector('#more').textContent === '{count} jobs'")


def scroll_until(page: Page, condition: str) -> None:
    """Scroll down until a condition is true in the page. At the page's end, this waits for further rows."""
    deadline = time.monotonic() + 120
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, page.locator("#more").inner_text()
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(50)
