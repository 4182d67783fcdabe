"""The keyboard focus stays where it is while a sweep trains, and while its page changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.apps.simulated_worker import Service, metrics
from tests.browser.conftest import Visit
from tests.browser.waiting import http_client


@pytest.fixture
def sweep(service: Service) -> dict[str, Any]:
    document = {"base": {"kind": "classifier", "epochs": 4}, "space": {"/batch_size": {"choice": [8, 16, 32]}}}
    sweep: dict[str, Any] = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    return sweep


@pytest.mark.parametrize("trial", [0, 1])
def test_the_focus_stays_on_a_trial_while_epochs_complete(
    open_window: Callable[..., Visit], service: Service, sweep: dict[str, Any], trial: int
) -> None:
    """Trial 0 trains, so its row is replaced; trial 1 waits, and its row is inserted again."""
    page = open_window(service.url).open(sweep["urls"]["page"])
    worker = service.claim()
    row = page.locator("#trials tbody tr", has=page.get_by_label("Compare trial 0"))
    for epoch, control in enumerate(
        (page.get_by_label(f"Compare trial {trial}"), page.get_by_role("link", name="seed 0").nth(trial)), 1
    ):
        control.focus()
        worker.commit_epoch(epoch, metrics=metrics(epoch))
        expect(row.locator("td").nth(3)).to_have_text(str(epoch))
        expect(control).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label(f"Compare trial {trial}")).to_be_focused()


def test_the_focus_stays_on_a_heading_that_sorts(
    open_window: Callable[..., Visit], service: Service, sweep: dict[str, Any]
) -> None:
    page = open_window(service.url).open(sweep["urls"]["page"])
    heading = page.get_by_role("columnheader", name="Epoch")
    heading.get_by_role("button").focus()
    for order in ("ascending", "descending"):
        page.keyboard.press("Enter")
        expect(heading).to_have_attribute("aria-sort", order)
        expect(heading.get_by_role("button")).to_be_focused()


def test_the_focus_stays_on_the_actions_when_they_change(
    open_window: Callable[..., Visit], service: Service, sweep: dict[str, Any]
) -> None:
    page = open_window(service.url).open(sweep["urls"]["page"])
    page.get_by_role("button", name="Pause").focus()
    for name in ("Resume", "Pause"):
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=name)).to_be_focused()


@pytest.mark.parametrize("name", ["Pause", "Cancel"])
def test_the_focus_moves_to_no_other_action_when_a_sweep_ends(
    open_window: Callable[..., Visit], service: Service, sweep: dict[str, Any], name: str
) -> None:
    """Enter would otherwise delete the sweep."""
    page = open_window(service.url).open(sweep["urls"]["page"])
    page.get_by_role("button", name=name).focus()
    http_client.post(f"{service.url}/sweeps/{sweep['id']}/cancel").raise_for_status()
    expect(page.get_by_role("button", name="Delete")).to_be_visible()
    expect(page.get_by_role("button", name="Delete")).not_to_be_focused()
