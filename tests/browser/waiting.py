"""How long tests in a browser wait, and for what."""

from __future__ import annotations

import time
from typing import Any

import httpx
from playwright.sync_api import Page

PATIENCE_MS = 60_000

# Without connections that are kept: a server that has ended is not asked for one of them.
patient = httpx.Client(timeout=PATIENCE_MS / 1000, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)


def until(page: Page, condition: str, arg: Any = None, *, timeout_s: float = PATIENCE_MS / 1000) -> None:
    """Wait until something is true in the page. Playwright's own way needs eval, which the policy refuses."""
    ends = time.monotonic() + timeout_s
    while not page.evaluate(condition, arg):
        assert time.monotonic() < ends, f"never became true: {condition} with {arg}"
        page.wait_for_timeout(50)
