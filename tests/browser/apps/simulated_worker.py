"""A web process for the browser, and a simulated worker that completes epochs at a test's command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page

from service.web.core.core import Core
from service.web.streaming.poller import Poller
from tests.browser.waiting import http_client, poll
from tests.service.web.conftest import SimulatedWorker


def figure(page: Page, title: str) -> Locator:
    return page.locator(f"figure.chart:has(h3:text-is('{title}'))")


def canvas(page: Page, title: str = "loss") -> Locator:
    return figure(page, title).locator("canvas")


def hover_chart(page: Page, title: str, left: float) -> None:
    figure(page, title).locator(".plot").hover(position={"x": left, "y": 100})


def metrics(epoch: int, loss_offset: float = 0.0) -> dict[str, float]:
    return {
        "train_loss": loss_offset + 1 / epoch,
        "val_loss": loss_offset + 1.3 / epoch + 0.1,
        "train_accuracy": 1 - 0.5 / epoch,
        "val_accuracy": 0.8 - 0.4 / epoch,
    }


@dataclass
class WebProcess:
    """A web process without workers: submitted jobs stay queued."""

    url: str
    core: Core
    poller: Poller


class Service:
    """A web process, with simulated workers that the test controls."""

    def __init__(self, bare: WebProcess) -> None:
        self.url = bare.url
        self.core = bare.core
        self._poller = bare.poller

    @property
    def streams(self) -> int:
        """Number of open event streams: an open page misses no event from then on."""
        return self._poller.clients

    def wait_for_stream(self, page: Page) -> None:
        poll(page, lambda: self.streams > 0, "a stream")

    def submit(self, **spec: Any) -> str:
        document = {"kind": "classifier", "epochs": 100} | spec
        return str(http_client.post(f"{self.url}/jobs", json=document).raise_for_status().json()["id"])

    def claim(self) -> SimulatedWorker:
        worker = SimulatedWorker(self.core.database, self.core.artifacts)
        worker.claim()
        return worker

    def train(self, epochs: int, loss_offset: float = 0.0, **spec: Any) -> str:
        job_id = self.submit(**spec)
        worker = self.claim()
        for epoch in range(1, epochs + 1):
            worker.commit_epoch(epoch, metrics=metrics(epoch, loss_offset))
        worker.succeed()
        return job_id
