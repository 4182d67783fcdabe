"""Times are shown in the reader's zone, with UTC on hover."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.waiting import until

TOKYO = {"timezone_id": "Asia/Tokyo", "locale": "en-GB"}


def in_tokyo(text: str) -> str:
    moment = datetime.fromisoformat(text).astimezone(ZoneInfo("Asia/Tokyo"))
    return f"{moment.day} {moment:%b %Y, %H:%M:%S}"


def in_utc(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"


def fact(page: Page, name: str) -> Any:
    return page.locator(f"#facts dt:text-is('{name}') + dd time")


@pytest.mark.stack
def test_times_of_a_job_are_local_with_utc_on_hover(
    open_site: Callable[..., Visit], jobs: dict[str, Any], http: httpx.Client
) -> None:
    job = jobs["reader"]
    page = open_site(**TOKYO).open(f"/ui/jobs/{job['id']}")
    for name in ("Created", "Started", "Finished"):
        text = job[f"{name.lower()}_at"]
        expect(fact(page, name)).to_have_text(in_tokyo(text))
        expect(fact(page, name)).to_have_attribute("title", in_utc(text))
    first = page.locator(".events time").last
    expect(first).to_have_text(in_tokyo(http.get(job["urls"]["events"]).json()["data"][0]["at"]))


def test_times_stay_local_when_a_part_of_the_page_is_refreshed(
    open_stack: Callable[..., Visit], stack_http: httpx.Client
) -> None:
    job = stack_http.post("/jobs", json={"kind": "classifier", "name": "clock", "epochs": 500}).json()
    visit = open_stack(**TOKYO)
    page = visit.open(f"/ui/jobs/{job['id']}")
    expect(page.locator("#state .status")).to_have_text("running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#state .status")).to_have_text("cancelled")
    ended = stack_http.get(job["urls"]["self"]).json()
    expect(fact(page, "Finished")).to_have_text(in_tokyo(ended["finished_at"]))
    until(page, "[...document.querySelectorAll('time')].every((time) => !time.textContent.includes('UTC'))")
    assert page.locator(".events time").count() >= 2
    visit.leave()
    stack_http.delete(job["urls"]["self"])


def test_an_unchanged_part_of_the_page_is_not_replaced(open_site: Callable[..., Visit], jobs: dict[str, Any]) -> None:
    page = open_site(**TOKYO).open(f"/ui/jobs/{jobs['reader']['id']}")
    parts = page.evaluate(
        "async () => { const { refresh } = await import(document.querySelector('script[src$=\"/job.js\"]').src"
        ".replace('job/job.js', 'common/live.js')); const parts = [...document.querySelectorAll('[data-live]')];"
        " await refresh(); return parts.map((part) => [part.id, part.isConnected]); }"
    )
    assert [name for name, stays in parts if not stays] == []
    assert len(parts) > 3


def test_ages_in_the_list_show_local_and_utc_times_on_hover(
    open_site: Callable[..., Visit], jobs: dict[str, Any]
) -> None:
    page = open_site(**TOKYO).open("/?q=reader")
    age = page.locator("tr.job time").first
    created = jobs["reader"]["created_at"]
    expect(age).to_have_attribute("title", f"{in_tokyo(created)} · {in_utc(created)}")
    assert "ago" in age.inner_text() or "now" in age.inner_text()


def test_without_scripts_times_are_utc(open_site: Callable[..., Visit], jobs: dict[str, Any]) -> None:
    page = open_site(java_script_enabled=False, **TOKYO).open(f"/ui/jobs/{jobs['reader']['id']}")
    assert fact(page, "Created").inner_text() == in_utc(jobs["reader"]["created_at"])


def test_times_that_a_script_adds_are_local_too(open_site: Callable[..., Visit]) -> None:
    page = open_site(**TOKYO).open("/docs")
    moment = datetime.fromisoformat("2026-03-29T00:30:00+00:00")
    page.evaluate(
        "text => { const time = document.createElement('time'); time.dateTime = text;"
        " time.textContent = '2026-03-29 00:30:00 UTC'; time.id = 'late';"
        " document.querySelector('main').append(time); }",
        moment.isoformat(),
    )
    expect(page.locator("#late")).to_have_text(in_tokyo(moment.isoformat()))
