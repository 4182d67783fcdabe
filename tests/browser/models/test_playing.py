from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from service.datasets.cache import load
from service.datasets.formats.array_folders import ArrayCache
from service.runtime.settings import Settings
from tests.browser.conftest import Site, Visit
from tests.browser.waiting import until


def digits(settings: Settings, classes: range) -> list[NDArray[np.uint8]]:
    """A real digit of each class, which the network was not trained on."""
    data = load("mnist-10k", settings.data, cache=ArrayCache(settings.datasets_cache))
    return [data.validation.inputs[np.flatnonzero(data.validation.labels == label)[0]] for label in classes]


def paint(page: Page, digit: NDArray[np.uint8]) -> None:
    """Draw a digit with the mouse: a stroke along each run of light pixels."""
    page.get_by_role("button", name="Clear").click()
    box = page.locator("#pad").bounding_box()
    assert box is not None
    step = box["width"] / 28
    for row, line in enumerate(digit > 100):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(int)))
        for start, end in edges.reshape(-1, 2):
            y = box["y"] + (row + 0.5) * step
            page.mouse.move(box["x"] + (start + 0.5) * step, y)
            page.mouse.down()
            page.mouse.move(box["x"] + (end - 0.5) * step, y, steps=2)
            page.mouse.up()


def settled_answer(page: Page) -> str:
    """Wait for the prediction after the last stroke, and return its class."""
    verdict = page.locator("#verdict")
    expect(verdict).not_to_have_attribute("aria-busy", "true")
    return verdict.get_attribute("data-answer") or ""


@pytest.mark.stack
def test_drawn_digits_are_classified(visit: Visit, site: Site, jobs: dict[str, Any]) -> None:
    page = visit.open(f"/ui/play/{jobs['reader']['id']}")
    expect(page.locator("#checkpoint-name")).to_contain_text("epoch")
    page.locator("#pen").fill("14")
    answers = []
    for digit in digits(site.settings, range(0, 10, 3)):
        paint(page, digit)
        answers.append(settled_answer(page))
    correct = sum(answer == str(label) for label, answer in zip(range(0, 10, 3), answers, strict=True))
    assert correct >= 3, answers
    expect(page.locator("#latency")).to_have_text(re.compile(r"^[1-9]\d* ms from stroke to prediction$"))
    # Important pixels are tinted, so their red and blue differ.
    tinted_pixels = page.locator("#looked").evaluate(
        "canvas => { const { data } = canvas.getContext('2d').getImageData(0, 0, 280, 280);"
        " return data.filter((value, at) => at % 4 === 0 && value !== data[at + 2]).length; }"
    )
    assert tinted_pixels > 1000
    expect(page.locator(".bars .winner .probability")).to_contain_text("%")


def png(digit: NDArray[np.uint8]) -> bytes:
    """Dark ink on white paper, larger than the network's input."""
    file = io.BytesIO()
    Image.fromarray(255 - digit).resize((120, 120)).save(file, "PNG")
    return file.getvalue()


def drop(page: Page, file: Path) -> None:
    """Drag a file from outside the browser onto the card with the pad and drop it."""
    browser = page.context.new_cdp_session(page)
    box = page.locator("#drop").bounding_box()
    assert box is not None
    drag_data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    position = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for event in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": event, "data": drag_data, **position})


def winner(page: Page) -> tuple[str, str]:
    """The digit with the longest bar, and the one that is marked."""
    widths = page.locator("#bars .bar").evaluate_all("bars => bars.map((bar) => bar.getBoundingClientRect().width)")
    return str(int(np.argmax(widths))), page.locator("#bars li.winner .label").text_content() or ""


