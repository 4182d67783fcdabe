"""Every link leads to a readable page, and the pages of the service work."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urldefrag, urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from service.access.keys import Scope
from service.runtime.settings import Auth
from tests.browser.conftest import Site, Visit, bearer, make_key, with_auth
from tests.browser.held_responses import hold
from tests.browser.waiting import http_client, poll, until

CHROME_ACCEPT: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
JSON_DOCUMENTS: Final = {"/openapi.json", "/schema.json", "/jobs/*/calibration", "/jobs/*/importance"}
"""Links that are labelled as JSON."""


def links(page: Page) -> list[str]:
    """The URLs of this origin that a page links to."""
    hrefs = page.eval_on_selector_all("a[href]", "all => all.map((link) => link.href)")
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(page.url))
    return list(dict.fromkeys(urldefrag(href).url for href in hrefs if href.startswith(origin + "/")))


def url_pattern(url: str) -> str:
    parts = urlsplit(url)
    names = re.sub(r"(job|art|key)_\w+", "*", parts.path)
    return re.sub(r"\d+", "#", names) + ("?" + re.sub(r"=[^&]*", "", parts.query) if parts.query else "")


def test_every_link_leads_to_a_page_or_a_file(visit: Visit, jobs: dict[str, Any]) -> None:
    """Of each kind of page, one is visited, and the pages of all trained jobs."""
    start = [visit.url + "/", *(visit.url + job["urls"]["page"] for job in jobs.values())]
    queue, visited_patterns, pages = list(start), set[str](), 0
    while queue:
        url = queue.pop(0)
        is_known = url_pattern(url) in visited_patterns and url not in start
        if is_known or urlsplit(url).path.endswith("/stream"):
            continue
        visited_patterns.add(url_pattern(url))
        if url in start:
            start.remove(url)
        response = visit.page.request.get(url, headers={"Accept": CHROME_ACCEPT})
        media = response.headers["content-type"].partition(";")[0]
        assert response.status == 200, url
        if media == "text/html":
            visit.page.goto(url)
            queue += links(visit.page)
            pages += 1
        else:
            assert "problem" not in media, url
            assert media != "application/json" or url_pattern(url).partition("?")[0] in JSON_DOCUMENTS, url
    assert pages > 25
    for path in (
        "/ui/jobs/*/log",
        "/jobs/*/artifacts/*",
        "/ui/datasets/mnist-#k",
        "/ui/workers",
        "/ui/queue",
        "/docs/jobs",
    ):
        assert path in visited_patterns, path


@pytest.mark.stack
def test_each_link_of_the_navigation_opens_a_page(visit: Visit) -> None:
    page = visit.open("/")
    names = page.locator("nav[aria-label=Main] a").all_inner_texts()
    assert names == ["Jobs", "New job", "Sweeps", "Models", "Datasets", "Workers", "Usage", "Keys", "Learn", "API"]
    for name in names:
        page.locator("nav[aria-label=Main] a", has_text=re.compile(f"^{name}$")).click()
        expect(page.locator("nav[aria-label=Main] [aria-current=page]")).to_have_text(name)
        assert page.evaluate("document.contentType") == "text/html"


@pytest.mark.stack
def test_errors_are_readable_pages_in_a_browser(visit: Visit) -> None:
    visit.error_log.expected = ["404", "400"]
    page = visit.open("/nope")
    expect(page.locator("h1")).to_have_text("Page not found")
    page.locator("main").get_by_role("link", name="All jobs", exact=True).click()
    expect(page.locator("h1")).to_have_text("Jobs")
    page = visit.open("/jobs?limit=many")
    expect(page.locator("main")).to_contain_text("limit")
    expect(page.locator("main")).to_contain_text("What to do:")
    page = visit.open("/ui")
    expect(page.locator("h1")).to_have_text("Jobs")


def test_an_open_log_grows_and_is_filtered_searched_and_downloaded(
    stack_visit: Visit, stack_http: httpx.Client
) -> None:
    job = stack_http.post("/jobs", json={"kind": "classifier", "name": "to be read", "epochs": 400}).json()
    page = stack_visit.open(job["urls"]["events"])
    metrics = page.locator("#log li", has_text="metrics")
    expect(metrics.nth(2)).to_be_attached()
    page.evaluate("window.same = true")
    before = metrics.count()
    until(page, "(count) => document.querySelectorAll('#log li').length > 3 * count", before)
    numbers = page.eval_on_selector_all("#log li", "all => all.map((line) => Number(line.dataset.seq))")
    assert numbers == list(range(1, len(numbers) + 1))
    stack_http.post(f"{job['urls']['self']}/cancel").raise_for_status()
    expect(page.locator("#live")).to_have_text("The job has ended: the log is complete.")
    expect(page.locator(".heading .status")).to_have_text("cancelled")
    assert page.evaluate("window.same")
    expect(page.locator("#log li").first.locator("time")).to_have_attribute("title", re.compile("UTC$"))
    page.get_by_role("link", name="Status", exact=True).click()
    expect(page.locator("#log li", has_text="metrics")).to_have_count(0)
    expect(page.locator("#log li", has_text="cancelled").first).to_be_visible()
    page.get_by_label("Search the log").fill("claimed")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#log li")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download (JSON lines)").click()
    assert Path(download.value.path()).read_text().count("\n") == 1


@pytest.mark.stack
def test_workers_and_the_queue_are_shown_live(stack_visit: Visit, stack_http: httpx.Client) -> None:
    page = stack_visit.open("/ui/queue")
    expect(page.locator("#queue")).to_contain_text("The queue is empty.")
    specs = [{"kind": "classifier", "name": f"number {number}", "epochs": 2000} for number in range(4)]
    jobs = [stack_http.post("/jobs", json=spec).json() for spec in specs]
    expect(page.locator("#queue tbody tr")).to_have_count(2)
    rows = page.locator("#queue tbody tr").all_inner_texts()
    assert [re.search(r"number \d", row)[0] for row in rows] == ["number 2", "number 3"]
    expect(page.locator("#reason")).to_contain_text("Next in the queue")
    page.get_by_role("navigation", name="Workers and queue").get_by_role("link", name="Workers").click()
    expect(page.locator("#workers div.running")).to_have_count(2)
    for job in jobs:
        stack_http.post(f"{job['urls']['self']}/cancel").raise_for_status()
    expect(page.locator("#workers")).to_contain_text("idle")


@pytest.mark.stack
def test_a_dataset_is_uploaded_shown_and_deleted(visit: Visit, tmp_path: Path) -> None:
    visit.error_log.expected = ["422"]
    generator = np.random.default_rng(0)
    data = io.BytesIO()
    np.savez(data, images=generator.integers(0, 255, (40, 6, 5)).astype(np.uint8), labels=np.arange(40) % 2)
    good, bad = tmp_path / "mine.npz", tmp_path / "bad.npz"
    good.write_bytes(data.getvalue())
    bad.write_bytes(b"nothing of that kind")
    page = visit.open("/ui/datasets")
    page.get_by_label("Name").fill("my-stripes")
    page.get_by_label("Format").select_option("archive")
    page.get_by_label("Archive", exact=True).set_input_files(bad)
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#upload-error")).to_contain_text("These files could not be read as a dataset.")
    page.get_by_label("Archive", exact=True).set_input_files(good)
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/ui/datasets/my-stripes")
    expect(page.locator("main")).to_contain_text("images, 6 \u00d7 5")
    expect(page.locator("#shown img")).to_have_count(34)
    until(page, "[...document.querySelectorAll('#shown img')].every((image) => image.naturalWidth === 5)")
    page.get_by_role("button", name="Delete…").click()
    page.locator("#confirm").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/ui/datasets")
    expect(page.locator(".dataset", has_text="my-stripes")).to_have_count(0)


def test_a_folder_of_images_is_uploaded(visit: Visit, tmp_path: Path) -> None:
    """One file name is longer than a tar header has room for; a hidden file and a text file are left out."""
    visit.error_log.expected = ["422"]
    photos = tmp_path / "wild animals"
    for name, level in (("cats", 40), ("dögs", 200)):
        (photos / name).mkdir(parents=True)
        for index in range(12):
            size = (30, 20) if index else (20, 30)
            Image.new("RGB", size, (level, level, level)).save(
                photos / name / f"{'x' * (80 if index else 200)}{index}.png"
            )
        (photos / name / ".hidden.png").write_bytes(b"junk")
        (photos / name / "notes.txt").write_text("mine")
    page = visit.open("/ui/datasets")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_label("Name")).to_have_js_property("validity.valid", False)
    page.locator("#folder").set_input_files(photos)
    expect(page.locator("#folder-chosen")).to_contain_text("24 images in 2 classes: cats, dögs.")
    scaled = "sizes, such as 30 \u00d7 20 and 20 \u00d7 30: they are scaled to cover 32 pixels and cropped"
    expect(page.locator("#folder-chosen")).to_contain_text(scaled)
    expect(page.get_by_label("Size")).to_have_value("32")
    page.get_by_label("Images of another shape").select_option("pad")
    expect(page.locator("#folder-chosen")).to_contain_text("scaled into 32 pixels, with black borders")
    page.get_by_label("Size").fill("")
    expect(page.get_by_label("Name")).to_have_value("wild-animals")
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#upload-error")).to_contain_text("The folder has images of 2 sizes: 30x20 (22), 20x30 (2)")
    expect(page.locator("#upload-error")).not_to_contain_text("archive")
    page.get_by_label("Size").fill("24x16")
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/ui/datasets/wild-animals")
    expect(page.locator("main")).to_contain_text("images, 16 \u00d7 24")
    expect(page.locator("table.classes tbody th")).to_have_text(["cats", "dögs"])
    expect(page.locator("#shown img")).to_have_count(22)


@pytest.mark.stack
@with_auth([Auth.KEYS])
def test_an_admin_creates_and_revokes_a_key(open_site: Callable[..., Visit], site: Site) -> None:
    visit = open_site(key=make_key(site.settings, "root", Scope.ADMIN))
    page = visit.open("/")
    page.get_by_role("link", name="Keys").click()
    page.wait_for_load_state()
    page.get_by_label("Name", exact=True).fill("laptop of Dora")
    page.get_by_label("Owner", exact=True).fill("dora")
    page.get_by_role("button", name="Create key").click()
    expect(page.locator("#made")).to_be_visible()
    key = page.locator("#made-secret").inner_text()
    answer = http_client.get(f"{site.url}/session", headers=bearer(key)).json()
    assert (answer["owner"], answer["scope"]) == ("dora", "submit")
    page.get_by_role("button", name="Done").click()
    expect(page.locator("body")).not_to_contain_text(key)
    row = page.locator("#keys tr", has_text="laptop of Dora")
    expect(row).to_contain_text("valid")
    row.get_by_role("button", name="Revoke").click()
    page.locator("#revoke").get_by_role("button", name="Cancel").click()
    assert http_client.get(f"{site.url}/session", headers=bearer(key)).status_code == 200
    row.get_by_role("button", name="Revoke").click()
    page.locator("#revoke").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    revoked = partial(http_client.get, f"{site.url}/session", headers=bearer(key))
    poll(page, lambda: revoked().status_code == 401, "the end of the key")


@with_auth([Auth.KEYS])
def test_an_admin_rotates_a_key(open_site: Callable[..., Visit], site: Site) -> None:
    old = make_key(site.settings, "edwin")
    visit = open_site(key=make_key(site.settings, "root", Scope.ADMIN))
    page = visit.open("/ui/keys")
    row = page.locator("#keys tr", has_text="edwin")
    row.get_by_role("button", name="Rotate").click()
    page.locator("#rotate").get_by_label("The old key expires").select_option("in an hour")
    page.locator("#rotate").get_by_role("button", name="Rotate").click()
    expect(page.locator("#made")).to_be_visible()
    key = page.locator("#made-secret").inner_text()
    for valid in (old, key):
        assert http_client.get(f"{site.url}/session", headers=bearer(valid)).json()["owner"] == "edwin"
    page.get_by_role("button", name="Done").click()
    expect(row).to_have_count(2)
    expect(row.last).to_contain_text("replaced, valid until it expires")
    expect(row.last.get_by_role("button", name="Rotate")).to_have_count(0)
    expect(row.first.get_by_role("button", name="Rotate")).to_have_count(1)


@with_auth([Auth.KEYS])
def test_non_admins_get_a_clear_error(open_site: Callable[..., Visit], site: Site) -> None:
    visit = open_site()
    visit.error_log.expected = ["403"]
    page = visit.open("/ui/keys")
    expect(page.locator("h1")).to_have_text("The key's scope does not allow this")
    expect(page.get_by_role("link", name="Sign in with another key")).to_be_visible()
    expect(page.get_by_role("link", name="Keys")).to_have_count(0)
    page = visit.open("/ui/usage")
    expect(page.locator("main h2")).to_have_text(["ann"])


def open_try_form(visit: Visit, section: str, operation: str) -> Any:
    page = visit.open(f"/docs/{section}#{operation}")
    form = page.locator(f"#{operation} form.try")
    expect(form).to_be_visible()
    return form


def test_a_suggestion_is_not_inserted_into_a_focused_field(visit: Visit, jobs: dict[str, Any]) -> None:
    suggestions = hold(visit.page, "GET /jobs.limit=30")
    form = open_try_form(visit, "files", "samples_sample")
    field, other_field = form.get_by_label("job_id"), visit.page.locator("#samples_samples [data-in=path][name=job_id]")
    field.select_text()  # to replace it
    suggestions.wait(1)
    suggestions.release_all()
    expect(other_field).not_to_have_value(re.compile("^job_01J0+$"))
    visit.page.keyboard.type(jobs["reader"]["id"])
    expect(field).to_have_value(jobs["reader"]["id"])


@with_auth([Auth.LOCAL, Auth.KEYS])
def test_the_documentation_sends_requests(visit: Visit, jobs: dict[str, Any], http: httpx.Client) -> None:
    visit.error_log.expected = ["404"]
    form = open_try_form(visit, "jobs", "jobs_submit")
    form.get_by_label("dry_run").select_option("true")
    form.get_by_role("button", name="gan").click()
    form.get_by_role("button", name="Send").click()
    expect(form.locator("[data-answer] .note")).to_contain_text("200 OK")
    expect(form.locator("[data-answer] > pre")).to_contain_text('"parameters"')
    expect(form.locator("[data-curl]")).to_contain_text("/jobs?dry_run=true' ")
    expect(form.locator("[data-curl]")).to_contain_text('-d \'{"kind":"gan"')

    form = open_try_form(visit, "jobs", "jobs_show")
    form.get_by_label("job_id").fill("job_01J00000000000000000000000")
    form.get_by_role("button", name="Send").click()
    expect(form.locator("[data-answer] .note")).to_contain_text("404")
    expect(form.locator("[data-answer] > pre")).to_contain_text("job_not_found")

    form = open_try_form(visit, "files", "samples_sample")
    form.get_by_label("job_id").fill(jobs["reader"]["id"])
    form.get_by_role("button", name="Send").click()
    until(visit.page, "document.querySelector('#samples_sample [data-answer] img')?.naturalWidth > 50")

    form = open_try_form(visit, "inference", "inference_predict")
    form.get_by_label("job_id").fill(jobs["reader"]["id"])
    form.get_by_role("button", name="Send").click()
    expect(form.locator("[data-answer] > pre")).to_contain_text('"classes": [\n    7\n  ]')

    form = open_try_form(visit, "files", "checkpoints_checkpoint")
    form.get_by_label("job_id").fill(jobs["reader"]["id"])
    form.get_by_role("button", name="Send").click()
    with visit.page.expect_download() as download:
        form.get_by_role("link", name="Save").click()
    assert download.value.suggested_filename.endswith(".safetensors")


def test_the_documentation_follows_a_stream_and_stops(stack_visit: Visit, stack_http: httpx.Client) -> None:
    job = stack_http.post("/jobs", json={"kind": "classifier", "name": "streamed", "epochs": 900}).json()
    form = open_try_form(stack_visit, "results", "events_stream")
    form.get_by_label("job_id").fill(job["id"])
    form.get_by_role("button", name="Send").click()
    expect(form.locator("[data-answer] > pre")).to_contain_text("event: metrics")
    form.get_by_role("button", name="Stop").click()
    expect(form.locator("[data-answer]")).to_contain_text("Stopped.")
    form = open_try_form(stack_visit, "jobs", "jobs_cancel")
    form.get_by_label("job_id").fill(job["id"])
    form.get_by_role("button", name="Send").click()
    dialog = stack_visit.page.locator("#confirm")
    expect(dialog).to_contain_text(f"POST /jobs/{job['id']}/cancel")
    dialog.get_by_role("button", name="Cancel").click()
    assert stack_http.get(job["urls"]["self"]).json()["requested"] is None
    form.get_by_role("button", name="Send").click()
    dialog.get_by_role("button", name="Send").click()
    expect(form.locator("[data-answer] .note")).to_contain_text("202")


def test_the_documentation_is_searchable_and_fits_a_phone(open_site: Callable[..., Visit]) -> None:
    visit = open_site(width=390, height=844)
    page = visit.open("/docs")
    assert page.evaluate("document.documentElement.scrollHeight") < 3000
    page.get_by_label("Search operations and problems").fill("cancel")
    expect(page.locator(".operations li:visible")).to_have_count(3)  # an upload, a job, or a sweep
    page.locator(".operations li:visible a[href$='#jobs_cancel']").click()
    expect(page.locator("#jobs_cancel")).to_have_attribute("open", "")
    page = visit.open("/docs#problem-job_not_found")
    expect(page.locator("#problem-job_not_found")).to_be_in_viewport()
    expect(page.locator("#problem-job_not_found p")).to_be_visible()
    for path in page.locator("nav.tabs a").evaluate_all("all => all.map((link) => link.pathname)"):
        page = visit.open(path)
        assert page.evaluate("document.documentElement.scrollHeight") < 12_000, path
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_the_navigation_has_two_lines(open_site: Callable[..., Visit], width: int) -> None:
    page = open_site(width=width, height=844).open("/")
    links = page.get_by_role("navigation", name="Main").get_by_role("link")
    lines = Counter(links.evaluate_all("all => all.map((link) => link.getBoundingClientRect().top)"))
    assert list(lines.values()) == [5, 5]
    assert links.evaluate_all("all => all.map((link) => link.scrollWidth - link.clientWidth)") == [0] * 10
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [660, 768, 970])
def test_on_a_tablet_the_navigation_fits_the_window(open_site: Callable[..., Visit], width: int) -> None:
    page = open_site(width=width, height=800).open("/")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_i_of_a_card_leads_to_its_term_with_the_readers_own_plot(visit: Visit, jobs: dict[str, Any]) -> None:
    page = visit.open(jobs["reader"]["urls"]["page"])
    page.get_by_role("link", name="Learn: calibration").first.click()
    card = page.locator("#calibration")
    expect(card).to_be_in_viewport()
    expect(card.locator("svg.diagram circle")).not_to_have_count(0)
    expect(card.get_by_role("status")).to_contain_text("expected calibration error")
    expect(card.locator("figure")).to_contain_text("Your job")
    page.get_by_role("navigation", name="Terms").get_by_role("link", name="GAN").click()
    samples = page.get_by_role("img", name="Samples of")
    expect(samples).to_be_in_viewport()
    until(page, "document.querySelector('#gan img').naturalWidth > 0")
