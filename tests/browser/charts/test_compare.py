"""The page that compares jobs: what is drawn, and how a user interacts with it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import serious_violations
from tests.browser.apps.simulated_worker import Service, canvas, figure, metrics
from tests.browser.conftest import Visit
from tests.browser.held_responses import hold
from tests.browser.pixels import colour_mask, read_pixels, wait_for_dots
from tests.browser.waiting import http_client, poll, until

JOB_COUNT = 13
BEST_SERIES, HOVERED_SERIES = 2, 1  # palette numbers


@pytest.fixture
def ids(service: Service) -> list[str]:
    """Trained jobs; each has a higher learning rate and lower accuracy than the last, but `run 4` is best."""
    job_ids = []
    for number in range(JOB_COUNT):
        rate = round(0.001 * 1.5**number, 5)
        spec = {"name": f"run {number}", "seed": number % 3, "optimizer": {"name": "adam", "learning_rate": rate}}
        job_id = service.submit(**spec)
        worker = service.claim()
        for epoch in range(1, 6):
            values = metrics(epoch, number / 3)
            worker.commit_epoch(epoch, metrics=values | {"val_accuracy": 0.99 if number == 4 else 0.9 - number / 50})
        worker.succeed()
        job_ids.append(job_id)
    return job_ids


def pixel_count(page: Page, title: str, series: int) -> int:
    return int(colour_mask(read_pixels(canvas(page, title)), series).sum())


def wait_for_line(page: Page, title: str, series: int, *, visible: bool) -> None:
    poll(page, lambda: (pixel_count(page, title, series) > 150) is visible, f"the colour {series} in {title}")


def open_comparison(service: Service, open_window: Callable[..., Visit], ids: list[str], **options: Any) -> Page:
    return open_window(service.url, **options).open(f"/ui/compare?jobs={','.join(ids)}")


def test_among_many_jobs_the_best_and_the_hovered_one_are_highlighted(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    page = open_comparison(service, open_window, ids)
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)  # no redraw under the pointer
    wait_for_line(page, "train loss", BEST_SERIES, visible=True)
    assert pixel_count(page, "train loss", HOVERED_SERIES) == 0
    expect(page.locator("#compared li", has_text="best")).to_have_count(1)
    expect(page.locator("#compared li", has_text="best")).to_contain_text("run 4")

    page.locator("#compared li").nth(9).hover()
    wait_for_line(page, "train loss", HOVERED_SERIES, visible=True)
    assert pixel_count(page, "train loss", BEST_SERIES) > 150
    page.mouse.move(2, 2)
    wait_for_line(page, "train loss", HOVERED_SERIES, visible=False)

    chart = canvas(page, "train loss")
    box = chart.bounding_box()
    mask = colour_mask(read_pixels(chart), BEST_SERIES)
    row, column = (int(mask[:, 100:].nonzero()[side].mean()) for side in (0, 1))
    page.mouse.move(box["x"] + 100 + column, box["y"] + row)
    expect(page.locator(".readout").first).to_contain_text("run")

    page.locator("#differences tbody tr").nth(7).hover()
    expect(page.locator("#compared li.lit")).to_have_count(1)


def test_a_redrawn_chart_keeps_the_highlighted_job(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    page = open_comparison(service, open_window, ids)
    wait_for_line(page, "train loss", BEST_SERIES, visible=True)
    page.locator("#compared li").nth(9).hover()
    wait_for_line(page, "train loss", HOVERED_SERIES, visible=True)
    before = read_pixels(canvas(page, "train loss"))
    page.get_by_label("Smoothing").evaluate("""slider => {
        slider.value = 0.3;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
    }""")
    poll(page, lambda: (read_pixels(canvas(page, "train loss")) != before).any(), "a redrawn chart")
    expect(page.locator("#compared li.lit")).to_have_count(1)
    wait_for_line(page, "train loss", HOVERED_SERIES, visible=True)
    page.mouse.move(2, 2)
    wait_for_line(page, "train loss", HOVERED_SERIES, visible=False)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_two_settings_with_three_seeds_are_two_lines(
    service: Service, open_window: Callable[..., Visit], width: int, scheme: str
) -> None:
    ids = [
        service.train(3, name=f"size {size} seed {seed}", seed=seed, batch_size=size, loss_offset=size / 100 + seed)
        for size in (20, 40)
        for seed in range(3)
    ]
    page = open_comparison(service, open_window, ids, width=width, color_scheme=scheme)
    chart = page.locator(".chart", has=page.get_by_role("heading", name="Train loss"))
    lines = chart.locator(".series button")
    expect(lines).to_have_text(["batch_size 20, 3 seeds", "batch_size 40, 3 seeds"])
    assert page.locator("#compared .swatch.series-1").count() == page.locator("#compared .swatch.series-2").count() == 3

    def difference() -> float:
        small, large = re.findall(r"seeds ([\d.]+)", chart.locator(".plot").get_attribute("aria-label") or "")
        return float(large) - float(small)

    poll(page, lambda: difference() == pytest.approx(0.2, abs=2e-3), "the means over all seeds")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Mean and range over the seeds").uncheck()
    expect(lines).to_have_count(6)
    expect(lines.first).to_contain_text("size 20 seed 0")
    page.reload()
    expect(lines).to_have_count(6)


def test_eight_jobs_have_eight_colours(service: Service, open_window: Callable[..., Visit], ids: list[str]) -> None:
    page = open_comparison(service, open_window, ids[:8])
    palette_numbers = page.locator("#compared .swatch").evaluate_all(
        "items => items.map(item => item.className.slice(-1))"
    )
    assert sorted(palette_numbers) == list("12345678")
    for series in range(1, 9):
        wait_for_dots(page, canvas(page, "train loss"), series, 3)


COUNT_REQUESTS = """
  const send = fetch;
  let flying = 0;
  window.atOnce = [];
  window.fetch = async (address, options) => {
    if (!String(address).endsWith("/metrics")) return send(address, options);
    atOnce.push(++flying);
    try {
      return await send(address, options);
    } finally {
      flying -= 1;
    }
  };
