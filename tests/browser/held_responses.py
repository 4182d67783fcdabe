"""Holds back responses, so that a test can let them arrive in any order."""

from __future__ import annotations

import re
from collections.abc import Sized
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import APIResponse, Error, Page, Request, Route

from tests.browser.waiting import poll, wait_for_frames


def wait_for_count(page: Page, requests: Sized, count: int, *, of: str) -> None:
    """Wait until a test's handlers have recorded ``count`` requests."""
    poll(page, lambda: len(requests) >= count, f"{count} requests: {of}")


def deliver(page: Page, route: Route, **response: Any) -> None:
    """Answer a request of the page, and wait until the page has handled the response."""
    with page.expect_event("requestfinished", lambda request: request == route.request):
        route.fulfill(**response)
    with suppress(Error):  # in response, the page may open another one
        wait_for_frames(page)


@dataclass
class HeldResponses:
    """Requests that the service answers at once; the page gets each response when the test releases it."""

    page: Page
    pattern: re.Pattern[str]
    """Matches method and path, such as ``GET /jobs``."""
    responses: list[tuple[Route, APIResponse]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    holding: bool = True

    def wait(self, count: int) -> None:
        """Wait until ``count`` responses are held."""
        wait_for_count(self.page, self.responses, count, of=self.pattern.pattern)

    def release(self, index: int = 0) -> None:
        """Deliver one response, and wait until the page has handled it."""
        route, response = self.responses.pop(index)
        deliver(self.page, route, response=response)

    def release_all(self) -> None:
        """Deliver all held responses, and hold no more of them."""
        self.holding = False
        while self.responses:
            self.release()

    def handle(self, route: Route, request: Request) -> None:
        """Hold back the response to a request if the pattern matches it."""
        path = "/" + request.url.split("/", 3)[3]
        if not self.pattern.search(f"{request.method} {path}"):
            route.fallback()
            return
        self.requests.append(request)
        if not self.holding:
            route.fallback()
            return
        with suppress(Error):  # the window may have been closed in between
            self.responses.append((route, route.fetch()))
            if not self.holding:  # released while the service responded
                route, response = self.responses.pop()
                route.fulfill(response=response)


def hold(page: Page, pattern: str) -> HeldResponses:
    """Hold back the responses to matching requests, until the test ends or releases them."""
    held = HeldResponses(page, re.compile(pattern))
    page.route("**/*", held.handle)
    return held
