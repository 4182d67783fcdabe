"""Reads charts from their pixels, because the page's data does not prove what was drawn."""

from __future__ import annotations

import io
import time
from base64 import b64decode

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Error, Locator, Page

from service.spec.metric_info import PALETTE
from tests.browser.waiting import wait_for_frames

_DOT_CORE_PX = 4  # the core of a dot is this wide, a line is not


_READ_CANVAS = """(element) => {
  if (element.localName !== "canvas") return null;
  if (!element.width || !element.height) return "";
  const copy = new OffscreenCanvas(element.width, element.height).getContext("2d");
  const colour = (part) => getComputedStyle(part).backgroundColor;
  let behind = element;
  while (behind.parentElement && colour(behind) === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  copy.fillStyle = colour(behind);
  copy.fillRect(0, 0, element.width, element.height);
  copy.drawImage(element, 0, 0);
  return copy.canvas.convertToBlob().then((blob) => new Promise((done) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result.split(",")[1]));
    reader.readAsDataURL(blob);
  }));
}"""
"""The picture of a canvas on its background, without what lies above it. A screenshot takes far more CPU time."""


def read_pixels(locator: Locator) -> NDArray[np.int64]:
    """The pixels of one element, (rows, columns, 3). A CSS pixel must be one pixel of the screen."""
    encoded = locator.evaluate(_READ_CANVAS)
    if encoded == "":
        return np.zeros((0, 0, 3), np.int64)
    with Image.open(io.BytesIO(_screenshot(locator) if encoded is None else b64decode(encoded))) as image:
        return np.asarray(image.convert("RGB"), np.int64)


def _screenshot(locator: Locator) -> bytes:
    for attempts_left in reversed(range(5)):
        try:
            return locator.screenshot()
        except Error as error:  # a chart that gains a line is created again
            if attempts_left == 0 or ("not attached" not in str(error) and "not visible" not in str(error)):
                raise
    raise AssertionError("unreachable")


def stable_pixels(page: Page, locator: Locator) -> NDArray[np.int64]:
    """The pixels of an element once they are the same twice in a row: at first, they may predate the last drawing."""
    previous = read_pixels(locator)
    for _ in range(100):
        wait_for_frames(page)
        current = read_pixels(locator)
        if current.shape == previous.shape and (current == previous).all():
            return current
        previous = current
    raise AssertionError("the picture does not come to rest")


def colour_mask(picture: NDArray[np.int64], series: int) -> NDArray[np.bool_]:
    """A mask of the pixels that have the colour of a series in the light palette, counted from 1."""
    colour = PALETTE[series - 1]
    rgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
    return np.asarray(np.abs(picture - rgb).max(axis=2) < 24)


def dot_positions(locator: Locator, series: int) -> list[float]:
    """Horizontal positions of the dots of a line, in pixels from the left edge of the chart."""
    mask = colour_mask(read_pixels(locator), series)
    rows, columns = (max(0, side - _DOT_CORE_PX + 1) for side in mask.shape)
    core = np.ones((rows, columns), bool)
    for down in range(_DOT_CORE_PX):
        for right in range(_DOT_CORE_PX):
            core &= mask[down : down + rows, right : right + columns]
    dot_columns = np.flatnonzero(core.any(axis=0))
    groups = np.split(dot_columns, np.flatnonzero(np.diff(dot_columns) > 2) + 1) if dot_columns.size else []
    return [float(group.mean()) + _DOT_CORE_PX / 2 for group in groups]


def wait_for_dots(page: Page, locator: Locator, series: int, count: int, *, timeout_s: float = 60) -> list[float]:
    """Wait until at least ``count`` dots are drawn, and return their positions."""
    deadline = time.monotonic() + timeout_s
    while len(positions := dot_positions(locator, series)) < count:
        assert time.monotonic() < deadline, f"{len(positions)} of {count} dots were drawn"
        page.wait_for_timeout(100)
    return positions
