"""The form for a new job: the settings against mode collapse, and layers inside a layer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
from playwright.sync_api import expect

from service.runtime.settings import Auth
from tests.browser.conftest import Visit, only_with, wait_until_accepted
from tests.browser.job_form import choose, form_json, layer_types, open_all_sections, press
from tests.browser.waiting import until
from tests.waiting import wait_until


def test_a_loss_is_chosen_with_the_penalty_that_it_requires(form: Visit, tmp_path: Path) -> None:
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
    page.screenshot(path=tmp_path / "form.png", full_page=True)


def test_a_residual_layer_contains_layers(form: Visit, tmp_path: Path) -> None:
    page = form.page
    form.error_log.expected = ["422"]
    choose(page, "classifier", "fast")
    open_all_sections(page)
    page.get_by_role("button", name="Insert a layer before layer 2").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="residual").press("Enter")
    expect(page.locator("#field-layers-1")).to_be_focused()
    page.screenshot(path=tmp_path / "residual.png", full_page=True)
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


@only_with([Auth.LOCAL])
def test_a_conditional_gan_generates_a_chosen_class(
    visit: Visit, http_of: Callable[[Visit], httpx.Client], tmp_path: Path
) -> None:
    with http_of(visit) as http:
        spec = {"kind": "gan", "conditional": True, "epochs": 1, "health": {"samples": 100}, "loss": "least_squares"}
        job = http.post("/jobs", json=spec).json()
        wait_until(lambda: http.get(job["urls"]["self"]).json()["status"] == "succeeded", "the training", timeout_s=240)
        page = visit.open(f"/ui/play/{job['id']}")
        picture = page.locator("#picture")
        expect(picture).to_have_attribute("src", re.compile("^data:"))
        before = picture.get_attribute("src")
        page.get_by_label("Class").select_option("7")
        expect(picture).not_to_have_attribute("src", before or "")
        body = {"latent": [[0.5] * 100], "class": 7}
        assert http.post(f"{job['urls']['self']}/generate", json=body).status_code == 200
        page.screenshot(path=tmp_path / "class.png", full_page=True)
