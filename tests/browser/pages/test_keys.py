"""Features of a service with keys: signing in and out, and the jobs of other owners."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from service.access.keys import Scope
from service.runtime.settings import Auth
from service.states import Status
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import JOBS
from tests.browser.conftest import Site, Visit, bearer, make_key, with_auth
from tests.browser.waiting import http_client, until, wait_for_sent_requests
from tests.service.web.conftest import SimulatedWorker

pytestmark = with_auth([Auth.KEYS])

AN_OPTION_IS_CUT_OFF = """(select) => {
    const pen = new OffscreenCanvas(1, 1).getContext("2d");
    pen.font = getComputedStyle(select).font;
    return [...select.options].some(({ text }) => pen.measureText(text).width > select.clientWidth - 40);
}"""
"""Whether the text of an option is wider than its field."""


@pytest.fixture
def bob(site: Site) -> Any:
    with httpx.Client(base_url=site.url, timeout=90, headers=bearer(make_key(site.settings, "bob"))) as client:
        yield client


def train_waiting_jobs(site: Site) -> None:
    with closing(Database(site.settings.database_url)) as database:
        with database.read() as session:
            waiting = session.scalars(select(JOBS.c.id).where(JOBS.c.status == Status.QUEUED)).all()
        for _ in waiting:
            worker = SimulatedWorker(database, ArtifactFolder(site.settings.artifacts))
            worker.claim()
            worker.commit_epoch(1)
            worker.succeed()


@pytest.mark.stack
def test_sign_in_train_and_sign_out(open_window: Callable[..., Visit], site: Site) -> None:
    key = make_key(site.settings, "carol")
    visit = open_window(site.url)
    visit.error_log.expected = ["401", "status of 500"]  # the simulated worker stores no network
    page = visit.open("/")
    page.get_by_label("Your key").fill("tpl_000000000000_" + 64 * "0")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not one of this service's")
    page.get_by_label("Your key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Train a classifier").click()
    page.wait_for_url("**/ui/jobs/job_*")
    train_waiting_jobs(site)
    expect(page.locator("#state .status")).to_have_text("succeeded")
    job = http_client.get(f"{site.url}/jobs/{page.url.rpartition('/')[2]}", headers=bearer(key)).json()
    assert job["owner"] == "carol"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your key")).to_be_visible()
    page = visit.open(f"/ui/jobs/{job['id']}")
    expect(page.get_by_label("Your key")).to_be_visible()
    expect(page.locator("h1")).not_to_contain_text("first classifier")


@pytest.mark.stack
def test_a_key_submitted_before_the_script_has_run_is_not_sent(open_window: Callable[..., Visit], site: Site) -> None:
    """By default, a form puts its fields into the URL, and so into the history and into logs."""
    visit = open_window(site.url, own=True)
    visit.error_log.expected = ["ERR_FAILED"]
    visit.page.route("**/sign-in.js", lambda route: route.abort())
    page = visit.open("/ui/sign-in")
    page.evaluate("addEventListener('submit', () => { document.title = 'submitted'; })")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.get_by_label("Your key").fill("tpl_of_carol")
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_title("submitted")
    wait_for_sent_requests(page)
    assert page.url == f"{site.url}/ui/sign-in"
    # Chromium loads the icon of a page some time after the page itself.
    assert [url for url in requests if not url.endswith("/icon.svg")] == [f"{site.url}/healthz"]


@pytest.mark.stack
def test_jobs_of_other_owners_are_not_found(visit: Visit, site: Site, bob: httpx.Client, http: httpx.Client) -> None:
    visit.error_log.expected = ["404"]
    spec = {"kind": "classifier", "epochs": 2, "tags": ["shared-word"]}
    earlier = bob.post("/jobs", json=spec | {"name": "of bob"}).raise_for_status().json()
    page = visit.open("/?tag=shared-word")
    later = bob.post("/jobs", json=spec | {"name": "of bob, later"}).raise_for_status().json()
    own = http.post("/jobs", json=spec | {"name": "of ann"}).raise_for_status().json()
    train_waiting_jobs(site)
    row = page.locator(f"tr[data-id={own['id']}]")
    expect(row.locator(".status")).to_have_text("succeeded")
    expect(page.locator("tr.job")).to_have_count(1)
    for job in (earlier, later):
        for path in (f"/ui/jobs/{job['id']}", f"/ui/play/{job['id']}"):
            page = visit.open(path)
            expect(page.locator("h1")).to_have_text("There is no such job")
            expect(page.locator("body")).not_to_contain_text("of bob")
        page = visit.open(f"/ui/compare?jobs={job['id']},{own['id']}")
        until(page, "document.querySelectorAll('#compared li').length === 1")
        expect(page.locator("#compared")).to_contain_text("of ann")
        expect(page.locator("body")).not_to_contain_text("of bob")
        assert bob.get(job["urls"]["self"]).json()["owner"] == "bob"


def test_a_read_key_is_offered_nothing_that_changes_jobs(
    open_site: Callable[..., Visit], site: Site, jobs: dict[str, Any]
) -> None:
    visit = open_site(key=make_key(site.settings, "ann", Scope.READ))
    page = visit.open(f"/ui/jobs/{jobs['reader']['id']}")
    expect(page.locator("#state .status")).to_have_text("succeeded")
    for name in ("Fork…", "Reproduce", "Delete…", "Edit", "Star"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    page.get_by_role("link", name="Draw and classify").click()
    expect(page.locator("#checkpoint-name")).to_contain_text("epoch")
    page.locator("#pad").click()
    expect(page.locator("#bars .winner")).to_have_count(1)
    page = visit.open("/")
    expect(page.locator("tr.job").first).to_be_visible()
    expect(page.get_by_role("link", name="New job")).to_have_count(0)
    page.locator("a.name").first.focus()
    for key in ("n", "e", "s"):
        page.keyboard.press(key)
    wait_for_sent_requests(page)  # such as that for the form
    expect(page).to_have_url(site.url + "/")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.locator("#keys dd:visible").first).to_have_text("Search")
    for text in ("New job", "Star the job", "Edit the job's note"):
        expect(page.locator("#keys").get_by_text(text)).to_be_hidden()


@pytest.mark.parametrize(("width", "owner"), [(390, "lehrerin"), (360, "a-name-that-is-rather-long@example.org")])
def test_on_a_phone_the_header_is_one_line_and_scopes_are_legible(
    open_site: Callable[..., Visit], site: Site, width: int, owner: str
) -> None:
    visit = open_site(key=make_key(site.settings, owner, Scope.ADMIN), width=width)
    page = visit.open("/ui/keys")
    middles = [
        box["y"] + box["height"] / 2
        for box in (
            page.locator(selector).bounding_box() for selector in (".brand", ".top .who", "#sign-out", "#theme")
        )
        if box is not None
    ]
    assert len(middles) == 4
    assert max(middles) - min(middles) < 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.get_by_label("Scope")).to_have_value("submit")
    assert page.locator("select[name=scope]").evaluate(AN_OPTION_IS_CUT_OFF) is False
    expect(page.get_by_text("submit: also")).to_be_visible()


def test_the_header_names_the_owner_and_has_no_links_before_the_sign_in(
    open_window: Callable[..., Visit], site: Site
) -> None:
    visit = open_window(site.url)
    visit.error_log.expected = ["401"]
    page = visit.open("/")
    expect(page.get_by_label("Your key")).to_be_visible()
    expect(page.get_by_role("link", name="Workers")).to_have_count(0)
    page.get_by_label("Your key").fill("tpl_000000000000_" + 64 * "0")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.get_by_role("alert").inner_text()[0].isupper()
    page.get_by_label("Your key").fill(make_key(site.settings, "dora"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".top .who")).to_have_text("dora")
    expect(page.get_by_role("link", name="Workers")).to_have_count(1)
