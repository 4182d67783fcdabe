"""The form for a sweep and the page of a sweep, on a service whose jobs stay queued."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

import pytest
from click.testing import CliRunner
from playwright.sync_api import expect

from benchmarks.service.rows import end_sweep
from service.cli import main
from service.sweeps import decisions
from service.web.docs.examples import BODIES
from tests.browser.accessibility import serious_violations
from tests.browser.apps.simulated_worker import Service, WebProcess
from tests.browser.conftest import Visit
from tests.browser.job_list.test_jobs import MAX_CPU_SECONDS
from tests.browser.main_thread import cpu_seconds_to
from tests.browser.waiting import http_client, until

READ_LOAD_TIMES = """[Number(document.documentElement.dataset.ready), ...performance.getEntriesByType("resource")
    .filter(({ name }) => /sweeps[/]results.js|chart.js|[/](trials|curves|importance|stream)/.test(name))
    .map(({ startTime }) => startTime)]"""
"""When the first rows were drawn, and when the page began to load the parts around them."""

FIND_CROSSED_VALUES = """[...document.querySelectorAll("#coordinates text:not(.axis-name)")].filter((text) => {
    const box = text.getBBox();
    const isIn = ({ x, y }) => x > box.x && x < box.x + box.width && y > box.y && y < box.y + box.height;
    return [...document.querySelectorAll("#coordinates path")].some((path) =>
        Array.from({ length: 2000 }, (_, at) => path.getPointAtLength((path.getTotalLength() * at) / 1999)).some(isIn));
}).map((text) => text.textContent)"""
"""Returns the values at axes that a line crosses."""


@pytest.mark.stack
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), pytest.param(360, "dark", marks=pytest.mark.nightly)])
def test_a_sweep_is_checked_started_paused_cancelled_and_deleted(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    visit = open_window(serve_bare().url, width=width, color_scheme=scheme)
    visit.error_log.expected = ["422", "404"]  # requests sent just before the sweep was deleted
    page = visit.open("/ui/sweeps")
    expect(page.locator("#sweeps")).to_contain_text("No sweeps yet")
    assert serious_violations(page) == []
    page.get_by_role("link", name="New sweep").click()
    expect(page.locator("h1")).to_have_text("New sweep")
    expect(page.locator("#verdict")).to_have_text("Ready to start: 3 trials, 9 jobs")
    expect(page.get_by_label("Values of Learning rate", exact=True)).to_have_value("0.13, 0.4, 1.2")
    page.locator("#presets button", has_text="best").click()
    expect(page.get_by_label("Values of Learning rate", exact=True)).not_to_have_value("0.13, 0.4, 1.2")
    expect(page.locator("#discarded")).to_contain_text("the values to try were discarded")
    expect(page.locator("#sweep [data-space]")).to_contain_text("seed: 0, 1, 2")
    expect(page.locator("#verdict")).to_have_text("Ready to start: 3 trials, 9 jobs")
    document = BODIES["SweepSpec"]["rates"]
    page.locator("#json").fill(json.dumps(document))
    expect(page.locator("#verdict")).to_have_text("Ready to start: 9 trials, 18 jobs")
    misspelt = document | {"space": document["space"] | {"/optimiser/momentum": {"choice": [0.5, 0.9]}}}
    page.locator("#json").fill(json.dumps(misspelt))
    expect(page.locator("#faults")).to_contain_text("does not exist in the spec")
    assert serious_violations(page) == []
    page.locator("#json").fill(json.dumps(document))
    expect(page.locator("#verdict")).to_have_text("Ready to start: 9 trials, 18 jobs")
    page.get_by_role("button", name="Start sweep").click()
    expect(page.locator("h1")).to_have_text("rates")
    expect(page.locator("#trials tbody tr")).to_have_count(8)
    expect(page.locator("#decisions li").first).to_contain_text("Trial 7 starts with")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious_violations(page) == []
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_have_text("paused")
    expect(page.locator("#trials .status")).to_have_text(["paused"] * 8)
    expect(page.locator("#tiles")).to_contain_text("8 paused")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("cancelled")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_have_text("Sweeps")


@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1280, "dark", marks=pytest.mark.nightly), (390, "light")])
def test_several_values_of_a_field_make_a_sweep_that_is_one_row_in_the_job_list(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    visit = open_window(serve_bare().url, width=width, color_scheme=scheme)
    visit.error_log.expected = ["422"]  # a rate of zero
    page = visit.open("/ui/new")
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    page.get_by_role("button", name="Try several values of Learning rate").click()
    values = page.get_by_label("Values of Learning rate", exact=True)
    expect(values).to_be_focused()
    values.fill("0, 0.1")
    expect(page.locator("#field-optimizer-learning_rate-fault")).to_contain_text("greater than 0")
    values.fill("0.01, 0.1")
    page.get_by_role("button", name="Try several values of Seed").click()
    page.get_by_label("Values of Seed", exact=True).fill("3, 4")
    expect(page.locator("#verdict")).to_have_text("Ready to start: 2 trials, 4 jobs")
    form_json = json.loads(page.locator("#json").input_value())
    space = {"optimizer.learning_rate": {"choice": [0.01, 0.1]}}
    assert form_json == {"base": {"kind": "classifier"}, "space": space, "seeds": [3, 4]}
    page.get_by_label("How to try Learning rate").select_option("log range")
    expect(page.locator("#sweep-search-name")).to_have_value("random")
    page.get_by_label("How to try Learning rate").select_option("values")
    page.locator("#sweep-search-name").select_option("grid")
    page.locator("#sweep summary").click()
    page.get_by_label("Metric to optimize").fill("val_loss")
    page.get_by_label("Parallel trials").fill("2")
    page.get_by_label("Epoch budget").fill("50")
    page.keyboard.press("Tab")
    more = {"objective": {"metric": "val_loss"}, "parallel": 2, "budget": {"epochs": 50}}
    until(page, "JSON.parse(document.querySelector('#json').value).budget !== undefined")
    document = json.loads(page.locator("#json").input_value())
    assert {name: document.get(name) for name in more} == more
    assert serious_violations(page) == []
    page.get_by_role("button", name="curl").click()
    expect(page.locator("#curl")).to_contain_text("/sweeps")
    page.get_by_role("button", name="Use one value of Seed").click()
    expect(page.locator("#verdict")).to_have_text("Ready to start: 2 trials, 2 jobs")
    page.get_by_role("button", name="Start sweep").click()
    expect(page.locator("#trials tbody tr")).to_have_count(2)

    page.get_by_role("button", name="Columns").click()
    page.get_by_label("Jobs by seed").uncheck()
    page.get_by_role("button", name="Done").click()
    expect(page.locator("#trials thead")).not_to_contain_text("Jobs by seed")
    page.reload()
    expect(page.locator("#trials tbody tr")).to_have_count(2)
    expect(page.locator("#trials thead")).not_to_contain_text("Jobs by seed")

    visit.open("/")
    row = page.locator("tr.group")
    expect(row).to_contain_text("sweep, 2 jobs")
    expect(row).to_contain_text("0 / 2 trials")
    expect(page.locator("tr.job")).to_have_count(0)
    row.get_by_role("button").click()
    expect(page.locator("tr.job")).to_have_count(2)
    assert serious_violations(page) == []
    row.get_by_role("button").click()
    expect(page.locator("tr.job")).to_have_count(0)
    page.locator("#statuses button", has_text="Queued").click()  # a filter by status lists the jobs of sweeps
    expect(page.locator("tr.job")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    ids = [job["id"] for job in http_client.get(f"{visit.url}/jobs").json()["data"]]
    visit.open(f"/ui/compare?jobs={','.join(ids)}")
    expect(page.locator("#compared .status")).to_have_text(["queued", "queued"])
    [sweep] = http_client.get(f"{visit.url}/sweeps").json()["data"]
    http_client.post(f"{visit.url}/sweeps/{sweep['id']}/cancel").raise_for_status()
    stopped = ["stopped by sweep", "stopped by sweep"]
    expect(page.locator("#compared .status")).to_have_text(stopped)
    page.reload()
    expect(page.locator("#compared .status")).to_have_text(stopped)
    visit.open("/")
    page.locator("#statuses button", has_text="Stopped").click()
    expect(page.locator("tr.job .status")).to_have_text(stopped)
    expect(page.locator("#statuses button", has_text="Stopped").locator(".count")).to_have_text("2")
    expect(page.locator("#statuses button", has_text="Cancelled")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_sweep_shows_its_epochs_and_no_axis_value_covers_a_line(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    service = Service(serve_bare())
    space = {"/batch_size": {"choice": [8, 16]}, "/optimizer/learning_rate": {"choice": [0.001, 0.0439443]}}
    document = {"base": {"kind": "classifier", "epochs": 4}, "space": space, "seeds": [0, 1], "halving": None}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    for accuracy in (0.84, 0.81, 0.79):
        worker = service.claim()
        for epoch in range(1, 5):
            worker.commit_epoch(epoch, metrics={"val_accuracy": accuracy, "val_loss": 1.0})
        worker.succeed()
    page = open_window(service.url, width=width, color_scheme=scheme).open(sweep["urls"]["page"])
    tile = page.locator("#tiles .tile", has_text="Epochs")
    expect(tile).to_contain_text("12 of at most 32")
    expect(tile).to_contain_text("12 trained")
    assert tile.locator("progress").evaluate("bar => bar.value / bar.max") == 12 / 32
    expect(page.locator("#tiles")).to_contain_text("0 of 4")
    expect(page.get_by_role("link", name="mnist-10k")).to_be_visible()

    end_sweep(service.core.database, sweep["id"], ["val_accuracy", "val_loss"])
    page.reload()
    expect(tile.locator(".value")).to_have_text("32")
    expect(page.locator("#coordinates path")).to_have_count(4)
    assert page.locator("#coordinates").evaluate("box => box.scrollWidth <= box.clientWidth"), "all axes are in view"
    values = page.locator("#coordinates text:not(.axis-name)")
    assert {"8", "16", "0.001", "0.04394"} < set(values.all_text_contents())
    expect(values).to_have_count(6)
    assert page.evaluate(FIND_CROSSED_VALUES) == []
    assert serious_violations(page) == []


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_an_asynchronous_sweep_shows_an_upper_bound_of_epochs_until_it_ends(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    service = Service(serve_bare())
    document = {"base": {"kind": "classifier", "epochs": 4}, "space": {"/batch_size": {"choice": [8, 16, 32, 64]}}}
    document |= {"halving": {"min_epochs": 1, "factor": 2, "mode": "asynchronous"}}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    page = open_window(service.url, width=width, color_scheme=scheme).open(sweep["urls"]["page"])
    tile = page.locator("#tiles .tile", has_text="Epochs")
    expect(tile.locator(".value")).to_have_text(f"0 of at most {4 + 3 + 2 * 2}")
    expect(tile).to_contain_text("Asynchronous halving usually takes fewer.")
    assert serious_violations(page) == []

    end_sweep(service.core.database, sweep["id"], ["val_accuracy", "val_loss"])
    page.reload()
    expect(page.locator("#status")).to_have_text("succeeded")
    expect(tile.locator(".value")).to_have_text(re.compile(r"^\d+$"))
    expect(tile).not_to_contain_text("fewer")
    expect(tile.locator("progress")).to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_every_trial_is_a_visible_line_and_its_result_is_in_view(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    """Of rates a factor of ten apart, the middle one is in the middle; no line is where a frame would be."""
    service = Service(serve_bare())
    document = {"base": {"kind": "classifier", "epochs": 1}, "seeds": [0, 1], "halving": None}
    document |= {"space": {"/optimizer/learning_rate": {"choice": [0.0001, 0.001, 0.01]}}}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    end_sweep(service.core.database, sweep["id"], ["val_accuracy", "val_loss"])
    page = open_window(service.url, width=width, color_scheme=scheme).open(sweep["urls"]["page"])
    expect(page.locator("#coordinates path")).to_have_count(3)
    lines = page.locator("#coordinates path").evaluate_all("all => all.map((one) => one.getAttribute('d'))")
    start_heights = sorted(float(line.split("L")[0].split(" ")[1]) for line in lines)
    axis = page.locator("#coordinates line").first
    top, bottom = (float(axis.get_attribute(end) or 0) for end in ("y1", "y2"))
    assert start_heights[1] == pytest.approx((start_heights[0] + start_heights[2]) / 2, abs=1)
    assert top + 5 < start_heights[0] < start_heights[2] < bottom - 5
    expect(page.locator("#coordinates .axis-name").first).to_have_text("learning_rate (log)")
    page.locator("#trials").scroll_into_view_if_needed()
    edge = page.locator(".scroll:has(#trials)").evaluate("one => one.getBoundingClientRect().right")
    for cell in page.locator("#trials td.value").all():
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= edge, "the result is in view without scrolling sideways"


@pytest.mark.stack
@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1440, "dark", marks=pytest.mark.nightly), (390, "light")])
def test_a_range_brushed_on_an_axis_selects_trials(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    service = Service(serve_bare())
    space = {"/batch_size": {"choice": [10, 20, 30, 40]}, "/optimizer/learning_rate": {"choice": [0.001, 0.1]}}
    document = {"base": {"kind": "classifier", "epochs": 2}, "seeds": [0, 1], "space": space}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    end_sweep(service.core.database, sweep["id"], ["val_accuracy", "val_loss"])
    page = open_window(service.url, width=width, color_scheme=scheme).open(sweep["urls"]["page"])
    rows, curves = page.locator("#trials tbody tr"), page.locator("#curves .series button")
    expect(curves).to_have_count(8)
    expect(curves.first).to_contain_text("batch_size 10, learning_rate 0.001")
    expect(page.locator("#coordinates .axis-name").first).to_have_text("batch_size")
    axis = page.get_by_role("slider", name="Select trials by batch_size")
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + 0.5 * box["height"], steps=3)
    page.mouse.up()
    expect(page.locator("#brushed")).to_have_text("4 of 8 trials selected")
    expect(rows).to_have_count(4)
    expect(curves).to_have_count(4)
    assert all(text.startswith(("batch_size 30", "batch_size 40")) for text in curves.all_inner_texts())
    assert page.locator("#coordinates path.out").count() == 4
    rate = page.get_by_role("slider", name="Select trials by learning_rate")
    rate.press("ArrowUp")
    expect(rows).to_have_count(2)
    slices = page.locator("#slices .dots")
    slices.first.scroll_into_view_if_needed()
    expect(slices.locator("a")).to_have_count(16)
    expect(slices.locator(".axis")).to_have_text(["batch_size", "optimizer.learning_rate (log scale)"])
    expect(slices.first.locator("text > title")).to_have_text(["10", "20", "30", "40"])
    expect(slices.first.locator(".whisker")).to_have_count(8)
    lines = page.locator("#coordinates path").evaluate_all(
        "all => all.map((one) => [one.dataset.trial, one.style.stroke])"
    )
    dots = slices.first.locator("a").evaluate_all(
        "all => all.map((one) => [one.dataset.job, one.firstChild.style.fill])"
    )
    shown = {trial: colour for trial, colour in lines if colour}
    assert len(set(shown.values())) == 2, "of the trials that are selected"
    assert shown == {trial: colour for trial, colour in dots if "series" in colour}
    slices.first.locator("a").first.hover()
    expect(page.locator("#coordinates path.lit")).to_have_count(1)
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    rate.press("Escape")
    expect(rows).to_have_count(4)
    axis.click()
    expect(rows).to_have_count(8)
    axis.press("ArrowDown")
    expect(rows).to_have_count(4)
    page.get_by_role("button", name="Show all trials").click()
    expect(rows).to_have_count(8)
    expect(curves).to_have_count(8)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_trials_are_selected_and_compared(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess], width: int, scheme: str
) -> None:
    service = Service(serve_bare())
    document = {"name": "sizes", "base": {"kind": "classifier", "epochs": 1}, "seeds": [0, 1], "halving": None}
    document |= {"space": {"/batch_size": {"choice": [8, 16, 32]}}}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    end_sweep(service.core.database, sweep["id"], ["val_accuracy", "val_loss"])
    best = http_client.get(f"{service.url}/sweeps/{sweep['id']}").json()["best_trial"]
    second, third = (trial for trial in range(3) if trial != best)
    page = open_window(service.url, width=width, color_scheme=scheme).open(sweep["urls"]["page"])
    with_best = page.get_by_role("link", name="Compare with the best")
    expect(page.locator("#picks-hint")).to_have_text("Tick trials to compare them with each other or with the best.")
    expect(with_best).to_be_hidden()
    page.get_by_label(f"Compare trial {second}").check()
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    with_best.click()
    expect(page.locator("#compared li")).to_have_count(4)
    expect(page.locator("#scatter-of")).to_have_value("last")  # as in the table of trials
    expect(page.locator("#sentences li").first).to_contain_text("2 pairs")
    expect(page.locator("#sentences li").first).to_contain_text("of the last epoch")
    expect(page.locator("#sentences-hint")).to_be_hidden()
    page = open_window(service.url, width=width, color_scheme=scheme).open(sweep["urls"]["page"])
    page.locator("#sort").select_option("trial")
    for trial in (best, second, third):
        page.get_by_label(f"Compare trial {trial}").check()
    page.get_by_role("link", name="Compare 3 trials").click()
    expect(page.locator("#sentences-hint")).to_contain_text("shown for two settings. These are 3")
    expect(page.locator("#sentences")).to_be_hidden()


def test_equal_results_of_all_seeds_have_an_interval_of_no_width(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    service = Service(serve_bare())
    document = {"base": {"kind": "classifier", "epochs": 1}, "seeds": [0, 1, 2], "halving": None}
    document |= {"space": {"/batch_size": {"choice": [8]}}}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    for _ in range(3):
        worker = service.claim()
        worker.commit_epoch(1, metrics={"val_accuracy": 17 / 21})
        worker.succeed()
    decisions.advance_all(service.core.database)
    page = open_window(service.url).open(sweep["urls"]["page"])
    interval = page.locator("#trials td.value .range").last
    expect(interval).to_have_text("95% CI over seeds: no width")
    expect(interval).to_have_attribute("title", re.compile("can be chance"))


def test_a_displayed_interval_of_percentages_ends_at_100_percent(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    """With two seeds, Student's interval of the mean extends far beyond."""
    service = Service(serve_bare())
    document = {"name": "wide", "base": {"kind": "classifier", "epochs": 1}, "seeds": [0, 1], "halving": None}
    document |= {"space": {"/batch_size": {"choice": [8]}}}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    for accuracy in (0.9, 0.999):
        worker = service.claim()
        worker.commit_epoch(1, metrics={"val_accuracy": accuracy})
        worker.succeed()
    decisions.advance_all(service.core.database)
    [trial] = http_client.get(f"{service.url}/sweeps/{sweep['id']}/trials").json()["data"]
    low, high = trial["interval"]
    assert 0 < low < high == 1
    page = open_window(service.url).open(sweep["urls"]["page"])
    interval = page.locator("#trials td.value .range").last
    expect(interval).to_have_text(f"95% CI over seeds {100 * low:.2f}% to 100.00%")
    page.locator("#band").select_option("interval")
    result = CliRunner().invoke(main, ["--server", service.url, "sweeps", "wide"])
    assert f"{100 * low:.2f}% to 100.00%" in result.stdout, result.output


