"""A web process for the browser, and a simulated worker that finishes epochs when a test says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page

from service.web.services import Services
from tests.browser.waiting import patient
from tests.service.web.conftest import PlayedWorker


def figure(page: Page, title: str) -> Locator:
    return page.locator(f"figure.chart:has(h3:text-is('{title}'))")


def canvas(page: Page, title: str = "loss") -> Locator:
    return figure(page, title).locator("canvas")


def point(page: Page, title: str, left: float) -> None:
    figure(page, title).locator(".plot").hover(position={"x": left, "y": 100})


def metrics(epoch: int, level: float = 0.0) -> dict[str, float]:
    return {
        "train_loss": level + 1 / epoch,
        "val_loss": level + 1.3 / epoch + 0.1,
        "train_accuracy": 1 - 0.5 / epoch,
        "val_accuracy": 0.8 - 0.4 / epoch,
    }


@dataclass
class Bare:
    """A web process without workers: what is sent in waits."""

    url: str
    services: Services


class Service:
    """A web process, and a worker that does what the test says."""

    def __init__(self, bare: Bare) -> None:
        self.url = bare.url
        self.services = bare.services

    def submit(self, **spec: Any) -> str:
        sent = {"kind": "classifier", "epochs": 100} | spec
        return str(patient.post(f"{self.url}/jobs", json=sent).raise_for_status().json()["id"])

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
