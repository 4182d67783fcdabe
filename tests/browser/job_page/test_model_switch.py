"""The switch of a job's page between its best and its latest model, which all cards follow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.spec import metric_info
from tests.browser.apps.simulated_worker import Service, metrics
from tests.browser.conftest import Finish, Visit
from tests.browser.job_page.conftest import RECEIVED, REFRESH_INTERVAL_MS
from tests.browser.waiting import http_client, until

RISING_RATE = {
    "kind": "classifier",
    "dataset": "iris",
    "epochs": 6,
    "optimizer": {"name": "sgd", "learning_rate": 1.5},
    "schedule": {"name": "cosine", "warmup_fraction": 0.95},
}
"""The learning rate rises until the network gets worse, so that the latest epoch is not the best one."""
EVALUATION_INTERVAL_MS = 2500
"""Longer than the shortest time between two evaluations of a model."""


def check_cards(page: Page, http: httpx.Client, job: dict[str, Any], name: str, epoch: int) -> None:
    """Each card names the model, and shows the numbers that the API has for its epoch."""
    label, address = f"{name}: epoch {epoch}", job["urls"]["self"]
    expect(page.locator("#model [aria-current]")).to_have_text(label)
    expect(page.locator("#tiles-title")).to_have_text(f"Metrics {label}")
    series = http.get(job["urls"]["metrics"]).json()["series"]
    for metric in ("val_accuracy", "val_loss", "train_loss"):
        value = metric_info.number(metric, series[metric][epoch - 1])
        expect(page.locator(f"[data-metric={metric}] .value")).to_have_text(value)

    confusion = http.get(f"{address}/confusion?checkpoint={epoch}").json()
    counts = [str(count) if count else "·" for row in confusion["matrix"] for count in row]
    expect(page.locator("#confusion .head")).to_contain_text(label)
    expect(page.locator("#confusion tbody td")).to_have_text(counts)
    recalls = [f"{score['recall']:.1%}" for score in confusion["per_class"]]
    expect(page.locator("#classes .head")).to_contain_text(label)
    expect(page.locator("#classes tbody td:nth-child(4)")).to_have_text(recalls)
    true, predicted = max(
        ((row, column) for row in range(3) for column in range(3)),
        key=lambda cell: confusion["matrix"][cell[0]][cell[1]],
    )
    page.locator(f"[data-actual='{true}'][data-predicted='{predicted}']").click()
    expect(page.locator("#cell-about")).to_contain_text(f"Checkpoint of epoch {epoch},")
    expect(page.locator("#cell tbody tr")).to_have_count(confusion["matrix"][true][predicted])
    page.keyboard.press("Escape")

    importance = http.get(f"{address}/importance?checkpoint={epoch}").json()
    card = page.locator("#importance")
    card.scroll_into_view_if_needed()
    expect(card.locator("[data-of]")).to_have_text(label)
    expect(card.locator("[data-state]")).to_contain_text(f"{importance['accuracy']:.1%}")
    means = sorted((f"{100 * column['mean']:.1f}" for column in importance["columns"]), key=float, reverse=True)
    expect(card.locator("li .number")).to_have_text(means)
    error = http.get(f"{address}/calibration?checkpoint={epoch}").json()["expected_error"]
    card = page.locator("#calibration")
    expect(card.locator("[data-of]")).to_have_text(label)
    expect(card.locator("[data-state]")).to_contain_text(f"differ by {100 * error:.1f} percentage points")
    for link in page.locator("#importance-files a, #calibration-files a").all():
        assert link.get_attribute("href").endswith(f"?checkpoint={name}")
    mistakes = http.get(f"{address}/mistakes?checkpoint={epoch}").json()
    card = page.locator("#mistakes")
    card.scroll_into_view_if_needed()
    expect(card.locator("[data-of]")).to_have_text(label)
    expect(card.locator("#mistakes-state")).to_contain_text(f"{mistakes['count']} of {mistakes['validation_count']}")
    expect(card.locator("tbody tr")).to_have_count(len(mistakes["data"]))

    expect(page.locator("#export .head")).to_contain_text(label)
    assert ("--checkpoint latest" in page.locator("#mlflow").inner_text()) is (name == "latest")
    with page.expect_download() as downloaded:
        page.locator("#export").get_by_role("button", name="PyTorch").click()
    assert downloaded.value.suggested_filename == f"{job['id']}-epoch-{epoch:04d}-torch.zip"
    expect(page.locator("#play-link")).to_contain_text(f"({label})")


@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1440, "light", marks=pytest.mark.nightly), (390, "dark")])
def test_all_cards_show_the_model_that_the_switch_names(
    open_stack: Callable[..., Visit], stack_http: httpx.Client, finish: Finish, width: int, scheme: str
) -> None:
    job = finish(
        stack_http.post("/jobs", json=RISING_RATE | {"checkpoint": {"keep_last": 9}}).raise_for_status().json()
    )
    best = stack_http.get(job["urls"]["results"]).json()["best"]["epoch"]
    assert best < 6
    visit = open_stack(width=width, color_scheme=scheme)
    page = visit.open(job["urls"]["page"])
    expect(page.locator("#model a")).to_have_text([f"best: epoch {best}", "latest: epoch 6"])
    check_cards(page, stack_http, job, "best", best)
    page.evaluate("window.same = true")
    page.get_by_role("link", name="latest: epoch 6", exact=True).click()
    check_cards(page, stack_http, job, "latest", 6)
    assert page.evaluate("window.same"), "the page was loaded again"
    assert page.url == f"{visit.url}{job['urls']['page']}?checkpoint=latest"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.reload()
    check_cards(page, stack_http, job, "latest", 6)
    page.get_by_role("link", name=f"best: epoch {best}", exact=True).press("Enter")
    check_cards(page, stack_http, job, "best", best)
    assert page.url == f"{visit.url}{job['urls']['page']}"
    for name, epoch in (("best", best), ("latest", 6)):
        page.locator(f"[data-model={name}]").click()
        expect(page.locator("#play-link")).to_contain_text(f"({name}: epoch {epoch})")
        page.locator("#play-link").click()
        expect(page.locator("#checkpoint-name")).to_have_text(f"epoch {epoch} ({name})")
        page.go_back()
        expect(page.locator("#model [aria-current]")).to_have_text(f"{name}: epoch {epoch}")


def test_evaluations_follow_the_shown_model_during_the_training(
    service: Service, page_with_clock: Page, http: httpx.Client, jobs: dict[str, Any]
) -> None:
    networks = [http.get(f"/jobs/{jobs['reader']['id']}/checkpoints/{epoch}").content for epoch in range(1, 6)]
    page, job_id = page_with_clock, service.submit()
    worker = service.claim()
    page.set_viewport_size({"width": 1440, "height": 3000})  # all evaluations are in view
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    service.wait_for_stream(page)
    page.clock.pause_at(page.evaluate("Date.now()") + 60_000)  # timers run when the test says so
    expect(page.locator("#model")).to_be_hidden()

    def finish_epoch(epoch: int, *, best: bool) -> None:
        network = networks[epoch - 1]
        worker.commit_epoch(epoch, metrics=metrics(epoch), best=best, checkpoint=network, keep_last=9)
        until(page, RECEIVED, epoch)

    def expect_shown(label: str, evaluated: int) -> None:
        expect(page.locator("#tiles-title")).to_have_text(f"Metrics {label}")
        evaluation = http_client.get(f"{service.url}/jobs/{job_id}/calibration?checkpoint={evaluated}").json()
        error = f"differ by {100 * evaluation['expected_error']:.1f} percentage points"
        expect(page.locator("#calibration [data-state]")).to_contain_text(error)
        for card in ("calibration", "mistakes"):
            expect(page.locator(f"#{card} [data-of]")).to_have_text(re.compile(rf"^\w+: epoch {evaluated}$"))

    finish_epoch(1, best=True)
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    expect_shown("best: epoch 1", 1)
    finish_epoch(2, best=True)
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    expect_shown("best: epoch 2", 1)  # evaluations cost more than a refresh, and are less frequent
    page.clock.fast_forward(EVALUATION_INTERVAL_MS)
    expect_shown("best: epoch 2", 2)
    finish_epoch(3, best=False)
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    expect(page.locator("#model a")).to_have_text(["best: epoch 2", "latest: epoch 3"])
    page.clock.fast_forward(EVALUATION_INTERVAL_MS)
    expect_shown("best: epoch 2", 2)
    page.get_by_role("link", name="latest: epoch 3", exact=True).click()
    expect_shown("latest: epoch 3", 3)  # at once
    finish_epoch(4, best=False)
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    expect_shown("latest: epoch 4", 3)
    page.clock.fast_forward(EVALUATION_INTERVAL_MS)
    expect_shown("latest: epoch 4", 4)
    page.get_by_role("link", name="best: epoch 2", exact=True).click()
    expect_shown("best: epoch 2", 2)
    finish_epoch(5, best=True)
    worker.succeed()
    until(page, RECEIVED, "end")
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    expect(page.locator("#state .status")).to_have_text("succeeded")
    expect_shown("best: epoch 5", 5)  # at once
