# ruff: noqa: RUF001 - the page writes sizes with a multiplication sign
"""The form for a new job, as a user sees it: what the screen shows, and what is sent in the end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Route, expect

from tests import coloured_shapes
from tests.browser.accessibility import serious_violations
from tests.browser.conftest import Visit, wait_until_accepted, wait_until_checked
from tests.browser.held_responses import hold
from tests.browser.job_form import EVERY_PRESET, VISIBLE_FIELDS, choose, form_json, open_all_sections
from tests.browser.waiting import wait_for_sent_requests

ROUND_TRIPS = [("classifier", "table"), ("gan", "best")]
"""Presets that have all kinds of fields."""


def test_presets_show_a_description_result_dataset_and_duration(form: Visit) -> None:
    page = form.page
    for kind in ("classifier", "gan"):
        page.locator(f"#kinds button[value={kind}]").click()
        cards = page.locator("#presets .preset")
        expect(cards).to_have_count(len([name for preset_kind, name in EVERY_PRESET if preset_kind == kind]))
        for text in cards.all_inner_texts():
            assert "." in text, "no sentence about it"
            assert ("iris" if text.startswith("table") else "mnist-10k") in text
            assert text.rstrip().endswith((" s", "min", "h")), text
        expect(cards.filter(has_text="default")).to_have_count(1)
    expect(page.locator("#presets .preset", has_text="stable").first).to_contain_text("Fréchet distance")
    page.locator("#kinds button[value=classifier]").click()
    expect(page.locator("#presets .preset", has_text="conv")).to_contain_text("98.9%")
    page.get_by_role("button", name="Preset conv").click()
    assert form_json(page) == {"kind": "classifier", "preset": "conv"}
    wait_until_accepted(page)
    expect(page.locator("#field-epochs")).to_have_value("12")


@pytest.mark.stack
def test_changing_the_preset_can_be_undone(form: Visit) -> None:
    page = form.page
    page.fill("#field-name", "mine")
    page.fill("#field-epochs", "9")
    page.get_by_role("button", name="Preset best").click()
    assert form_json(page) == {"kind": "classifier", "preset": "best", "name": "mine"}
    expect(page.locator("#discarded")).to_contain_text("Your changes to epochs were discarded.")
    page.get_by_role("button", name="Undo").click()
    assert form_json(page) == {"kind": "classifier", "name": "mine", "epochs": 9}
    expect(page.locator("#field-epochs")).to_have_value("9")


@pytest.mark.stack
def test_an_invalid_number_is_reported_and_not_sent_as_zero(form: Visit) -> None:
    page = form.page
    form.error_log.expected = ["422"]
    field, fault = page.get_by_label("Learning rate", exact=True), page.locator("#field-optimizer-learning_rate-fault")
    field.fill("")
    field.press_sequentially("-")
    expect(fault).to_contain_text("number")
    assert form_json(page)["optimizer"] == {"learning_rate": ""}
    field.press_sequentially("1")
    expect(fault).to_contain_text("greater than 0")
    field.fill("0.25")
    expect(fault).to_be_hidden()
    assert form_json(page)["optimizer"] == {"learning_rate": 0.25}


def test_epochs_and_learning_rate_come_first(form: Visit) -> None:
    page = form.page
    fields = page.locator("#sections .field").evaluate_all(
        "fields => fields.filter((field) => field.checkVisibility()).map((field) => field.dataset.name)"
    )
    assert fields == ["epochs", "optimizer.learning_rate", "seed", "dataset.name", "name"]
    page.get_by_label("Learning rate", exact=True).fill("0.25")
    wait_until_accepted(page)
    assert form_json(page)["optimizer"] == {"learning_rate": 0.25}
    open_all_sections(page)
    page.select_option("#field-optimizer", "adam")
    wait_until_accepted(page)
    expect(page.get_by_label("Learning rate", exact=True)).to_have_value("0.001")
    expect(page.locator("#field-optimizer-learning_rate")).to_have_count(1)


@pytest.mark.parametrize(("kind", "preset"), [("classifier", "conv"), ("gan", "best")])
def test_every_field_has_visible_help(form: Visit, kind: str, preset: str) -> None:
    page = form.page
    choose(page, kind, preset)
    wait_until_accepted(page)
    open_all_sections(page)
    for row in page.locator(".layer .tools .help").all():
        row.click()
    controls = page.locator("#sections :is(input, select)[id^=field-]:visible")
    assert controls.count() > 30
    without_help = [
        control.get_attribute("id")
        for control in controls.all()
        if not any(
            page.locator(f"#{name}").is_visible() and len(page.locator(f"#{name}").inner_text()) > 10
            for name in (control.get_attribute("aria-describedby") or "").split()
        )
    ]
    assert without_help == []
    field = page.locator("[data-name=epochs]")
    expect(field).not_to_contain_text("overfits", use_inner_text=True)
    field.get_by_role("button", name="More about Epochs").press("Enter")
    expect(field).to_contain_text("overfits", use_inner_text=True)


def test_fields_without_effect_are_hidden_and_not_sent(form: Visit) -> None:
    page = form.page
    open_all_sections(page)
    slope = page.locator("#field-layers-0-negative_slope")
    expect(slope).to_be_hidden()
    page.select_option("#field-layers-0-activation", "leaky_relu")
    slope.fill("0.1")
    wait_until_accepted(page)
    assert form_json(page)["layers"][0]["negative_slope"] == 0.1
    page.select_option("#field-layers-0-activation", "tanh")
    expect(slope).to_be_hidden()
    assert form_json(page)["layers"][0] == {"type": "dense", "units": 392, "activation": "tanh"}

    expect(page.locator("#field-optimizer-nesterov")).to_be_checked()
    page.fill("#field-optimizer-momentum", "0")
    expect(page.locator("#field-optimizer-nesterov")).to_be_hidden()
    wait_until_accepted(page)  # the preset has nesterov, which needs a momentum
    assert form_json(page)["optimizer"] == {"momentum": 0, "nesterov": False}
    page.fill("#field-optimizer-momentum", "0.5")
    expect(page.locator("#field-optimizer-nesterov")).to_be_visible()

    page.select_option("#field-schedule", "cosine")
    expect(page.locator("#field-schedule-start_factor")).to_be_hidden()
    page.fill("#field-schedule-warmup_fraction", "0.1")
    expect(page.locator("#field-schedule-start_factor")).to_be_visible()
    expect(page.locator("[data-name='health.stop_on']")).not_to_contain_text("mode collapse")


def test_invalid_json_locks_the_form_and_clears_the_estimates(form: Visit) -> None:
    page = form.page
    form.error_log.expected = ["400"]
    validations = hold(page, "POST /jobs.dry_run=true")
    page.fill("#field-epochs", "8")
    validations.wait(1)
    page.fill("#json", '{\n  "kind": "classifier",\n  "epochs": 5,,\n}')
    banner = page.locator("#stale")
    expect(banner).to_be_visible()
    expect(banner).to_contain_text("Line 3, column 15")
    expect(page.locator("#json-fault")).to_contain_text("Line 3, column 15")
    assert page.locator("#form").evaluate("form => form.inert && getComputedStyle(form).opacity < 0.6")
    expect(page.locator("#verdict")).to_have_text("The JSON is not valid")
    expect(page.locator("#start")).to_be_disabled()
    assert set(page.locator("#cost dd").all_inner_texts()) == {"–"}
    validations.release_all()
    assert set(page.locator("#cost dd").all_inner_texts()) == {"–"}
    assert serious_violations(page) == []
    page.get_by_role("button", name="curl").click()
    expect(page.locator("#curl")).to_have_text("The JSON is not valid.")
    banner.get_by_role("button", name="Restore the last valid version").click()
    wait_until_accepted(page)
    expect(banner).to_be_hidden()
    assert not page.locator("#form").evaluate("form => form.inert")
    page.get_by_role("button", name="JSON", exact=True).click()
    assert form_json(page) == {"kind": "classifier", "epochs": 8}
    expect(page.locator("#field-epochs")).to_have_value("8")
    # The browser's parser accepts a duplicate key, the service does not.
    page.fill("#json", '{"kind": "classifier",\n "epochs": 5, "epochs": 6}')
    expect(banner).to_contain_text("Line 2, column 2")
    page.fill("#json", '{"kind": "classifier",\n "epochs": 6}')
    wait_until_accepted(page)
    expect(page.locator("#field-epochs")).to_have_value("6")
    page.fill("#json", '{"kind": "classifyer"}')
    expect(page.locator("#verdict")).to_have_text("1 field needs attention")
    form.error_log.expected = ["400", "422"]
    page.locator("#faults").get_by_role("button", name="Use classifier").click()
    wait_until_accepted(page)


@pytest.mark.stack
@pytest.mark.parametrize(
    ("kind", "preset"),
    [pytest.param(*names, marks=() if names in ROUND_TRIPS else pytest.mark.nightly) for names in EVERY_PRESET],
)
def test_form_and_json_round_trip(form: Visit, kind: str, preset: str) -> None:
    page = form.page
    choose(page, kind, preset)
    open_all_sections(page)
    wait_until_accepted(page)
    rng = np.random.default_rng(sum(map(ord, kind + preset)))
    numbers = page.locator("#sections input[type=number]:visible")
    for index in rng.choice(numbers.count(), size=min(8, numbers.count()), replace=False):
        field = numbers.nth(int(index))
        value = float(field.input_value() or 1)
        field.fill(str(int(value) + 1 if value == int(value) and value >= 1 else value / 2))
    page.locator("#field-shuffle").click()
    page.fill("#field-tags", "a, b")
    form.error_log.expected = ["422"]  # not every combination is valid
    wait_until_checked(page)
    text, values = page.input_value("#json"), page.evaluate(VISIBLE_FIELDS)
    form.open("/ui/new")
    wait_until_accepted(page)
    open_all_sections(page)
    page.fill("#json", text)
    wait_until_checked(page)
    assert page.evaluate(VISIBLE_FIELDS) == values
    assert page.input_value("#json") == text
    # A later edit in the form changes only its own field.
    page.fill("#field-seed", "77")
    assert form_json(page) == json.loads(text) | {"seed": 77}


def test_a_complete_spec_is_shown_field_by_field(form: Visit, http_of: Callable[[Visit], httpx.Client]) -> None:
    page = form.page
    for preset in http_of(form).get("/presets").json()["data"]:
        page.fill("#json", json.dumps(preset["spec"]))
        wait_until_accepted(page)
        open_all_sections(page)
        shown = page.evaluate(VISIBLE_FIELDS)
        assert len(shown) > 25
        for field, value in shown.items():
            expected: Any = preset["spec"]
            for part in field.removeprefix("field-").split("-"):
                expected = expected[int(part)] if isinstance(expected, list) else expected.get(part)
            if isinstance(expected, dict):
                expected = expected.get("name", expected.get("type", True))
            if isinstance(expected, list):
                expected = ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in expected)
            is_number = isinstance(expected, int | float) and not isinstance(expected, bool)
            assert (float(value) if is_number else value) == (
                (False if isinstance(value, bool) else "") if expected is None else expected
            ), field


def test_suggestions_are_applied_with_one_click(form: Visit) -> None:
    page = form.page
    form.error_log.expected = ["422"]
    page.fill("#json", json.dumps({"kind": "classifier", "epoch": 5, "optimizer": {"name": "addam"}}))
    page.locator("#faults").get_by_role("button", name="Use epochs").click()
    page.locator("#sections").get_by_role("button", name="Use adam", exact=True).click()
    wait_until_accepted(page)
    assert form_json(page) == {"kind": "classifier", "optimizer": {"name": "adam"}, "epochs": 5}


def test_a_job_like_another_gets_a_unique_name(form: Visit, http_of: Callable[[Visit], httpx.Client]) -> None:
    http = http_of(form)
    first = http.post("/jobs", json={"kind": "classifier", "name": "first", "epochs": 7}).json()
    http.post("/jobs", json={"kind": "classifier", "name": "first-2"}).raise_for_status()
    page = form.open(f"/ui/new?like={first['id']}")
    wait_until_accepted(page)
    expect(page.locator("#field-name")).to_have_value("first-3")
    expect(page.locator("#field-epochs")).to_have_value("7")


def test_the_layout_does_not_move_when_the_verdict_changes(form: Visit) -> None:
    page = form.page
    form.error_log.expected = ["422"]
    offsets = "['#start', '#cost', '#json', '#field-epochs'].map((id) => document.querySelector(id).offsetTop)"
    before = page.evaluate(offsets)
    page.fill("#field-epochs", "0")
    expect(page.locator("#verdict")).to_have_text("1 field needs attention")
    assert page.evaluate(offsets) == before
    page.fill("#field-epochs", "4")
    wait_until_accepted(page)
    assert page.evaluate(offsets) == before


def test_the_estimated_duration_is_a_range_if_one_is_known(form: Visit) -> None:
    page = form.page
    estimates: dict[str, Any] = {}

    def estimate(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | estimates)

    page.route("**/jobs?dry_run=true", estimate)
    for epochs, (seconds, low, high, text) in enumerate(
        (
            (21, None, None, "about 21 s"),
            (50, 40, 70, "40 to 70 s"),
            (50, 40, 200, "40 s to 3 min"),
            (50, 50.1, 50.2, "about 50 s"),
            (2, 0.4, 8, "up to 8 s"),
        ),
        20,
    ):
        estimates |= {"estimated_seconds": seconds, "estimated_seconds_low": low, "estimated_seconds_high": high}
        page.locator("#field-epochs").fill(str(epochs))
        expect(page.locator("#cost dd").first).to_have_text(text)


def test_settings_are_found_by_keyword(form: Visit) -> None:
    page = form.page
    page.get_by_label("Find a setting").fill("momentum")
    expect(page.locator("#field-optimizer-momentum")).to_be_visible()
    expect(page.locator("#field-epochs")).to_be_hidden()
    page.get_by_label("Find a setting").fill("early stopping")
    expect(page.get_by_label("Early stopping")).to_be_visible()
    page.get_by_label("Find a setting").fill("initializer")
    expect(page.locator("#field-initializer")).to_be_visible()
    expect(page.locator("#field-layers")).to_be_hidden()
    for text, field in {
        "lr": "optimizer-learning_rate",
        "bs": "batch_size",
        "dropout": "layers",
        "bn": "layers",
    }.items():
        page.get_by_label("Find a setting").fill(text)
        expect(page.locator(f"#field-{field}")).to_be_visible()
        expect(page.locator("#field-seed")).to_be_hidden()
    expect(page.locator("#found")).to_have_text("batch norm: 1 setting")
    page.get_by_label("Find a setting").fill("")
    expect(page.locator("#field-epochs")).to_be_visible()


def test_edits_survive_a_reload_and_a_visit_of_another_page(form: Visit) -> None:
    page = form.page
    page.fill("#field-epochs", "9")
    page.get_by_role("button", name="Try several values of Seed").click()
    edited = page.input_value("#json")
    page.reload()
    expect(page.locator("#json")).to_have_value(edited)
    expect(page.locator("#field-epochs")).to_have_value("9")
    page.goto(f"{form.url}/ui/datasets")
    page.go_back()
    expect(page.locator("#json")).to_have_value(edited)
    page.fill("#json", '{"kind": "gan", ')
    page.reload()
    expect(page.locator("#json")).to_have_value('{"kind": "gan", ')
    expect(page.locator("#stale")).to_be_visible()
    page.goto(f"{form.url}/ui/new")
    wait_until_accepted(page)
    assert form_json(page) == {"kind": "classifier"}


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_the_form_is_accessible_and_fits_the_window(
    open_window: Callable[..., Visit], serve_bare: Callable[..., Any], width: int, scheme: str
) -> None:
    visit = open_window(serve_bare().url, width=width, height=844, color_scheme=scheme)
    visit.error_log.expected = ["422"]
    page = visit.open("/ui/new")
    wait_until_accepted(page)
    choose(page, "gan", "best")
    wait_until_accepted(page)
    open_all_sections(page)
    page.fill("#field-discriminator-layers-0-kernel", "31")
    expect(page.locator("#field-discriminator-layers-0-kernel-fault")).to_be_visible()
    for help_button in page.locator("button.help:visible").all():
        help_button.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious_violations(page) == []
    page.get_by_role("button", name="Insert a layer before layer 2").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert serious_violations(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.stack
def test_a_job_is_submitted_only_once(form: Visit) -> None:
    page = form.page
    submitted = hold(page, r"POST /jobs$")
    page.get_by_role("button", name="Start training").click()
    submitted.wait(1)
    page.locator("#field-epochs").fill("7")
    wait_until_checked(page)
    expect(page.locator("#start")).to_be_disabled()
    page.evaluate("document.querySelector('#new').requestSubmit()")
    wait_for_sent_requests(page)
    assert len(submitted.requests) == 1
    submitted.release_all()
    page.wait_for_url("**/ui/jobs/job_*")


def test_an_unchanged_spec_is_resubmitted_with_the_same_idempotency_key(form: Visit) -> None:
    page = form.page
    form.error_log.expected.append("net::ERR_FAILED")
    keys: list[str] = []

    def lose(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        route.abort()

    page.route(re.compile("/jobs$"), lose)
    for epochs in ("5", "5", "6"):
        page.locator("#field-epochs").fill(epochs)
        wait_until_accepted(page)
        page.get_by_role("button", name="Start training").click()
        expect(page.locator("#toasts .error").last).to_contain_text("does not respond")
        expect(page.locator("#start")).to_be_enabled()
    assert len(keys) == 3
    assert keys[0] == keys[1] != keys[2]


def test_a_form_that_cannot_be_loaded_says_so(
    open_window: Callable[..., Visit], serve_bare: Callable[..., Any]
) -> None:
    visit = open_window(serve_bare().url)
    visit.error_log.expected.append("net::ERR_FAILED")
    visit.page.route("**/presets", lambda route: route.abort())
    page = visit.open("/ui/new")
    expect(page.locator("#verdict")).to_have_text("The form could not be loaded")
    expect(page.locator("#faults")).to_contain_text("The service does not respond.")
    page = visit.open("/ui/new?like=job_01J00000000000000000000000")
    expect(page.locator("#verdict")).to_have_text("The form could not be loaded")
    page.unroute("**/presets")
    visit.error_log.expected.append("status of 404")
    page.get_by_role("button", name="Reload the page").click()
    expect(page.locator("#toasts")).to_contain_text("The spec of the other job could not be loaded.")
    wait_until_accepted(page)


def test_the_default_preset_and_the_cards_depend_on_the_dataset(form: Visit, http_of: Any, tmp_path: Path) -> None:
    page = form.page
    cards = page.locator("#presets .preset")
    expect(cards.filter(has_text="default")).to_contain_text("fast")
    page.get_by_label("Dataset", exact=True).select_option("iris")
    wait_until_accepted(page)
    badge = page.locator("#presets button:has(.tag)")
    expect(badge).to_have_count(1)
    expect(badge).to_have_attribute("aria-label", "Preset table, default")
    expect(badge).to_have_attribute("aria-pressed", "true")
    expect(page.locator("details[data-title^='Data range'] .count")).to_have_text("")
    expect(cards).to_have_count(1)
    expect(cards).to_contain_text("iris")
    expect(cards).not_to_contain_text("breast-cancer")
    page.get_by_label("Dataset", exact=True).select_option("mnist-10k")
    expect(page.locator("#presets button:has(.tag)")).to_have_attribute("value", "fast")
    expect(page.locator("#presets button[value=table]")).to_have_count(0)
    expect(cards.filter(has_text="conv")).not_to_contain_text("fashion-mnist")
    with http_of(form) as http:
        photos = coloured_shapes.write_archive(tmp_path / "photos.zip", 24, side=16).read_bytes()
        http.post("/datasets", data={"name": "photos"}, files={"archive": ("a.zip", photos)}).raise_for_status()
    page.reload()
    page.get_by_label("Dataset", exact=True).select_option("photos")
    expect(cards.filter(has_text="conv")).not_to_contain_text("mnist")


def test_settings_of_images_are_hidden_for_a_table(
    open_window: Callable[..., Visit], serve_bare: Callable[..., Any]
) -> None:
    page = open_window(serve_bare().url).open("/ui/new?dataset=breast-cancer")
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    open_all_sections(page)
    expect(page.locator("#field-batch_size")).to_be_visible()
    expect(page.locator("#field-augmentation-cutout")).to_be_hidden()
    page.locator("#field-dataset-name").select_option("mnist-10k")
    expect(page.locator("#field-augmentation-cutout")).to_be_visible()
