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

from service.web.docs.routes import routes
from service.web.http.path_parameters import examples as path_examples
from service.web.http.templates import FILES
from tests.service.web.markup import one_line

Submit = Callable[..., str]

REQUIRED_ROUTES = [
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
def document_cache() -> list[str]:
    """A cache for the document: generating it takes longer than most of the tests."""
    return []


@pytest.fixture
def document(client: FlaskClient, document_cache: list[str]) -> dict[str, Any]:
    if not document_cache:
        answer = client.get("/openapi.json")
        assert answer.content_type == "application/json"
        document_cache.append(answer.text)
    document: dict[str, Any] = json.loads(document_cache[0])
    return document


def test_every_route_is_documented(app: Flask, document: dict[str, Any]) -> None:
    for rule in app.url_map.iter_rules():
        if rule.endpoint in FILES:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            operation = document["paths"].get(path, {}).get(method.lower())
            assert operation is not None, f"{method} {path} is not documented"
            assert operation["summary"]
            parameter_names = {item["name"] for item in operation["parameters"] if item["in"] == "path"}
            assert parameter_names == set(rule.arguments)


def test_no_summary_ends_in_mid_sentence(app: Flask) -> None:
    cut = [
        route.summary for route in routes(app) if not f"{' '.join(route.paragraphs)} ".startswith(f"{route.summary}. ")
    ]
    assert cut == []


def test_required_routes_are_documented(document: dict[str, Any]) -> None:
    documented = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert set(REQUIRED_ROUTES) <= documented


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def test_every_integer_in_a_query_has_limits(document: dict[str, Any]) -> None:
    """No database accepts integers of any size."""
    queries = [
        (path, parameter["name"], schema)
        for path, item in document["paths"].items()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query"
        for schema in _walk(parameter["schema"])
        if schema.get("type") == "integer"
    ]
    assert len(queries) > 20
    assert [(path, name) for path, name, schema in queries if not {"minimum", "maximum"} <= schema.keys()] == []


def test_every_reference_resolves_and_operation_ids_are_unique(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    references = {node["$ref"] for node in _walk(document) if isinstance(node.get("$ref"), str)}
    assert len(references) > 20
    for reference in references:
        node: Any = document
        for name in reference.removeprefix("#/").split("/"):
            node = node[name]
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations))


