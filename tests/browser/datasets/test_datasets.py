"""The dataset pages: classes, examples, rows, folds, and links to the form for a new job."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests import coloured_shapes
from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.conftest import Visit, wait_until_accepted
from tests.browser.datasets.image_uploads import upload
from tests.browser.waiting import until

LONG_NAME = "a-name-of-sixty-four-characters-as-long-as-names-can-be-at-all.4"


def bar_boxes(page: Page) -> list[tuple[float, float]]:
    """Left edge and width of each bar, as they are on the screen."""
    boxes = page.eval_on_selector_all(
        "table.classes rect", "all => all.map((bar) => bar.getBoundingClientRect()).map((box) => [box.x, box.width])"
    )
    return [(float(x), float(width)) for x, width in boxes]


def test_bar_lengths_are_proportional_to_class_sizes(open_window: Callable[..., Visit], bare: WebProcess) -> None:
    upload(bare, "uneven", np.repeat([0, 1, 2], [200, 100, 20]))
    page = open_window(bare.url).open("/ui/datasets/uneven")
    bars = bar_boxes(page)
    assert len(bars) == 6
    chart = page.locator("table.classes svg").first.bounding_box()
    assert chart is not None
    # 15% of each class are for validation, so 170 and 30 of 200; the largest class fills the width.
    expected = np.array([170, 30, 85, 15, 17, 3]) / 200 * chart["width"]
    assert [width for _, width in bars] == pytest.approx(expected.tolist(), abs=1)
    assert bars[1][0] == pytest.approx(bars[0][0] + bars[0][1], abs=1)
    colours = page.eval_on_selector_all("table.classes rect", "all => all.map((bar) => getComputedStyle(bar).fill)")
    assert len(set(colours)) == 2
    texts = page.locator("table.classes tbody tr").first.locator("td.number").all_inner_texts()
    assert texts == ["170", "30"]


def test_examples_are_filtered_by_part_and_class_and_paginated(
    open_window: Callable[..., Visit], bare: WebProcess
) -> None:
    upload(bare, "many", np.repeat([0, 1], [100, 40]))
    page = open_window(bare.url).open("/ui/datasets/many")
    images = page.locator("#shown img")
    expect(images).to_have_count(48)
    assert page.locator("#shown figcaption").all_inner_texts() == ["0", "1"] * 24, "not class by class"
    page.get_by_role("button", name="Show more").click()
    expect(images).to_have_count(96)
    page.get_by_role("button", name="Show more").click()
    expect(images).to_have_count(119)
    expect(page.locator("#shown-state")).to_have_text("119 images shown, all there are")
    expect(page.locator("#more")).to_be_hidden()
    page.locator("#class").select_option("1")
    expect(images).to_have_count(34)
    assert set(page.locator("#shown figcaption").all_inner_texts()) == {"1"}
    page.locator("#part").select_option("validation")
    expect(images).to_have_count(6)
    until(page, "[...document.querySelectorAll('#shown img')].every((image) => image.naturalWidth === 6)")


def test_two_hundred_and_fifty_six_classes_fit_the_window(open_window: Callable[..., Visit], bare: WebProcess) -> None:
    upload(bare, LONG_NAME, np.arange(256 * 8) % 256)
    for width in (1440, 390):
        page = open_window(bare.url, width=width).open(f"/ui/datasets/{LONG_NAME}")
        assert len(bar_boxes(page)) == 512
        box = page.locator("table.classes").locator("..").bounding_box()
        assert box is not None
        assert box["height"] < 560
        expect(page.locator("#shown img")).to_have_count(48)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.goto(f"{bare.url}/ui/datasets")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.stack
def test_train_on_it_opens_the_form_with_the_dataset(open_window: Callable[..., Visit], bare: WebProcess) -> None:
    upload(bare, "mine", np.arange(80) % 4)
    page = open_window(bare.url, width=1440).open("/ui/datasets")
    expect(page.locator("tr.dataset")).to_have_count(8)
    page.get_by_role("link", name="mine", exact=True).click()
    page.get_by_role("link", name="Train on it").click()
    wait_until_accepted(page)
    expect(page.locator("#field-dataset-name")).to_have_value("mine")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/ui/jobs/*")
    page.get_by_role("link", name="mine", exact=True).click()
    page.wait_for_url("**/ui/datasets/mine")
    expect(page.locator("#jobs tbody tr")).to_have_count(1)
    expect(page.locator("#jobs")).to_contain_text("queued")


def test_the_form_starts_from_the_preset_that_suits_the_dataset(
    open_window: Callable[..., Visit], bare: WebProcess, tmp_path: Path
) -> None:
    upload(bare, "digits", np.arange(80) % 4)
    with httpx.Client(base_url=bare.url, timeout=30) as http:
        photos = coloured_shapes.write_archive(tmp_path / "photos.zip", 96, side=16).read_bytes()
        http.post("/datasets", data={"name": "photos"}, files={"archive": ("a.zip", photos)}).raise_for_status()
    page = open_window(bare.url, width=1440).open("/ui/datasets/photos")
    page.get_by_role("link", name="Train on it").click()
    wait_until_accepted(page)
    for dataset, preset, epochs in (("photos", "conv", "60"), ("digits", "fast", "3"), ("photos", "conv", "60")):
        page.select_option("#field-dataset-name", dataset)
        chosen = page.get_by_role("button", name=f"Preset {preset}, default")
        expect(chosen).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#presets .tag")).to_have_text(["default"])
        expect(chosen).to_contain_text("default")
        expect(page.locator("#field-epochs")).to_have_value(epochs)
    wait_until_accepted(page)
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/ui/jobs/*")
    expect(page.locator("main")).to_contain_text("conv")


def test_an_empty_list_and_damaged_files_are_reported(open_window: Callable[..., Visit], bare: WebProcess) -> None:
    visit = open_window(bare.url)
    page = visit.open("/ui/datasets")
    expect(page.locator("#no-uploads")).to_be_visible()
    folder = bare.core.settings.data / "torn"
    folder.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte").write_bytes(b"junk")
    page.reload()
    expect(page.locator("tr.dataset", has_text="torn")).to_contain_text("unavailable")
    page.get_by_role("link", name="torn").click()
    expect(page.locator(".note.error")).to_contain_text("is not an IDX file")
    expect(page.get_by_role("link", name="Train on it")).to_have_count(0)
    expect(page.locator("#examples")).to_have_count(0)


def test_the_page_of_a_fold_lists_all_folds(open_window: Callable[..., Visit], bare: WebProcess) -> None:
    upload(bare, "mine", np.arange(80) % 4)
    spec = {"kind": "classifier", "name": "cv", "dataset": {"name": "mine", "folds": 4}}
    with httpx.Client(base_url=bare.url, timeout=30) as http:
        first = http.post("/jobs", json=spec).raise_for_status().json()
    page = open_window(bare.url).open(first["urls"]["page"])
    rows = page.locator("table.folds tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("1 (this job)")
    page.get_by_role("link", name="3", exact=True).click()
    expect(page.locator("h1")).to_have_text("cv (fold 3 of 4)")
    page.get_by_role("link", name="in the list").click()
    expect(page.locator("tr.job")).to_have_count(4)
    assert {re.sub(r"\D", "", text) for text in page.locator("tr.job .name").all_inner_texts()} == {
        "14", "24", "34", "44"
    }  # fmt: skip


@pytest.mark.stack
def test_a_table_shows_its_rows_and_columns(open_window: Callable[..., Visit], bare: WebProcess) -> None:
    page = open_window(bare.url).open("/ui/datasets/iris")
    rows = page.locator("table.rows tbody tr")
    expect(rows).to_have_count(25)
    heads = page.locator("table.rows thead th").all_inner_texts()
    assert heads == ["Row", "species", "sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
    assert rows.first.locator("th, td").all_inner_texts() == ["1", "setosa", "5.1", "3.5", "1.4", "0.2"]
    page.locator("#class").select_option("2")
    expect(rows.first.locator("th")).to_have_text("virginica")
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(43)
    assert len(bar_boxes(page)) == 6
    bar_heights = page.eval_on_selector_all(
        "svg.histogram",
        "all => all.map((chart) => [...chart.children].map((bar) => bar.getBoundingClientRect().height))",
    )
    assert len(bar_heights) == 4
    assert all(len(bars) > 10 and max(bars) == pytest.approx(1.6 * 16, abs=1) for bars in bar_heights)
