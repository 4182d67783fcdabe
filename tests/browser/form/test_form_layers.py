# ruff: noqa: RUF001 - the page writes sizes with a multiplication sign
"""The layers in the form for a new job: their order, settings and output shapes."""

from __future__ import annotations

import io
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

import engine
from service.kinds.gan import model as gan
from service.kinds.supervised.model import network as supervised
from service.spec.validation import read_resolved
from tests.browser.conftest import Visit, wait_until_accepted
from tests.browser.job_form import choose, form_json, handle, layer_outputs, layer_types, open_all_sections, press
from tests.browser.waiting import until


def test_layers_are_reordered_by_dragging(form: Visit, http_of: Callable[[Visit], httpx.Client]) -> None:
    page = form.page
    choose(page, "classifier", "conv")
    wait_until_accepted(page)
    open_all_sections(page)
    before = layer_types(page)
    assert before[:3] == ["conv2d", "max_pool2d", "batch_norm"]
    handle(page, 2).scroll_into_view_if_needed()
    grip, target = handle(page, 2).bounding_box(), handle(page, 3).bounding_box()
    assert grip is not None
    assert target is not None
    page.mouse.move(grip["x"] + 9, grip["y"] + 9)
    page.mouse.down()
    page.mouse.move(target["x"] + 9, target["y"] + 10, steps=3)
    page.mouse.move(target["x"] + 9, target["y"] + 40, steps=8)
    expect(page.locator("#field-layers > li.before")).to_have_count(1)
    page.mouse.up()
    assert layer_types(page) == ["conv2d", "batch_norm", "max_pool2d", *before[3:]]
    assert [layer["type"] for layer in form_json(page)["layers"]] == layer_types(page)
    wait_until_accepted(page)
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/ui/jobs/job_*")
    job = http_of(form).get(f"/jobs/{page.url.rpartition('/')[2]}").json()
    assert [layer["type"] for layer in job["resolved"]["layers"]] == ["conv2d", "batch_norm", "max_pool2d", *before[3:]]


def test_a_drag_is_cancelled_by_escape(form: Visit) -> None:
    page = form.page
    open_all_sections(page)
    handle(page, 1).scroll_into_view_if_needed()
    grip = handle(page, 1).bounding_box()
    assert grip is not None
    page.mouse.move(grip["x"] + 9, grip["y"] + 9)
    page.mouse.down()
    page.mouse.move(grip["x"] + 9, grip["y"] + 200, steps=5)
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(page.locator("#field-layers-0-units")).to_have_value("392")
    assert "layers" not in form_json(page)


def test_layers_are_edited_by_keyboard_alone(form: Visit) -> None:
    page = form.page
    form.error_log.expected = ["422"]  # for a moment, the layers do not fit together
    open_all_sections(page)
    handle(page, 1).focus()
    page.keyboard.press("ArrowDown")
    expect(handle(page, 2)).to_be_focused()
    expect(page.locator("#field-layers-1-units")).to_have_value("392")
    page.keyboard.press("ArrowUp")
    expect(handle(page, 1)).to_be_focused()
    page.get_by_role("button", name="Insert a layer before layer 2").press("Enter")
    dialog = page.get_by_role("dialog", name="Insert a layer before layer 2")
    expect(dialog).to_contain_text("which reduces overfitting")
    dialog.get_by_role("button", name="dropout").press("Enter")
    expect(page.locator("#field-layers-1")).to_be_focused()
    assert layer_types(page) == ["dense", "dropout", "dense"]
    press(page.get_by_role("button", name="Duplicate layer 1"), "Enter")
    expect(page.locator("#field-layers-1")).to_be_focused()
    press(page.get_by_role("button", name="Move layer 2 down"), "Space")
    expect(page.get_by_role("button", name="Move layer 3 down")).to_be_focused()
    page.get_by_role("button", name="Remove layer 1").press("Enter")
    wait_until_accepted(page)
    assert layer_types(page) == ["dropout", "dense", "dense"]
    expect(page.locator("#field-layers-1-units")).to_have_value("392")
    assert form_json(page)["layers"] == [
        {"type": "dropout", "rate": 0.2},
        {"type": "dense", "units": 392, "activation": "relu"},
        {"type": "dense", "units": 10, "activation": "softmax"},
    ]


