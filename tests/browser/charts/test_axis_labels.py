"""The labels of a chart's vertical axis, as they are drawn, compared with the lines and dots beside them."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.apps.simulated_worker import Service, figure
from tests.browser.conftest import Visit
from tests.browser.pixels import colour_mask, read_pixels
from tests.browser.waiting import poll, until

RECORD_LABELS = """const { fillText, clearRect } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.clearRect = function (...place) {
  this.canvas.labels = [];
  return clearRect.apply(this, place);
};
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  if (this.textAlign === "right") this.canvas.labels?.push([text, y, x - this.measureText(text).width]);
  return fillText.call(this, text, x, y);
};"""
"""Records the texts that end at the vertical axis, their vertical positions and left edges."""

STEPS = (1, 2, 2.5, 5)
UNITS = {
    "": 1,
    "%": 0.01,
    "K": 1e3,
    "M": 1e6,
    "B": 1e9,
    "T": 1e12,
    " s": 1,
    " B": 1,
    " kB": 1e3,
    " MB": 1e6,
    " GB": 1e9,
}


def parse_label(label: str) -> float:
    """The value that a label stands for."""
    match = re.fullmatch(r"(-?[\d,.]+(?:e[^\d]?\d+)?)( ?\D+)?", label)
    assert match is not None, label
    return float(match[1].replace(",", "").replace("\N{MINUS SIGN}", "-")) * UNITS[match[2] or ""]


@pytest.fixture
def show(service: Service, open_window: Callable[..., Visit]) -> Callable[[dict[str, tuple[float, float]]], Page]:
    """Open the page of a job whose metrics change from one value to another in two epochs."""

    def open_one(metrics: dict[str, tuple[float, float]]) -> Page:
        job_id = service.submit()
        worker = service.claim()
        for epoch in (1, 2):
            worker.commit_epoch(epoch, metrics={name: values[epoch - 1] for name, values in metrics.items()})
        worker.succeed()
        visit = open_window(service.url, width=1440, own=True)
        visit.error_log.expected.append("status of 500")  # a simulated worker's checkpoints contain no network
        visit.page.add_init_script(RECORD_LABELS)
        page = visit.open(f"/ui/jobs/{job_id}")
        page.locator("figure.chart").first.wait_for(state="attached")
        page.locator("#more-curves").evaluate("more => { more.open = true; }")
        return page

    return open_one


def axis_labels(page: Page, title: str) -> list[tuple[float, float]]:
    """Value and vertical position of each label, from the top; all labels must begin inside the chart."""
    canvas = figure(page, title).locator("canvas")
    figure(page, title).scroll_into_view_if_needed()
    expect(canvas).to_be_visible()
    poll(page, lambda: canvas.evaluate("canvas => canvas.labels?.length"), "labels")
    drawn: list[Any] = canvas.evaluate("canvas => canvas.labels")
    assert min(left for _, _, left in drawn) >= 0, drawn
    return sorted(((parse_label(text), y) for text, y, _ in drawn), key=lambda label: label[1])


def check_labels(page: Page, title: str, values: tuple[float, float], series: int) -> float:
    """Check that labels are evenly spaced and dots at the height of their values; return the label step."""
    labelled = axis_labels(page, title)
    steps = [above - below for (above, _), (below, _) in pairwise(labelled)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6), (title, labelled)
    picture = read_pixels(figure(page, title).locator("canvas"))
    rows = np.flatnonzero(colour_mask(picture, series)[:, 66:].any(axis=1))  # a line from one dot to the other
    heights = [y for _, y in labelled][::-1]
    highest, lowest = np.interp([rows.min() + 3, rows.max() - 3], heights[::-1], [value for value, _ in labelled])
    tolerance = 3 * abs(steps[0]) / np.diff(heights[::-1]).mean()  # three pixels
    if heights[-1] <= rows.min() + 3:
        assert highest == pytest.approx(max(values), abs=tolerance)
    if heights[0] >= rows.max() - 3:
        assert lowest == pytest.approx(min(values), abs=tolerance)
    return steps[0]


SPAN = 5.2
"""The range of the values, in label steps: the next smaller step would not leave the labels enough room."""


@pytest.mark.parametrize(
    ("suffix", "powers"),
    [
        ("", (-4, -3, 3, 7)),
        ("_bytes", (2, 8)),
        ("_seconds", (-2, 1)),
        pytest.param("", (-7, -2, -1, 0, 1, 5), marks=pytest.mark.nightly),
        pytest.param("_bytes", (0, 4, 6), marks=pytest.mark.nightly),
        pytest.param("_seconds", (-1, 0, 3), marks=pytest.mark.nightly),
    ],
)
def test_labels_are_the_exact_values_of_grid_lines(
    show: Callable[..., Page], suffix: str, powers: tuple[int, ...]
) -> None:
    expected = {
        f"m{power + 9}x{step}at{base}".replace(".", "c") + suffix: (step * 10.0**power, base)
        for power in powers
        for step in STEPS
        for base in (0.3, 38.3)
    }
    values = {name: (base * step, (base + SPAN) * step) for name, (step, base) in expected.items()}
    page = show(values)
    for name, (step, _) in expected.items():
        assert check_labels(page, name.replace("_", " "), values[name], 8) == pytest.approx(step, rel=1e-6)


@pytest.mark.parametrize(
    "step", [*(pytest.param(step, marks=pytest.mark.nightly) for step in (0.025, 0.05, 0.1)), 0.0025]
)
def test_percentage_labels_are_the_exact_values_of_grid_lines(show: Callable[..., Page], step: float) -> None:
    values = (0.4, 0.4 + SPAN * step)
    assert check_labels(show({"val_accuracy": values}), "accuracy", values, 2) == pytest.approx(step)


def test_labels_of_a_logarithmic_axis_are_evenly_spaced_powers_of_ten(show: Callable[..., Page]) -> None:
    page = show({"val_loss": (2e-5, 0.9)})
    figure(page, "loss").get_by_role("button", name="Log").click()
    has_log_labels = (
        "[...document.querySelectorAll('canvas')].some((one) => one.labels?.some(([text]) => text === '1e\u22124'))"
    )
    until(page, has_log_labels)
    labelled = axis_labels(page, "loss")
    assert [value for value, _ in labelled] == pytest.approx([10.0**-power for power in range(len(labelled))], rel=1e-6)
    spacing = np.diff([y for _, y in labelled])
    assert spacing == pytest.approx([spacing.mean()] * len(spacing), abs=1.5)
