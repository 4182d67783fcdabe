"""The trials of a sweep with halving: those that were trained longest are first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from service.sweeps import decisions
from tests.browser.accessibility import serious_violations
from tests.browser.apps.simulated_worker import Service
from tests.browser.conftest import Visit
from tests.browser.waiting import http_client

pytestmark = pytest.mark.stack

SENTENCE = "Trial 0 (learning_rate 0.01) is the only one trained to epoch 2."


@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1440, "light", marks=pytest.mark.nightly), (390, "dark")])
def test_the_winner_stands_above_a_trial_that_was_stopped_with_a_higher_value(
    service: Service, open_window: Callable[..., Visit], width: int, scheme: str
) -> None:
    space = {"/optimizer/learning_rate": {"choice": [0.01, 0.02]}}
    halving = {"min_epochs": 1, "factor": 2}
    document = {"base": {"kind": "classifier", "epochs": 2}, "space": space, "seeds": [0], "halving": halving}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    for epoch, accuracy in ((1, 0.9), (1, 0.8), (2, 0.5)):
        worker = service.claim()
        worker.commit_epoch(epoch, metrics={"val_accuracy": accuracy})
        if epoch == 2:
            worker.succeed()
        decisions.advance_all(service.core.database)
    page = open_window(service.url, width=width, color_scheme=scheme).open(sweep["urls"]["page"])
    rows = page.locator("#trials tbody tr")
    grouped = ["Trained to epoch 2", "50.00%", "Trained to epoch 1", "80.00%"]
    for order in ("best", "-value", "value"):
        page.locator("#sort").select_option(order)
        expect(rows).to_contain_text(grouped)
    expect(page.locator("#best-sentence")).to_have_text(SENTENCE)
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#sort").select_option("trial")
    expect(rows).to_contain_text(["50.00%", "80.00%"])
    expect(rows).to_have_count(2)
