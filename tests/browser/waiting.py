"""Timeouts and waits of the tests in a browser."""

from __future__ import annotations

import time
from typing import Any

import httpx
from playwright.sync_api import Page

TIMEOUT_MS = 60_000

# No keep-alive: an idle connection may belong to a server that has stopped.
http_client = httpx.Client(timeout=TIMEOUT_MS / 1000, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)


def until(page: Page, condition: str, arg: Any = None, *, timeout_s: float = TIMEOUT_MS / 1000) -> None:
    """Wait until a condition is true in the page. Playwright's own wait needs eval, which the CSP refuses."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(condition, arg):
        assert time.monotonic() < deadline, f"never became true: {condition} with {arg}"
        page.wait_for_timeout(50)