def test_an_image_file_is_classified(visit: Visit, site: Site, jobs: dict[str, Any], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("three.png", "four.png", "no.png")]
    for file, content in zip(files, [*map(png, digits(site.settings, range(3, 5))), b"no picture"], strict=True):
        file.write_bytes(content)
    three, four, not_an_image = files
    page = visit.open(f"/ui/play/{jobs['reader']['id']}")
    for provide, file in (
        (lambda file: page.set_input_files("#file", file), three),
        (lambda file: drop(page, file), four),
        (lambda file: page.set_input_files("#file", file), three),  # the same file again
    ):
        provide(file)
        digit = "4" if file is four else "3"
        expect(page.locator("#verdict")).to_contain_text(f"{digit}, ")
        until(page, "document.getAnimations().length === 0")
        assert winner(page) == (digit, digit)
    drop(page, not_an_image)
    expect(page.locator("#toasts")).to_contain_text("cannot read that file")
    assert winner(page) == ("3", "3")
    assert "/ui/play/" in page.url


def test_older_checkpoints_classify_the_same_drawing(visit: Visit, site: Site, jobs: dict[str, Any]) -> None:
    page = visit.open(f"/ui/play/{jobs['reader']['id']}")
    paint(page, digits(site.settings, range(5, 6))[0])
    settled_answer(page)
    before = page.locator("#bars").text_content()
    page.locator("#checkpoint").focus()
    page.keyboard.press("Home")
    expect(page.locator("#checkpoint-name")).to_have_text("epoch 1")
    until(page, "before => document.querySelector('#bars').textContent !== before", before)


def test_drawing_by_touch_does_not_scroll(open_site: Callable[..., Visit], jobs: dict[str, Any]) -> None:
    visit = open_site(width=360, has_touch=True, is_mobile=True)
    page = visit.open(f"/ui/play/{jobs['reader']['id']}")
    box = page.locator("#pad").bounding_box()
    assert box is not None
    browser = page.context.new_cdp_session(page)
    x = box["x"] + box["width"] / 2
    for event, position in (("touchStart", 0.2), ("touchMove", 0.4), ("touchMove", 0.6), ("touchMove", 0.8)):
        point = {"x": x, "y": box["y"] + position * box["height"]}
        browser.send("Input.dispatchTouchEvent", {"type": event, "touchPoints": [point]})
    browser.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page.locator("#bars .winner")).to_have_count(1)
    expect(page.locator("#verdict")).to_have_attribute("data-answer", "1")
    assert page.evaluate("scrollY") == 0


@pytest.mark.stack
def test_the_latent_space_of_a_gan_is_explored(visit: Visit, jobs: dict[str, Any]) -> None:
    page = visit.open(f"/ui/play/{jobs['painter']['id']}")
    expect(page.locator("#many img")).to_have_count(30)
    picture, step_image = page.locator("#picture"), page.locator("#step")
    for image in ("#picture", "#step"):
        expect(page.locator(image)).to_have_attribute("src", re.compile("^data:image/png"))

    def changed_source(action: Any, image: str = "#picture") -> str:
        before = page.locator(image).get_attribute("src")
        action()
        until(page, "([image, before]) => document.querySelector(image).src !== before", [image, before])
        return page.locator(image).get_attribute("src") or ""

    expect(page.locator("#directions")).to_contain_text("Each slider moves the point along one random direction")
    expect(page.locator("main")).not_to_contain_text("mode collapse")
    first = picture.get_attribute("src")
    moved = changed_source(lambda: page.get_by_label("Direction 1").fill("1"))
    assert changed_source(lambda: page.get_by_role("button", name="Reset to seed").click()) == first
    assert moved != first
    changed_source(lambda: page.locator("#seed").fill("12"))
    changed_source(lambda: page.locator("#many button").nth(3).click())
    changed_source(lambda: page.get_by_label("Position on the path").fill("12"), "#step")
    changed_source(lambda: page.get_by_role("button", name="Use as start").click(), "#start")
    assert step_image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 28
    page.locator("#checkpoint").focus()
    changed_source(lambda: page.keyboard.press("Home"))  # the same point, two epochs earlier
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Animation (GIF)").click()
    assert downloaded.value.path().read_bytes().startswith(b"GIF8")
