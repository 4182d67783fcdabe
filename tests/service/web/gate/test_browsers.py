"""Browsers are redirected from the API to pages; programs get JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.web.http.endpoint import operation_of

Submit = Callable[..., str]

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
BROWSER = {"Accept": CHROME}
PROGRAMS = ("*/*", "application/json", "", "application/json, text/html;q=0.5", "application/problem+json")


@pytest.fixture
def job_id(client: FlaskClient, worker: Any, submit: Submit) -> str:
    submitted = submit(client, name="reader", epochs=2)
    worker.claim()
    worker.commit_epoch(1, confusion=[[1] * 10] * 10)
    worker.commit_epoch(2, confusion=[[1] * 10] * 10)
    worker.succeed()
    return submitted


PATHS_WITH_PAGE = (
    "/jobs",
    "/jobs/{id}",
    "/jobs/{id}/events",
    "/jobs/{id}/metrics",
    "/jobs/{id}/results",
    "/jobs/{id}/artifacts",
    "/jobs/{id}/checkpoints",
    "/jobs/{id}/samples",
    "/datasets",
    "/datasets/mnist-10k",
    "/workers",
    "/queue",
    "/usage",
    "/keys",
)
PATHS_OF_JSON = (
    "/jobs/{id}/confusion",
    "/limits",
    "/presets",
    "/session",
    "/audit",
    "/audit/seals",
    "/readyz",
)


@pytest.mark.parametrize("path", PATHS_WITH_PAGE)
def test_a_browser_is_redirected_where_a_program_gets_json(client: FlaskClient, job_id: str, path: str) -> None:
    path = path.format(id=job_id)
    redirect = client.get(path, headers=BROWSER)
    assert (redirect.status_code, "Accept" in redirect.vary) == (303, True)
    address, _, part = redirect.headers["Location"].partition("#")
    page = client.get(address, headers=BROWSER)
    assert (page.status_code, page.content_type) == (200, "text/html; charset=utf-8")
    assert "<h1" in page.text
    assert f'id="{part}"' in page.text or not part
    assert "default-src 'none'; script-src 'self'" in page.headers["Content-Security-Policy"]
    for accept in PROGRAMS:
        answer = client.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.mimetype) == (200, "application/json"), accept
        assert "Accept" in answer.vary


@pytest.mark.parametrize("path", PATHS_OF_JSON)
def test_a_browser_gets_json_where_there_is_no_page(client: FlaskClient, job_id: str, path: str) -> None:
    for accept in (CHROME, *PROGRAMS):
        answer = client.get(path.format(id=job_id), headers={"Accept": accept})
        assert (answer.status_code, answer.mimetype) == (200, "application/json"), accept


def test_the_page_behind_a_redirect_accepts_the_parameters_of_its_operation(app: Flask) -> None:
    adapter = app.url_map.bind("localhost")
    checked = []
    for rule in app.url_map.iter_rules():
        operation = operation_of(app.view_functions[rule.endpoint])
        if operation is None or operation.page is None or "#" in operation.page:
            continue
        endpoint, _ = adapter.match(
            operation.page.format(
                job_id="job_x", sweep_id="swp_x", webhook_id="whk_x", name="mine", model_name="digits"
            )
        )
        page = operation_of(app.view_functions[endpoint])
        assert page is not None, operation.page
        # A request that names a format is not redirected: the browser gets that format.
        accepted = operation.query.model_fields.keys() - {"format"}
        assert accepted <= page.query.model_fields.keys(), rule.rule
        checked.append(rule.rule)
    assert {"/jobs", "/queue", "/workers"} <= set(checked)


def test_the_queue_page_applies_the_limit(client: FlaskClient, submit: Submit) -> None:
    job_ids = [submit(client) for _ in range(3)]
    page = client.get("/queue?limit=2", headers=BROWSER, follow_redirects=True)
    assert page.status_code == 200
    assert [job_id in page.text for job_id in job_ids] == [True, True, False]


def test_a_browser_is_redirected_from_a_job_and_its_list_to_their_pages(client: FlaskClient, job_id: str) -> None:
    for path, location in (
        (f"/jobs/{job_id}", f"/ui/jobs/{job_id}"),
        ("/jobs?status=failed&q=x", "/?status=failed&q=x"),
        ("/jobs?group=kind", "/?group=kind"),
        (f"/jobs/{job_id}/events?level=error", f"/ui/jobs/{job_id}/log?level=error"),
        (f"/jobs/{job_id}/samples?limit=1", f"/ui/jobs/{job_id}#samples"),
        ("/ui", "/"),
    ):
        answer = client.get(path, headers=BROWSER)
        assert (answer.status_code, answer.headers["Location"]) == (303, location)


def test_documents_and_downloads_keep_their_media_types_in_browsers(client: FlaskClient, job_id: str) -> None:
    for path, media_type in (
        ("/openapi.json", "application/json"),
        ("/schema.json", "application/schema+json"),
        (f"/jobs/{job_id}/metrics?format=csv", "text/csv"),
        (f"/jobs/{job_id}/metrics?format=json", "application/json"),
        (f"/jobs/{job_id}/samples/latest.png", "image/png"),
        (f"/jobs/{job_id}/checkpoints/latest", "application/octet-stream"),
    ):
        with client.get(path, headers=BROWSER) as answer:
            assert (answer.status_code, answer.mimetype) == (200, media_type)


def test_a_browser_gets_a_problem_as_a_page_with_all_details(client: FlaskClient) -> None:
    page = client.get("/jobs?limit=x&foo=1&bar=<script>", headers=BROWSER, follow_redirects=True)
    assert (page.status_code, page.mimetype) == (400, "text/html")
    for text in (
        "A parameter is not valid",
        "<code>limit</code>",
        "<code>foo</code>",
        "unknown parameter",
        "What to do:",
    ):
        assert text in page.text
    assert f"<code>{page.headers['X-Request-Id']}</code>" in page.text
    assert 'href="/docs#problem-invalid_parameter"' in page.text
    assert '<script>"' not in page.text
    assert "Accept" in page.vary


@pytest.mark.parametrize(
    ("path", "status", "title", "link"),
    [
        ("/nope", 404, "Page not found", "/"),
        ("/ui/sweeps/sweep_01J00000000000000000000000", 404, "There is no such sweep", "/ui/sweeps"),
        ("/jobs/job_01J00000000000000000000000", 404, "There is no such job", "/"),
        ("/jobs/job_01J00000000000000000000000/events", 404, "There is no such job", "/"),
        ("/ui/jobs/job_01J00000000000000000000000", 404, "There is no such job", "/"),
        ("/ui/play/job_01J00000000000000000000000", 404, "There is no such job", "/"),
        ("/datasets/nope", 404, "There is no such dataset", "/ui/datasets"),
    ],
)
def test_a_not_found_page_links_to_a_page_that_exists(
    client: FlaskClient, path: str, status: int, title: str, link: str
) -> None:
    page = client.get(path, headers=BROWSER, follow_redirects=True)
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert re.search(rf"<h1[^>]*>{title}</h1>", page.text)
    assert 'href="/"' in page.text
    assert 'href="//' not in page.text
    (remedy,) = re.findall(r"What to do:</strong>(.*?)</p>", page.text)
    assert not re.search(r"GET|key|detail|/docs|<code>", remedy), "a text for programs"
    assert f'<a class="button primary" href="{link}">' in page.text
    assert client.get(path).mimetype == "application/problem+json"


def test_a_browser_also_gets_a_page_for_a_wrong_method(client: FlaskClient) -> None:
    page = client.put("/jobs", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (405, "text/html")
    assert "GET" in page.headers["Allow"]


def test_a_temporary_problem_offers_to_try_again(make_app: Callable[..., Flask]) -> None:
    client = make_app("postgresql+psycopg://nobody:secret@127.0.0.1:1/none").test_client()
    page = client.get("/ui/datasets", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert '<a class="button primary" href="/ui/datasets">Try again</a>' in page.text
    assert page.headers["Retry-After"] == "5"
    assert "secret" not in page.text


def test_redirects_of_browsers_are_documented(client: FlaskClient) -> None:
    paths = client.get("/openapi.json").json["paths"]
    assert "text/html" not in paths["/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    assert "/ui/jobs/{job_id}" in paths["/jobs/{job_id}"]["get"]["responses"]["303"]["description"]
    assert "303" not in paths["/jobs"]["post"]["responses"]
