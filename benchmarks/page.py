"""``python -m benchmarks.page [PART ...]``: measures latencies in a browser, and prints a table.

Chromium, the web process, the database and a worker share the machine. The list has 10,000 jobs, the
sweep 1,000 trials. Without parts, all are measured, and the figures written to ``results/page.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.service.__main__ import machine, table
from benchmarks.service.figures import KINDS, Figures, spread
from benchmarks.service.rows import end_sweep, fill
from benchmarks.service.service_under_test import ROOT, ServiceLauncher, ServiceUnderTest
from service.storage.database import Database
from service.storage.tables import JOBS
from tests.browser import chromium

RESULTS: Final = ROOT / "benchmarks" / "results" / "page.json"
_JOBS: Final = 10_000
_REPETITIONS: Final = 21
_EIGHT_COLUMNS: Final = "preset,dataset,seed,optimizer.learning_rate,best:val_accuracy,val_loss,duration,parent"
_METRICS: Final = {"val_accuracy": 0.98, "val_loss": 0.07, "train_loss": 0.05, "train_accuracy": 0.99}
_SWEEP: Final = {
    "name": "a thousand",
    "base": {"kind": "classifier", "dataset": "iris", "epochs": 1},
    "space": {"/optimizer/learning_rate": {"log": [0.001, 0.3]}, "/batch_size": {"choice": [10, 20, 50]}},
    "search": {"name": "random", "trials": 1000},
    "parallel": 250,
    "reuse": "never",
}
_SORT: Final = """sort => new Promise((resolve) => {
    const since = performance.now();
    const watch = new MutationObserver(() => { watch.disconnect(); resolve(performance.now() - since); });
    const head = document.querySelector("#list thead");  // drawn with the rows, also where their order stays
    watch.observe(head, { attributes: true, attributeFilter: ["aria-sort"], subtree: true, childList: true });
    document.querySelector(`.sorter[data-sort="${sort}"]`).click();
})"""
_SCROLL: Final = """() => new Promise((resolve) => {
    const frames = [];
    const step = (before) => requestAnimationFrame((now) => {
        frames.push(now - before);
        const isAtEnd = scrollY + innerHeight >= document.body.scrollHeight - 1;
        if (isAtEnd) resolve(frames.slice(1));
        else { scrollBy(0, 200); step(now); }
    });
    scrollTo(0, 0);
    step(performance.now());
})"""
_ORDER: Final = """sort => new Promise((resolve) => {
    const since = performance.now();
    const watch = new MutationObserver(() => { watch.disconnect(); resolve(performance.now() - since); });
    watch.observe(document.querySelector("#trials tbody"), { childList: true });
    const select = document.querySelector("#sort");
    select.value = sort;
    select.dispatchEvent(new Event("change"));
})"""
_LONGEST_TASK: Final = """() => new Promise((resolve) => {
    let longest = 0;
    const note = (list) => { for (const { duration } of list.getEntries()) longest = Math.max(longest, duration); };
    new PerformanceObserver(note).observe({ type: "longtask", buffered: true });
    setTimeout(() => resolve(longest), 100);
})"""
_PARTS: Final = ("list", "sweep", "draw")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the latency of the web page in Chromium.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {', '.join(_PARTS)}; none: all")
    parts = parser.parse_args().parts
    unknown = sorted(set(parts) - set(_PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    selected_parts = parts or list(_PARTS)
    path = chromium.find()
    if path is None:
        sys.exit("Chromium not found: apt-get install chromium, or set CHROMIUM to its path")
    rows = []
    with tempfile.TemporaryDirectory(prefix="tapeline-bench-") as folder, sync_playwright() as playwright:
        launcher = ServiceLauncher(Path(folder), None)
        browser = chromium.launch(playwright, path)
        try:
            for kind in KINDS if {"list", "sweep"} & set(selected_parts) else ():
                with launcher.open(kind) as service:
                    fill(service.database, _JOBS)
                    _insert_metrics(service.database)
                    service.serve()
                    if "list" in selected_parts:
                        rows += [{"database": kind, **row} for row in _measure_list(browser, service)]
                    if "sweep" in selected_parts:
                        rows += [{"database": kind, **row} for row in _measure_sweep(browser, service)]
            if "draw" in selected_parts:
                with launcher.open("sqlite") as service:
                    service.serve()
                    service.work()
                    rows += [{"database": "sqlite", **row} for row in _measure_drawing(browser, service)]
        finally:
            browser.close()
            launcher.close()
    print(table("page", "milliseconds in Chromium, median and the lowest and the highest", rows))
    print("load", " ".join(f"{load:.1f}" for load in os.getloadavg()))
    if not parts:
        RESULTS.write_text(json.dumps({"rows": rows, "machine": machine()}, indent=1) + "\n", encoding="utf-8")


def _insert_metrics(database: Database) -> None:
    """Insert metrics for every job, so that columns have values."""
    extremes = {name: {"min": value, "min_epoch": 1, "max": value, "max_epoch": 3} for name, value in _METRICS.items()}
    with database.write() as session:
        session.execute(JOBS.update().values(metrics=_METRICS, extremes=extremes))


def _measure_list(browser: Browser, service: ServiceUnderTest) -> Iterator[Figures]:
    address = str(service.http.base_url)

    def first_rows(page: Page, query: str = "") -> float:
        page.goto(address + query)
        page.locator("tr.job").first.wait_for()
        return float(page.evaluate("document.documentElement.dataset.ready"))

    def first_visit(query: str) -> float:
        with browser.new_context() as context:
            return first_rows(context.new_page(), query)

    first_rows(browser.new_page())
    for suffix, query in (("", ""), (" with eight columns", f"/?columns={_EIGHT_COLUMNS}")):
        times = [first_visit(query) for _ in range(_REPETITIONS)]
        yield {"what": f"first rows{suffix}, first visit", "ms": spread(times, 0)}
        page = browser.new_page()
        first_rows(page, query)
        times = [first_rows(page, query) for _ in range(_REPETITIONS)]
        yield {"what": f"first rows{suffix}, later visits", "ms": spread(times, 0)}
    for name, sort in (
        ("name", "name"),
        ("best accuracy", "best:val_accuracy"),
        ("learning rate", "optimizer.learning_rate"),
    ):
        times = [page.evaluate(_SORT, sort) for _ in range(_REPETITIONS)]
        yield {"what": f"sorted by {name}, from click to rows", "ms": spread(times, 0)}
    page.close()


def _measure_sweep(browser: Browser, service: ServiceUnderTest) -> Iterator[Figures]:
    sweep = service.http.post("/sweeps", json=_SWEEP).raise_for_status().json()
    end_sweep(service.database, sweep["id"], list(_METRICS))
    address = f"{service.http.base_url}/ui/sweeps/{sweep['id']}"

    def first_rows(page: Page) -> float:
        page.goto(address)
        page.locator("#trials tbody tr").first.wait_for()
        return float(page.evaluate("document.documentElement.dataset.ready"))

    def first_visit() -> float:
        with browser.new_context() as context:
            return first_rows(context.new_page())

    def longest_task(page: Page) -> float:
        first_rows(page)
        page.locator("#coordinates path").nth(99).wait_for(state="attached")
        page.locator("#curves .chart").wait_for()
        return float(page.evaluate(_LONGEST_TASK))

    page = browser.new_page()
    first_rows(page)
    yield {"what": "first rows of a sweep, first visit", "ms": spread([first_visit() for _ in range(_REPETITIONS)], 0)}
    yield {
        "what": "first rows of a sweep, later visits",
        "ms": spread([first_rows(page) for _ in range(_REPETITIONS)], 0),
    }
    yield {
        "what": "longest task while a sweep's page loads",
        "ms": spread([longest_task(page) for _ in range(_REPETITIONS)], 0),
    }
    sorts = [page.evaluate(_ORDER, order) for _ in range(_REPETITIONS) for order in ("trial", "-value")]
    yield {"what": "another order of a sweep's trials, to 100 rows", "ms": spread(sorts, 0)}
    for count in (600, 1000):
        page.locator("#more").click()
        page.locator("#trials tbody tr").nth(count - 1).wait_for()
    yield {"what": "scrolling through 1,000 trials, a frame", "ms": spread(page.evaluate(_SCROLL), 0)}
    page.close()


def _measure_drawing(browser: Browser, service: ServiceUnderTest) -> Iterator[Figures]:
    job_id = service.submit(kind="classifier")
    service.wait_until_ended(job_id)
    page = browser.new_page()
    page.goto(f"{service.http.base_url}/ui/play/{job_id}")
    box = page.locator("#pad").bounding_box()
    assert box is not None

    def stroke(number: int) -> None:
        x = box["x"] + box["width"] * (0.3 + 0.4 * (number % 7) / 7)
        page.mouse.move(x, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(x + 10, box["y"] + 90)
        page.mouse.up()

    latency = page.locator("#latency[data-ms]")
    stroke(0)
    latency.wait_for()
    for mode in ("with what it looked at", "alone"):
        page.locator("#explain").set_checked(mode != "alone")
        times = []
        for number in range(2 * _REPETITIONS):
            stroke(number)
            page.wait_for_timeout(150)
            times.append(float(latency.get_attribute("data-ms") or "nan"))
        yield {"what": f"pen to bars, {mode}", "ms": spread(times, 0)}


if __name__ == "__main__":
    main()
