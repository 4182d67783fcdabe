"""The settings of a GAN that cure mode collapse, and layers inside of a layer, in the form for a new job."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Visit, ready, until
from tests.browser.job_form import choose, open_all, sent, types


def test_a_loss_with_its_penalty_is_chosen(form: Visit, tmp_path: Path) -> None:
    page = form.page
    form.watched.expected = ["422"]  # on the way, the loss lacks its penalty
    choose(page, "gan", "stable")
    open_all(page)
    page.locator("#field-loss-name").select_option("wasserstein")
    until(page, "document.body.innerText.includes('above 0 for wasserstein')")
    page.fill("#field-discriminator-gradient_penalty", "10")
    page.fill("#field-discriminator-pack", "2")
    page.locator("#field-conditional").check()
    ready(page)
    document = sent(page)
    assert document["loss"] == {"name": "wasserstein"}
    assert document["discriminator"] == {"gradient_penalty": 10, "pack": 2}
    assert document["conditional"] is True
    page.screenshot(path=tmp_path / "form.png", full_page=True)


def test_a_residual_layer_holds_layers(form: Visit, tmp_path: Path) -> None:
    page = form.page
    form.watched.expected = ["422"]
    choose(page, "classifier", "fast")
    open_all(page)
    page.get_by_role("button", name="Insert a layer before layer 2").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="residual").press("Enter")
    expect(page.locator("#field-layers-1")).to_be_focused()
    page.screenshot(path=tmp_path / "residual.png", full_page=True)
    assert types(page)[:2] == ["dense", "residual"]
    assert sent(page)["layers"][1]["type"] == "residual"
