"""Reads charts from their pixels, because the page's data does not prove what was drawn."""

from __future__ import annotations

import io
import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Error, Locator, Page

from service.spec.metric_info import PALETTE

_DOT = 4  # pixels: a dot's core is so wide, a line is not


def read(locator: Locator) -> NDArray[np.int64]:
    """A screenshot of one element, (rows, columns, 3). The page must be as large on the screen as in CSS pixels."""
    for attempts_left in reversed(range(5)):
        try:
            picture = locator.screenshot()
            break
        except Error as error:  # a chart that gains a line is made anew
            if attempts_left == 0 or ("not attached" not in str(error) and "not visible" not in str(error)):
                raise
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"), np.int64)


def still(page: Page, locator: Locator, *, pause_ms: int = 50) -> NDArray[np.int64]:
    """A screenshot of an element once two of them are alike: the first may be older than what was drawn last."""
    before = read(locator)
    for _ in range(100):
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        page.wait_for_timeout(pause_ms)
        now = read(locator)
        if now.shape == before.shape and (now == before).all():
            return now
        before = now
    raise AssertionError("the picture does not come to rest")


def where(picture: NDArray[np.int64], series: int) -> NDArray[np.bool_]:
    """Which pixels have the colour of a place in the light palette, from 1."""
    colour = PALETTE[series - 1]
    rgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return np.asarray(np.abs(picture - rgb).max(axis=2) < 24)


def dots(locator: Locator, series: int) -> list[float]:
    """Where the dots of a line are, in pixels from the left of the chart."""
    mask = where(read(locator), series)
    rows, columns = (side - _DOT + 1 for side in mask.shape)
    core = np.ones((rows, columns), bool)
    for down in range(_DOT):
        for right in range(_DOT):
            core &= mask[down : down + rows, right : right + columns]
    there = np.flatnonzero(core.any(axis=0))
    groups = np.split(there, np.flatnonzero(np.diff(there) > 2) + 1) if there.size else []
    return [float(group.mean()) + _DOT / 2 for group in groups]


def wait_for_dots(page: Page, locator: Locator, series: int, count: int, *, timeout_s: float = 60) -> list[float]:
    """Wait until that many dots or more are drawn."""
    ends = time.monotonic() + timeout_s
    while len(found := dots(locator, series)) < count:
        assert time.monotonic() < ends, f"{len(found)} of {count} dots were drawn"
        page.wait_for_timeout(100)
    return found
