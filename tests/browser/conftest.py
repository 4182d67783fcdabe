"""A real browser on the real stack. A test fails if a page logs a console error, has a style or script
refused, or sends a request to another origin."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright
from werkzeug.serving import make_server

from migrations.upgrade import upgrade
from service.access import keys
from service.local import LocalStack
from service.runtime.settings import Auth, Settings
from service.storage.database import Database
from service.web.app import create_app
from service.web.services import EXTENSION, Services
from tests.browser import chromium
from tests.browser.simulated_worker import Service, WebProcess
from tests.browser.stored_jobs import JOB_COUNT, store_jobs
from tests.browser.waiting import TIMEOUT_MS, until
from tests.service.web.conftest import shut_down_app

Finish = Callable[[dict[str, Any]], dict[str, Any]]

only_with = partial(pytest.mark.parametrize, "stack", indirect=True, scope="session", ids=str)
"""Runs a test in one authentication mode of the stack where the other would show the same:
``@only_with([Auth.KEYS])``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(600))  # the first test trains three networks


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        expect.set_options(timeout=TIMEOUT_MS)
        running = chromium.launch(playwright, path)
        yield running
        running.close()


@dataclass
class ErrorLog:
    """Errors of a page: console errors, uncaught exceptions, and requests to other origins."""

    errors: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Substrings of errors that a test provokes."""

    def listen_to(self, page: Page, origin: str) -> None:
        page.on("console", self._record_console_error)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._check_origin(request.url, origin))

    def _record_console_error(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text}\n{message.location['url']}")  # Chromium's text does not contain the URL

    def _check_origin(self, url: str, origin: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != origin:
            self.errors.append(f"a request left its origin: {url[:200]}")

    def check(self) -> None:
        unexpected = [error for error in self.errors if not any(part in error.split("\n")[0] for part in self.expected)]
        assert unexpected == []


@dataclass
class Visit:
    """A browser window on one service."""

    page: Page
    url: str
    error_log: ErrorLog

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def leave(self) -> None:
        """Leave the page before what it shows is deleted: it may still be loading parts of that."""
        self.page.goto("about:blank")


@pytest.fixture
def open_window(browser: Browser, serve_bare: object) -> Iterator[Callable[..., Visit]]:
    """Open windows. Their unexpected errors fail the test in the end, while the services still run."""
    opened: list[tuple[BrowserContext, ErrorLog]] = []

    def open_one(url: str, *, width: int = 1280, height: int = 860, **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True, **options)
        context.set_default_timeout(TIMEOUT_MS)
        page, error_log = context.new_page(), ErrorLog()
        error_log.listen_to(page, url)
        opened.append((context, error_log))
        return Visit(page, url, error_log)

    yield open_one
    for context, error_log in opened:
        context.close()
        error_log.check()


@pytest.fixture(scope="session", params=[Auth.LOCAL, Auth.KEYS], ids=str)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The whole service: once open to all users of this machine, and once with API keys."""
    environ = {
        "TAPELINE_HOME": str(tmp_path_factory.mktemp("home")),
        "TAPELINE_PORT": "0",
        "TAPELINE_WORKERS": "2",
        "TAPELINE_AUTH": request.param.value,
    }
    settings = Settings.from_env(environ, cores=2)
    if settings.keys_required:  # without a key, the service would not start
        with closing(Database(settings.database_url)) as database:
            upgrade(database)
        make_key(settings, "operator")
    with LocalStack(settings) as running:
        yield running


def make_key(settings: Settings, owner: str, scope: keys.Scope = keys.Scope.SUBMIT) -> str:
    with closing(Database(settings.database_url)) as database:
        return keys.create(database, name="browser", owner=owner, scope=scope)[1]


def bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key is not None else {}


@pytest.fixture(scope="session")
def key(stack: LocalStack) -> str | None:
    """Ann's key if the service requires one."""
    return make_key(stack.settings, "ann") if stack.settings.keys_required else None


@pytest.fixture(scope="session")
def http(stack: LocalStack, key: str | None) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=90, headers=bearer(key)) as client:
        yield client


