"""Windows of the browser. Most tests share one, which keeps what it has compiled of the page's scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request
from playwright.sync_api import Error as PlaywrightError

from tests.browser.waiting import TIMEOUT_MS

WIDTH: Final = 1280
HEIGHT: Final = 860


@dataclass
class ErrorLog:
    """Errors of a page: console errors, uncaught exceptions, and requests to other origins."""

    origin: str
    errors: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Substrings of errors that a test provokes."""
    is_over: bool = False
    """Whether the test has ended: leaving its page may abort requests."""

    def record_console_error(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not self.is_over:
            self.errors.append(f"{message.text}\n{message.location['url']}")  # Chromium's text does not contain the URL

    def record_exception(self, error: PlaywrightError) -> None:
        if not self.is_over:
            self.errors.append(f"uncaught: {error}")

    def check_origin(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.errors.append(f"a request left its origin: {request.url[:200]}")

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


def open_own_window(browser: Browser, url: str, *, width: int = WIDTH, height: int = HEIGHT, **options: Any) -> Visit:
    """A window for one test, with nothing in its cache."""
    viewport = {"width": width, "height": height}
    # An animated mark of a running job would take CPU time as long as its page is open.
    context = browser.new_context(viewport=viewport, accept_downloads=True, reduced_motion="reduce", **options)
    context.set_default_timeout(TIMEOUT_MS)
    page, error_log = context.new_page(), ErrorLog(url)
    page.on("console", error_log.record_console_error)
    page.on("pageerror", error_log.record_exception)
    page.on("request", error_log.check_origin)
    return Visit(page, url, error_log)


class SharedWindow:
    """A window that one test after the other uses: loading a page in a new one takes more than twice the CPU time.

    A test that leaves something behind in its window (an init script, a clock, a listener) opens one of its own.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._visit: Visit | None = None
        self._origins: set[str] = set()
        self.is_taken = False

    def is_of(self, visit: Visit) -> bool:
        """Whether a test's window is this one."""
        return self._visit is not None and visit.page is self._visit.page

    def take(self, url: str, *, width: int, height: int, color_scheme: Any) -> Visit:
        """Prepare the window for a test."""
        assert not self.is_taken
        self.is_taken = True
        if self._visit is None:
            self._visit = open_own_window(self._browser, url)
        page, error_log = self._visit.page, self._visit.error_log
        error_log.origin, error_log.errors, error_log.expected, error_log.is_over = url, [], [], False
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=color_scheme)
        self._origins.add(url)
        return Visit(page, url, error_log)

    def release(self) -> None:
        """Leave the page, and remove what the test has left in the window."""
        assert self._visit is not None
        page, context = self._visit.page, self._visit.page.context
        page.evaluate("0")  # errors that were logged before have arrived
        self._visit.error_log.is_over = True
        page.unroute_all(behavior="ignoreErrors")
        page.goto("about:blank")
        page.mouse.move(0, 0)
        context.clear_cookies()
        devtools = context.new_cdp_session(page)
        for origin in self._origins:
            stored = {"origin": origin, "storageTypes": "local_storage"}
            devtools.send("Storage.clearDataForOrigin", stored)
        devtools.detach()
        self._origins.clear()
        self.is_taken = False

    def discard(self) -> None:
        """Close the window, of which a failed test may have left anything."""
        if self._visit is not None:
            self._visit.page.context.close()
        self._visit = None
        self.is_taken = False
