"""The form for a new job: the settings against mode collapse, and layers inside a layer."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import expect

from tests.browser.conftest import Finish, Visit, wait_until_accepted
from tests.browser.job_form import choose, form_json, layer_types, open_all_sections, press
from tests.browser.waiting import until


def test_a_loss_is_chosen_with_the_penalty_that_it_requires(form: Visit) -> None:
    page = form.page
    form.error_log.expected = ["422"]  # for a moment, the loss lacks its penalty
    choose(page, "gan", "stable")
    open_all_sections(page)
    page.locator("#field-loss-name").select_option("wasserstein")
    until(page, "document.body.innerText.includes('above 0 for wasserstein')")
    page.fill("#field-discriminator-gradient_penalty", "10")
    page.fill("#field-discriminator-pack", "2")
    page.locator("#field-conditional").check()
    wait_until_accepted(page)
    document = form_json(page)
    assert document["loss"] == {"name": "wasserstein"}
    assert document["discriminator"] == {"gradient_penalty": 10, "pack": 2}
    assert document["conditional"] is True


def test_a_residual_layer_contains_layers(form: Visit) -> None:
    page = form.page
    form.error_log.expected = ["422"]
    choose(page, "classifier", "fast")
    open_all_sections(page)
    page.get_by_role("button", name="Insert a layer before layer 2").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="residual").press("Enter")
    expect(page.locator("#field-layers-1")).to_be_focused()
    assert layer_types(page)[:2] == ["dense", "residual"]
    inner = page.locator("fieldset[data-name='layers.1.layers']")
    press(inner.get_by_role("button", name="Add a layer at the end"), "Enter")
    page.get_by_role("dialog").get_by_role("button", name="dense").press("Enter")
    units = page.locator("#field-layers-1-layers-1-units")
    units.fill("391")
    row = page.locator("#field-layers > li:nth-child(2)")
    expect(row.locator(".fault:visible")).to_contain_text("Must output 392 numbers, like the layer's input")
    units.fill("392")
    wait_until_accepted(page)
    residual = form_json(page)["layers"][1]
    assert [layer["type"] for layer in residual["layers"]] == ["layer_norm", "dense"]
    assert residual["layers"][1]["units"] == 392
    expect(row.locator(":scope > .output")).to_have_text(f"→ 392 {2 * 392 + 392 * 392 + 392:,} parameters")


def test_a_conditional_gan_generates_a_chosen_class(
    stack_visit: Visit, stack_http: httpx.Client, finish: Finish
) -> None:
    spec = {"kind": "gan", "conditional": True, "epochs": 1, "health": {"samples": 100}, "loss": "least_squares"}
    job = finish(stack_http.post("/jobs", json=spec).raise_for_status().json())
    page = stack_visit.open(f"/ui/play/{job['id']}")
    picture = page.locator("#picture")
    expect(picture).to_have_attribute("src", re.compile("^data:"))
    before = picture.get_attribute("src")
    page.get_by_label("Class").select_option("7")
    expect(picture).not_to_have_attribute("src", before or "")
    body = {"latent": [[0.5] * 100], "class": 7}
    assert stack_http.post(f"{job['urls']['self']}/generate", json=body).status_code == 200