def test_the_list_of_sweeps_is_updated_live_and_has_a_filter(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    service = Service(serve_bare())
    page = open_window(service.url).open("/ui/sweeps")
    document = {"name": "first", "base": {"kind": "classifier", "epochs": 1}, "space": {"/batch_size": {"choice": [8]}}}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    row = page.locator("#sweeps tr", has_text="first")
    expect(row).to_contain_text("running")
    row.get_by_role("link").focus()
    end_sweep(service.core.database, sweep["id"], ["val_accuracy", "val_loss"])
    expect(row).to_contain_text("succeeded")
    expect(row).to_contain_text("1 / 1")
    expect(row.get_by_role("link")).to_be_focused()
    page.get_by_role("link", name="Paused").click()
    expect(page.locator("#sweeps")).to_contain_text("No sweep has this status.")
    assert serious_violations(page) == []
    page.get_by_role("link", name="Succeeded").click()
    expect(page.locator("#sweeps tbody tr")).to_have_count(1)


def test_a_long_value_at_an_axis_is_shortened(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    service = Service(serve_bare())
    optimizers = [{"name": "adamw", "learning_rate": rate, "weight_decay": 0.02} for rate in (0.01, 0.02)]
    document = {"base": {"kind": "classifier", "epochs": 1}, "space": {"/optimizer": {"choice": optimizers}}}
    document |= {"seeds": [0], "halving": None}
    sweep = http_client.post(f"{service.url}/sweeps", json=document).raise_for_status().json()
    end_sweep(service.core.database, sweep["id"], ["val_accuracy", "val_loss"])
    page = open_window(service.url, width=390).open(sweep["urls"]["page"])
    value = page.locator("#coordinates text:not(.axis-name)", has_text="0.01,")
    expect(value.locator("title")).to_have_text('{"learning_rate":0.01,"name":"adamw","weight_decay":0.02}')
    assert value.evaluate("text => text.firstChild.textContent") == '{"learning_rate…'
    assert page.locator("#coordinates").evaluate("box => box.scrollWidth <= box.clientWidth"), "all axes are in view"


def load_sweep(visit: Visit, path: str) -> None:
    page = visit.open(path)
    expect(page.locator("#curves .chart")).to_be_visible()


def test_a_sweep_of_a_thousand_trials_loads_quickly(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    bare = serve_bare()
    space = {"/optimizer/learning_rate": {"log": [0.001, 0.3]}, "/batch_size": {"choice": [10, 20]}}
    search = {"name": "random", "trials": 1000}
    document = {"base": {"kind": "classifier", "epochs": 1}, "space": space, "search": search, "parallel": 500}
    sweep = http_client.post(f"{bare.url}/sweeps", json=document).raise_for_status().json()
    end_sweep(bare.core.database, sweep["id"], ["val_accuracy", "val_loss"])
    visit = open_window(bare.url)
    page, seconds = visit.page, []
    for _ in range(2):
        seconds.append(cpu_seconds_to(page, partial(load_sweep, visit, sweep["urls"]["page"])))
        first_rows, *later = page.evaluate(READ_LOAD_TIMES)
        assert later
        assert min(later) >= first_rows - 1, "the first rows wait for nothing that is around them"
    print(f"loaded in {seconds} s of CPU time")
    assert min(seconds) < MAX_CPU_SECONDS  # the benchmark is `make bench-page`
    rows = page.locator("#trials tbody tr")
    expect(rows).to_have_count(100)
    expect(page.locator("#curves .chart")).to_be_visible()
    expect(page.locator("#coordinates path")).to_have_count(100)
    expect(page.locator("#importance tbody tr")).to_have_count(2)
    expect(page.locator("#decisions li").first).to_have_text("The sweep has succeeded.")
    expect(page.locator("#decisions li")).to_have_count(100)
    page.get_by_role("button", name="Earlier decisions").click()
    expect(page.locator("#decisions li")).to_have_count(600)
    for count in (600, 1000):
        page.get_by_role("button", name="More trials").click()
        expect(rows).to_have_count(count)
    expect(page.get_by_role("button", name="More trials")).to_be_hidden()
    page.locator("#sort").select_option("trial")
    expect(rows.first.locator("td").first).to_have_text("0")