"""
"""Counts concurrent requests in the page: Playwright may report requests and responses out of order."""


def test_metrics_of_many_jobs_are_loaded_at_most_four_at_a_time(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    visit = open_window(service.url, own=True)
    visit.page.add_init_script(COUNT_REQUESTS)
    page = visit.open(f"/ui/compare?jobs={','.join(ids)}")
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)
    concurrent = page.evaluate("atOnce")
    assert len(concurrent) == JOB_COUNT
    assert max(concurrent) <= 4


def test_settings_are_plotted_against_metrics(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    page = open_comparison(service, open_window, ids)
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)
    assert page.input_value("#scatter-x") == "optimizer.learning_rate"
    assert page.input_value("#scatter-y") == "val_accuracy"
    highest = min(page.locator("#dots a").all(), key=lambda dot: dot.locator("circle").bounding_box()["y"])
    highest.hover()
    expect(page.locator("#dots .readout")).to_have_text(
        "run 4optimizer.learning_rate: 0.00506best val accuracy: 99.00%"
    )

    page.select_option("#scatter-x", "seed")
    page.select_option("#scatter-y", "train_loss")
    page.select_option("#scatter-of", "last")
    assert page.url.endswith("&x=seed&y=train_loss&of=last")
    page.reload()
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)
    expect(page.locator("#dots .axis")).to_have_text("seed")
    dot = page.get_by_label("run 2: seed 2, last train loss 0.8667")
    assert (
        page.locator("#dots circle").evaluate_all("dots => new Set(dots.map(dot => dot.getAttribute('cx'))).size") == 3
    )
    # The checkpoint of the simulated job has no network, so its real page would report an error.
    page.route(f"**/ui/jobs/{ids[2]}", lambda route: route.fulfill(body="the job"))
    dot.click()
    expect(page.locator("body")).to_have_text("the job")


def test_non_numeric_settings_are_plotted_too(service: Service, open_window: Callable[..., Visit]) -> None:
    names = ["adam", "sgd", "adam"]
    ids = [service.train(2, name=name, optimizer={"name": name}) for name in names]
    page = open_window(service.url).open(f"/ui/compare?jobs={','.join(ids)}&x=optimizer.name")
    expect(page.locator("#dots a")).to_have_count(3)
    positions = page.locator("#dots circle").evaluate_all("dots => dots.map(dot => Number(dot.getAttribute('cx')))")
    assert abs(positions[0] - positions[2]) < 20 < abs(positions[0] - positions[1])  # side by side
    expect(page.locator("#dots text")).to_contain_text(["adam"])


@pytest.mark.parametrize("width", [1280, 390])
def test_settings_scroll_inside_their_card_with_a_fixed_first_column(
    service: Service, open_window: Callable[..., Visit], ids: list[str], width: int
) -> None:
    page = open_comparison(service, open_window, ids, width=width)
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)
    expect(page.locator("#differences tbody tr").first).to_contain_text("run 4")
    page.get_by_label("Show identical settings").check()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scroll = page.locator("#settings .scroll")
    first, last = page.locator("#differences thead th").first, page.locator("#differences thead th").last
    left = first.bounding_box()["x"]
    scroll.evaluate("element => element.scrollTo(1e6, 0)")
    card = page.locator("#settings").bounding_box()
    last_box = last.bounding_box()
    assert first.bounding_box()["x"] == pytest.approx(left, abs=1)
    assert card["x"] <= left
    assert last_box["x"] + last_box["width"] <= card["x"] + card["width"] + 1


def test_a_comparison_of_many_jobs_follows_those_that_are_running(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    running = service.submit(name="late")
    page = open_comparison(service, open_window, [*ids, running])
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)
    worker = service.claim()
    for epoch in range(1, 4):
        worker.commit_epoch(epoch, metrics=metrics(epoch) | {"val_accuracy": 0.995})
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT + 1)
    expect(page.locator("#compared li", has_text="best")).to_contain_text("late")
    expect(page.locator("#differences tbody tr").first).to_contain_text("99.50%")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_comparison_of_many_jobs_is_accessible_and_fits_the_window(
    service: Service, open_window: Callable[..., Visit], ids: list[str], width: int, scheme: str
) -> None:
    page = open_comparison(service, open_window, ids, width=width, color_scheme=scheme)
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_too_many_jobs_get_an_error_page_that_offers_the_first_200(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    visit = open_window(service.url)
    visit.error_log.expected = ["400"]
    ids = [f"job_01J{number:023}" for number in range(201)]
    page = visit.open(f"/ui/compare?jobs={','.join(ids)}")
    expect(page.locator("main")).to_contain_text("The URL contains 201 jobs; the maximum is 200.")
    page.get_by_role("link", name="Compare the first 200").click()
    expect(page.locator("main")).to_contain_text("do not exist, were deleted, or belong to another owner")
    until(page, "location.search.split(',').length === 200")


def test_the_metric_in_the_url_is_plotted_once_it_is_available(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    ids = [service.train(2, name=name, seed=seed) for seed, name in enumerate(("first", "second", "third"))]
    page = open_window(service.url).page
    held = hold(page, "GET /jobs/.*/metrics")
    page.goto(f"{service.url}/ui/compare?jobs={','.join(ids)}&y=train_accuracy&x=seed")
    held.wait(3)
    values = held.responses[0][1].json()
    values["series"] = {"train_loss": values["series"]["train_loss"], "val_loss": values["series"]["val_loss"]}
    route, _ = held.responses.pop(0)
    route.fulfill(json=values)
    expect(page.locator("#scatter-y")).to_have_value("val_loss")
    page.locator("#scatter-of").select_option("last")
    held.release_all()
    expect(page.locator("#scatter-y")).to_have_value("train_accuracy")
    page.locator("#scatter-x").select_option("epochs")
    assert "y=train_accuracy" in page.url


def test_a_line_hidden_among_few_jobs_is_in_the_readout_among_many(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    page = open_comparison(service, open_window, [ids[4], ids[5]])
    figure(page, "val accuracy").get_by_role("button", name="run 4").click()
    page.goto(f"{service.url}/ui/compare?jobs={','.join(ids)}")
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)
    wait_for_line(page, "val accuracy", BEST_SERIES, visible=True)
    names = set()
    for top in range(16, 80, 6):  # one of these heights is on the best job's line
        figure(page, "val accuracy").locator(".plot").hover(position={"x": 300, "y": top})
        names.add(figure(page, "val accuracy").locator(".readout strong + div .name").text_content())
    assert "run 4" in names


def test_dots_are_tabbed_through_in_order_and_keep_the_focus_when_redrawn(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    running = service.submit(name="late")
    page = open_comparison(service, open_window, [*ids, running])
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT)
    page.locator("#dots a").first.focus()
    focused_ids = []
    for _ in range(JOB_COUNT):
        focused_ids.append(page.evaluate("document.activeElement.closest('.dot')?.dataset.job ?? null"))
        page.keyboard.press("Tab")
    assert focused_ids == ids
    page.locator("#dots a").nth(3).focus()
    service.claim().commit_epoch(1, metrics=metrics(1))
    expect(page.locator("#dots a")).to_have_count(JOB_COUNT + 1)
    assert page.evaluate("document.activeElement.closest('.dot')?.dataset.job") == ids[3]


def test_the_stated_difference_is_between_the_values_shown(service: Service, open_window: Callable[..., Visit]) -> None:
    ids = []
    for size, accuracies in {20: [0.81, 0.95, 0.9], 40: [0.8, 0.81, 0.81]}.items():
        ids.append(service.submit(name=f"batches of {size}", batch_size=size, epochs=3))
        worker = service.claim()
        for epoch, accuracy in enumerate(accuracies, 1):
            worker.commit_epoch(epoch, metrics={"val_accuracy": accuracy})
        worker.succeed()
    page = open_comparison(service, open_window, ids)
    sentence = page.locator("#sentences li").first
    expect(sentence).to_contain_text("was 14.00 points higher")
    expect(sentence).to_contain_text("in best val accuracy")
    expect(page.get_by_role("row", name="best val accuracy")).to_contain_text("95.00%")
    expect(page.locator("#sentences-of")).to_contain_text("tapeline compare use those of the last epoch")
    page.get_by_role("button", name="Compare the last epochs").click()
    expect(sentence).to_contain_text("was 9.00 points higher")
    expect(sentence).to_contain_text("in val accuracy of the last epoch")


def test_accuracies_on_few_rows_have_their_number_and_interval_in_the_comparison_and_the_list(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    ids = []
    for batch_size in (20, 40):
        ids.append(service.submit(batch_size=batch_size, epochs=3))
        worker = service.claim()
        worker.commit_epoch(1, metrics={"val_accuracy": 1.0}, confusion=[[15, 0], [0, 15]])
        worker.commit_epoch(2, metrics={"val_accuracy": 0.9}, confusion=[[12, 3], [0, 15]], best=False)
    page = open_comparison(service, open_window, ids)
    best = page.get_by_role("row", name="best val accuracy")
    expect(best.locator("td").first).to_have_text("100.00% of 30, 95% CI 89% to 100%")
    expect(best.locator(".best-value")).to_have_count(2)  # equal values are equally good
    page.goto(service.url)
    cell = page.locator("tr.job .metrics").first
    expect(cell).to_contain_text("90.00% of 30")
    expect(cell.get_by_title("of 30, 95% CI 74% to 97%")).to_be_visible()
    worker.commit_epoch(3, metrics={"val_accuracy": 0.7}, confusion=[[12, 3], [6, 9]], best=False)
    expect(cell).to_contain_text("70.00% of 30")
    expect(cell.get_by_title("74% to 97%")).to_have_count(0)


def test_dots_with_equal_values_are_drawn_side_by_side(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_comparison(
        service, open_window, [service.train(2, name=f"same {seed}", seed=seed) for seed in range(4)]
    )
    expect(page.locator("#dots a")).to_have_count(4)
    page.select_option("#scatter-x", "batch_size")
    expect(page.locator("#dots .axis")).to_have_text("batch_size")
    positions = page.locator("#dots circle").evaluate_all("dots => dots.map((dot) => Number(dot.getAttribute('cx')))")
    assert np.diff(sorted(positions)).min() >= 12
    expect(page.locator("#samples")).to_contain_text("the latest of each job up to the chosen epoch")


def test_a_comparison_without_an_epoch_says_so_instead_of_offering_tools(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    page = open_comparison(service, open_window, [service.submit(name=name) for name in ("one", "other")])
    expect(page.locator("#no-curves")).to_have_text("No epoch has finished yet. Curves appear after the first one.")
    expect(page.get_by_label("Smoothing")).to_be_hidden()
    service.claim().commit_epoch(1, metrics=metrics(1))
    expect(canvas(page, "train loss")).to_be_visible()
    expect(page.get_by_label("Smoothing")).to_be_visible()
    expect(page.locator("#no-curves")).to_be_hidden()


@pytest.mark.stack
def test_two_jobs_show_why_they_differ_and_an_investigation_is_submitted(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    page = open_comparison(service, open_window, ids[:2])
    section = page.locator("#why")
    expect(section).to_contain_text("Epoch 1 is the first that differs")
    expect(section.locator("thead")).to_have_text("run 0run 1")
    expect(section.get_by_role("row", name="optimizer.learning_rate")).to_contain_text("0.0015")
    expect(section.get_by_role("row", name="seed")).to_contain_text("1")
    assert serious_violations(page) == []
    section.get_by_role("button", name="Find the batch").click()
    page.wait_for_url("**/ui/jobs/job_*")
    expect(page.get_by_role("heading", level=1)).to_contain_text("why run 0 and run 1 differ")
    expect(page.locator("#notes")).to_contain_text("again side by side")
    job = http_client.get(f"{service.url}/jobs/{page.url.rpartition('/')[2]}").json()
    assert (job["status"], job["investigation"]["a"], job["investigation"]["b"]) == ("queued", *ids[:2])


def test_three_jobs_have_no_section_on_why_they_differ(
    service: Service, open_window: Callable[..., Visit], ids: list[str]
) -> None:
    page = open_comparison(service, open_window, ids[:3])
    expect(page.locator("#settings")).to_contain_text("0.0015")
    expect(page.locator("#why")).to_have_count(0)