@pytest.fixture
def open_stack(open_window: Callable[..., Visit], stack: LocalStack, key: str | None) -> Callable[..., Visit]:
    """Open windows on the stack, signed in if the service requires a key."""

    def open_one(*, key: str | None = key, **options: Any) -> Visit:
        visit = open_window(stack.url, **options)
        if key is not None:
            response = visit.page.request.post(f"{stack.url}/session", data={"key": key}, headers={"Origin": stack.url})
            assert response.status == 201, response.text()
        return visit

    return open_one


@pytest.fixture
def visit(open_stack: Callable[..., Visit]) -> Visit:
    return open_stack()


@pytest.fixture(scope="session")
def finish(http: httpx.Client) -> Finish:
    """Wait until a job has succeeded."""

    def wait(job: dict[str, Any]) -> dict[str, Any]:
        http.get(job["urls"]["stream"])
        ended: dict[str, Any] = http.get(job["urls"]["self"]).json()
        assert ended["status"] == "succeeded", ended["error"]
        return ended

    return wait


@pytest.fixture(scope="session")
def jobs(http: httpx.Client, finish: Finish) -> dict[str, dict[str, Any]]:
    """Two trained classifiers of digits and a trained GAN."""
    retention = {"checkpoint": {"keep_last": 100}}
    specs = {
        "reader": {"kind": "classifier", "name": "reader", "epochs": 6, "tags": ["kept", "pair"], **retention},
        "other": {"kind": "classifier", "name": "other", "epochs": 3, "seed": 7, "tags": ["pair"], **retention},
        "painter": {"kind": "gan", "name": "painter", "epochs": 3, "samples": {"count": 16}, **retention},
    }
    submitted = {name: http.post("/jobs", json=spec).raise_for_status().json() for name, spec in specs.items()}
    return {name: finish(job) for name, job in submitted.items()}


@contextmanager
def _serve(app: Flask) -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = False  # closing waits for requests in progress
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        services: Services = app.extensions[EXTENSION]
        services.hub.closing = services.all_jobs_stream.closing = True
        server.shutdown()
        server.server_close()
        shut_down_app(app)


@pytest.fixture
def serve_bare(tmp_path: Path) -> Iterator[Callable[..., WebProcess]]:
    with ExitStack() as stack:

        def serve() -> WebProcess:
            home = tmp_path / "bare"
            home.mkdir()
            url = f"sqlite:///{home / 'tapeline.db'}"
            with closing(Database(url)) as database:
                upgrade(database)
            environ = {
                "TAPELINE_DATABASE_URL": url,
                "TAPELINE_BROKER_URL": "redis://127.0.0.1:1/0",
                "TAPELINE_ARTIFACTS": str(home / "artifacts"),
                "TAPELINE_DATA": str(home / "data"),
                "TAPELINE_AUTH": Auth.LOCAL.value,
            }
            app = create_app(Settings.from_env(environ, cores=2))
            return WebProcess(stack.enter_context(_serve(app)), app.extensions[EXTENSION])

        yield serve


@pytest.fixture
def service(serve_bare: Callable[[], WebProcess]) -> Service:
    return Service(serve_bare())


@pytest.fixture
def forty_jobs(serve_bare: Callable[..., WebProcess]) -> WebProcess:
    bare = serve_bare()
    store_jobs(bare, JOB_COUNT)
    return bare


def wait_until_accepted(page: Page) -> None:
    """Wait until the service has checked the form's spec and found no fault."""
    wait_until_checked(page)
    expect(page.locator("#verdict")).to_have_text("Ready to start")


def wait_until_checked(page: Page) -> None:
    """Wait until the service has checked the form's spec, with or without faults."""
    until(page, "document.querySelector('#cost')?.children.length > 0 && !document.querySelector('[aria-busy]')")


@pytest.fixture
def form(open_window: Callable[..., Visit], serve_bare: Callable[..., Any]) -> Visit:
    """The form for a new job, on a service without workers."""
    visit = open_window(serve_bare().url, width=1440)
    visit.open("/ui/new")
    wait_until_accepted(visit.page)
    return visit


@pytest.fixture
def http_of() -> Any:
    """Create HTTP clients of the service that a window shows."""
    return lambda visit: httpx.Client(base_url=visit.url, timeout=30)
