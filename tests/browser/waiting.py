"""Timeouts and waits of the tests in a browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import Page

TIMEOUT_MS = 60_000

# No keep-alive: an idle connection may belong to a server that has stopped.
http_client = httpx.Client(timeout=TIMEOUT_MS / 1000, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)


def poll(
    page: Page, condition: Callable[[], object], description: str, *, timeout_s: float = TIMEOUT_MS / 1000
) -> None:
    """Wait until a condition of the test is true. Meanwhile, the events and routes of the page are handled."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for: {description}"
        page.wait_for_timeout(50)


def until(page: Page, condition: str, arg: Any = None, *, timeout_s: float = TIMEOUT_MS / 1000) -> None:
    """Wait until a condition is true in the page. Playwright's own wait needs eval, which the CSP refuses."""
    poll(page, lambda: page.evaluate(condition, arg), f"{condition} with {arg}", timeout_s=timeout_s)


def wait_for_frames(page: Page, count: int = 2) -> None:
    """Wait until the page has drawn frames: it has then handled what it had received, and drawn the result."""
    page.evaluate(
        """async (count) => {
          for (let frame = 0; frame < count; frame += 1) await new Promise(requestAnimationFrame);
          await new Promise((done) => setTimeout(done));
        }""",
        count,
    )


def wait_for_sent_requests(page: Page) -> None:
    """Wait until all requests that the page has already sent were reported: a later one has been answered."""
    assert page.evaluate("fetch('/healthz').then(({ status }) => status)") == 200
