"""A page that loses its connection to the service says so until the service is back."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Request, Route, expect

from tests.browser.apps.simulated_worker import Service, metrics
from tests.browser.conftest import Visit
from tests.browser.waiting import http_client, wait_for_frames
from tests.faults.proxy import Proxy

SWEEP = {
    "base": {"kind": "classifier", "epochs": 9},
    "space": {"/batch_size": {"choice": [50, 100]}},
    "search": {"name": "grid"},
}


def is_health_check(request: Request) -> bool:
    return request.url.endswith("/healthz")


@pytest.fixture
def proxy(service: Service) -> Iterator[Proxy]:
    """A proxy between page and service: it breaks connections as the end of a process does."""
    port = httpx.URL(service.url).port
    proxy = Proxy(lambda: socket.create_connection(("127.0.0.1", port)))
    yield proxy
    proxy.close()


@pytest.mark.parametrize("view", ["job", "log", "jobs", "sweep", "workers"])
def test_a_lost_connection_is_shown_until_it_is_restored(
    service: Service, proxy: Proxy, open_window: Callable[..., Visit], view: str
) -> None:
    sweep = http_client.post(f"{service.url}/sweeps", json=SWEEP).raise_for_status().json()
    worker = service.claim()
    worker.commit_epoch(1, metrics=metrics(1))
    assert worker.current_claim is not None
    job = f"/ui/jobs/{worker.current_claim.job_id}"
    path = {
        "job": job,
        "log": f"{job}/log",
        "jobs": "/",
        "sweep": f"/ui/sweeps/{sweep['id']}",
        "workers": "/ui/workers",
    }[view]
    visit = open_window(f"http://127.0.0.1:{proxy.port}")
    visit.error_log.expected += ["net::ERR", "status of 500"]
    page = visit.open(path)
    lost = page.locator("#connection-lost")
    if view == "sweep":
        expect(page.locator("#decisions li").first).to_be_visible()  # the part that is loaded last
    elif view != "workers":  # these are polled
        service.wait_for_stream(page)
    expect(lost).to_have_count(0)
    proxy.refusing = True
    proxy.drop()
    expect(lost).to_have_text("Connection lost, reconnecting…")
    expect(lost).to_be_visible()
    with page.expect_event("requestfailed", is_health_check):
        pass  # the next attempt
    wait_for_frames(page)
    expect(lost).to_be_visible()
    worker.commit_epoch(2, metrics=metrics(2))
    proxy.refusing = False
    expect(lost).to_have_count(0)
    if view == "job":  # the page catches up on missed epochs at once
        expect(page.locator("#epoch")).to_have_text("Epoch 2 of 9")
    if view == "log":
        expect(page.locator("#log li", has_text="epoch 2:")).to_have_count(1)


def test_parts_of_a_sweep_that_failed_to_load_are_loaded_again(
    service: Service, proxy: Proxy, open_window: Callable[..., Visit]
) -> None:
    sweep = http_client.post(f"{service.url}/sweeps", json=SWEEP).raise_for_status().json()
    visit = open_window(f"http://127.0.0.1:{proxy.port}")
    visit.error_log.expected += ["net::ERR"]
    requests: list[Route] = []

    def fail_first_request(route: Route) -> None:
        requests.append(route)
        if len(requests) == 1:
            proxy.refusing = True
            proxy.drop()
            route.abort()
        else:
            route.continue_()

    visit.page.route(re.compile("sweeps/results"), fail_first_request)
    page = visit.open(f"/ui/sweeps/{sweep['id']}")
    expect(page.locator("#toasts")).to_contain_text("Curves and decisions could not be loaded. Reload the page.")
    expect(page.locator("#connection-lost")).to_be_visible()
    proxy.refusing = False
    expect(page.locator("#decisions li").first).to_be_visible()


@pytest.mark.stack
def test_a_stream_that_ends_is_not_a_lost_connection(
    service: Service, proxy: Proxy, open_window: Callable[..., Visit]
) -> None:
    job_id = service.submit()
    visit = open_window(f"http://127.0.0.1:{proxy.port}")
    visit.error_log.expected += ["net::ERR"]
    page = visit.open(f"/ui/jobs/{job_id}")
    service.wait_for_stream(page)
    page.evaluate(
        """new MutationObserver(() => { window.seen ||= Boolean(document.querySelector("#connection-lost")); })
        .observe(document.querySelector("#toasts"), { childList: true })"""
    )
    with page.expect_response("**/healthz"):
        proxy.drop()
    service.claim()
    expect(page.locator("#state .status")).to_have_text("running")  # the stream is open again
    assert not page.evaluate("window.seen")
