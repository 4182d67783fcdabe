"""The CPU time of a page's main thread. Unlike a duration, it depends little on what else the machine does."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page


def cpu_seconds_to(page: Page, load: Callable[[], object]) -> float:
    """CPU time of the page's main thread while it loads something."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def elapsed() -> float:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    before = elapsed()
    load()
    seconds = elapsed() - before
    devtools.detach()
    return seconds
