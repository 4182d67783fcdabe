"""Many people on one service: sign-in links, share links, owners, and a queue that explains itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from sqlalchemy import delete

from service.access import keys, sign_in_links
from service.access.keys import Scope
from service.jobs import worker_registry
from service.runtime.settings import Auth
from service.storage.database import Database
from service.storage.tables import Worker
from tests.browser.conftest import Site, Visit, bearer, make_key, with_auth

pytestmark = with_auth([Auth.KEYS])

PHONE = 390


@pytest.fixture
def teacher(site: Site) -> Iterator[httpx.Client]:
    key = make_key(site.settings, "teacher", Scope.ADMIN)
    with httpx.Client(base_url=site.url, timeout=90, headers=bearer(key)) as client:
        yield client


def test_a_student_signs_in_by_a_link_on_a_phone(open_window: Callable[..., Visit], site: Site) -> None:
    with closing(Database(site.settings.database_url)) as database:
        row, _ = keys.create(database, name="student", owner="student", scope=Scope.SUBMIT)
        with database.write() as session:
            token = sign_in_links.create(session, row.id)
        row, _ = keys.create(database, name="other", owner="other", scope=Scope.SUBMIT)
        with database.write() as session:
            others = sign_in_links.create(session, row.id)
    visit = open_window(site.url, width=PHONE)
    visit.error_log.expected = ["410"]
    page = visit.open(f"/ui/welcome/{token}")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    page.get_by_role("button", name="Sign in here").click()
    page.wait_for_url(f"{site.url}/")
    expect(page.locator(".top .who")).to_have_text("student")
    expect(page.get_by_role("button", name="Train a classifier")).to_be_visible()
    expect(page.locator("#welcome")).not_to_contain_text("curl")
    page = visit.open(f"/ui/welcome/{token}")
    expect(page.locator("h1")).to_have_text("You are signed in as student")
    page.get_by_role("link", name="Your jobs").click()
    page = visit.open(f"/ui/welcome/{others}")
    expect(page.locator("main")).to_contain_text("Signing in here signs student out.")
    page.get_by_role("button", name="Sign out").click()
    dialog = page.get_by_role("dialog", name="Sign out?")
    expect(dialog).to_contain_text("you need a new link")
    dialog.get_by_role("button", name="Sign out").click()
    expect(page.locator("#sign-in")).to_contain_text("a link works once")
    page = visit.open(f"/ui/welcome/{token}")
    expect(page.locator("main")).to_contain_text("The link was used already.")


@pytest.mark.stack
def test_a_shared_job_shows_a_stranger_its_curves_and_no_buttons(
    open_site: Callable[..., Visit],
    open_window: Callable[..., Visit],
    site: Site,
    http: httpx.Client,
    jobs: dict[str, Any],
) -> None:
    address = f"/jobs/{jobs['reader']['id']}"
    before = {name: jobs["reader"][name] for name in ("note", "tags", "starred")}
    http.patch(address, json={"note": "for my eyes", "tags": ["draft"], "starred": True}).raise_for_status()
    page = open_site().open(f"/ui{address}")
    expect(page.locator("#note, .lead .tag, .star")).to_have_count(3)
    page.get_by_role("button", name="Share", exact=True).click()
    page.get_by_role("button", name="Create link").click()
    expect(page.locator("#share-links li")).to_have_count(1)
    link = page.get_by_label("New link").input_value()
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as without TLS
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("Press Ctrl-C")
    visit = open_window(site.url, own=True, width=PHONE)
    shared = visit.open(link.removeprefix(site.url))
    expect(shared).to_have_url(f"{site.url}/ui/jobs/{jobs['reader']['id']}")
    expect(shared.locator("#shared-by")).to_have_text("Shared by ann, read only.")
    shared.locator("#curves .chart").first.scroll_into_view_if_needed()  # a chart is drawn when it is in view
    expect(shared.locator("#curves canvas").first).to_be_visible()
    expect(shared.locator("#confusion td").first).to_be_visible()
    for name in ("Fork…", "Reproduce", "Delete…", "Edit", "Star", "Share"):
        expect(shared.get_by_role("button", name=name)).to_have_count(0)
    expect(shared.locator("#mistakes, #samples:visible")).to_have_count(0)
    expect(shared.get_by_role("link", name="Draw and classify")).to_have_count(0)
    expect(shared.locator("#note, .lead .tag, .star, #provenance")).to_have_count(0)
    assert shared.evaluate("document.documentElement.scrollWidth") <= PHONE
    teachers = open_site(key=make_key(site.settings, "teacher", Scope.ADMIN)).open(link.removeprefix(site.url))
    expect(teachers.locator("#shared-by")).to_be_visible()
    expect(teachers.get_by_role("navigation", name="Main").get_by_role("link", name="Keys")).to_be_visible()
    visit.error_log.check()
    http.patch(address, json=before).raise_for_status()
    page.get_by_role("button", name="Revoke").click()
    expect(page.locator("#share-links li")).to_have_count(0)
    visit.error_log.expected = ["401"]
    shared.reload()
    expect(shared.get_by_label("Your key")).to_be_visible()


def test_a_shared_comparison_and_its_query_reveal_no_other_job(
    open_window: Callable[..., Visit], site: Site, http: httpx.Client, jobs: dict[str, Any]
) -> None:
    a, b, other = (jobs[name]["id"] for name in jobs)
    share = http.post("/shares", json={"path": f"/ui/compare?jobs={a},{b}"}).raise_for_status().json()
    visit = open_window(site.url, own=True)
    page = visit.open(f"/shared/{share['token']}")
    expect(page.locator("#compared li")).to_have_count(2)
    expect(page.locator("#curves canvas").first).to_be_visible()
    visit.error_log.check()
    for query in (f"jobs={a}%2C{other}", f"jobs={a}&jobs={other}", f"jobs={other}"):
        assert page.request.get(f"{site.url}/ui/compare?{query}").status == 401


def test_an_owners_weight_is_changed_in_the_dialog(open_site: Callable[..., Visit], site: Site) -> None:
    make_key(site.settings, "ann")
    page = open_site(key=make_key(site.settings, "teacher", Scope.ADMIN)).open("/ui/owners")
    row = page.locator("tr", has=page.locator("strong", has_text="ann"))
    row.get_by_role("button", name="Settings of ann").click()
    dialog = page.get_by_role("dialog", name="Settings of ann")
    expect(dialog.get_by_label("Highest priority")).to_have_attribute("placeholder", "5")
    dialog.get_by_label("Weight").fill("2.5")
    dialog.get_by_label("Queued jobs").fill("7")
    dialog.get_by_role("button", name="Save").click()
    expect(row.locator("[data-label=Weight]")).to_have_text("2.5")
    row.get_by_role("button", name="Settings of ann").click()
    expect(dialog.get_by_label("Queued jobs")).to_have_value("7")
    for label in ("Weight", "Queued jobs"):
        dialog.get_by_label(label).fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(row.locator("[data-label=Weight]")).to_have_text("1")


def test_an_admin_sees_whose_jobs_are_listed_and_changes_none(
    open_site: Callable[..., Visit], site: Site, http: httpx.Client
) -> None:
    job = http.post("/jobs", json={"kind": "classifier", "name": "homework"}).raise_for_status().json()
    page = open_site(key=make_key(site.settings, "teacher", Scope.ADMIN)).open("/ui/owners")
    page.get_by_role("link", name="Jobs of ann", exact=True).click()
    expect(page.locator("h1")).to_have_text("Jobs of ann")
    page.get_by_label("Search by name, id, tag or note").fill("homework")
    expect(page.locator("tr.job")).to_have_count(1)
    assert "owner=ann" in page.url
    page.get_by_role("link", name="Jobs of all owners").click()
    expect(page.locator(f"tr[data-id={job['id']}]").get_by_role("link", name="ann")).to_be_visible()
    page.locator(f"tr[data-id={job['id']}] a.name").click()
    expect(page.locator("#belongs-to")).to_contain_text("Belongs to ann")
    for name in ("Cancel", "Edit", "Share"):
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    http.post(f"/jobs/{job['id']}/cancel").raise_for_status()


def test_people_are_shown_by_their_names(open_site: Callable[..., Visit], site: Site, teacher: httpx.Client) -> None:
    key = make_key(site.settings, "owner-8ac9540b")
    teacher.patch("/owners/owner-8ac9540b", json={"display_name": "王芳"}).raise_for_status()
    with httpx.Client(base_url=site.url, headers=bearer(key)) as client:
        job = client.post("/jobs", json={"kind": "classifier"}).raise_for_status().json()
        who = open_site(key=key).open("/").locator(".top .who")
        expect(who).to_have_text("王芳")
        expect(who).to_have_attribute("title", re.compile("owner-8ac9540b"))
        page = open_site(key=make_key(site.settings, "teacher", Scope.ADMIN)).open("/?owner=*")
        page.locator(f"tr[data-id={job['id']}]").get_by_role("link", name="王芳").click()
        expect(page.locator("h1")).to_have_text("Jobs of 王芳")
        for address in ("/ui/usage", "/ui/keys"):
            page.goto(f"{site.url}{address}")
            expect(page.locator("main")).to_contain_text("王芳")
        client.post(f"/jobs/{job['id']}/cancel").raise_for_status()
    make_key(site.settings, "m" * 60)
    teacher.patch(f"/owners/{'m' * 60}", json={"display_name": "M" * 60}).raise_for_status()
    narrow = open_site(key=make_key(site.settings, "teacher", Scope.ADMIN), width=PHONE).open("/ui/owners")
    assert narrow.locator("#owners .scroll").evaluate("element => element.scrollWidth - element.clientWidth") == 0


def test_a_teacher_publishes_a_dataset_and_withdraws_it(
    open_site: Callable[..., Visit], site: Site, teacher: httpx.Client, http: httpx.Client
) -> None:
    rows = "".join(f"{number * number % 17},{'odd' if number % 2 else 'even'}\n" for number in range(40))
    files = {"table": ("rows.csv", f"x,parity\n{rows}".encode())}
    teacher.post("/datasets", data={"name": "for-all"}, files=files).raise_for_status()

    def is_listed_for_ann() -> bool:
        return "for-all" in [item["name"] for item in http.get("/datasets").raise_for_status().json()["data"]]

    page = open_site(key=make_key(site.settings, "teacher", Scope.ADMIN)).open("/ui/datasets/for-all")
    assert not is_listed_for_ann()
    page.get_by_role("button", name="Publish to all owners").click()
    expect(page.get_by_role("button", name="Withdraw")).to_be_visible()
    assert is_listed_for_ann()
    anns = open_site().open("/ui/datasets/for-all")
    expect(anns.locator("main")).to_contain_text("shared")
    expect(anns.get_by_role("button", name="Delete…")).to_have_count(0)
    anns.goto(f"{site.url}/ui/datasets")
    expect(anns.locator("tr.dataset").first).to_contain_text("for-all")
    page.get_by_role("button", name="Withdraw").click()
    expect(page.get_by_role("button", name="Publish to all owners")).to_be_visible()
    assert not is_listed_for_ann()
    teacher.delete("/datasets/for-all").raise_for_status()


def test_the_queue_says_where_a_job_stands_and_what_is_before_it(
    open_site: Callable[..., Visit], site: Site, teacher: httpx.Client
) -> None:
    key = make_key(site.settings, "queuer")
    spec = {"kind": "classifier", "tags": ["queue"]}
    others = [teacher.post("/jobs", json=spec).raise_for_status().json() for _ in range(2)]
    with httpx.Client(base_url=site.url, headers=bearer(key)) as client:
        own = [client.post("/jobs", json=spec | {"name": f"own {n}"}).raise_for_status().json() for n in range(2)]
        page = open_site(key=key).open("/ui/queue")
        rows = page.locator("#queue tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.nth(1).locator("[data-label='Yours ahead']")).to_have_text("1")
        expect(page.locator("#reason")).to_contain_text("No worker is running")
        expect(page.locator("#owners")).to_have_count(0)
        teachers = open_site(key=make_key(site.settings, "teacher", Scope.ADMIN)).open("/ui/queue")
        expect(teachers.locator("#queue tbody tr")).to_have_count(2)
        teachers.get_by_role("link", name="All owners").click()
        expect(teachers.locator("#queue tbody tr")).to_have_count(4)
        expect(teachers.locator("#queue tbody tr", has_text="queuer")).to_have_count(2)
        with closing(Database(site.settings.database_url)) as database:
            worker = Worker(id="busy", host="box", pid=7, slots=2, running=0, draining=False)
            worker_registry.record_heartbeat(database, worker)
            expect(page.locator("#reason")).to_contain_text("expected to start")
            job_page = open_site(key=key).open(own[1]["urls"]["page"])
            expect(job_page.locator("#wait")).to_contain_text("in the queue: ")
            expect(job_page.locator("#wait")).to_contain_text("of yours")
            with database.write() as session:
                session.execute(delete(Worker).where(Worker.id == "busy"))
        for job in own:
            client.post(f"/jobs/{job['id']}/cancel").raise_for_status()
        expect(page.locator("#queue")).to_contain_text("None of your jobs is queued")
    for job in others:
        teacher.post(f"/jobs/{job['id']}/cancel").raise_for_status()


def test_an_admin_drains_a_worker_and_lets_it_claim_jobs_again(open_site: Callable[..., Visit], site: Site) -> None:
    worker = Worker(id="gpu-room-2-7-0123abcd", host="box", pid=7, slots=2, running=0, draining=False)
    with closing(Database(site.settings.database_url)) as database:
        worker_registry.record_heartbeat(database, worker)
        page = open_site(key=make_key(site.settings, "teacher", Scope.ADMIN)).open("/ui/workers")
        page.get_by_role("button", name="Drain gpu-room-2").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Running jobs").select_option("finish")
        dialog.get_by_role("button", name="Drain").click()
        row = page.locator("#workers tbody tr", has_text="gpu-room-2")
        expect(row).to_contain_text("draining")
        with database.read() as session:
            assert worker_registry.find_live(session, worker.id).drain == "finish"
        row.get_by_role("button", name="Undrain").click()
        expect(row).not_to_contain_text("draining")
        page = open_site(key=make_key(site.settings, "reader", Scope.SUBMIT)).open("/ui/workers")
        expect(page.locator("#workers tbody tr", has_text="gpu-room-2")).to_have_count(1)
        expect(page.get_by_role("button", name="Drain gpu-room-2")).to_have_count(0)
        worker_registry.deregister(database, worker.id)
