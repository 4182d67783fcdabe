"""``python -m tests.browser.screenshots [VIEW ...]`` trains jobs and takes screenshots of pages.

It writes ``docs/page/VIEW-light.png`` and ``VIEW-dark.png`` for review by eye: long names, a failed job, an empty
list and a phone's width are among them.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from service.local import LocalStack
from service.runtime.settings import Settings
from tests.browser import chromium
from tests.browser.models.test_playing import digits, paint
from tests.browser.waiting import until

FOLDER: Final = Path(__file__).parent.parent.parent / "docs" / "page"
_PALETTE_SIZE: Final = 192
"""Enough colours for text and curves, at a third of the file size."""
_LONG_NAME: Final = "What happens when the learning rate is much too high, and the name of the job is long as well"
_SPECS: Final[dict[str, dict[str, Any]]] = {
    "reader": {"name": "first classifier", "epochs": 12, "tags": ["mnist-10k"], "checkpoint": {"keep_last": 100}},
    "wide": {
        "name": "wider, another seed",
        "epochs": 8,
        "seed": 7,
        "tags": ["mnist-10k", "sweep"],
        "checkpoint": {"keep_last": 100},
        "layers": "wide",
    },
    "failed": {
        "name": _LONG_NAME,
        "tags": ["sweep", "a-tag-that-is-rather-long-too", "night"],
        "epochs": 20,
        "optimizer": {"name": "sgd", "learning_rate": 9.0},
        "health": {"stop_on": ["diverging", "dead_units"]},
    },
    "painter": {"kind": "gan", "name": "a GAN to watch", "epochs": 30, "checkpoint": {"keep_last": 100}},
}
_SWEEP: Final = {
    "name": "rates and batches",
    "base": {"kind": "classifier", "dataset": {"name": "iris"}, "epochs": 9},
    "seeds": [0, 1, 2],
    "space": {"/optimizer/learning_rate": {"log": [0.001, 0.1]}, "/batch_size": {"choice": [8, 16, 32]}},
    "search": {"name": "random", "trials": 9, "seed": 2},
    "halving": {"min_epochs": 3, "factor": 3},
}
_WIDE_LAYERS: Final = [{"units": 600, "activation": "relu"}, {"units": 10, "activation": "softmax"}]


@dataclass(frozen=True)
class View:
    """A page to open, the size of its window, and what to do there before the screenshot."""

    path: str
    width: int = 1280
    height: int = 900
    prepare: Callable[[Page, LocalStack], None] = lambda page, stack: None


def _select_two_jobs(page: Page, stack: LocalStack) -> None:
    for name in ("first classifier", "wider, another seed"):
        page.get_by_label(f"Select {name}", exact=True).check()


def _enter_fault(page: Page, stack: LocalStack) -> None:
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    page.fill("#field-epochs", "0")
    expect(page.locator("#field-epochs-fault")).to_be_visible()


def _enter_name(page: Page, stack: LocalStack) -> None:
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    page.fill("#field-name", "my first one")
    expect(page.locator("#verdict")).to_have_text("Ready to start")


def _wait_for_charts(page: Page, stack: LocalStack) -> None:
    page.locator(".charts .plot canvas").first.wait_for()


def _open_history(page: Page, stack: LocalStack) -> None:
    page.locator("#history-champion > summary").click()
    page.locator("#history-champion .findings summary").first.click()


def _select_trial(page: Page, stack: LocalStack) -> None:
    _wait_for_charts(page, stack)
    page.get_by_label("Compare trial 0").check()
    expect(page.get_by_role("link", name="Compare with the best")).to_be_visible()


def _open_cell(page: Page, stack: LocalStack) -> None:
    _wait_for_charts(page, stack)
    mistakes = page.locator("#confusion td.wrong button")
    counts = [int(text) for text in mistakes.all_inner_texts()]
    mistakes.nth(counts.index(max(counts))).click()
    expect(page.locator("#cell")).to_be_visible()


def _draw_digit(page: Page, stack: LocalStack) -> None:
    page.locator("#pen").fill("16")
    paint(page, digits(stack.settings, range(3, 4))[0])
    expect(page.locator("#bars .winner")).to_have_count(1)


def _move_along_path(page: Page, stack: LocalStack) -> None:
    page.get_by_label("Position on the path").fill("12")
    expect(page.locator("#many img")).to_have_count(30)


def _send_request(page: Page, stack: LocalStack) -> None:
    form = page.locator("#jobs_show form.try")
    until(page, "!document.querySelector('#jobs_show [name=job_id]').value.startsWith('job_01J000')")
    form.get_by_role("button", name="Send").click()
    expect(form.locator("[data-answer] .note")).to_contain_text("200")
    form.scroll_into_view_if_needed()


VIEWS: Final = {
    "jobs": View("/", prepare=_select_two_jobs),
    "jobs-nothing": View("/?q=nobody+is+called+that", height=600),
    "jobs-phone": View("/", width=360, height=800),
    "new": View("/ui/new", height=1000, prepare=_enter_name),
    "new-phone": View("/ui/new", width=360, height=1000, prepare=_enter_fault),
    "job": View("/ui/jobs/{reader}", height=1500, prepare=_wait_for_charts),
    "job-cell": View("/ui/jobs/{reader}", height=1500, prepare=_open_cell),
    "job-failed": View("/ui/jobs/{failed}", height=1000, prepare=_wait_for_charts),
    "job-gan": View("/ui/jobs/{painter}", height=1500, prepare=_wait_for_charts),
    "job-phone": View("/ui/jobs/{reader}", width=360, height=1200, prepare=_wait_for_charts),
    "compare": View("/ui/compare?jobs={reader},{wide}", height=1900, prepare=_wait_for_charts),
    "sweep": View("/ui/sweeps/{sweep}", height=1700, prepare=_select_trial),
    "model": View("/ui/models/digits", height=1100, prepare=_open_history),
    "draw": View("/ui/play/{reader}", height=720, prepare=_draw_digit),
    "draw-phone": View("/ui/play/{reader}", width=360, height=1400, prepare=_draw_digit),
    "walk": View("/ui/play/{painter}", height=950, prepare=_move_along_path),
    "log": View("/ui/jobs/{failed}/log", height=900),
    "log-phone": View("/ui/jobs/{failed}/log", width=360, height=1000),
    "datasets": View("/ui/datasets", height=800),
    "dataset": View("/ui/datasets/mnist-10k", height=1000),
    "workers": View("/ui/workers", height=700),
    "workers-phone": View("/ui/workers", width=360, height=1000),
    "usage": View("/ui/usage", height=500),
    "keys": View("/ui/keys", height=700),
    "learn": View("/ui/learn", height=1500),
    "docs": View("/docs", height=900),
    "docs-try": View("/docs/jobs#jobs_show", height=1000, prepare=_send_request),
    "docs-phone": View("/docs/jobs#jobs_show", width=360, height=1000, prepare=_send_request),
    "problem": View("/jobs?limit=many&kind=rnn", height=600),
    "missing": View("/ui/jobs/job_01J00000000000000000000000", height=500),
    "sign-in": View("/ui/sign-in", height=500),
}
EMPTY_LIST: Final = "jobs-empty"


def main() -> None:
    parser = argparse.ArgumentParser(description="Take pictures of the pages.")
    parser.add_argument(
        "views", nargs="*", metavar="VIEW", help=f"some of: {EMPTY_LIST}, {', '.join(VIEWS)}; none: all"
    )
    chosen = parser.parse_args().views or [EMPTY_LIST, *VIEWS]
    path = chromium.find()
    if path is None:
        sys.exit("no Chromium here: apt-get install chromium, or name one in CHROMIUM")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tapeline-pictures-") as home, sync_playwright() as playwright:
        settings = Settings.from_env({"TAPELINE_HOME": home, "TAPELINE_PORT": "0", "TAPELINE_WORKERS": "2"}, cores=2)
        with LocalStack(settings) as stack:
            browser = chromium.launch(playwright, path)

            def take(name: str, view: View) -> None:
                for scheme in ("light", "dark"):
                    size = {"width": view.width, "height": view.height}
                    with browser.new_context(viewport=size, color_scheme=scheme) as context:
                        page = context.new_page()
                        page.goto(stack.url + view.path)
                        view.prepare(page, stack)
                        page.mouse.move(0, 0)
                        page.wait_for_timeout(900)  # animations end
                        _save(page.screenshot(), FOLDER / f"{name}-{scheme}.png")

            if EMPTY_LIST in chosen:
                take(EMPTY_LIST, View("/"))
            ids = _train(stack.url)
            for name, view in VIEWS.items():
                if name in chosen:
                    take(name, View(view.path.format(**ids), view.width, view.height, view.prepare))
            browser.close()


def _train(url: str) -> dict[str, str]:
    with httpx.Client(base_url=url, timeout=300) as http:
        jobs = {}
        for name, spec in _SPECS.items():
            document = {"kind": "classifier", **spec} | ({"layers": _WIDE_LAYERS} if "layers" in spec else {})
            jobs[name] = http.post("/jobs", json=document).raise_for_status().json()
        for job in jobs.values():
            http.get(job["urls"]["stream"])
        sweep = http.post("/sweeps", json=_SWEEP).raise_for_status().json()
        http.get(sweep["urls"]["stream"])
        _register(http, [jobs["wide"]["id"], jobs["reader"]["id"]])
        # And some that keep running during the screenshots.
        for job in (
            {"name": "runs through the night", "epochs": 5000},
            {"kind": "gan", "epochs": 400, "tags": ["sweep"]},
        ):
            http.post("/jobs", json={"kind": "classifier", **job}).raise_for_status()
        waiting = http.post("/jobs", json={"kind": "classifier", "name": "waits for its turn", "priority": 2}).json()
        cancelled = http.post("/jobs", json={"kind": "classifier", "name": "not that one", "tags": ["night"]}).json()
        http.post(f"{cancelled['urls']['self']}/cancel").raise_for_status()
        assert waiting["status"] == "queued"
    return {name: job["id"] for name, job in jobs.items()} | {"sweep": sweep["id"]}


def _register(http: httpx.Client, jobs: Sequence[str]) -> None:
    """Register versions of a model, and move its champion under gates."""
    for job, note in zip(jobs, ("wider layers", "the first one"), strict=True):
        http.post("/models/digits/versions", json={"job": job, "note": note}).raise_for_status()
    better = {"better_than": "@champion", "metric": "val_loss", "seeds": 2, "confidence": 0.5}
    gates = [{"metric": "val_accuracy", "min": 0.9}, better, {"max_bytes": 10_000_000}]
    address = "/models/digits/aliases/champion"
    for version, reason in ((1, "nothing better yet"), (2, "smaller, and better over two seeds")):
        http.put(f"{address}/gates", json=gates).raise_for_status()
        move = {"version": version, "reason": reason}
        checked = http.put(f"{address}?dry_run=true", json=move).raise_for_status().json()
        for remedy in [remedy for finding in checked["findings"] for remedy in finding["remedies"]]:
            started = http.post(remedy["path"], json=remedy["body"]).raise_for_status().json()
            http.get(started["urls"]["stream"])
        checked = http.put(f"{address}?dry_run=true", json=move).raise_for_status().json()
        force = {} if checked["passed"] else {"force": True}
        http.put(address, json=move | force).raise_for_status()


def _save(png: bytes, path: Path) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(_PALETTE_SIZE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1000} KB", flush=True)


if __name__ == "__main__":
    main()
