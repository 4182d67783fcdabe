"""Accessibility (axe) and width of every page, light and dark, also on a phone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from service.runtime.settings import Auth
from tests.browser.accessibility import serious_violations
from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.conftest import Visit
from tests.browser.waiting import wait_for_frames

PATHS = (
    "/",
    "/?q=nobody-is-called-that",
    "/ui/new",
    "/ui/jobs/{reader}",
    "/ui/jobs/{painter}",
    "/ui/jobs/job_01J00000000000000000000000",
    "/ui/compare",
    "/ui/compare?jobs={reader},{other}",
    "/ui/play/{reader}",
    "/ui/play/{painter}",
    "/ui/sign-in",
    "/docs",
    "/docs/jobs#jobs_submit",
    "/docs/schemas",
    "/ui/datasets",
    "/ui/datasets/mnist-10k",
    "/ui/jobs/{reader}/log",
    "/ui/models",
    "/ui/models/shown",
    "/ui/workers",
    "/ui/queue",
    "/ui/owners",
    "/ui/usage",
    "/ui/webhooks",
    "/ui/learn",
    "/ui/keys",
    "/nope",
)

LOADED_LATER = {
    "/": "tr.job",
    "/ui/new": "#cost dd",
    "/ui/jobs/{reader}": "figure.chart",
    "/ui/jobs/{painter}": "figure.chart",
    "/ui/compare?jobs={reader},{other}": "#dots a",
    "/ui/play/{reader}": "#bars li",
    "/ui/play/{painter}": "#many img",
    "/ui/datasets/mnist-10k": "#shown img",
}
"""What the scripts of a page load last."""


@pytest.mark.parametrize(
    ("site", "width", "scheme"),
    [(Auth.LOCAL, 1280, "light"), (Auth.KEYS, 360, "dark")],
    indirect=["site"],
    ids=str,
)
def test_pages_are_accessible_and_fit_the_window(
    open_site: Callable[..., Visit], http: httpx.Client, jobs: dict[str, Any], width: int, scheme: str
) -> None:
    for job in ("reader", "other"):
        http.post("/models/shown/versions", json={"job": jobs[job]["id"], "note": "one of two"}).raise_for_status()
    http.put("/models/shown/aliases/champion", json={"version": 1, "reason": "the first"}).raise_for_status()
    visit = open_site(width=width, color_scheme=scheme)
    visit.error_log.expected = ["404", "403"]
    faults = {}
    for path in PATHS:
        page = visit.open(path.format(**{name: job["id"] for name, job in jobs.items()}))
        expect(page.locator("h1")).to_have_count(1)
        if path in LOADED_LATER:
            expect(page.locator(LOADED_LATER[path]).first).to_be_visible()
        wait_for_frames(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        if violations := serious_violations(page):
            faults[path] = violations
    assert faults == {}


@pytest.mark.stack
def test_opened_details_and_dialogs_are_accessible(visit: Visit, jobs: dict[str, Any]) -> None:
    page = visit.open("/ui/new")
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert serious_violations(page) == []
    page = visit.open(f"/ui/jobs/{jobs['reader']['id']}")
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    page.get_by_role("button", name="Fork…").click()
    expect(page.locator("#fork")).to_be_visible()
    assert serious_violations(page) == []


def test_the_colour_scheme_is_chosen_and_remembered(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    page = open_window(serve_bare().url, color_scheme="light").open("/")
    button = page.locator("#theme")
    expect(button).to_have_attribute("aria-label", "Colours: system setting")
    button.click()
    button.click()
    expect(button).to_have_attribute("aria-label", "Colours: dark")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    button.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_the_first_tab_stop_skips_to_the_content(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    page = open_window(serve_bare().url).open("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
