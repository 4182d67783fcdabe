"""Holds back responses, so that a test can let them arrive in any order."""

from __future__ import annotations

import re
from collections.abc import Sized
from contextlib import suppress
from dataclasses import dataclass, field

from playwright.sync_api import APIResponse, Error, Page, Request, Route


def wait_for_count(page: Page, noted: Sized, count: int, *, of: str) -> None:
    """Wait until the handlers of a test have noted so many requests."""
    for _ in range(1200):
        if len(noted) >= count:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{len(noted)} of {count} requests came: {of}")


@dataclass
class Held:
    """Requests of a page whose answers were made by the service at once, and arrive when the test says so."""

    page: Page
    pattern: re.Pattern[str]
    """Of method and address, such as ``GET /jobs``."""
    answers: list[tuple[Route, APIResponse]] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    holding: bool = True

    def wait(self, count: int) -> None:
        """Wait until so many answers are held."""
        wait_for_count(self.page, self.answers, count, of=self.pattern.pattern)

    def arrive(self, at: int = 0) -> None:
        """Let one answer arrive."""
        route, response = self.answers.pop(at)
        route.fulfill(response=response)

    def stop(self) -> None:
        """Let everything arrive, now and later."""
        self.holding = False
        while self.answers:
            self.arrive()

    def take(self, route: Route, request: Request) -> None:
        """Hold a request's answer back, where it is one of those that are meant."""
        path = "/" + request.url.split("/", 3)[3]
        if not self.pattern.search(f"{request.method} {path}"):
            route.fallback()
            return
        self.seen.append(request)
        if not self.holding:
            route.fallback()
            return
        with suppress(Error):  # the window was closed meanwhile
            self.answers.append((route, route.fetch()))
            if not self.holding:  # the test went on while the service answered
                self.stop()


def hold(page: Page, pattern: str) -> Held:
    """Hold back the answers to requests that match, until the test ends or lets them go."""
    held = Held(page, re.compile(pattern))
    page.route("**/*", held.take)
    return held
