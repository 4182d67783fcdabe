"""The list of jobs with responses that arrive late, out of order, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.apps.stored_jobs import load_all_jobs, store_jobs
from tests.browser.conftest import Visit
from tests.browser.held_responses import hold, wait_for_count
from tests.browser.waiting import http_client, poll, wait_for_frames, wait_for_sent_requests

REFRESH = r"GET /jobs\?.*counts=true"


def submit(bare: WebProcess, **spec: Any) -> dict[str, Any]:
    job: dict[str, Any] = (
        http_client.post(bare.url + "/jobs", json={"kind": "classifier"} | spec).raise_for_status().json()
    )
    return job


def open_list(visit: Visit, path: str = "/") -> Page:
    """Open the list, and wait for the refresh that the first message of its stream causes."""
    with visit.page.expect_response(lambda response: "counts=true" in response.url):
        return visit.open(path)


def test_a_star_stays_while_it_is_saved(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url).open("/")
    star = page.get_by_role("button", name="Star run 1", exact=True)
    updates = hold(page, "PATCH /jobs/")
    page.get_by_text("run 1", exact=True).hover()
    star.click()
    updates.wait(1)
    star.click()  # no second request while the first is in progress
    submit(forty_jobs, name="newcomer")
    expect(page.locator("a.name", has_text="newcomer")).to_be_visible()
    expect(star).to_have_attribute("aria-pressed", "true")
    updates.release_all()
    wait_for_sent_requests(page)
    expect(star).to_have_attribute("aria-pressed", "true")
    assert len(updates.requests) == 1


def test_a_star_is_what_the_response_says(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_list(open_window(forty_jobs.url))
    updates: list[Route] = []
    page.route("**/jobs/job_*", lambda route: updates.append(route))
    refreshes = hold(page, REFRESH)
    star = page.get_by_role("button", name="Star run 1", exact=True)
    page.get_by_text("run 1", exact=True).hover()
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    wait_for_count(page, updates, 1, of="updates")
    updates[0].fulfill(json={"starred": False})  # another tab has removed it again
    refreshes.wait(1)  # the page refreshes after it has handled the response
    expect(star).to_have_attribute("aria-pressed", "false")


def test_a_refused_star_is_removed(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    visit = open_window(forty_jobs.url)
    visit.error_log.expected.append("status of 409")
    page = visit.open("/")
    star = page.get_by_role("button", name="Star run 1", exact=True)
    page.route(
        "**/jobs/job_*",
        lambda route: route.fulfill(status=409, content_type="application/json", body='{"detail": "Not now."}'),
    )
    page.get_by_text("run 1", exact=True).hover()
    star.click()
    expect(page.locator("#toasts")).to_contain_text("Not now.")
    expect(star).to_have_attribute("aria-pressed", "false")


@pytest.mark.stack
def test_a_response_from_before_a_star_does_not_remove_it(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_list(open_window(forty_jobs.url))
    refreshes = hold(page, REFRESH)
    submit(forty_jobs, name="newcomer")
    refreshes.wait(1)
    star = page.get_by_role("button", name="Star run 1", exact=True)
    page.get_by_text("run 1", exact=True).hover()
    with page.expect_event("requestfinished", lambda request: request.method == "PATCH"):
        star.click()
    wait_for_frames(page)
    refreshes.release()
    expect(star).to_have_attribute("aria-pressed", "true")
    refreshes.release_all()
    expect(page.locator("a.name", has_text="newcomer")).to_be_visible()
    expect(star).to_have_attribute("aria-pressed", "true")


@pytest.mark.stack
def test_the_response_to_an_earlier_search_is_discarded(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_list(open_window(forty_jobs.url))
    searches = hold(page, REFRESH)
    for count, text in enumerate(("run 11", "", "run 11", "run 22", "run 11"), 1):
        page.fill("#filters [name=q]", text)
        searches.wait(count)
    for index in (4, 0, 1, 1, 0):
        searches.release(index)
    expect(page.locator("a.name")).to_have_text(["run 11"])


def test_a_row_far_down_the_list_shows_its_new_status(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    bare = serve_bare()
    store_jobs(bare, 149)
    job = submit(bare, name="the last one")
    page = open_window(bare.url).open("/?sort=created_at")
    load_all_jobs(page, 150)
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    row = page.locator(f"tr[data-id={job['id']}]")
    expect(row.locator(".status")).to_have_text("queued")
    http_client.post(f"{bare.url}{job['urls']['self']}/cancel").raise_for_status()
    expect(row.locator(".status")).to_have_text("cancelled")
    assert page.locator("#more").inner_text() == "150 jobs"


def test_a_group_that_loads_while_the_filter_changes_is_not_empty(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_list(open_window(forty_jobs.url, height=2000), "/?group=preset")
    group_loads = hold(page, r"GET /jobs\?.*limit=100")
    page.locator("tr.group button").first.click()
    group_loads.wait(1)
    page.fill("#filters [name=q]", "run 1")
    group_loads.wait(2)  # the group is loaded again, with the filter
    group_loads.release_all()
    expect(page.locator("tr.job a.name")).to_have_text(["run 15", "run 18"])


def test_a_reopened_group_shows_jobs_submitted_while_it_was_closed(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_window(forty_jobs.url, height=2000).open("/?group=preset")
    group = page.locator("tr.group button", has_text="fast")
    group.click()
    expect(page.locator("tr.job")).to_have_count(14)
    group.click()
    expect(page.locator("tr.job")).to_have_count(0)
    submit(forty_jobs, name="newcomer", preset="fast")
    expect(group).to_contain_text("15 jobs")
    group.click()
    expect(page.locator("a.name", has_text="newcomer")).to_be_visible()
    expect(page.locator("tr.job")).to_have_count(15)


def test_ages_of_ended_jobs_keep_increasing(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    bare = serve_bare()
    job = submit(bare)
    http_client.post(f"{bare.url}{job['urls']['self']}/cancel").raise_for_status()
    visit = open_window(bare.url, own=True)
    visit.page.clock.install(time=time.time())
    refreshes: list[str] = []
    visit.page.on("requestfinished", lambda request: refreshes.append(request.url))
    page = visit.open("/?columns=created_at,progress")
    age = page.locator("td[data-column=created_at] .shown")
    expect(age).to_have_text("just now")
    poll(
        page,
        lambda: page.clock.run_for(100) or any("counts=true" in url for url in refreshes),
        "the refresh after the stream's first snapshot",
    )
    page.clock.run_for(100)
    page.clock.fast_forward("05:30")
    expect(age).to_have_text("6 min ago")
    expect(page.locator("td.c-progress")).not_to_contain_text("left")


def test_a_list_is_reloaded_when_the_user_returns_to_it(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_list(open_window(forty_jobs.url))
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    poll(page, lambda: forty_jobs.poller.clients == 0, "the end of the stream")
    submit(forty_jobs, name="newcomer")
    expect(page.locator("a.name", has_text="newcomer")).to_have_count(0)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(page.locator("a.name", has_text="newcomer")).to_be_visible()


def test_escape_on_a_checkbox_clears_the_selection(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url).open("/")
    page.locator("tr.job input[type=checkbox]").first.check()
    expect(page.locator("#selection")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_be_hidden()
    assert page.evaluate("document.activeElement.type") == "checkbox"


def test_the_keyboard_focus_stays_in_its_row_after_scrolling(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_window(forty_jobs.url, height=500).open("/")
    for _ in range(3):
        page.keyboard.press("j")
    expect(page.locator("a.name").nth(2)).to_be_focused()
    page.mouse.move(600, 300)
    page.mouse.wheel(0, 20_000)
    expect(page.get_by_text("run 2", exact=True)).to_have_count(0)
    page.keyboard.press("j")
    expect(page.get_by_text("run 3", exact=True)).to_be_focused()


def test_a_column_beyond_the_limit_is_not_checked(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    known = [column["name"] for column in http_client.get(forty_jobs.url + "/jobs/columns").json()["data"]]
    names = [name for name in known if name not in ("name", "tags", "starred", "note")]
    page = open_window(forty_jobs.url).open(f"/?columns={','.join(names[:50])}")
    page.get_by_role("button", name="Columns").click()
    box = page.locator(f"#columns-pick input[name='{names[50]}']")
    box.click()
    expect(page.locator("#toasts")).to_contain_text("At most 50 columns fit.")
    expect(box).not_to_be_checked()


def test_the_documentation_opens_forms_without_suggestions_and_requests_them_again(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    visit = open_window(forty_jobs.url)
    visit.error_log.expected.append("net::ERR_FAILED")
    page = visit.open("/docs/jobs")
    page.route("**/jobs?limit=30", lambda route: route.abort())
    operation = page.locator("details.operation:has(form.try [name=job_id])").first
    with page.expect_event("requestfailed"):
        operation.locator("summary").first.click()
    wait_for_frames(page)  # the script has handled the failure
    expect(operation.get_by_label("job_id")).to_be_visible()
    page.unroute("**/jobs?limit=30")
    operation = page.locator("details.operation:has(form.try [name=job_id])").nth(1)
    operation.locator("summary").first.click()
    expect(page.locator("#known-job_id option").first).to_be_attached()
