"""Charts, by the pixels that a person sees. The tests play the worker, so that epochs come when they say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Bare, Visit
from tests.browser.pixels import dots, wait_for_dots
from tests.service.web.conftest import PlayedWorker

EPOCHS = 8


def figure(page: Page, title: str) -> Any:
    return page.locator(f"figure.chart:has(h3:text-is('{title}'))")


def canvas(page: Page, title: str = "loss") -> Any:
    return figure(page, title).locator("canvas")


def metrics(epoch: int, level: float = 0.0) -> dict[str, float]:
    return {
        "train_loss": level + 1 / epoch,
        "val_loss": level + 1.3 / epoch + 0.1,
        "train_accuracy": 1 - 0.5 / epoch,
        "val_accuracy": 0.8 - 0.4 / epoch,
    }


class Service:
    """A web process, and a worker that does what the test says."""

    def __init__(self, bare: Bare) -> None:
        self.url = bare.url
        self.services = bare.services

    def submit(self, **spec: Any) -> str:
        sent = {"kind": "classifier", "epochs": 100} | spec
        return str(httpx.post(f"{self.url}/jobs", json=sent).raise_for_status().json()["id"])

    def claim(self) -> PlayedWorker:
        worker = PlayedWorker(self.services.database, self.services.artifacts)
        worker.claim()
        return worker

    def trained(self, epochs: int, level: float = 0.0, **spec: Any) -> str:
        job_id = self.submit(**spec)
        worker = self.claim()
        for epoch in range(1, epochs + 1):
            worker.epoch(epoch, metrics=metrics(epoch, level))
        worker.succeed()
        return job_id


@pytest.fixture
def service(serve_bare: Callable[[], Bare]) -> Service:
    return Service(serve_bare())


def test_every_epoch_is_drawn_on_a_page_that_was_opened_before_the_first(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    job_id = service.submit()
    page = open_window(service.url).open(f"/ui/jobs/{job_id}")
    worker = service.claim()
    expect(page.locator("#state .status")).to_have_text("running")
    for epoch in range(1, EPOCHS + 1):
        worker.epoch(epoch, metrics=metrics(epoch))
        wait_for_dots(page, canvas(page), 1, epoch)
    for title, series in (("loss", 1), ("loss", 2), ("accuracy", 1), ("accuracy", 2)):
        wait_for_dots(page, canvas(page, title), series, EPOCHS)
        assert len(dots(canvas(page, title), series)) == EPOCHS
