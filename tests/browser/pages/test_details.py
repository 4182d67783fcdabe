"""What a person meets in passing: shadows of tables that scroll, labels, stars, and who is signed in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit
from tests.browser.pixels import read
from tests.browser.played import Service, metrics
from tests.browser.waiting import patient
from tests.waiting import wait_until


def darker(part: Locator) -> float:
    """How much darker than the ground the right edge is, over most of its height."""
    picture = read(part).mean(axis=2)
    return float(np.median(picture[:, -30]) - np.median(picture[:, -2]))


def test_a_table_that_scrolls_has_a_shadow_at_the_edge(service: Service, open_window: Callable[..., Visit]) -> None:
    ids = [service.trained(2, level, seed=seed, name=80 * "w") for seed, level in enumerate((0.0, 0.5))]
    visit = open_window(service.url, width=390, height=844)
    visit.watched.expected.append("status of 500")
    page = visit.open(f"/ui/compare?jobs={','.join(ids)}")
    part = page.locator("#settings .scroll")
    expect(part.locator("tbody tr").first).to_be_visible()
    # The table is drawn again with what arrives later, and a picture may be older than the last painting.
    wait_until(lambda: part.evaluate("part => part.scrollWidth > part.clientWidth"), "a table that scrolls")
    wait_until(lambda: darker(part) > 15, "a shadow at the edge")
    part.evaluate("part => part.scrollTo(part.scrollWidth, 0)")
    wait_until(lambda: abs(darker(part)) < 4, "no shadow at the end")


def test_chips_and_the_filter_of_stars_stay_together(service: Service, open_window: Callable[..., Visit]) -> None:
    for _ in range(3):
        service.trained(1)
    for fails in (False, True):
        service.submit()
        worker = service.claim()
        worker.epoch(1, metrics=metrics(1))
        if fails:
            worker.fail()
    job_id = service.submit()
    patient.post(f"{service.url}/jobs/{job_id}/cancel").raise_for_status()
    service.submit()
    page = open_window(service.url, width=1440).open("/")
    chips, star = page.locator("#statuses button:visible").last, page.locator("#starred")
    expect(page.locator("#statuses [data-status=cancelled]")).to_be_visible()
    tops = [each.evaluate("(element) => element.getBoundingClientRect().top") for each in (chips, star)]
    assert tops[0] == pytest.approx(tops[1], abs=4)


def test_a_job_without_a_star_has_an_empty_one(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit()
    page = open_window(service.url).open("/")
    star = page.locator(f"tr[data-id={job_id}] .star")
    expect(star).to_have_text("☆")
    star.click()
    expect(star).to_have_text("★")
