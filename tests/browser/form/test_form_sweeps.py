"""The form for a new job when it is a sweep: its search, halving, objective and limits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import serious_violations
from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.conftest import Visit
from tests.browser.job_form import form_json
from tests.browser.waiting import http_client, until

SIZES: Final = pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
OPTIONS: Final[dict[str, Any]] = {
    "objective": {"metric": "val_loss", "goal": "minimize", "over_seeds": "median"},
    "search": {"name": "tpe", "trials": 12, "seed": 7},
    "halving": {"min_epochs": 2, "factor": 2, "mode": "asynchronous"},
    "parallel": 3,
    "max_failed": 4,
    "budget": {"epochs": 90},
    "reuse": "exact",
}
FULL_SWEEP: Final[dict[str, Any]] = {
    "name": "every part",
    "base": {"kind": "classifier", "epochs": 9},
    "seeds": [3, 4],
    "space": {"optimizer.learning_rate": {"log": [0.001, 0.1]}, "batch_size": {"int": [50, 100], "step": 25}},
    **OPTIONS,
}
FIELD_VALUES: Final = {
    "Search": "tpe",
    "Trials": "12",
    "Search seed": "7",
    "Minimum epochs": "2",
    "Factor": "2",
    "Mode": "asynchronous",
    "Metric to optimize": "val_loss",
    "Goal": "minimize",
    "Over the seeds": "median",
    "Parallel trials": "3",
    "Epoch budget": "90",
    "Allowed failures": "4",
    "Reuse results": "exact",
}
"""What the fields of the form show for ``OPTIONS``."""


def field(page: Page, label: str) -> Any:
    return page.locator("#sweep").get_by_label(label, exact=True)


def wait_until_ready(page: Page, trials: int, jobs: int) -> None:
    expect(page.locator("#verdict")).to_have_text(f"Ready to start: {trials} trials, {jobs} jobs")


def set_field(page: Page, label: str, value: str) -> None:
    control = field(page, label)
    if control.evaluate("field => field.tagName") == "SELECT":
        control.select_option(value)
    else:
        control.fill(value)


def open_sweep(open_window: Callable[..., Visit], bare: WebProcess, document: dict[str, Any], **options: Any) -> Visit:
    visit = open_window(bare.url, **options)
    page = visit.open("/ui/new")
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    page.locator("#json").fill(json.dumps(document))
    return visit


@SIZES
def test_every_part_of_a_sweep_is_filled_in_sent_and_read_back(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    start = {name: part for name, part in FULL_SWEEP.items() if name not in OPTIONS} | {"search": {"name": "grid"}}
    start["space"] = {"/batch_size": {"choice": [50, 100]}}  # a pointer, which the form replaces
    space = {"batch_size": start["space"]["/batch_size"]}
    visit = open_sweep(open_window, serve_bare(), start, width=width, color_scheme=scheme)
    page = visit.page
    wait_until_ready(page, 2, 4)
    for hidden in ("Trials", "Search seed", "Factor", "Mode"):
        expect(field(page, hidden)).to_be_hidden()
    field(page, "Halving: stop the worst trials early").check()
    expect(field(page, "Minimum epochs")).to_have_value("1")
    expect(page.locator("#sweep")).to_contain_text("Decides when all trials have reached a rung.")
    page.locator("#sweep summary").click()
    for label, value in FIELD_VALUES.items():
        set_field(page, label, value)
    wait_until_ready(page, 12, 24)
    expect(page.locator("#sweep")).to_contain_text("Promotes a trial as soon as it is among the best so far.")
    expect(page.locator("#sweep summary")).to_contain_text("7 set")
    assert form_json(page) == FULL_SWEEP | {"space": space}
    page.get_by_role("button", name="curl").click()
    expect(page.locator("#curl")).to_contain_text('"max_failed": 4')
    page.get_by_role("button", name="Python").click()
    expect(page.locator("#python")).to_contain_text('"mode": "asynchronous"')
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Start sweep").click()
    expect(page.locator("#trials tbody tr")).to_have_count(3)
    [sweep] = http_client.get(f"{visit.url}/sweeps").json()["data"]
    stored = http_client.get(f"{visit.url}/sweeps/{sweep['id']}").json()
    assert stored["spec"] == FULL_SWEEP | {"space": space}
    assert {name: stored["resolved"][name] for name in OPTIONS} == OPTIONS

    page.get_by_role("link", name="New sweep with this spec").click()
    wait_until_ready(page, 12, 24)
    assert form_json(page) == stored["spec"] | {"name": "every part-2"}
    page.locator("#sweep summary").click()
    for label, value in FIELD_VALUES.items():
        expect(field(page, label)).to_have_value(value)
    expect(field(page, "Halving: stop the worst trials early")).to_be_checked()
    assert serious_violations(page) == []


def test_sweep_json_fills_the_form_which_keeps_unedited_parts(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    page = open_sweep(open_window, serve_bare(), FULL_SWEEP, width=1440).page
    wait_until_ready(page, 12, 24)
    page.locator("#sweep summary").click()
    for label, value in FIELD_VALUES.items():
        expect(field(page, label)).to_have_value(value)
    expect(page.locator("#sweep [data-space]")).to_contain_text("batch_size: 50 to 100, step 25")
    field(page, "Factor").fill("")
    field(page, "Allowed failures").fill("0")
    field(page, "Epoch budget").fill("")
    field(page, "Metric to optimize").fill("")
    wait_until_ready(page, 12, 24)
    expected = FULL_SWEEP | {"halving": {"min_epochs": 2, "mode": "asynchronous"}, "max_failed": 0}
    expected["objective"] = {"metric": "val_accuracy", "goal": "minimize", "over_seeds": "median"}
    del expected["budget"]
    assert form_json(page) == expected
    field(page, "Halving: stop the worst trials early").uncheck()
    field(page, "Search").select_option("random")
    wait_until_ready(page, 12, 24)
    del expected["halving"]
    assert form_json(page) == expected | {"search": {"name": "random", "trials": 12, "seed": 7}}


@SIZES
def test_invalid_sweep_input_is_marked_at_its_field(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    visit = open_sweep(open_window, serve_bare(), FULL_SWEEP, width=width, color_scheme=scheme)
    visit.error_log.expected = ["422"]
    page = visit.page
    wait_until_ready(page, 12, 24)
    more = page.locator("#sweep details")
    invalid = {
        "Minimum epochs": ("9", "Must be less than the epochs of a trial, 9"),
        "Allowed failures": ("none", "Must be a valid integer"),
        "Epoch budget": ("3", "Is too small for one trial"),
        "Metric to optimize": ("val_acuracy", "val_accuracy"),
    }
    more.locator("summary").click()
    for label, (value, message) in invalid.items():
        valid_value = field(page, label).input_value()
        field(page, label).fill(value)
        fault = page.locator(f"#{field(page, label).get_attribute('id')}-fault")
        expect(fault).to_contain_text(message)
        expect(field(page, label)).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#sweep [aria-invalid]")).to_have_count(1)
        expect(page.locator("#verdict")).to_have_text("1 field needs attention")
        expect(page.locator("#faults")).to_be_hidden()
        expect(page.locator("#start")).to_be_disabled()
        if label == "Metric to optimize":
            assert serious_violations(page) == []
            page.get_by_role("button", name="Use val_accuracy").click()
        else:
            field(page, label).fill(valid_value)
        wait_until_ready(page, 12, 24)
        expect(page.locator("#sweep .fault").filter(visible=True)).to_have_count(0)

    more.locator("summary").click()
    malformed = {"search": {"name": "tpe", "trials": 0, "seed": -1}, "halving": {"factor": 1, "mode": "sync"}}
    page.locator("#json").fill(json.dumps(FULL_SWEEP | malformed | {"parallel": 0, "reuse": "all"}))
    marked = ("Trials", "Search seed", "Minimum epochs", "Factor", "Mode")
    for label in (*marked, "Parallel trials", "Reuse results"):  # the others are below "More", which opens
        expect(field(page, label)).to_have_attribute("aria-invalid", "true")
        expect(page.locator(f"#{field(page, label).get_attribute('id')}-fault")).to_be_visible()
    expect(page.locator("#faults")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    one_trial = {"base": {"kind": "classifier"}, "seeds": [0, 1], "space": {}, "halving": {"min_epochs": 1}}
    page.locator("#json").fill(json.dumps(one_trial))
    expect(page.locator("#sweep-halving-fault")).to_contain_text("more than one trial")
    expect(field(page, "Search")).to_be_hidden()
    grid = {"base": {"kind": "classifier"}, "space": {"/batch_size": {"int": [1, 3000]}}}
    page.locator("#json").fill(json.dumps(grid))
    expect(page.locator("#sweep-space-fault")).to_contain_text("at most 2,000 are allowed: use random or tpe")


@pytest.mark.parametrize("kind", ["classifier", "gan"])
def test_empty_sweep_fields_show_the_service_defaults(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], kind: str
) -> None:
    bare = serve_bare()
    document = {"base": {"kind": kind, "epochs": 27}, "space": {"batch_size": {"choice": [50, 100]}}, "seeds": [0, 1]}
    page = open_sweep(open_window, bare, document, width=1440).page
    wait_until_ready(page, 2, 4)
    assert form_json(page) == document
    page.locator("#sweep summary").click()
    expect(page.locator("#sweep summary")).to_have_text("More")
    field(page, "Halving: stop the worst trials early").check()
    until(page, "JSON.parse(document.querySelector('#json').value).halving !== undefined")
    halving = form_json(page)["halving"]
    field(page, "Search").select_option("random")
    searched = document | {"halving": halving, "search": {"name": "random", "trials": 16}}
    wait_until_ready(page, 16, 32)
    assert form_json(page) == searched
    assert halving == {"min_epochs": 3 if kind == "classifier" else 5}  # frechet_distance is measured every 5 epochs
    answer = http_client.post(f"{bare.url}/sweeps?dry_run=true", json=searched).raise_for_status().json()
    resolved = answer["resolved"]
    hints = {label: field(page, label).get_attribute("placeholder") for label in FIELD_VALUES}
    assert hints["Metric to optimize"] == resolved["objective"]["metric"]
    assert hints["Search seed"] == str(resolved["search"]["seed"])
    assert hints["Factor"] == str(resolved["halving"]["factor"])
    assert hints["Parallel trials"] == str(resolved["parallel"])
    assert hints["Allowed failures"] == hints["Epoch budget"] == "no limit"
    assert resolved["max_failed"] is resolved["budget"] is None
    assert field(page, "Mode").input_value() == resolved["halving"]["mode"]
    assert field(page, "Over the seeds").input_value() == resolved["objective"]["over_seeds"]
    assert field(page, "Reuse results").input_value() == resolved["reuse"]


@pytest.mark.parametrize("width", [1440, 390])
def test_several_values_fit_into_their_field(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int
) -> None:
    page = open_window(serve_bare().url, width=width).open("/ui/new")
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    page.get_by_role("button", name="Try several values of Learning rate").click()
    field = page.locator(".tries:visible input").first
    field.fill("0.00067, 0.002, 0.006")
    assert field.evaluate("field => field.scrollWidth <= field.clientWidth")


def test_prefilled_values_to_try_follow_the_dataset_until_they_are_edited(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    bare = serve_bare()
    page = open_window(bare.url).open("/ui/new?several=true")

    def default_rate(dataset: str) -> str:
        spec = {"kind": "classifier", "dataset": {"name": dataset}}
        resolved = http_client.post(f"{bare.url}/jobs?dry_run=true", json=spec).json()["resolved"]
        return f"{resolved['optimizer']['learning_rate']:g}"

    values = page.get_by_label("Values of Learning rate", exact=True)
    dataset = page.locator("#field-dataset-name")
    assert default_rate("mnist-10k") != default_rate("breast-cancer")
    for name in ("mnist-10k", "breast-cancer"):
        dataset.select_option(name)
        expect(values).to_have_value(re.compile(rf"^[\d.]+, {re.escape(default_rate(name))}, [\d.]+$"))
        wait_until_ready(page, 3, 9)
    expect(page.locator("#cost dt", has_text="Time of all jobs, one at a time")).to_be_visible()
    values.fill("0.01, 0.03")
    dataset.select_option("mnist-10k")
    wait_until_ready(page, 2, 6)
    assert form_json(page)["space"] == {"optimizer.learning_rate": {"choice": [0.01, 0.03]}}
    expect(page.locator("header nav [aria-current=page]")).to_have_text("Sweeps")
    page.get_by_label("Values of Seed", exact=True).fill("0-3, 9")
    wait_until_ready(page, 2, 10)
    assert form_json(page)["seeds"] == [0, 1, 2, 3, 9]
