"""A page of a running job whose timers the test can advance."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.apps.simulated_worker import Service
from tests.browser.conftest import Visit

RECORD_EPOCHS = """
const add = EventSource.prototype.addEventListener;
window.received = [];
EventSource.prototype.addEventListener = function (type, receive) {
  add.call(this, type, receive);
  if (type === "metrics") add.call(this, type, ({ data }) => window.received.push(JSON.parse(data).epoch));
  if (type === "end") add.call(this, type, () => window.received.push("end"));
};
"""
"""Records the epochs whose metrics the page has received, and the end of the job."""
RECEIVED = "item => window.received.includes(item)"
REFRESH_INTERVAL_MS = 1500
"""Longer than the shortest time between two refreshes of a page."""


@pytest.fixture
def page_with_clock(service: Service, open_window: Callable[..., Visit]) -> Page:
    """A page whose timers the test can advance."""
    visit = open_window(service.url, own=True)
    visit.error_log.expected.append("status of 500")
    visit.page.add_init_script(RECORD_EPOCHS)
    visit.page.clock.install()
    return visit.page
