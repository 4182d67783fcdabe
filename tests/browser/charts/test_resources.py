"""CPU time and memory of a job, checked by pixels."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from service.jobs.leases import Usage
from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.conftest import Visit
from tests.browser.pixels import dot_positions, wait_for_dots
from tests.browser.waiting import http_client
from tests.service.web.conftest import SimulatedWorker

USAGE = Usage(cpu_seconds=1.0, peak_memory_bytes=150_000_000)


def test_cpu_time_and_memory_of_each_epoch_are_drawn_while_a_job_trains(
    serve_bare: Callable[[], WebProcess], open_window: Callable[..., Visit]
) -> None:
    bare = serve_bare()
    spec = {"kind": "classifier", "epochs": 100}
    job_id = http_client.post(f"{bare.url}/jobs", json=spec).raise_for_status().json()["id"]
    visit = open_window(bare.url)
    visit.error_log.expected.append("status of 500")  # a simulated worker's checkpoints contain no network
    page: Page = visit.open(f"/ui/jobs/{job_id}")
    worker = SimulatedWorker(bare.core.database, bare.core.artifacts)
    worker.claim()
    worker.commit_epoch(1, used=USAGE)
    more = page.locator("#more-curves")
    more.locator("summary").click()
    charts = {
        title: page.locator(f"figure.chart:has(h3:text-is('{title}'))").locator("canvas")
        for title in ("CPU time of an epoch", "memory")
    }
    for epoch in range(2, 6):
        worker.commit_epoch(epoch, used=USAGE)
        for series, canvas in enumerate(charts.values(), 1):
            wait_for_dots(page, canvas, series, epoch)
    for series, canvas in enumerate(charts.values(), 1):
        assert len(dot_positions(canvas, series)) == 5
    figure = page.locator("figure.chart:has(h3:text-is('memory'))")
    figure.locator(".plot").hover(position={"x": 200, "y": 100})
    expect(figure).to_contain_text("150 MB")
    worker.succeed()
