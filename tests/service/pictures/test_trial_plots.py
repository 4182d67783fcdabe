"""Plots of trials with bands around the means."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from service.pictures import plots
from service.pictures.plots import BandedLine
from service.spec.metric_info import PALETTE
from tests.service.pictures.test_plots import count_ink, read_png

EPOCHS = list(range(1, 11))


def line(middle: float, width: float | None, *, epochs: list[int] = EPOCHS, label: str = "trial 0") -> BandedLine:
    mean = [middle + 0.01 * epoch for epoch in epochs]
    edge = 0.0 if width is None else width
    low: list[float | None] = [None if width is None else value - edge for value in mean]
    high: list[float | None] = [None if width is None else value + edge for value in mean]
    return BandedLine(label=label, epochs=epochs, mean=mean, low=low, high=high)


def count_band_pixels(content: bytes) -> int:
    """Count the pixels in a tint of the first colour, that of the band."""
    rgb = read_png(content).astype(int)
    colour = np.array([int(PALETTE[0][start : start + 2], 16) for start in (1, 3, 5)])
    tint = 255 - 0.18 * (255 - colour)
    return int((np.abs(rgb - tint).max(axis=2) < 6).sum())


def draw(*lines: BandedLine, fmt: plots.Format = "png", metric: str = "val_accuracy") -> bytes:
    return plots.banded(lines, metric=metric, title="a title", caption="mean of 3 seeds", fmt=fmt)


def test_a_wider_band_covers_more_pixels() -> None:
    wide, narrow, none = (count_band_pixels(draw(line(0.5, width))) for width in (0.04, 0.01, None))
    assert wide > 2 * narrow > 0
    assert none < narrow / 5


def test_line_band_and_name_of_each_trial_have_its_own_colour() -> None:
    lines = [line(0.1 * index, 0.01, label=f"trial {index}") for index in range(len(PALETTE))]
    content = draw(*lines)
    assert all(count_ink(content, colour) > 100 for colour in PALETTE)
    svg = draw(*lines, fmt="svg").decode()
    assert ET.fromstring(svg).tag.endswith("svg")
    plot, _, legend = svg.partition('<g id="legend_1">')
    names = re.findall(r"stroke: (#\w{6}); stroke-width: 2.*?<!-- (.*?) -->", legend, re.DOTALL)
    assert names == [(colour, f"trial {index}") for index, colour in enumerate(PALETTE)]
    line_pattern = r'd="M \S+ (\S+) [^"]*" \S+ style="fill: none; stroke: (#\w{6}); stroke-width: 2'
    band_pattern = r'd="M \S+ (\S+) [^"]*"/>\s*</defs>\s*<g [^>]*>\s*<use [^>]*fill: (#\w{6}); fill-opacity: 0.18'
    for pattern in (line_pattern, band_pattern):
        heights, colours = zip(*re.findall(pattern, plot), strict=True)
        assert colours == PALETTE
        steps = np.diff(np.array(heights, float))
        assert steps.max() < 0  # each trial is above the previous one: in an SVG, y points down
        np.testing.assert_allclose(steps, steps.mean(), atol=0.01)


@pytest.mark.parametrize("metric", ["val_accuracy", "train_loss", "frechet_distance", "$x$_unknown"])
def test_single_epochs_gaps_and_unknown_metrics_are_drawn(metric: str) -> None:
    gaps = BandedLine(label="trial 3", epochs=[1, 2, 3], mean=[None, 1e300, 0.5], low=[None] * 3, high=[None] * 3)
    for lines in ([line(0.5, 0.1, epochs=[4])], [gaps], [line(0.5, 0.1), gaps]):
        assert count_ink(draw(*lines, metric=metric), PALETTE[0]) > 10


def test_equal_values_of_one_epoch_are_drawn_despite_round_off_in_their_mean() -> None:
    equal = 28 / 30
    mean = sum([equal] * 3) / 3
    for low, high in ((equal, equal), (np.nextafter(mean, 1), mean), (mean, np.nextafter(mean, 0))):
        point = BandedLine(label="trial 0", epochs=[1], mean=[mean], low=[float(low)], high=[float(high)])
        assert count_ink(draw(point), PALETTE[0]) > 10
