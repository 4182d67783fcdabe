from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.web.openapi.builder import UNDOCUMENTED

Submit = Callable[..., str]

ISSUE_ROUTES = [
    "POST /jobs",
    "GET /jobs",
    "GET /jobs/{job_id}",
    "DELETE /jobs/{job_id}",
    "PATCH /jobs/{job_id}",
    "POST /jobs/{job_id}/cancel",
    "POST /jobs/{job_id}/pause",
    "POST /jobs/{job_id}/resume",
    "POST /jobs/{job_id}/retry",
    "POST /jobs/{job_id}/fork",
    "POST /jobs/{job_id}/reproduce",
    "GET /jobs/{job_id}/results",
    "GET /jobs/{job_id}/metrics",
    "GET /jobs/{job_id}/events",
    "GET /jobs/{job_id}/stream",
    "GET /stream",
    "GET /jobs/{job_id}/samples",
    "GET /jobs/{job_id}/samples/{which}.png",
    "GET /jobs/{job_id}/samples.gif",
    "GET /jobs/{job_id}/samples.webp",
    "GET /jobs/{job_id}/plots/{which}.{form}",
    "GET /jobs/{job_id}/checkpoints",
    "GET /jobs/{job_id}/checkpoints/{which}",
    "GET /jobs/{job_id}/artifacts",
    "GET /jobs/{job_id}/artifacts/{artifact_id}",
    "GET /datasets",
    "GET /datasets/{name}",
    "GET /healthz",
    "GET /readyz",
    "GET /openapi.json",
    "GET /docs",
]


@pytest.fixture(scope="module")
def told() -> list[str]:
    """The document, once one test has asked for it: to write it takes longer than most of them do."""
    return []


@pytest.fixture
def document(client: FlaskClient, told: list[str]) -> dict[str, Any]:
    if not told:
        answer = client.get("/openapi.json")
        assert answer.content_type == "application/json"
        told.append(answer.text)
    found: dict[str, Any] = json.loads(told[0])
    return found


def test_every_route_is_documented(app: Flask, document: dict[str, Any]) -> None:
    for rule in app.url_map.iter_rules():
        if rule.endpoint in UNDOCUMENTED:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            operation = document["paths"].get(path, {}).get(method.lower())
            assert operation is not None, f"{method} {path} is not documented"
            assert operation["summary"]
            named = {item["name"] for item in operation["parameters"] if item["in"] == "path"}
            assert named == set(rule.arguments)


@pytest.mark.parametrize("route", ISSUE_ROUTES)
def test_promised_route_is_there(document: dict[str, Any], route: str) -> None:
    method, path = route.split()
    assert method.lower() in document["paths"][path]


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def test_every_whole_number_in_a_query_has_limits(document: dict[str, Any]) -> None:
    """No database takes numbers of any size."""
    queries = [
        (path, parameter["name"], found)
        for path, item in document["paths"].items()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query"
        for found in _walk(parameter["schema"])
        if found.get("type") == "integer"
    ]
    assert len(queries) > 20
    assert [(path, name) for path, name, found in queries if not {"minimum", "maximum"} <= found.keys()] == []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    references = {node["$ref"] for node in _walk(document) if isinstance(node.get("$ref"), str)}
    assert len(references) > 20
    for reference in references:
        node: Any = document
        for name in reference.removeprefix("#/").split("/"):
            node = node[name]
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations))


def test_answers_have_the_documented_fields(
    client: FlaskClient, worker: Any, submit: Submit, document: dict[str, Any]
) -> None:
    job_id = submit(client)
    worker.claim()
    worker.epoch(1, confusion=[[1] * 10] * 10)
    checked = 0
    for path, methods in document["paths"].items():
        # Some need a real checkpoint, a table, two jobs, or an upload in progress.
        needs_more = (
            "{which}",
            "{form}",
            "{artifact_id}",
            "{true}",
            "{key_id}",
            "{group}",
            "{sweep_id}",
            "{upload_id}",
        )
        needs_more += (
            "/mistakes",
            "/calibration",
            "/importance",
            "/columns",
            "/rows",
            "/comparisons",
            "/differences",
            "/bisection",
        )
        if "get" not in methods or any(name in path for name in needs_more):
            continue
        content = methods["get"]["responses"].get("200", {}).get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref")
        if reference is None:
            continue
        answer = client.get(path.replace("{job_id}", job_id).replace("{name}", "mnist-10k"))
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        assert set(answer.json) == set(schema["properties"]), path
        checked += 1
    assert checked >= 12


