# ruff: noqa: RUF001 - the page writes sizes with a multiplication sign
"""The layers in the form for a new job: moved, edited, and with their output shapes."""

from __future__ import annotations

import io
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

import engine
from service.models import networks
from service.runtime.settings import Auth
from service.spec.validation import read_resolved
from tests.browser.conftest import Visit, accepted, only_with
from tests.browser.job_form import choose, handle, open_all, outputs, press, sent, types
from tests.browser.waiting import until


def test_layers_are_reordered_by_dragging(form: Visit, http_of: Callable[[Visit], httpx.Client]) -> None:
    page = form.page
    choose(page, "classifier", "conv")
    accepted(page)
    open_all(page)
    before = types(page)
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
    assert types(page) == ["conv2d", "batch_norm", "max_pool2d", *before[3:]]
    assert [layer["type"] for layer in sent(page)["layers"]] == types(page)
    accepted(page)
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/ui/jobs/job_*")
    job = http_of(form).get(f"/jobs/{page.url.rpartition('/')[2]}").json()
    assert [layer["type"] for layer in job["resolved"]["layers"]] == ["conv2d", "batch_norm", "max_pool2d", *before[3:]]


def test_a_drag_is_cancelled_by_escape(form: Visit) -> None:
    page = form.page
    open_all(page)
    handle(page, 1).scroll_into_view_if_needed()
    grip = handle(page, 1).bounding_box()
    assert grip is not None
    page.mouse.move(grip["x"] + 9, grip["y"] + 9)
    page.mouse.down()
    page.mouse.move(grip["x"] + 9, grip["y"] + 200, steps=5)
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(page.locator("#field-layers-0-units")).to_have_value("392")
    assert "layers" not in sent(page)


def test_layers_are_edited_by_keyboard_alone(form: Visit) -> None:
    page = form.page
    form.watched.expected = ["422"]  # on the way, layers do not fit
    open_all(page)
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
    assert types(page) == ["dense", "dropout", "dense"]
    press(page.get_by_role("button", name="Duplicate layer 1"), "Enter")
    expect(page.locator("#field-layers-1")).to_be_focused()
    press(page.get_by_role("button", name="Move layer 2 down"), "Space")
    expect(page.get_by_role("button", name="Move layer 3 down")).to_be_focused()
    page.get_by_role("button", name="Remove layer 1").press("Enter")
    accepted(page)
    assert types(page) == ["dropout", "dense", "dense"]
    expect(page.locator("#field-layers-1-units")).to_have_value("392")
    assert sent(page)["layers"] == [
        {"type": "dropout", "rate": 0.2},
        {"type": "dense", "units": 392, "activation": "relu"},
        {"type": "dense", "units": 10, "activation": "softmax"},
    ]


def test_output_shapes_follow_what_is_typed_and_faults_stand_at_their_layer(form: Visit) -> None:
    page = form.page
    form.watched.expected = ["422"]
    choose(page, "classifier", "conv")
    open_all(page)
    accepted(page)
    assert outputs(page)[:3] == [
        ("→ 28 × 28 × 16", "160 parameters"),
        ("→ 14 × 14 × 16", "0 parameters"),
        ("→ 14 × 14 × 16", "32 parameters"),
    ]
    page.fill("#field-layers-0-filters", "8")
    until(page, "document.querySelector('#field-layers .output').innerText.includes('28 × 28 × 8')")
    page.fill("#field-layers-1-size", "5")
    row = page.locator("#field-layers > li:nth-child(2)")
    expect(row.locator(".fault:visible")).to_contain_text("Must divide the rows and columns")
    assert outputs(page)[0][0] == "→ 28 × 28 × 8"
    row.get_by_role("button", name="Use 2").click()
    accepted(page)
    # A last layer that does not fit is known before anything is trained.
    last = page.locator("#field-layers > li").last
    last.get_by_label("Units", exact=True).fill("7")
    expect(last.locator(".fault:visible")).to_contain_text("Must be 10")
    expect(last.locator(".shape")).to_have_text("→ 7")
    last.get_by_role("button", name="Use 10").click()
    accepted(page)
    # One that cannot take its input gets what it lacks.
    page.get_by_role("button", name="Remove layer 7").click()
    dense = page.locator("#field-layers > li", has_text="flatten").filter(has=page.locator(".fault:visible"))
    dense.get_by_role("button", name="Insert flatten before it").click()
    accepted(page)
    assert "flatten" in types(page)


@only_with([Auth.LOCAL])
@pytest.mark.parametrize(("kind", "preset"), [("classifier", "conv"), ("gan", "best")])
def test_output_shapes_are_those_of_the_trained_networks(
    visit: Visit, http: httpx.Client, kind: str, preset: str
) -> None:
    page = visit.open("/ui/new")
    accepted(page)
    choose(page, kind, preset)
    page.fill("#field-epochs", "1")
    open_all(page)
    accepted(page)
    places = ["#field-layers"] if kind == "classifier" else ["#field-generator-layers", "#field-discriminator-layers"]
    shown = [outputs(page, place) for place in places]
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/ui/jobs/job_*")
    job = http.get(f"/jobs/{page.url.rpartition('/')[2]}").json()
    spec = read_resolved(job["resolved"])
    http.post(f"{job['urls']['self']}/cancel")
    draw = engine.initializers.glorot_uniform
    made: list[engine.Sequential]
    if spec.kind == "classifier":
        made = [networks.classifier(spec, (28, 28), draw)]
    else:
        made = [networks.generator(spec, draw, 10), networks.discriminator(spec, (28, 28), draw, 10)]
    for network, rows in zip(made, shown, strict=True):
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
    page.reload()
    accepted(page)
    open_all(page)
    options = page.locator("#field-dataset-name option").all_inner_texts()
    assert any(text.startswith("mine · 28 × 28, ") for text in options)
    listed = {item["name"]: item for item in http.get("/datasets").json()["data"]}
    for text in options:
        if (name := text.partition(" ")[0]) in listed:
            assert ("needs download" in text) == (not listed[name]["available"])
    page.select_option("#field-dataset-name", "mine")
    expect(page.locator("#field-layers-1-units")).to_have_value("4")
    accepted(page)
    expect(page.locator("#dataset-about")).to_contain_text("4 classes")
    assert sent(page) == {"kind": "classifier", "dataset": {"name": "mine"}}
    form.watched.expected = ["422"]
    page.fill("#field-layers-0-units", "50")  # now all layers are the person's, and stay as they are
    page.select_option("#field-dataset-name", "mnist-10k")
    page.locator("#field-layers > li:nth-child(2)").get_by_role("button", name="Use 10").click()
    accepted(page)
