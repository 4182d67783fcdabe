"""Details of pages: shadows of scrollable tables, the line of filters, and stars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.apps.simulated_worker import Service, metrics
from tests.browser.conftest import Visit
from tests.browser.pixels import read_pixels
from tests.browser.waiting import http_client
from tests.waiting import wait_until


def edge_darkness(part: Locator) -> float:
    """How much darker than the background the right edge is, over most of its height."""
    picture = read_pixels(part).mean(axis=2)
    return float(np.median(picture[:, -30]) - np.median(picture[:, -2]))


def test_a_scrollable_table_has_a_shadow_at_its_edge(service: Service, open_window: Callable[..., Visit]) -> None:
    ids = [service.train(2, loss_offset, seed=seed, name=80 * "w") for seed, loss_offset in enumerate((0.0, 0.5))]
    visit = open_window(service.url, width=390, height=844)
    visit.error_log.expected.append("status of 500")
    page = visit.open(f"/ui/compare?jobs={','.join(ids)}")
    part = page.locator("#settings .scroll")
    expect(part.locator("tbody tr").first).to_be_visible()
    # Data that arrives later redraws the table, and a screenshot may predate the last paint.
    wait_until(lambda: part.evaluate("part => part.scrollWidth > part.clientWidth"), "a table that scrolls")
    wait_until(lambda: edge_darkness(part) > 15, "a shadow at the edge")
    part.evaluate("part => part.scrollTo(part.scrollWidth, 0)")
    wait_until(lambda: abs(edge_darkness(part)) < 4, "the shadow to disappear at the end")


def test_status_chips_and_the_star_filter_are_on_one_line(service: Service, open_window: Callable[..., Visit]) -> None:
    for _ in range(3):
        service.train(1)
    for fails in (False, True):
        service.submit()
        worker = service.claim()
        worker.commit_epoch(1, metrics=metrics(1))
        if fails:
            worker.fail()
    job_id = service.submit()
    http_client.post(f"{service.url}/jobs/{job_id}/cancel").raise_for_status()
    service.submit()
    page = open_window(service.url, width=1440).open("/")
    chips, star = page.locator("#statuses button:visible").last, page.locator("#starred")
    expect(page.locator("#statuses [data-status=cancelled]")).to_be_visible()
    tops = [each.evaluate("(element) => element.getBoundingClientRect().top") for each in (chips, star)]
    assert tops[0] == pytest.approx(tops[1], abs=4)


def test_a_job_without_a_star_shows_an_empty_one(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit()
    page = open_window(service.url).open("/")
    star = page.locator(f"tr[data-id={job_id}] .star")
    expect(star).to_have_text("☆")
    star.click()
    expect(star).to_have_text("★")
