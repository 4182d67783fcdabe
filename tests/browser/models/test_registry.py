"""The pages of models, and the registration on a job's page."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import serious_violations
from tests.browser.conftest import Finish, Visit

PHONE = 360


@pytest.fixture(scope="module")
def flowers(stack_http: httpx.Client, finish: Finish) -> list[str]:
    """The ids of two trained jobs with different settings."""
    specs = [
        {"kind": "classifier", "dataset": {"name": "iris"}, "epochs": 3, "optimizer": {"learning_rate": rate}}
        for rate in (0.001, 0.03)
    ]
    submitted = [stack_http.post("/jobs", json=spec).raise_for_status().json() for spec in specs]
    return [finish(job)["id"] for job in submitted]


def register(http: httpx.Client, name: str, jobs: list[str], *gates: Any) -> None:
    """Register versions, point ``champion`` at the first one, and set its gates."""
    for job in jobs:
        http.post(f"/models/{name}/versions", json={"job": job}).raise_for_status()
    http.put(f"/models/{name}/aliases/champion", json={"version": 1}).raise_for_status()
    http.put(f"/models/{name}/aliases/champion/gates", json=list(gates)).raise_for_status()


@pytest.mark.stack
def test_a_checkpoint_is_registered_on_the_page_of_its_job(stack_visit: Visit, flowers: list[str]) -> None:
    page = stack_visit.open(f"/ui/jobs/{flowers[0]}")
    page.get_by_role("button", name="Register…").click()
    assert serious_violations(page) == []
    page.get_by_label("Model", exact=True).fill("from-its-page")
    page.locator("#register-note").fill("the first")
    page.get_by_role("button", name="Register", exact=True).click()
    expect(page.locator("#registered")).to_contain_text("Registered as from-its-page:1 (epoch ")
    page.get_by_role("link", name="from-its-page:1").click()
    page.get_by_role("button", name="Move an alias…").click()
    expect(page.locator("#move-alias")).to_have_value("champion")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator("#alias-title-champion")).to_have_text("from-its-page@champion is version 1")
    expect(page.locator("#v1")).to_contain_text("the first")
    expect(page.locator("#use")).to_contain_text("predict from-its-page@champion FILE")
    stack_visit.open(f"/ui/jobs/{flowers[0]}")
    expect(page.locator("#registered")).to_contain_text("@champion")


@pytest.mark.stack
def test_a_failed_gate_shows_its_evidence_and_starts_what_is_missing(
    stack_visit: Visit, stack_http: httpx.Client, flowers: list[str]
) -> None:
    better = {"better_than": "@champion", "metric": "val_loss", "seeds": 2, "confidence": 0.8}
    register(stack_http, "supplied", flowers, better, {"max_bytes": 10_000_000})
    stack_visit.error_log.expected = ["409"]
    page = stack_visit.open("/ui/models/supplied")
    expect(page.locator("#alias-champion .gates")).to_contain_text("better than @champion in val loss, over 2 seeds")
    page.get_by_role("button", name="Move an alias to supplied:2").click()
    page.locator("#move-alias").fill("champion")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator("#move-verdict")).to_have_text("1 of 2 gates not met")
    expect(page.locator("#move-found li.failed")).to_contain_text("0 of 2 of supplied:1, 0 of 2 of supplied:2")
    assert serious_violations(page) == []
    page.get_by_role("button", name="Train what is missing: 4 jobs").click()
    expect(page.locator("#move-verdict")).to_have_text("All gates are met", timeout=120_000)
    page.locator("#move-found li.met summary").first.click()
    expect(page.locator("#move-found tbody tr")).to_have_count(2)
    page.locator("#move-reason").fill("learns faster")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator("#alias-title-champion")).to_have_text("supplied@champion is version 2")
    page.locator("#history-champion > summary").click()
    first = page.locator("#history-champion .moves > li").first
    expect(first).to_contain_text("learns faster")
    expect(first.locator(".findings > li.met")).to_have_count(2)
    page.get_by_role("button", name="Roll back @champion").click()
    page.locator("#sure-go").click()
    expect(page.locator("#alias-title-champion")).to_have_text("supplied@champion is version 1")


def test_who_moves_an_alias_that_was_moved_since_is_told(
    stack_visit: Visit, stack_http: httpx.Client, flowers: list[str]
) -> None:
    register(stack_http, "contested", flowers)
    stack_visit.error_log.expected = ["412"]
    page = stack_visit.open("/ui/models/contested")
    stack_http.put("/models/contested/aliases/champion", json={"version": 2}).raise_for_status()
    page.get_by_role("button", name="Move @champion", exact=True).click()
    page.locator("#move-version").select_option("1")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator("#move-error")).to_contain_text("the alias was moved since you read it", ignore_case=True)
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator("#alias-title-champion")).to_have_text("contested@champion is version 1")


def test_gates_are_edited_and_forced_on_a_phone(open_stack: Any, stack_http: httpx.Client, flowers: list[str]) -> None:
    register(stack_http, "pocket", flowers)
    visit: Visit = open_stack(width=PHONE)
    visit.error_log.expected = ["409", "422"]
    page = visit.open("/ui/models/pocket")
    page.get_by_role("button", name="Edit the gates of @champion").click()
    page.get_by_role("button", name="Metric", exact=True).click()
    page.get_by_label("Metric", exact=True).fill("val_acuracy")
    page.get_by_label("at least").fill("")
    page.get_by_label("at most").fill("0.000001")
    page.locator("#gates-go").click()
    expect(page.locator("#gates-error")).to_contain_text("gate 1 metric: no job reports 'val_acuracy'")
    page.get_by_label("Metric", exact=True).fill("val_loss")
    assert_fits(page)
    page.locator("#gates-go").click()
    expect(page.locator("#alias-champion .gates")).to_contain_text("val loss at most 1.00e-06")
    page.get_by_role("button", name="Move @champion", exact=True).click()
    page.locator("#move-version").select_option("2")
    page.get_by_role("button", name="Check the gates").click()
    expect(page.locator("#move-verdict")).to_have_text("1 of 1 gates not met")
    assert_fits(page)
    page.locator("#move-force").check()
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator("#move-error")).to_contain_text("a forced move needs a reason")
    page.locator("#move-reason").fill("the lens was replaced")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.locator("#alias-title-champion")).to_contain_text("forced: gates were not met")
    assert_fits(page)


def assert_fits(page: Page) -> None:
    for part in ("document.documentElement", "document.querySelector('dialog[open]')"):
        assert page.evaluate(f"({part} ?? document.body).scrollWidth") <= PHONE, part
