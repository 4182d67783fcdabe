"""A real browser on the real service. A test fails if a page logs a console error, has a style or script
refused, or sends a request to another origin.

Most tests need no training: they use an app in this process, with jobs that are stored or trained by a simulated worker
(``serve_bare``), or with jobs that were really trained (``site``). The others use the whole service (``stack``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from sqlalchemy import update

from service.access import keys
from service.local import LocalStack
from service.runtime.settings import Auth, Settings
from service.storage.database import Database
from service.storage.tables import JOBS
from service.web.app import create_app
from service.web.core.core import EXTENSION, provided
from service.web.streaming.poller import Poller
from tests.browser import chromium
from tests.browser.apps import trained
from tests.browser.apps.servers import AppServer, serve
from tests.browser.apps.simulated_worker import Service, WebProcess
from tests.browser.apps.stored_jobs import JOB_COUNT, store_jobs
from tests.browser.waiting import TIMEOUT_MS, until
from tests.browser.windows import HEIGHT, WIDTH, SharedWindow, Visit, open_own_window
from tests.service.web.apps import borrow_app

Finish = Callable[[dict[str, Any]], dict[str, Any]]

with_auth = partial(pytest.mark.parametrize, "site", indirect=True, ids=str)
"""Runs a test on a site with these kinds of authentication, where they differ: ``@with_auth([Auth.KEYS])``."""
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """CI runs those marked ``stack``: the shortest of each kind."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            if not item.get_closest_marker("stack"):
                item.add_marker(pytest.mark.nightly)
            item.add_marker(pytest.mark.timeout(600))  # the first test trains three networks


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


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


@pytest.fixture(scope="session")
def shared_window(browser: Browser) -> SharedWindow:
    return SharedWindow(browser)


@pytest.fixture
def open_window(
    request: pytest.FixtureRequest, browser: Browser, shared_window: SharedWindow, serve_bare: object, tmp_path: Path
) -> Iterator[Callable[..., Visit]]:
    """Open windows. Their unexpected errors fail the test in the end, while the services still run.

    A failed test leaves a screenshot of each in its folder.

    The test's first window is the shared one, unless it has options that only a new window can have, or ``own=True``.
    """
    visits: list[Visit] = []

    def open_one(
        url: str,
        *,
        width: int = WIDTH,
        height: int = HEIGHT,
        color_scheme: Any = "light",
        own: bool = False,
        **options: Any,
    ) -> Visit:
        size = {"width": width, "height": height}
        if own or options or shared_window.is_taken:
            visit = open_own_window(browser, url, color_scheme=color_scheme, **size, **options)
        else:
            visit = shared_window.take(url, color_scheme=color_scheme, **size)
        visits.append(visit)
        return visit

    yield open_one
    has_failed = request.node.stash.get(_FAILED, False)
    for number, visit in enumerate(visits):
        if has_failed:
            with suppress(PlaywrightError):  # it may be the window that failed
                visit.page.screenshot(path=tmp_path / f"window-{number}.png")
        if not shared_window.is_of(visit):
            visit.page.context.close()
        elif has_failed:
            shared_window.discard()
        else:
            shared_window.release()
    for visit in visits:
        visit.error_log.check()


@dataclass
class Site:
    """A web process without workers, with the trained jobs."""

    url: str
    settings: Settings


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained.train_once(tmp_path_factory)


@pytest.fixture(scope="session")
def jobs(trained_home: Path) -> dict[str, dict[str, Any]]:
    """Two trained classifiers of digits and a trained GAN."""
    return trained.read_jobs(trained_home)


@pytest.fixture
def site(request: pytest.FixtureRequest, serve_trained: Callable[[Auth], Site]) -> Site:
    """The trained jobs, open to all users of this machine. With API keys, they are Ann's."""
    return serve_trained(getattr(request, "param", Auth.LOCAL))


@pytest.fixture(scope="session")
def serve_trained(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Auth], Site]]:
    sites: dict[Auth, Site] = {}
    with ExitStack() as running:

        def serve_one(auth: Auth) -> Site:
            if auth not in sites:
                home = tmp_path_factory.mktemp("site") / "home"
                shutil.copytree(trained_home, home)
                settings = trained.local_settings(home, TAPELINE_AUTH=auth.value)
                if settings.keys_required:
                    with closing(Database(settings.database_url)) as database, database.write() as session:
                        session.execute(update(JOBS).values(owner="ann"))
                sites[auth] = Site(running.enter_context(serve(create_app(settings))), settings)
            return sites[auth]

        yield serve_one


def make_key(settings: Settings, owner: str, scope: keys.Scope = keys.Scope.SUBMIT) -> str:
    with closing(Database(settings.database_url)) as database:
        return keys.create(database, name="browser", owner=owner, scope=scope)[1]


def bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key is not None else {}


@pytest.fixture
def key(site: Site) -> str | None:
    """A key of Ann if the site requires one."""
    return make_key(site.settings, "ann") if site.settings.keys_required else None


@pytest.fixture
def http(site: Site, key: str | None) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=90, headers=bearer(key)) as client:
        yield client


@pytest.fixture
def open_site(open_window: Callable[..., Visit], site: Site, key: str | None) -> Callable[..., Visit]:
    """Open windows on the site, signed in if it requires a key."""

    def open_one(*, key: str | None = key, **options: Any) -> Visit:
        visit = open_window(site.url, **options)
        if key is not None:
            response = visit.page.request.post(f"{site.url}/session", data={"key": key}, headers={"Origin": site.url})
            assert response.status == 201, response.text()
        return visit

    return open_one


@pytest.fixture
def visit(open_site: Callable[..., Visit]) -> Visit:
    return open_site()


@pytest.fixture(scope="session")
def stack(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The whole service, with two workers and the trained jobs."""
    home = tmp_path_factory.mktemp("stack") / "home"
    shutil.copytree(trained_home, home)
    with LocalStack(trained.local_settings(home, TAPELINE_WORKERS="2")) as running:
        yield running


@pytest.fixture(scope="session")
def stack_http(stack: LocalStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=90) as client:
        yield client


@pytest.fixture(scope="session")
def finish(stack_http: httpx.Client) -> Finish:
    """Wait until a job of the stack has succeeded."""
    return partial(trained.finish, stack_http)


@pytest.fixture
def open_stack(open_window: Callable[..., Visit], stack: LocalStack) -> Callable[..., Visit]:
    """Open windows on the stack."""
    return partial(open_window, stack.url)


@pytest.fixture
def stack_visit(open_stack: Callable[..., Visit]) -> Visit:
    return open_stack()


@pytest.fixture(scope="session")
def app_server() -> Iterator[AppServer]:
    server = AppServer()
    yield server
    server.close()


@pytest.fixture
def serve_bare(tmp_path: Path, migrated: Path, app_server: AppServer) -> Iterator[Callable[[], WebProcess]]:
    """Start a web process with an empty database, in this process."""
    with ExitStack() as running:

        def serve_one() -> WebProcess:
            home = tmp_path / "bare"
            home.mkdir()
            shutil.copy(migrated, home / "tapeline.db")
            app = borrow_app(trained.local_settings(home))
            url = running.enter_context(app_server.serve(app))
            return WebProcess(url, app.extensions[EXTENSION], provided(Poller, app))

        yield serve_one


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
