"""Holds back responses, so that a test can let them arrive in any order."""

from __future__ import annotations

import re
from collections.abc import Sized
from contextlib import suppress
from dataclasses import dataclass, field

from playwright.sync_api import APIResponse, Error, Page, Request, Route


def wait_for_count(page: Page, requests: Sized, count: int, *, of: str) -> None:
    """Wait until a test's handlers have recorded ``count`` requests."""
    for _ in range(1200):
        if len(requests) >= count:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{len(requests)} of {count} requests came: {of}")


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
        """Deliver one response to the page."""
        route, response = self.responses.pop(index)
        route.fulfill(response=response)

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
                self.release_all()


def hold(page: Page, pattern: str) -> HeldResponses:
    """Hold back the responses to matching requests, until the test ends or releases them."""
    held = HeldResponses(page, re.compile(pattern))
    page.route("**/*", held.handle)
    return held
