"""The form for a sweep and the page of a sweep, on a service whose jobs stay queued."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Bare, Visit
from tests.browser.test_looks import serious

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_a_sweep_is_checked_started_and_shown(
    open_window: Callable[..., Visit], serve_bare: Callable[..., Bare], width: int, scheme: str
) -> None:
    visit = open_window(serve_bare().url, width=width, color_scheme=scheme)
    visit.watched.expected = ["422", "404"]  # what was asked for just before the sweep was deleted
    page = visit.open("/ui/sweeps")
    expect(page.locator("#document")).to_have_value(re.compile('"name": "rates"'))
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#plan")).to_contain_text("9 trials, 18 jobs")
    page.locator("#pointer").fill("/optimiser/momentum")
    page.locator("#range-values").fill("0.5, 0.9")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#faults")).to_contain_text("does not exist in the spec")
    assert serious(page) == []
    page.get_by_role("button", name="Remove /optimiser/momentum").click()
    page.get_by_role("button", name="Start sweep").click()
    expect(page.locator("h1")).to_have_text("rates")
    expect(page.locator("#trials tbody tr")).to_have_count(8)
    expect(page.locator("#decisions li").first).to_contain_text("Trial 7 starts with")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_have_text("paused")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("cancelled")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_have_text("Sweeps")
