"""Actions on the jobs in the table: stars, notes, selections and saved views, also by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.accessibility import serious_violations
from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.apps.stored_jobs import COLUMNS, JOB_COUNT, load_all_jobs, store_jobs
from tests.browser.conftest import Visit
from tests.browser.waiting import http_client, until


def test_a_star_and_a_note_are_saved_and_searched(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url).open("/")
    row = page.locator("tr.job").nth(1)
    row.hover()
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        row.get_by_role("button", name="Star run 1").click()
    expect(row.get_by_role("button", name="Star run 1")).to_have_attribute("aria-pressed", "true")
    row.get_by_role("button", name="Add a note to run 1").click()
    page.locator("#note textarea").fill("the one with the bug\nsee <b>seed 7</b>")
    page.locator("#note").get_by_role("button", name="Save").click()
    expect(row.locator(".noted.has")).to_have_attribute("title", "the one with the bug\nsee <b>seed 7</b>")
    page.reload()
    row = page.locator("tr.job").nth(1)
    expect(row.locator(".star")).to_have_attribute("aria-pressed", "true")
    expect(row.locator(".noted")).to_have_attribute("title", "the one with the bug\nsee <b>seed 7</b>")
    page.get_by_role("button", name="★ Starred").click()
    expect(page.locator("tr.job")).to_have_count(1)
    expect(page.locator("#more")).to_have_text("1 job")
    page.locator("#filters [name=q]").fill("THE BUG")
    expect(page.locator("tr.job a.name")).to_have_text(["run 1"])
    page.locator("#filters [name=q]").fill("")  # otherwise the job would leave the list with its note
    page.locator(".noted.has").click()
    page.get_by_role("button", name="Delete note").click()
    expect(page.locator("tr.job .noted")).to_have_attribute("title", "Add a note")
    job = http_client.get(forty_jobs.url + "/jobs?starred=true").json()["data"][0]
    assert (job["name"], job["note"]) == ("run 1", None)


def test_a_note_that_was_changed_elsewhere_is_not_overwritten_unseen(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_window(forty_jobs.url).open("/")
    row = page.locator("tr.job").nth(2)
    row.hover()
    address = str(row.locator("a.name").get_attribute("href")).removeprefix("/ui")
    row.get_by_role("button", name="Add a note to run 2").click()
    http_client.patch(forty_jobs.url + address, json={"note": "theirs", "starred": True}).raise_for_status()
    field, save = page.locator("#note textarea"), page.locator("#note").get_by_role("button", name="Save")
    field.fill("mine")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("changed in the meantime, to “theirs”")
    assert http_client.get(forty_jobs.url + address).json()["note"] == "theirs"
    expect(field).to_have_value("mine")
    save.click()
    expect(row.locator(".noted.has")).to_have_attribute("title", "mine")
    job = http_client.get(forty_jobs.url + address).json()
    assert (job["note"], job["starred"]) == ("mine", True)


@pytest.mark.stack
def test_views_are_saved_opened_renamed_and_deleted(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url).open(f"/?tag=night&columns={COLUMNS}&sort=-best:val_accuracy")
    names = page.locator("tr.job a.name").all_inner_texts()
    expect(page.get_by_label("Order")).to_have_value("-best:val_accuracy")
    page.get_by_role("button", name="Views").click()
    page.get_by_label("Name of the current view").fill("<i>night</i>")
    page.get_by_label("Name of the current view").press("Enter")
    expect(page.locator("#views-list a")).to_have_text("<i>night</i>")
    page.locator("#views").get_by_role("button", name="Done").click()
    page.goto(forty_jobs.url)
    expect(page.locator("tr.job").first).to_be_visible()
    page.get_by_role("button", name="Views").click()
    page.get_by_role("button", name="Rename <i>night</i>").click()
    page.get_by_label("New name of").fill("night runs")
    page.get_by_label("New name of").press("Enter")
    page.get_by_role("link", name="night runs").click()
    expect(page.locator("#terms")).to_have_text("Tag: night ✕")
    assert page.locator("tr.job a.name").all_inner_texts() == names
    page.get_by_role("button", name="Views").click()
    page.get_by_role("button", name="Delete night runs").click()
    expect(page.locator("#views-list")).to_have_text("No saved views yet.")
    page.locator("#views").get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Remove the filter Tag: night").click()
    load_all_jobs(page, JOB_COUNT)


def test_a_disabled_button_says_why(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url).open("/")
    page.get_by_label("Select run 1", exact=True).check()
    compare = page.locator("[data-do=compare]")
    expect(compare).to_be_disabled()
    expect(page.locator("#why")).to_contain_text("Select at least two jobs to compare.")
    expect(page.locator("#why")).to_contain_text("Nothing to cancel: all have ended.")
    expect(compare).to_have_attribute("aria-describedby", "why")
    load_all_jobs(page, JOB_COUNT)
    page.get_by_label("Select all loaded jobs").check()
    expect(page.locator("#selection strong")).to_have_text(f"{JOB_COUNT} selected")
    expect(compare).to_be_enabled()
    page.get_by_role("button", name="Clear selection").click()
    expect(page.locator("#selection")).to_be_hidden()


def test_at_most_two_hundred_jobs_can_be_compared(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    bare = serve_bare()
    store_jobs(bare, 201)
    page = open_window(bare.url).open("/")
    load_all_jobs(page, 201)
    page.evaluate("scrollTo(0, 0)")
    page.get_by_label("Select all loaded jobs").check()
    expect(page.locator("#why")).to_contain_text("At most 200 jobs can be compared.")
    page.locator("tr.job .c-choose input").first.uncheck()
    expect(page.locator("#selection strong")).to_have_text("200 selected")
    expect(page.locator("[data-do=compare]")).to_be_enabled()


def test_the_table_works_by_keyboard(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url).open("/?group=preset")
    expect(page.locator("tr.group")).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("tr.job").first).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("s")
    expect(page.locator("tr.job .star").first).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("e")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Control+Enter")
    expect(page.locator("tr.job .noted").first).to_have_attribute("title", "by keyboard")
    page.keyboard.press("x")
    expect(page.locator("#selection strong")).to_have_text("1 selected")
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_be_hidden()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_table_and_its_dialogs_are_accessible(
    open_window: Callable[..., Visit], forty_jobs: WebProcess, width: int, scheme: Any
) -> None:
    page = open_window(forty_jobs.url, width=width, color_scheme=scheme).open(
        f"/?columns=status,{COLUMNS}&group=preset"
    )
    page.locator("tr.group button").first.click()
    expect(page.locator("tr.job").first).to_be_visible()
    page.locator("tr.job .c-choose input").first.check()
    page.locator("tr.job .star").first.click()
    expect(page.locator("tr.job .star").first).to_have_attribute("aria-pressed", "true")
    assert serious_violations(page) == []
    page.locator("#choose-columns").click()
    until(page, "document.querySelectorAll('#columns-pick label').length > 20")
    assert serious_violations(page) == []
    page.locator("#columns").get_by_role("button", name="Done").click()
    page.locator("#saved-views").click()
    page.fill("#views-save input", "mine")
    page.locator("#views-save button").click()
    page.get_by_role("button", name="Rename mine").click()
    assert serious_violations(page) == []
