"""Charts, checked by their pixels. The tests simulate the worker, to control when epochs arrive."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from service.jobs.leases import Usage
from service.schema.findings import Finding
from service.states import FindingCode, Severity
from tests.browser.apps.simulated_worker import Service, canvas, figure, hover_chart, metrics
from tests.browser.conftest import Visit
from tests.browser.pixels import colour_mask, dot_positions, read_pixels, stable_pixels, wait_for_dots
from tests.browser.waiting import http_client, poll, until, wait_for_frames

EPOCHS = 8
RECORD_TEXTS = """const fillText = CanvasRenderingContext2D.prototype.fillText;
window.written = [];
CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
  window.written.push(String(text));
  return fillText.call(this, text, ...place);
};"""
"""Records the texts that are drawn on canvases."""


@pytest.fixture
def open_window(open_window: Callable[..., Visit]) -> Callable[..., Visit]:
    """A job's page requests mistakes of the best checkpoint, but a simulated worker stores no network."""

    def open_one(*arguments: Any, **options: Any) -> Visit:
        visit = open_window(*arguments, **options)
        visit.error_log.expected.append("status of 500")
        return visit

    return open_one


@pytest.mark.stack
def test_a_page_opened_before_the_first_epoch_draws_every_epoch(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    job_id = service.submit()
    page = open_window(service.url).open(f"/ui/jobs/{job_id}")
    worker = service.claim()
    expect(page.locator("#state .status")).to_have_text("running")
    for epoch in range(1, EPOCHS + 1):
        worker.commit_epoch(epoch, metrics=metrics(epoch))
        wait_for_dots(page, canvas(page), 1, epoch)
    for title, series in (("loss", 1), ("loss", 2), ("accuracy", 1), ("accuracy", 2)):
        wait_for_dots(page, canvas(page, title), series, EPOCHS)
        assert len(dot_positions(canvas(page, title), series)) == EPOCHS


@pytest.mark.stack
def test_every_epoch_is_drawn_on_an_open_comparison(service: Service, open_window: Callable[..., Visit]) -> None:
    ids = [service.submit(name=name) for name in ("first", "second")]
    page = open_window(service.url).open(f"/ui/compare?jobs={','.join(ids)}")
    workers = [service.claim() for _ in ids]
    expect(page.locator("#compared .status.running")).to_have_count(2)
    for epoch in range(1, EPOCHS + 1):
        for level, worker in enumerate(workers):
            worker.commit_epoch(epoch, metrics=metrics(epoch, level / 2))
        for series in palette_numbers(page):
            wait_for_dots(page, canvas(page, "val loss"), series, epoch)
    positions_of_jobs = [dot_positions(canvas(page, "val loss"), series) for series in palette_numbers(page)]
    assert [len(positions) for positions in positions_of_jobs] == [EPOCHS, EPOCHS]


def palette_numbers(page: Page) -> list[int]:
    """The palette number of each compared job, from its swatch in the list."""
    classes = page.locator("#compared .swatch").evaluate_all("items => items.map(item => item.className)")
    return [int(text.rpartition("-")[2]) for text in classes]


def test_epochs_are_evenly_spaced_and_aligned_across_the_charts_of_a_page(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    page = open_window(service.url, width=700).open(f"/ui/jobs/{service.train(EPOCHS)}")
    first = wait_for_dots(page, canvas(page, "loss"), 1, EPOCHS)
    figure(page, "accuracy").scroll_into_view_if_needed()
    assert wait_for_dots(page, canvas(page, "accuracy"), 1, EPOCHS) == pytest.approx(first, abs=1)
    steps = np.diff(first)
    assert steps == pytest.approx([steps.mean()] * (EPOCHS - 1), abs=1.5)


@pytest.mark.stack
def test_a_zoom_is_kept_when_new_epochs_arrive(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit()
    page = open_window(service.url).open(f"/ui/jobs/{job_id}")
    worker = service.claim()
    for epoch in range(1, 6):
        worker.commit_epoch(epoch, metrics=metrics(epoch))
    wait_for_dots(page, canvas(page), 1, 5)
    expect(page.locator("#tiles-title")).to_contain_text("epoch 5")  # above the charts
    wait_for_frames(page)
    positions = dot_positions(canvas(page), 1)
    drag(page, canvas(page), positions[1] - 8, positions[3] + 8)  # from before epoch 2 to after epoch 4
    zoomed = wait_for_exact_dots(page, canvas(page), 3)
    worker.commit_epoch(6, metrics=metrics(6))
    wait_for_exact_dots(page, canvas(page, "accuracy"), 6)
    assert dot_positions(canvas(page), 1) == pytest.approx(zoomed, abs=1)
    figure(page, "loss").get_by_role("button", name="Reset").click()
    wait_for_exact_dots(page, canvas(page), 6)


def wait_for_exact_dots(page: Page, chart: Any, count: int) -> list[float]:
    poll(page, lambda: len(dot_positions(chart, 1)) == count, f"{count} dots")
    return dot_positions(chart, 1)


def drag(page: Page, chart: Any, start: float, end: float) -> None:
    box = chart.bounding_box()
    page.mouse.move(box["x"] + start, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + end, box["y"] + 102, steps=6)
    page.mouse.up()
    page.mouse.move(box["x"] + start, box["y"] - 60)


def test_charts_are_zoomed_and_panned_by_keyboard(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url).open(f"/ui/jobs/{service.train(9)}")
    plot = figure(page, "loss").locator(".plot")
    full_spacing = np.diff(wait_for_exact_dots(page, canvas(page), 9)).mean()
    plot.press("+")
    zoomed = wait_for_exact_dots(page, canvas(page), 5)  # 3 to 7
    assert np.diff(zoomed).mean() == pytest.approx(2 * full_spacing, abs=1)
    plot.press("ArrowRight")
    assert wait_for_exact_dots(page, canvas(page), 5) == pytest.approx(zoomed, abs=1)  # 4 to 8
    plot.press("0")
    wait_for_exact_dots(page, canvas(page), 9)


@pytest.mark.stack
def test_pointer_and_touch_show_a_readout_of_every_line(service: Service, open_window: Callable[..., Visit]) -> None:
    visit = open_window(service.url, has_touch=True)
    page = visit.open(f"/ui/jobs/{service.train(EPOCHS)}")
    positions = wait_for_dots(page, canvas(page), 1, EPOCHS)
    box = canvas(page).bounding_box()
    page.mouse.move(box["x"] + positions[3] + 2, box["y"] + 100)
    readout = figure(page, "loss").locator(".readout")
    expect(readout).to_have_text("epoch 4train loss0.25val loss0.425")
    page.mouse.move(box["x"] + positions[3], box["y"] - 100)
    expect(readout).to_be_hidden()
    page.touchscreen.tap(box["x"] + positions[7] - 3, box["y"] + 100)
    expect(readout).to_contain_text("epoch 8")
    hover_chart(page, "accuracy", positions[1])
    expect(figure(page, "accuracy").locator(".readout")).to_have_text("epoch 2train accuracy75.00%val accuracy60.00%")


def test_a_hidden_line_stays_hidden_after_a_reload(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url).open(f"/ui/jobs/{service.train(EPOCHS)}")
    wait_for_dots(page, canvas(page), 1, EPOCHS)
    figure(page, "loss").get_by_role("button", name="train loss").press("Enter")
    wait_for_exact_dots(page, canvas(page), 0)
    page.reload()
    wait_for_dots(page, canvas(page), 2, EPOCHS)
    assert dot_positions(canvas(page), 1) == []
    expect(figure(page, "loss").get_by_role("button", name="train loss")).to_have_attribute("aria-pressed", "false")


def test_a_chart_uses_the_colours_of_the_theme(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url, color_scheme="light").open(f"/ui/jobs/{service.train(EPOCHS)}")
    wait_for_dots(page, canvas(page), 1, EPOCHS)
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    wait_for_exact_dots(page, canvas(page), 0)
    dark = [0x5D, 0xB4, 0xEF]
    assert (np.abs(read_pixels(canvas(page)) - dark).max(axis=2) < 24).sum() > 200


def test_smoothing_log_scale_and_time_axis_are_remembered(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url).open(f"/ui/jobs/{service.train(EPOCHS)}")
    epoch_positions = wait_for_dots(page, canvas(page), 1, EPOCHS)
    linear = read_pixels(canvas(page))
    figure(page, "loss").get_by_role("button", name="Log").click()
    page.get_by_label("Smoothing").fill("0.5")
    page.get_by_role("button", name="Time").click()
    page.reload()
    time_positions = wait_for_dots(page, canvas(page), 1, EPOCHS)
    assert time_positions[0] > epoch_positions[0] + 20  # time begins at 0, the first epoch ends later
    assert (read_pixels(canvas(page)) != linear).any()
    hover_chart(page, "loss", time_positions[1])
    expect(figure(page, "loss").locator(".readout")).to_have_text("1 strain loss0.6667 (0.5)val loss0.9667 (0.75)")


@pytest.mark.stack
def test_a_chart_is_downloaded_as_png_and_csv(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url).open(f"/ui/jobs/{service.train(EPOCHS)}")
    wait_for_dots(page, canvas(page), 1, EPOCHS)
    with page.expect_download() as downloaded:
        figure(page, "loss").get_by_role("button", name="PNG").click()
    with Image.open(downloaded.value.path()) as image:
        picture = np.asarray(image.convert("RGB"), np.int64)
    assert picture.shape == (1400, 2400, 3)
    for series in (1, 2):
        lines = np.flatnonzero(colour_mask(picture, series)[200:].any(axis=0))
        assert np.ptp(lines) > 2000  # from one side to the other
    with page.expect_download() as downloaded:
        figure(page, "loss").get_by_role("button", name="CSV").click()
    lines = downloaded.value.path().read_text().splitlines()
    assert (lines[0], lines[4][:13], len(lines)) == ("epoch,train loss,val loss", "4,0.25,0.4250", EPOCHS + 1)


@pytest.mark.stack
def test_gaps_break_a_line_unless_the_metric_is_measured_periodically(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    job_id = service.submit(kind="gan")
    worker = service.claim()
    for epoch in range(1, 12):
        periodic = {"frechet_distance": 100.0} if epoch % 5 == 1 else {}
        interrupted = {} if 5 <= epoch <= 7 else {"d_loss": 0.5}
        worker.commit_epoch(epoch, metrics={"g_loss": 1.0} | periodic | interrupted)
    page = open_window(service.url).open(f"/ui/jobs/{job_id}")
    positions = wait_for_dots(page, canvas(page, "GAN losses"), 2, 11)
    figure(page, "Fréchet distance").scroll_into_view_if_needed()
    periodic = wait_for_dots(page, canvas(page, "Fréchet distance"), 1, 3)
    assert periodic == pytest.approx([positions[0], positions[5], positions[10]], abs=1)
    gap = slice(round(positions[4]), round(positions[6]))
    assert colour_mask(read_pixels(canvas(page, "Fréchet distance")), 1)[:, gap].any(axis=0).all()
    assert not colour_mask(read_pixels(canvas(page, "GAN losses")), 1)[:, gap].any()


@pytest.mark.stack
def test_curves_of_a_fork_begin_after_the_forked_epoch(service: Service, open_window: Callable[..., Visit]) -> None:
    parent = service.train(4)
    fork = (
        http_client.post(f"{service.url}/jobs/{parent}/fork", json={"overrides": {"epochs": 200}})
        .raise_for_status()
        .json()
    )
    worker = service.claim()
    for epoch in range(5, 10):
        worker.commit_epoch(epoch, metrics=metrics(epoch))
    page = open_window(service.url).open(f"/ui/jobs/{fork['id']}")
    positions = wait_for_dots(page, canvas(page), 1, 5)
    assert positions[0] < 80  # at the left edge
    hover_chart(page, "loss", positions[0] + 1)
    expect(figure(page, "loss").locator(".readout")).to_contain_text("epoch 5")


def chart_pixels(page: Page, title: str) -> Any:
    figure(page, title).scroll_into_view_if_needed()
    wait_for_dots(page, canvas(page, title), 2, 2)
    page.mouse.move(0, 0)
    return stable_pixels(page, canvas(page, title))


DELAY_CHECKPOINT_EVENTS = """
const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (type, receive) {
  const late = (event) => setTimeout(() => {
    receive(event);
    window.checkpoint = JSON.parse(event.data).epoch;
  }, 700);
  add.call(this, type, type === "checkpoint" ? late : receive);
};
"""
"""The events of an epoch reach a page together or separately: here its checkpoint event comes later."""


FINDING = Finding(
    code=FindingCode.OVERFITTING, severity=Severity.ERROR, epoch=2, message="the loss rises", numbers={}, advice=[]
)


def test_the_best_epoch_mark_moves_and_a_finding_is_shaded_on_an_open_page(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    job_id = service.submit(epochs=EPOCHS)
    visit = open_window(service.url, width=700, own=True)
    visit.page.add_init_script(DELAY_CHECKPOINT_EVENTS)
    page = visit.open(f"/ui/jobs/{job_id}")
    worker = service.claim()
    for epoch in range(1, EPOCHS + 1):
        values = metrics(epoch) | {"val_accuracy": 0.9 if epoch == EPOCHS else 0.5}
        health = [FINDING] if 2 <= epoch < EPOCHS else []
        worker.commit_epoch(epoch, metrics=values, best=epoch in (2, EPOCHS), health=health)
        wait_for_dots(page, canvas(page), 1, epoch)
        until(page, f"window.checkpoint === {epoch}")  # each epoch is drawn before the next, as in a long training
    worker.succeed()
    expect(page.locator("#state .status")).to_have_text("succeeded")
    expect(page.locator("[data-metric=val_accuracy] .best")).to_have_text(f"best 90.00% in epoch {EPOCHS}")
    loaded_later = open_window(service.url, width=700).open(f"/ui/jobs/{job_id}")
    for title in ("loss", "accuracy"):
        expected = chart_pixels(loaded_later, title)
        poll(page, partial(are_alike, page, title, expected), f"{title} as on a page that is opened later")


def are_alike(page: Page, title: str, expected: Any) -> bool:
    pixels = chart_pixels(page, title)
    if pixels.shape != expected.shape:
        return False
    differences = np.abs(pixels - expected)
    return bool(differences.max() < 24 and (differences > 4).mean() < 0.01)  # edges differ; shaded areas are pale


@pytest.mark.parametrize("compared", [False, True])
def test_the_order_of_charts_does_not_depend_on_when_their_metrics_arrive(
    service: Service, open_window: Callable[..., Visit], compared: bool
) -> None:
    ids = [service.submit(), service.submit()]
    page = open_window(service.url).open(f"/ui/compare?jobs={','.join(ids)}" if compared else f"/ui/jobs/{ids[0]}")
    worker = service.claim()
    late_metrics: dict[str, float] = {"mode_coverage": 0.5, "frechet_distance": 9.0, "d_loss": 1.0, "grad_norm": 2.0}
    for epoch in range(1, len(late_metrics) + 1):
        arrived = {key: late_metrics[key] for key in [*late_metrics][:epoch]}
        worker.commit_epoch(epoch, metrics={"val_accuracy": 0.5, "learning_rate": 0.1} | arrived)
        page.locator("figure.chart").nth(1 + epoch).wait_for(state="attached")
    read_titles = "all => all.map((head) => head.textContent)"
    live_titles = page.eval_on_selector_all("figure.chart h3", read_titles)
    page.reload()
    page.locator("figure.chart").nth(len(live_titles) - 1).wait_for(state="attached")
    assert page.eval_on_selector_all("figure.chart h3", read_titles) == live_titles


def test_labels_of_huge_values_are_not_cut_off(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit(epochs=3)
    worker = service.claim()
    for epoch, loss in enumerate((0.7, 3.1e20, 6.8e21), 1):
        worker.commit_epoch(epoch, metrics={"val_loss": loss, "val_accuracy": 0.1})
    worker.succeed()
    page = open_window(service.url, width=700).open(f"/ui/jobs/{job_id}")
    picture = chart_pixels(page, "loss")
    background = picture[2, 2]
    text_mask = np.abs(picture - background).max(axis=2) > 60
    assert text_mask[:, 6:54].any(), "there are labels"
    assert not text_mask[:, :6].any(), "they begin inside of the chart"


def test_the_horizontal_axis_is_labelled_epoch_or_time(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.train(3)
    visit = open_window(service.url, own=True)
    visit.page.add_init_script(RECORD_TEXTS)
    page = visit.open(f"/ui/jobs/{job_id}")
    expect(canvas(page)).to_be_visible()
    until(page, "window.written.includes('epoch') && !window.written.includes('time')")
    page.get_by_role("button", name="Time").click()
    until(page, "window.written.includes('time')")


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_legend_distinguishes_overlapping_lines_by_their_last_values(
    service: Service, open_window: Callable[..., Visit], width: int, scheme: str
) -> None:
    job_id = service.submit(kind="gan")
    worker = service.claim()
    names = ("mode_coverage", "class_entropy", "min_class_share", "confidence", "sample_diversity")
    worker.commit_epoch(1, metrics=dict.fromkeys(names, 0.0) | {"confidence": 0.7, "g_loss": 1.0, "d_loss": 0.5})
    page = open_window(service.url, width=width, color_scheme=scheme).open(f"/ui/jobs/{job_id}")
    legend = figure(page, "quality of the samples").locator(".series button")
    expect(legend).to_have_count(5)
    expect(legend.filter(has_text=re.compile(r"\D0\.00%"))).to_have_count(4)
    expect(legend.filter(has_text="confidence")).to_contain_text("70.00%")
    worker.commit_epoch(2, metrics={"confidence": 0.8, "g_loss": 1.0, "d_loss": 0.5})
    expect(legend.filter(has_text="confidence")).to_contain_text("80.00%")
    expect(figure(page, "GAN losses").locator(".series .last:visible")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_resources_follow_the_metrics(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit()
    usage = Usage(cpu_seconds=25.0, peak_memory_bytes=2**28)
    service.claim().commit_epoch(1, metrics=metrics(1), used=usage)
    page = open_window(service.url, width=1440).open(f"/ui/jobs/{job_id}")
    expect(page.locator(".tile.resource")).to_have_count(3)
    classes = page.locator(".tile").evaluate_all("all => all.map((tile) => tile.className)")
    assert classes == ["tile"] * (len(classes) - 3) + ["tile resource"] * 3
    expect(page.get_by_text("time trained", exact=True)).to_have_attribute("title", re.compile("share the cores"))


def test_each_file_is_one_line_on_a_phone(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.train(3)
    page = open_window(service.url, width=390).open(f"/ui/jobs/{job_id}")
    page.get_by_text("3 other files").click()
    rows = page.locator("#files tbody tr")
    expect(rows).to_have_count(6)
    assert max(rows.evaluate_all("all => all.map((row) => row.getBoundingClientRect().height)")) < 70
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(rows.first.locator("a")).to_be_visible()


def test_the_complete_mlflow_command_is_copied(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.train(1)
    visit = open_window(service.url, permissions=["clipboard-read", "clipboard-write"])
    page = visit.open(f"/ui/jobs/{job_id}")
    page.get_by_role("button", name="Copy the command for MLflow").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"tapeline --server {service.url} export {job_id} --to mlflow --uri http://127.0.0.1:5000"