def test_a_submitted_spec_requires_only_its_kind(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["ClassifierSpec"]["required"] == ["kind"]
    assert schemas["GanSpec"]["required"] == ["kind"]
    assert schemas["Dense"]["required"] == ["units", "activation"]
    assert "required" not in schemas["Data"]
    assert schemas["ClassifierSpec"]["additionalProperties"] is False


def test_the_schema_allows_a_name_in_place_of_its_object(document: dict[str, Any]) -> None:
    fields = document["components"]["schemas"]["ClassifierSpec"]["properties"]
    assert {option.get("type", "object") for option in fields["dataset"]["anyOf"]} == {"object", "string"}
    (names,) = [option["enum"] for option in fields["optimizer"]["anyOf"] if option.get("type") == "string"]
    assert names == ["sgd", "adam", "adamw"]
    (losses,) = [option["enum"] for option in fields["loss"]["anyOf"] if option.get("type") == "string"]
    assert "softmax_cross_entropy" in losses
    assert all(option.get("type") != "string" for option in fields["layers"]["items"].get("oneOf", []))


class _Page(HTMLParser):
    """Collects what a strict content security policy would block, and the targets of links."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked: list[str] = []
        self.external: list[str] = []
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.files: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        is_code = tag == "script" and attributes.get("type") != "application/json"
        if tag == "style" or (is_code and "src" not in attributes):
            self.blocked.append(tag)
        self.blocked += [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action"):
            value = attributes.get(name) or ""
            if value and not value.startswith(("/", "#")):
                self.external.append(value)
            if value.startswith("/static/"):
                self.files.add(value)
            if value.startswith("#"):
                self.links.add(value[1:])
        if attributes.get("id"):
            self.anchors.add(str(attributes["id"]))


def read_page(client: FlaskClient, path: str) -> _Page:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    page = _Page()
    page.feed(answer.text)
    return page


def test_pages_comply_with_their_content_security_policy(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client, name="<script>alert(1)</script>", tags=["<b>", "a'b\"c"])
    worker.claim()
    worker.commit_epoch(1, confusion=[[1] * 10] * 10)
    worker.fail("internal")
    for path in (
        "/",
        "/?status=failed&q=script",
        f"/ui/jobs/{job_id}",
        "/ui/new",
        f"/ui/play/{job_id}",
        f"/ui/compare?jobs={job_id}",
        "/ui/workers",
        "/ui/queue",
        "/ui/owners",
        "/ui/keys",
        "/ui/usage",
        "/ui/learn",
        "/docs",
        "/docs/jobs",
        "/docs/schemas",
    ):
        page = read_page(client, path)
        assert page.blocked == []
        assert page.external == []
        assert page.links <= page.anchors
    assert "<script>alert" not in client.get(f"/ui/jobs/{job_id}").text


def test_static_files_of_the_pages_exist_and_are_immutable(client: FlaskClient, submit: Submit) -> None:
    media_types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    urls = {
        url
        for path in ("/", "/ui/new", f"/ui/jobs/{submit(client)}", "/ui/workers", "/ui/learn", "/docs", "/docs/jobs")
        for url in read_page(client, path).files
    }
    while urls:  # a module imports others
        url = urls.pop()
        with client.get(url) as answer:
            assert (answer.status_code, answer.mimetype) == (200, media_types[url.rpartition(".")[2]])
            assert "immutable" in answer.headers["Cache-Control"]
            if url.endswith(".js"):
                urls |= {urljoin(url, imported) for imported in re.findall(r'from "(\.[\w./-]+\.js)"', answer.text)}


def test_static_files_of_another_release_are_not_cached(client: FlaskClient) -> None:
    for path in ("/static/0123456789ab/common/app.css", "/static/common/app.css"):
        with client.get(path) as answer:
            assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache, max-age=0")


def test_an_image_opened_by_itself_may_have_styles_and_an_icon(client: FlaskClient) -> None:
    with client.get("/datasets/mnist-10k/preview.png") as picture:
        assert "style-src 'unsafe-inline'" in picture.headers["Content-Security-Policy"]
        assert "script-src" not in picture.headers["Content-Security-Policy"]
    with client.get("/favicon.ico") as icon:
        assert (icon.status_code, icon.mimetype) == (200, "image/svg+xml")


def test_unknown_job_is_a_page_for_browsers_and_a_problem_for_programs(client: FlaskClient) -> None:
    path = "/ui/jobs/job_01J00000000000000000000000"
    page = client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert client.get(path).json["code"] == "job_not_found"


def test_list_page_links_to_older_jobs(client: FlaskClient, submit: Submit) -> None:
    for _ in range(3):
        submit(client, tags=["x"])
    text = one_line(client.get("/?limit=2&tag=x&q=").text)
    link = re.search(r'rel="next" href="([^"]+)"', text)
    assert link is not None
    text = one_line(client.get(link[1].replace("&amp;", "&")).text)
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
    linked_schemas = set(re.findall(r'href="/docs/schemas#schema-(\w+)"', "".join(sections.values())))
    assert linked_schemas <= set(document["components"]["schemas"])
    assert client.get("/docs/nothing").status_code == 404


def test_example_bodies_are_valid(client: FlaskClient, document: dict[str, Any], submit: Submit) -> None:
    job_id = submit(client)
    checked = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            assert content == {} or content["examples"], path
            for example in content.get("examples", {}).values():
                sent = json.dumps(example["value"]).replace(path_examples()["job_id"], job_id)
                body = json.loads(sent.replace("hooks.example.org", "93.184.216.34"))  # needs no name server
                values = {**path_examples(), "job_id": job_id, "which": "latest"}
                answer = client.open(path.format(**values), method=method.upper(), json=body)
                # A body can be valid although the job's state does not allow the request.
                assert answer.status_code in (200, 201, 401, 404, 409), (path, answer.text)
                checked += 1
    assert checked > 8