def test_spec_as_sent_needs_its_kind_only(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["ClassifierSpec"]["required"] == ["kind"]
    assert schemas["GanSpec"]["required"] == ["kind"]
    assert schemas["Dense"]["required"] == ["units", "activation"]
    assert "required" not in schemas["Data"]
    assert schemas["ClassifierSpec"]["additionalProperties"] is False


def test_the_schema_shows_that_a_name_may_stand_for_its_object(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["ClassifierSpec"]["properties"]
    assert {option.get("type", "object") for option in fields["dataset"]["anyOf"]} == {"object", "string"}
    (names,) = [option["enum"] for option in fields["optimizer"]["anyOf"] if option.get("type") == "string"]
    assert names == ["sgd", "adam", "adamw"]
    (losses,) = [option["enum"] for option in fields["loss"]["anyOf"] if option.get("type") == "string"]
    assert "softmax_cross_entropy" in losses
    assert all(option.get("type") != "string" for option in fields["layers"]["items"].get("oneOf", []))


class _Page(HTMLParser):
    """Collects what a strict content security policy would refuse, and where links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []
        self.foreign: list[str] = []
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.files: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        runs = tag == "script" and given.get("type") != "application/json"
        if tag == "style" or (runs and "src" not in given):
            self.refused.append(tag)
        self.refused += [name for name in given if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action"):
            value = given.get(name) or ""
            if value and not value.startswith(("/", "#")):
                self.foreign.append(value)
            if value.startswith("/static/"):
                self.files.add(value)
            if value.startswith("#"):
                self.links.add(value[1:])
        if given.get("id"):
            self.anchors.add(str(given["id"]))


def read_page(client: FlaskClient, path: str) -> _Page:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    page = _Page()
    page.feed(answer.text)
    return page


def test_pages_keep_to_their_own_policy(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client, name="<script>alert(1)</script>", tags=["<b>", "a'b\"c"])
    worker.claim()
    worker.epoch(1, confusion=[[1] * 10] * 10)
    worker.fail("internal")
    for path in (
        "/",
        "/?status=failed&q=script",
        f"/ui/jobs/{job_id}",
        "/ui/new",
        f"/ui/play/{job_id}",
        f"/ui/compare?jobs={job_id}",
        "/ui/workers",
        "/ui/keys",
        "/ui/usage",
        "/docs",
        "/docs/jobs",
        "/docs/schemas",
    ):
        page = read_page(client, path)
        assert page.refused == []
        assert page.foreign == []
        assert page.links <= page.anchors
    assert "<script>alert" not in client.get(f"/ui/jobs/{job_id}").text


def test_static_files_of_the_pages_are_there(client: FlaskClient, submit: Submit) -> None:
    media = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    named = {
        name
        for path in ("/", "/ui/new", f"/ui/jobs/{submit(client)}", "/ui/workers", "/ui/usage", "/docs", "/docs/jobs")
        for name in read_page(client, path).files
    }
    while named:  # a module names others
        name = named.pop()
        with client.get(name) as answer:
            assert (answer.status_code, answer.mimetype) == (200, media[name.rpartition(".")[2]])
            assert "immutable" in answer.headers["Cache-Control"]
            if name.endswith(".js"):
                named |= {urljoin(name, found) for found in re.findall(r'from "(\.[\w./-]+\.js)"', answer.text)}


def test_static_files_of_another_release_are_not_kept(client: FlaskClient) -> None:
    for path in ("/static/0123456789ab/app.css", "/static/app.css"):
        with client.get(path) as answer:
            assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache, max-age=0")


def test_a_picture_by_itself_may_be_styled_and_has_an_icon(client: FlaskClient) -> None:
    with client.get("/datasets/mnist-10k/preview.png") as picture:
        assert "style-src 'unsafe-inline'" in picture.headers["Content-Security-Policy"]
        assert "script-src" not in picture.headers["Content-Security-Policy"]
    with client.get("/favicon.ico") as icon:
        assert (icon.status_code, icon.mimetype) == (200, "image/svg+xml")


def test_page_of_an_unknown_job_is_a_page_for_people_and_a_problem_for_programs(client: FlaskClient) -> None:
    path = "/ui/jobs/job_01J00000000000000000000000"
    shown = client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (shown.status_code, shown.mimetype) == (404, "text/html")
    assert client.get(path).json["code"] == "job_not_found"


def test_list_page_leads_to_older_jobs(client: FlaskClient, submit: Submit) -> None:
    for _ in range(3):
        submit(client, tags=["x"])
    text = client.get("/?limit=2&tag=x&q=").text
    address = re.search(r'rel="next" href="([^"]+)"', text)
    assert address is not None
    text = client.get(address[1].replace("&amp;", "&")).text
    assert len(json.loads(re.search(r'id="first">(.*)</script>', text)[1])["list"]["data"]) == 1
    assert text.count("<li><a href") == 1


def test_docs_show_every_operation_and_schema(client: FlaskClient, document: dict[str, Any]) -> None:
    overview = client.get("/docs").text
    sections = {tag["name"]: client.get(f"/docs/{tag['name'].lower()}").text for tag in document["tags"]}
    for path in document["paths"].values():
        for operation in path.values():
            tag, name = operation["tags"][0], operation["operationId"]
            assert f'href="/docs/{tag.lower()}#{name}"' in overview
            assert f'id="{name}"' in sections[tag]
    schemas = client.get("/docs/schemas").text
    for name in document["components"]["schemas"]:
        assert f'id="schema-{name}"' in schemas
    named = set(re.findall(r'href="/docs/schemas#schema-(\w+)"', "".join(sections.values())))
    assert named <= set(document["components"]["schemas"])
    assert client.get("/docs/nothing").status_code == 404


def test_examples_of_bodies_are_valid(client: FlaskClient, document: dict[str, Any], submit: Submit) -> None:
    job_id = submit(client)
    tried = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            assert content == {} or content["examples"], path
            for example in content.get("examples", {}).values():
                answer = client.open(path.replace("{job_id}", job_id), method=method.upper(), json=example["value"])
                # What the job's state does not allow is another thing than a body that is not valid.
                assert answer.status_code in (200, 201, 401, 404, 409), (path, answer.text)
                tried += 1
    assert tried > 8
