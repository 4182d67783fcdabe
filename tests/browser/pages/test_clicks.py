"""A page that changes while a button is pressed: the click, by mouse or by keyboard, still counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.apps.simulated_worker import Service, WebProcess, metrics
from tests.browser.conftest import Visit
from tests.browser.waiting import http_client, until, wait_for_frames

by_mouse_and_keyboard = pytest.mark.parametrize("device", ["mouse", "keyboard"])


@contextmanager
def press(button: Locator, device: str = "mouse") -> Iterator[Page]:
    """Hold a button down. It is released at the same place of the page, whatever is there by then."""
    page = button.page
    if device == "mouse":
        page.locator("header a").first.focus()  # the press takes the focus away
        button.hover()
        page.mouse.down()
        yield page
        page.mouse.up()
    else:
        button.focus()
        page.keyboard.down("Space")
        yield page
        page.keyboard.up("Space")


@contextmanager
def refreshed(page: Page, part_of_url: str) -> Iterator[None]:
    """Wait until the page has received a response to a refresh, and would have shown it."""
    with page.expect_event("requestfinished", lambda request: part_of_url in request.url):
        yield
    wait_for_frames(page)


@pytest.mark.stack
@by_mouse_and_keyboard
def test_a_click_counts_although_a_job_is_inserted_above(
    open_window: Callable[..., Visit], forty_jobs: WebProcess, device: str
) -> None:
    visit = open_window(forty_jobs.url)
    with visit.page.expect_response(lambda response: "counts=true" in response.url):  # once the stream is open
        page = visit.open("/")
    star = page.get_by_role("button", name="Star run 1", exact=True)
    with press(star, device), refreshed(page, "counts=true"):
        http_client.post(forty_jobs.url + "/jobs", json={"kind": "classifier", "name": "new"}).raise_for_status()
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(page.locator("tr.job a.name").first).to_have_text("new")


def test_a_click_counts_although_it_ends_the_editing_of_a_field(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    """A press on a button takes the focus from the field, which then reports its change."""
    page = open_window(forty_jobs.url).open("/")
    field = page.get_by_role("searchbox")
    with page.expect_response(lambda response: "q=run" in response.url):
        field.press_sequentially("run")
    star = page.get_by_role("button", name="Star run 1", exact=True)
    star.hover()
    page.mouse.down()
    expect(field).not_to_be_focused()
    with refreshed(page, "counts=true"):
        http_client.post(forty_jobs.url + "/jobs", json={"kind": "classifier", "name": "run away"}).raise_for_status()
    page.mouse.up()
    expect(star).to_have_attribute("aria-pressed", "true")


def test_a_click_counts_although_scrolling_adds_and_removes_rows(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_window(forty_jobs.url, height=500).open("/")
    rows = "[...document.querySelectorAll('tr.job')].map((row) => row.dataset.id)"
    star = page.get_by_role("button", name="Star run 5", exact=True)
    before = page.evaluate(rows)
    with press(star):
        page.mouse.wheel(0, 130)
        until(page, f"before => {rows}.join() !== before.join()", before)
        star.hover()  # it has moved with the page
    expect(star).to_have_attribute("aria-pressed", "true")


@by_mouse_and_keyboard
def test_a_click_counts_although_an_epoch_ends(
    open_window: Callable[..., Visit], service: Service, device: str
) -> None:
    visit = open_window(service.url)
    visit.error_log.expected.append("status of 500")  # the simulated worker stores no network
    job_id = service.submit()
    worker = service.claim()
    page = visit.open(f"/ui/jobs/{job_id}")
    service.wait_for_stream(page)
    with press(page.locator("[data-action=pause]"), device), refreshed(page, f"/ui/jobs/{job_id}"):
        worker.commit_epoch(1, metrics=metrics(1))
    expect(page.locator("#toasts")).to_contain_text("Pausing")
    expect(page.locator("#tiles-title")).to_contain_text("epoch 1")


@by_mouse_and_keyboard
def test_a_click_counts_although_a_sweep_is_refreshed(
    open_window: Callable[..., Visit], service: Service, device: str
) -> None:
    document = {"base": {"kind": "classifier", "epochs": 4}, "space": {"/batch_size": {"choice": [8, 16, 32]}}}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    page = open_window(service.url).open(sweep["urls"]["page"])
    worker = service.claim()

    pause, trial = page.get_by_role("button", name="Pause"), page.get_by_label("Compare trial 0")
    with press(trial, device), refreshed(page, "/trials?"):
        worker.commit_epoch(1, metrics=metrics(1))  # shown by the next refresh
    expect(trial).to_be_checked()
    pause.focus()
    with refreshed(page, "/trials?"):
        worker.commit_epoch(2, metrics=metrics(2))
    expect(pause).to_be_focused()
    with press(pause, device), refreshed(page, "/trials?"):
        worker.commit_epoch(3, metrics=metrics(3))
    expect(page.locator("#status")).to_have_text("paused")
