"""The list of jobs with responses that arrive late, out of order, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.held import hold
from tests.browser.played import Bare
from tests.browser.stored_jobs import all_jobs, store
from tests.browser.waiting import patient

RENEWED = r"GET /jobs\?.*counts=true"


def submit(bare: Bare, **spec: Any) -> dict[str, Any]:
    job: dict[str, Any] = patient.post(bare.url + "/jobs", json={"kind": "classifier"} | spec).raise_for_status().json()
    return job


def opened(visit: Visit, path: str = "/") -> Page:
    """Open the list, and wait until it was renewed for the first message of its stream."""
    with visit.page.expect_response(lambda response: "counts=true" in response.url):
        return visit.open(path)


def test_a_star_stays_while_it_is_saved(open_window: Callable[..., Visit], full: Bare) -> None:
    page = open_window(full.url).open("/")
    star = page.get_by_role("button", name="Star run 1", exact=True)
    saved = hold(page, "PATCH /jobs/")
    page.get_by_text("run 1", exact=True).hover()
    star.click()
    saved.wait(1)
    star.click()  # nothing is saved twice at once
    submit(full, name="newcomer")
    expect(page.locator("a.name", has_text="newcomer")).to_be_visible()
    expect(star).to_have_attribute("aria-pressed", "true")
    saved.stop()
    page.wait_for_timeout(200)
    expect(star).to_have_attribute("aria-pressed", "true")
    assert len(saved.seen) == 1


def test_a_star_that_is_refused_is_taken_back(open_window: Callable[..., Visit], full: Bare) -> None:
    visit = open_window(full.url)
    visit.watched.expected.append("status of 409")
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


def test_an_answer_from_before_a_star_does_not_take_it_away(open_window: Callable[..., Visit], full: Bare) -> None:
    page = opened(open_window(full.url))
    renewed = hold(page, RENEWED)
    submit(full, name="newcomer")
    renewed.wait(1)
    star = page.get_by_role("button", name="Star run 1", exact=True)
    page.get_by_text("run 1", exact=True).hover()
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(300)
    renewed.arrive()
    page.wait_for_timeout(300)
    expect(star).to_have_attribute("aria-pressed", "true")
    renewed.stop()
    expect(page.locator("a.name", has_text="newcomer")).to_be_visible()
    expect(star).to_have_attribute("aria-pressed", "true")


def test_the_answer_to_an_earlier_search_is_dropped(open_window: Callable[..., Visit], full: Bare) -> None:
    page = opened(open_window(full.url))
    searched = hold(page, RENEWED)
    for count, text in enumerate(("run 11", "", "run 11", "run 22", "run 11"), 1):
        page.fill("#filters [name=q]", text)
        searched.wait(count)
    for at in (4, 0, 1, 1, 0):
        searched.arrive(at)
        page.wait_for_timeout(60)
    expect(page.locator("a.name")).to_have_text(["run 11"])


def test_a_row_far_below_shows_its_new_status(
    open_window: Callable[..., Visit], serve_bare: Callable[..., Bare]
) -> None:
    bare = serve_bare()
    store(bare, 149)
    job = submit(bare, name="the last one")
    page = open_window(bare.url).open("/?sort=created_at")
    all_jobs(page, 150)
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    row = page.locator(f"tr[data-id={job['id']}]")
    expect(row.locator(".status")).to_have_text("queued")
    patient.post(f"{bare.url}{job['urls']['self']}/cancel").raise_for_status()
    expect(row.locator(".status")).to_have_text("cancelled")
    assert page.locator("#more").inner_text() == "150 jobs"


def test_a_group_that_loads_while_the_filter_changes_is_not_empty(
    open_window: Callable[..., Visit], full: Bare
) -> None:
    page = opened(open_window(full.url, height=2000), "/?group=preset")
    loaded = hold(page, r"GET /jobs\?.*limit=100")
    page.locator("tr.group button").first.click()
    loaded.wait(1)
    page.fill("#filters [name=q]", "run 1")
    expect(page.locator("tr.group button").first).to_contain_text("jobs")
    page.wait_for_timeout(500)
    loaded.stop()
    expect(page.locator("tr.job a.name")).to_have_text(["run 15", "run 18"])


def test_a_group_that_is_opened_again_shows_what_came_meanwhile(open_window: Callable[..., Visit], full: Bare) -> None:
    page = open_window(full.url, height=2000).open("/?group=preset")
    group = page.locator("tr.group button", has_text="fast")
    group.click()
    expect(page.locator("tr.job")).to_have_count(14)
    group.click()
    expect(page.locator("tr.job")).to_have_count(0)
    submit(full, name="newcomer", preset="fast")
    expect(group).to_contain_text("15 jobs")
    group.click()
    expect(page.locator("a.name", has_text="newcomer")).to_be_visible()
    expect(page.locator("tr.job")).to_have_count(15)


def test_ages_of_jobs_that_have_ended_move_on(
    open_window: Callable[..., Visit], serve_bare: Callable[..., Bare]
) -> None:
    bare = serve_bare()
    job = submit(bare)
    patient.post(f"{bare.url}{job['urls']['self']}/cancel").raise_for_status()
    visit = open_window(bare.url)
    visit.page.clock.install(time=time.time())
    page = visit.open("/?columns=created_at,progress")
    age = page.locator("td[data-column=created_at] .shown")
    expect(age).to_have_text("just now")
    page.clock.run_for(2000)
    page.wait_for_timeout(500)  # the stream's first snapshot is over
    page.clock.fast_forward("05:30")
    expect(age).to_have_text("6 min ago")
    expect(page.locator("td.c-progress")).not_to_contain_text("left")


def test_a_list_is_reloaded_when_the_user_returns_to_it(open_window: Callable[..., Visit], full: Bare) -> None:
    page = opened(open_window(full.url))
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    submit(full, name="newcomer")
    page.wait_for_timeout(1500)
    expect(page.locator("a.name", has_text="newcomer")).to_have_count(0)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    expect(page.locator("a.name", has_text="newcomer")).to_be_visible()


def test_escape_on_a_checkbox_clears_the_selection(open_window: Callable[..., Visit], full: Bare) -> None:
    page = open_window(full.url).open("/")
    page.locator("tr.job input[type=checkbox]").first.check()
    expect(page.locator("#selection")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_be_hidden()
    assert page.evaluate("document.activeElement.type") == "checkbox"


def test_the_keyboard_focus_stays_in_its_row_after_scrolling(open_window: Callable[..., Visit], full: Bare) -> None:
    page = open_window(full.url, height=500).open("/")
    for _ in range(3):
        page.keyboard.press("j")
    expect(page.locator("a.name").nth(2)).to_be_focused()
    page.mouse.move(600, 300)
    page.mouse.wheel(0, 20_000)
    expect(page.get_by_text("run 2", exact=True)).to_have_count(0)
    page.keyboard.press("j")
    expect(page.get_by_text("run 3", exact=True)).to_be_focused()


def test_a_column_too_many_is_not_checked(open_window: Callable[..., Visit], full: Bare) -> None:
    known = [column["name"] for column in patient.get(full.url + "/jobs/columns").json()["data"]]
    names = [name for name in known if name not in ("name", "tags", "starred", "note")]
    page = open_window(full.url).open(f"/?columns={','.join(names[:50])}")
    page.get_by_role("button", name="Columns").click()
    box = page.locator(f"#columns-pick input[name='{names[50]}']")
    box.click()
    expect(page.locator("#toasts")).to_contain_text("At most 50 columns fit.")
    expect(box).not_to_be_checked()


def test_the_documentation_opens_its_forms_where_the_service_does_not_answer(
    open_window: Callable[..., Visit], full: Bare
) -> None:
    visit = open_window(full.url)
    visit.watched.expected.append("net::ERR_FAILED")
    page = visit.open("/docs/jobs")
    page.route("**/jobs?limit=30", lambda route: route.abort())
    operation = page.locator("details.operation:has(form.try [name=job_id])").first
    with page.expect_event("requestfailed"):
        operation.locator("summary").first.click()
    page.wait_for_timeout(100)  # the script is told, too
    page.unroute("**/jobs?limit=30")
    operation = page.locator("details.operation:has(form.try [name=job_id])").nth(1)
    operation.locator("summary").first.click()
    expect(page.locator("#known-job_id option").first).to_be_attached()