@pytest.mark.stack
def test_output_shapes_follow_edits_and_faults_are_shown_at_their_layer(form: Visit) -> None:
    page = form.page
    form.error_log.expected = ["422"]
    choose(page, "classifier", "conv")
    open_all_sections(page)
    wait_until_accepted(page)
    assert layer_outputs(page)[:3] == [
        ("→ 28 × 28 × 16", "160 parameters"),
        ("→ 14 × 14 × 16", "0 parameters"),
        ("→ 14 × 14 × 16", "32 parameters"),
    ]
    page.fill("#field-layers-0-filters", "8")
    until(page, "document.querySelector('#field-layers .output').innerText.includes('28 × 28 × 8')")
    page.fill("#field-layers-1-size", "5")
    row = page.locator("#field-layers > li:nth-child(2)")
    expect(row.locator(".fault:visible")).to_contain_text("Must divide the rows and columns")
    assert layer_outputs(page)[0][0] == "→ 28 × 28 × 8"
    row.get_by_role("button", name="Use 2").click()
    wait_until_accepted(page)
    # A last layer that does not fit is reported before any training.
    last = page.locator("#field-layers > li").last
    last.get_by_label("Units", exact=True).fill("7")
    expect(last.locator(".fault:visible")).to_contain_text("Must be 10")
    expect(last.locator(".shape")).to_have_text("→ 7")
    last.get_by_role("button", name="Use 10").click()
    wait_until_accepted(page)
    # A layer that cannot accept its input is offered the missing layer.
    page.get_by_role("button", name="Remove layer 7").click()
    dense = page.locator("#field-layers > li", has_text="flatten").filter(has=page.locator(".fault:visible"))
    dense.get_by_role("button", name="Insert flatten before it").click()
    wait_until_accepted(page)
    assert "flatten" in layer_types(page)


@pytest.mark.parametrize(("kind", "preset"), [("classifier", "conv"), ("gan", "best")])
def test_output_shapes_are_those_of_the_networks_that_a_job_builds(
    form: Visit, http_of: Callable[[Visit], httpx.Client], kind: str, preset: str
) -> None:
    page = form.page
    choose(page, kind, preset)
    page.fill("#field-epochs", "1")
    open_all_sections(page)
    wait_until_accepted(page)
    selectors = (
        ["#field-layers"] if kind == "classifier" else ["#field-generator-layers", "#field-discriminator-layers"]
    )
    displayed = [layer_outputs(page, selector) for selector in selectors]
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/ui/jobs/job_*")
    job = http_of(form).get(f"/jobs/{page.url.rpartition('/')[2]}").json()
    spec = read_resolved(job["resolved"])
    initializer = engine.initializers.glorot_uniform
    built: list[engine.Sequential]
    if spec.kind == "classifier":
        built = [supervised(spec, (28, 28), initializer)]
    else:
        built = [gan.generator(spec, initializer, 10), gan.discriminator(spec, (28, 28), initializer, 10)]
    for network, rows in zip(built, displayed, strict=True):
        assert len(rows) == len(network.layers)
        for layer, shape, row in zip(network.layers, network.layer_shapes, rows, strict=True):
            count = sum(tensor.size for tensor in layer.parameters.values())
            assert row == (
                "→ " + " × ".join(f"{side:,}" for side in shape),
                f"{count:,} {'parameter' if count == 1 else 'parameters'}",
            )


def test_layers_of_a_preset_adapt_to_the_dataset(form: Visit, http_of: Callable[[Visit], httpx.Client]) -> None:
    page, http = form.page, http_of(form)
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    np.savez_compressed(
        buffer, x=rng.integers(0, 100, (300, 28, 28)).astype(np.uint8), y=(np.arange(300) % 4).astype(np.uint8)
    )
    http.post("/datasets", data={"name": "mine"}, files={"archive": ("a.npz", buffer.getvalue())}).raise_for_status()
    form.open("/ui/new")
    wait_until_accepted(page)
    open_all_sections(page)
    options = page.locator("#field-dataset-name option").all_inner_texts()
    assert any(text.startswith("mine · 28 × 28, ") for text in options)
    listed = {item["name"]: item for item in http.get("/datasets").json()["data"]}
    for text in options:
        if (name := text.partition(" ")[0]) in listed:
            assert ("needs download" in text) == (not listed[name]["available"])
    page.select_option("#field-dataset-name", "mine")
    expect(page.locator("#field-layers-1-units")).to_have_value("4")
    wait_until_accepted(page)
    expect(page.locator("#dataset-about")).to_contain_text("4 classes")
    assert form_json(page) == {"kind": "classifier", "dataset": {"name": "mine"}}
    form.error_log.expected = ["422"]
    page.fill("#field-layers-0-units", "50")  # now all layers are the user's, and stay as they are
    page.select_option("#field-dataset-name", "mnist-10k")
    page.locator("#field-layers > li:nth-child(2)").get_by_role("button", name="Use 10").click()
    wait_until_accepted(page)
