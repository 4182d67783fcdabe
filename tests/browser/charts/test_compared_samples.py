"""Samples on the page that compares jobs, while the jobs run."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Route, expect

from tests.browser.apps.simulated_worker import Service, metrics
from tests.browser.conftest import Visit
from tests.browser.waiting import until

RECORD_EVENT_SOURCES = """
  const Real = EventSource;
  window.sources = [];
  window.EventSource = class extends Real { constructor(...given) { super(...given); sources.push(this); } };
  for (const name of ['CONNECTING', 'OPEN', 'CLOSED']) window.EventSource[name] = Real[name];
"""


@pytest.mark.stack
def test_samples_announced_late_are_in_order_and_the_stream_ends_with_the_last_job(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    ids = [service.submit(name=name) for name in ("first", "second")]
    workers = [service.claim() for _ in ids]
    visit = open_window(service.url, own=True)
    visit.error_log.expected.append("404")  # these samples do not exist
    page = visit.page
    page.add_init_script(RECORD_EVENT_SOURCES)
    page.goto(f"{service.url}/ui/compare?jobs={','.join(ids)}")
    until(page, "sources.length === 1 && sources[0].readyState === 1")
    for epoch in (1, 3, 2, 3):
        data = {"job": ids[0], "epoch": epoch}
        page.evaluate(
            "news => sources[0].dispatchEvent(new MessageEvent('sample', { data: JSON.stringify(news) }))", data
        )
    slider = page.locator("#samples input[type=range]")
    assert slider.get_attribute("max") == "2"
    slider.fill("2")
    expect(page.locator("#beside figure").first).to_contain_text("epoch 3")
    workers[0].succeed()
    expect(page.locator("#compared .status.succeeded")).to_have_count(1)
    assert page.evaluate("sources[0].readyState") == 1
    workers[1].succeed()
    until(page, "sources.length === 1 && sources[0].readyState === 2")


@pytest.mark.stack
def test_samples_of_epochs_that_end_during_the_page_load_are_shown(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    ids = [service.submit(name=name) for name in ("first", "second")]
    workers = [service.claim() for _ in ids]
    page = open_window(service.url).page

    def end_two_epochs(route: Route) -> None:
        rendered = route.fetch()
        for epoch in (1, 2):
            workers[0].commit_epoch(epoch, metrics=metrics(epoch))
        route.fulfill(response=rendered)

    page.route("**/ui/compare**", end_two_epochs)
    page.goto(f"{service.url}/ui/compare?jobs={','.join(ids)}")
    expect(page.locator("#samples output")).to_have_text("epoch 2 of 2")
    expect(page.locator("#beside figcaption")).to_have_text([re.compile("epoch 2$"), re.compile("none yet$")])
    until(page, "document.querySelector('#beside figure img').naturalWidth > 0")
    workers[1].commit_epoch(1, metrics=metrics(1))
    expect(page.locator("#beside figcaption").nth(1)).to_have_text(re.compile("epoch 1$"))
