"""Charts, checked by their pixels. The tests simulate the worker, to control when epochs arrive."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from service.jobs.leases import Usage
from tests.browser.conftest import Visit
from tests.browser.pixels import dots, read, still, wait_for_dots, where
from tests.browser.played import Service, canvas, figure, metrics, point
from tests.browser.waiting import patient, until

EPOCHS = 8
LISTEN = """const fillText = CanvasRenderingContext2D.prototype.fillText;
window.written = [];
CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
  window.written.push(String(text));
  return fillText.call(this, text, ...place);
};"""
"""Keeps what is written on canvases."""


@pytest.fixture
def open_window(open_window: Callable[..., Visit]) -> Callable[..., Visit]:
    """A played worker's checkpoints hold no network, and a job's page asks for the mistakes of the best one."""

    def open_one(*arguments: Any, **options: Any) -> Visit:
        visit = open_window(*arguments, **options)
        visit.watched.expected.append("status of 500")
        return visit

    return open_one


def test_every_epoch_is_drawn_on_a_page_that_was_opened_before_the_first(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    job_id = service.submit()
    page = open_window(service.url).open(f"/ui/jobs/{job_id}")
    worker = service.claim()
    expect(page.locator("#state .status")).to_have_text("running")
    for epoch in range(1, EPOCHS + 1):
        worker.epoch(epoch, metrics=metrics(epoch))
        wait_for_dots(page, canvas(page), 1, epoch)
    for title, series in (("loss", 1), ("loss", 2), ("accuracy", 1), ("accuracy", 2)):
        wait_for_dots(page, canvas(page, title), series, EPOCHS)
        assert len(dots(canvas(page, title), series)) == EPOCHS


def test_every_epoch_is_drawn_on_an_open_comparison(service: Service, open_window: Callable[..., Visit]) -> None:
    ids = [service.submit(name=name) for name in ("first", "second")]
    page = open_window(service.url).open(f"/ui/compare?jobs={','.join(ids)}")
    workers = [service.claim() for _ in ids]
    expect(page.locator("#compared .status.running")).to_have_count(2)
    for epoch in range(1, EPOCHS + 1):
        for level, worker in enumerate(workers):
            worker.epoch(epoch, metrics=metrics(epoch, level / 2))
        for place in swatches(page):
            wait_for_dots(page, canvas(page, "val loss"), place, epoch)
    found = [dots(canvas(page, "val loss"), place) for place in swatches(page)]
    assert [len(places) for places in found] == [EPOCHS, EPOCHS]


def swatches(page: Page) -> list[int]:
    """The place in the palette of each compared job, as the list of them shows it."""
    classes = page.locator("#compared .swatch").evaluate_all("items => items.map(item => item.className)")
    return [int(text.rpartition("-")[2]) for text in classes]


def test_charts_of_a_page_begin_and_end_at_the_same_places(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url, width=700).open(f"/ui/jobs/{service.trained(EPOCHS)}")
    first = wait_for_dots(page, canvas(page, "loss"), 1, EPOCHS)
    figure(page, "accuracy").scroll_into_view_if_needed()
    assert wait_for_dots(page, canvas(page, "accuracy"), 1, EPOCHS) == pytest.approx(first, abs=1)
    steps = np.diff(first)
    assert steps == pytest.approx([steps.mean()] * (EPOCHS - 1), abs=1.5)


def test_a_zoom_outlives_new_epochs(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit()
    page = open_window(service.url).open(f"/ui/jobs/{job_id}")
    worker = service.claim()
    for epoch in range(1, 6):
        worker.epoch(epoch, metrics=metrics(epoch))
    wait_for_dots(page, canvas(page), 1, 5)
    expect(page.locator("#tiles-title")).to_contain_text("epoch: 5")  # above the charts
    before = settled(page, canvas(page))
    drag(page, canvas(page), before[1] - 8, before[3] + 8)  # from before epoch 2 to after epoch 4
    zoomed = wait_until_there_are(page, canvas(page), 3)
    worker.epoch(6, metrics=metrics(6))
    wait_until_there_are(page, canvas(page, "accuracy"), 6)
    assert dots(canvas(page), 1) == pytest.approx(zoomed, abs=1)
    figure(page, "loss").get_by_role("button", name="Reset").click()
    wait_until_there_are(page, canvas(page), 6)


def settled(page: Page, drawing: Any) -> list[float]:
    """Where the dots are once they stay there: parts of the page that come later move what is below them."""
    before: list[float] = []
    for _ in range(40):
        found = dots(drawing, 1)
        if found and found == before:
            return found
        before = found
        page.wait_for_timeout(750)
    raise AssertionError("the chart does not come to rest")


def wait_until_there_are(page: Page, drawing: Any, count: int) -> list[float]:
    for _ in range(600):
        if len(found := dots(drawing, 1)) == count:
            return found
        page.wait_for_timeout(100)
    raise AssertionError(f"{len(found)} dots, not {count}")


def drag(page: Page, drawing: Any, start: float, end: float) -> None:
    box = drawing.bounding_box()
    page.mouse.move(box["x"] + start, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + end, box["y"] + 102, steps=6)
    page.mouse.up()
    page.mouse.move(box["x"] + start, box["y"] - 60)


def test_charts_are_zoomed_by_keyboard(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url).open(f"/ui/jobs/{service.trained(9)}")
    plot = figure(page, "loss").locator(".plot")
    whole = np.diff(wait_until_there_are(page, canvas(page), 9)).mean()
    plot.press("+")
    near = wait_until_there_are(page, canvas(page), 5)  # 3 to 7
    assert np.diff(near).mean() == pytest.approx(2 * whole, abs=1)
    plot.press("ArrowRight")
    assert wait_until_there_are(page, canvas(page), 5) == pytest.approx(near, abs=1)  # 4 to 8
    plot.press("0")
    wait_until_there_are(page, canvas(page), 9)


def test_the_pointer_and_a_finger_read_every_line_out(service: Service, open_window: Callable[..., Visit]) -> None:
    visit = open_window(service.url, has_touch=True)
    page = visit.open(f"/ui/jobs/{service.trained(EPOCHS)}")
    places = wait_for_dots(page, canvas(page), 1, EPOCHS)
    box = canvas(page).bounding_box()
    page.mouse.move(box["x"] + places[3] + 2, box["y"] + 100)
    readout = figure(page, "loss").locator(".readout")
    expect(readout).to_have_text("epoch 4train loss0.25val loss0.425")
    page.mouse.move(box["x"] + places[3], box["y"] - 100)
    expect(readout).to_be_hidden()
    page.touchscreen.tap(box["x"] + places[7] - 3, box["y"] + 100)
    expect(readout).to_contain_text("epoch 8")
    point(page, "accuracy", places[1])
    expect(figure(page, "accuracy").locator(".readout")).to_have_text("epoch 2train accuracy75.00%val accuracy60.00%")


def test_a_hidden_line_stays_hidden(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url).open(f"/ui/jobs/{service.trained(EPOCHS)}")
    wait_for_dots(page, canvas(page), 1, EPOCHS)
    figure(page, "loss").get_by_role("button", name="train loss").press("Enter")
    wait_until_there_are(page, canvas(page), 0)
    page.reload()
    wait_for_dots(page, canvas(page), 2, EPOCHS)
    assert dots(canvas(page), 1) == []
    expect(figure(page, "loss").get_by_role("button", name="train loss")).to_have_attribute("aria-pressed", "false")


def test_a_chart_takes_the_colours_of_the_theme(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url, color_scheme="light").open(f"/ui/jobs/{service.trained(EPOCHS)}")
    wait_for_dots(page, canvas(page), 1, EPOCHS)
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    wait_until_there_are(page, canvas(page), 0)
    dark = [0x5D, 0xB4, 0xEF]
    assert (np.abs(read(canvas(page)) - dark).max(axis=2) < 24).sum() > 200


def test_smoothing_logarithm_and_time_are_remembered(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url).open(f"/ui/jobs/{service.trained(EPOCHS)}")
    before = wait_for_dots(page, canvas(page), 1, EPOCHS)
    straight = read(canvas(page))
    figure(page, "loss").get_by_role("button", name="Log").click()
    page.get_by_label("Smoothing").fill("0.5")
    page.get_by_role("button", name="Time").click()
    page.reload()
    after = wait_for_dots(page, canvas(page), 1, EPOCHS)
    assert after[0] > before[0] + 20  # time begins at 0, the first epoch ends later
    assert (read(canvas(page)) != straight).any()
    point(page, "loss", after[1])
    expect(figure(page, "loss").locator(".readout")).to_have_text("1 strain loss0.6667 (0.5)val loss0.9667 (0.75)")


def test_a_chart_is_downloaded_as_picture_and_numbers(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_window(service.url).open(f"/ui/jobs/{service.trained(EPOCHS)}")
    wait_for_dots(page, canvas(page), 1, EPOCHS)
    with page.expect_download() as downloaded:
        figure(page, "loss").get_by_role("button", name="PNG").click()
    with Image.open(downloaded.value.path()) as image:
        picture = np.asarray(image.convert("RGB"), np.int64)
    assert picture.shape == (1400, 2400, 3)
    for series in (1, 2):
        lines = np.flatnonzero(where(picture, series)[200:].any(axis=0))
        assert np.ptp(lines) > 2000  # from one side to the other
    with page.expect_download() as downloaded:
        figure(page, "loss").get_by_role("button", name="CSV").click()
    lines = downloaded.value.path().read_text().splitlines()
    assert (lines[0], lines[4][:13], len(lines)) == ("epoch,train loss,val loss", "4,0.25,0.4250", EPOCHS + 1)


def test_gaps_break_a_line_unless_the_metric_is_measured_now_and_then(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    job_id = service.submit(kind="gan")
    worker = service.claim()
    for epoch in range(1, 12):
        seldom = {"frechet_distance": 100.0} if epoch % 5 == 1 else {}
        often = {} if 5 <= epoch <= 7 else {"d_loss": 0.5}
        worker.epoch(epoch, metrics={"g_loss": 1.0} | seldom | often)
    page = open_window(service.url).open(f"/ui/jobs/{job_id}")
    places = wait_for_dots(page, canvas(page, "GAN losses"), 2, 11)
    figure(page, "Fréchet distance").scroll_into_view_if_needed()
    seldom = wait_for_dots(page, canvas(page, "Fréchet distance"), 1, 3)
    assert seldom == pytest.approx([places[0], places[5], places[10]], abs=1)
    between = slice(round(places[4]), round(places[6]))
    assert where(read(canvas(page, "Fréchet distance")), 1)[:, between].any(axis=0).all()
    assert not where(read(canvas(page, "GAN losses")), 1)[:, between].any()


def test_a_fork_begins_where_it_was_forked(service: Service, open_window: Callable[..., Visit]) -> None:
    parent = service.trained(4)
    answer = (
        patient.post(f"{service.url}/jobs/{parent}/fork", json={"overrides": {"epochs": 200}}).raise_for_status().json()
    )
    worker = service.claim()
    for epoch in range(5, 10):
        worker.epoch(epoch, metrics=metrics(epoch))
    page = open_window(service.url).open(f"/ui/jobs/{answer['id']}")
    places = wait_for_dots(page, canvas(page), 1, 5)
    assert places[0] < 80  # at the left edge
    point(page, "loss", places[0] + 1)
    expect(figure(page, "loss").locator(".readout")).to_contain_text("epoch 5")


def shown(page: Page, title: str) -> Any:
    figure(page, title).scroll_into_view_if_needed()
    wait_for_dots(page, canvas(page, title), 2, 2)
    page.mouse.move(0, 0)
    return still(page, canvas(page, title), pause_ms=1000)


APART = """
const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (type, receive) {
  const late = (event) => setTimeout(() => {
    receive(event);
    window.checkpoint = JSON.parse(event.data).epoch;
  }, 700);
  add.call(this, type, type === "checkpoint" ? late : receive);
};
"""
"""The events of an epoch reach a page in one piece or in several: here its checkpoint comes later."""


def test_the_mark_of_the_best_epoch_moves_on_an_open_page(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit(epochs=EPOCHS)
    visit = open_window(service.url, width=700)
    visit.page.add_init_script(APART)
    page = visit.open(f"/ui/jobs/{job_id}")
    worker = service.claim()
    for epoch in range(1, EPOCHS + 1):
        values = metrics(epoch) | {"val_accuracy": 0.9 if epoch == EPOCHS else 0.5}
        worker.epoch(epoch, metrics=values, best=epoch in (2, EPOCHS))
        wait_for_dots(page, canvas(page), 1, epoch)
        page.wait_for_timeout(1000)  # each epoch is drawn before the next, as in a long training
    worker.succeed()
    expect(page.locator("#state .status")).to_have_text("succeeded")
    expect(page.locator("[data-metric=val_accuracy] .best")).to_have_text(f"best 90.00% in epoch {EPOCHS}")
    until(page, f"window.checkpoint === {EPOCHS}")
    live = [shown(page, title) for title in ("loss", "accuracy")]
    page.reload()
    again = [shown(page, title) for title in ("loss", "accuracy")]
    for before, after in zip(live, again, strict=True):
        assert before.shape == after.shape
        assert np.abs(before - after).max() < 24


@pytest.mark.parametrize("compared", [False, True])
def test_charts_stand_in_one_order_however_late_their_metrics_come(
    service: Service, open_window: Callable[..., Visit], compared: bool
) -> None:
    ids = [service.submit(), service.submit()]
    page = open_window(service.url).open(f"/ui/compare?jobs={','.join(ids)}" if compared else f"/ui/jobs/{ids[0]}")
    worker = service.claim()
    late: dict[str, float] = {"mode_coverage": 0.5, "frechet_distance": 9.0, "d_loss": 1.0, "grad_norm": 2.0}
    for epoch in range(1, len(late) + 1):
        known = {key: late[key] for key in [*late][:epoch]}
        worker.epoch(epoch, metrics={"val_accuracy": 0.5, "learning_rate": 0.1} | known)
        page.locator("figure.chart").nth(1 + epoch).wait_for(state="attached")
    heads = "all => all.map((head) => head.textContent)"
    live = page.eval_on_selector_all("figure.chart h3", heads)
    page.reload()
    page.locator("figure.chart").nth(len(live) - 1).wait_for(state="attached")
    assert page.eval_on_selector_all("figure.chart h3", heads) == live


def test_the_labels_of_huge_values_are_not_cut_off(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit(epochs=3)
    worker = service.claim()
    for epoch, loss in enumerate((0.7, 3.1e20, 6.8e21), 1):
        worker.epoch(epoch, metrics={"val_loss": loss, "val_accuracy": 0.1})
    worker.succeed()
    page = open_window(service.url, width=700).open(f"/ui/jobs/{job_id}")
    picture = shown(page, "loss")
    ground = picture[2, 2]
    written = np.abs(picture - ground).max(axis=2) > 60
    assert written[:, 6:54].any(), "there are labels"
    assert not written[:, :6].any(), "they begin inside of the chart"


def test_the_horizontal_axis_is_named(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.trained(3)
    visit = open_window(service.url)
    visit.page.add_init_script(LISTEN)
    page = visit.open(f"/ui/jobs/{job_id}")
    expect(canvas(page)).to_be_visible()
    until(page, "window.written.includes('epoch') && !window.written.includes('time')")
    page.get_by_role("button", name="Time").click()
    until(page, "window.written.includes('time')")


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_lines_that_cover_each_other_are_told_apart_by_their_last_values(
    service: Service, open_window: Callable[..., Visit], width: int, scheme: str
) -> None:
    job_id = service.submit(kind="gan")
    worker = service.claim()
    names = ("mode_coverage", "class_entropy", "min_class_share", "confidence", "sample_diversity")
    worker.epoch(1, metrics=dict.fromkeys(names, 0.0) | {"confidence": 0.7, "g_loss": 1.0, "d_loss": 0.5})
    page = open_window(service.url, width=width, color_scheme=scheme).open(f"/ui/jobs/{job_id}")
    keys = figure(page, "quality of the samples").locator(".series button")
    expect(keys).to_have_count(5)
    expect(keys.filter(has_text=re.compile(r"\D0\.00%"))).to_have_count(4)
    expect(keys.filter(has_text="confidence")).to_contain_text("70.00%")
    worker.epoch(2, metrics={"confidence": 0.8, "g_loss": 1.0, "d_loss": 0.5})
    expect(keys.filter(has_text="confidence")).to_contain_text("80.00%")
    expect(figure(page, "GAN losses").locator(".series .last:visible")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_resources_are_a_row_below_the_metrics(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.submit()
    used = Usage(cpu_seconds=25.0, peak_memory_bytes=2**28)
    service.claim().epoch(1, metrics=metrics(1), used=used)
    page = open_window(service.url, width=1440).open(f"/ui/jobs/{job_id}")
    expect(page.locator(".tile.resource")).to_have_count(3)
    tops = page.locator(".tile").evaluate_all(
        "all => all.map((tile) => [tile.className, tile.getBoundingClientRect().y])"
    )
    rows = {y: {name for name, other in tops if other == y} for _, y in tops}
    assert list(rows.values()) == [{"tile"}, {"tile resource"}]
    expect(page.get_by_text("time trained", exact=True)).to_have_attribute("title", re.compile("share the cores"))


def test_files_are_a_line_each_on_a_phone(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.trained(3)
    page = open_window(service.url, width=390).open(f"/jobs/{job_id}/artifacts")
    rows = page.locator("table.files tbody tr")
    expect(rows).to_have_count(6)
    assert max(rows.evaluate_all("all => all.map((row) => row.getBoundingClientRect().height)")) < 70
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(rows.first.locator("a")).to_be_visible()


def test_the_command_for_mlflow_is_whole_and_copied(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.trained(1)
    visit = open_window(service.url, permissions=["clipboard-read", "clipboard-write"])
    page = visit.open(f"/ui/jobs/{job_id}")
    page.get_by_role("button", name="Copy the command for MLflow").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"tapeline export {job_id} --to mlflow --uri http://127.0.0.1:5000"
