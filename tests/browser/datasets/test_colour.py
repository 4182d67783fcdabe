"""Colour images, from the upload of an archive to predictions of the trained network."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tapeline.images.files import SENT_SIDE
from tests import coloured_shapes
from tests.browser.accessibility import serious_violations
from tests.browser.conftest import Finish, Visit
from tests.browser.held_responses import hold
from tests.browser.models.test_playing import drop

SIDE = 16


@pytest.fixture(scope="session")
def shapes(stack_http: httpx.Client, finish: Finish, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A classifier of coloured shapes."""
    path = coloured_shapes.write_archive(tmp_path_factory.mktemp("shapes") / "shapes.zip", 600, side=SIDE)
    with path.open("rb") as file:
        stack_http.post("/datasets", data={"name": "shapes"}, files={"archive": file}).raise_for_status()
    spec = {"kind": "classifier", "preset": "conv", "dataset": "shapes", "epochs": 3, "name": "shapes"}
    return finish(stack_http.post("/jobs", json=spec).raise_for_status().json())


def test_an_opened_image_gets_the_same_prediction_as_in_the_api(
    stack_visit: Visit, stack_http: httpx.Client, shapes: dict[str, Any], tmp_path: Path
) -> None:
    page = stack_visit.open(f"/ui/play/{shapes['id']}")
    expect(page.locator("#verdict")).to_have_text("Open a photo")
    images = dict(coloured_shapes.iter_images(24, 64, seed=5))
    for number, (name, image) in enumerate(list(images.items())[:4]):
        path = tmp_path / f"{name}.{('jpg', 'png', 'webp', 'bmp')[number]}"
        image.save(path, quality=90)
        drop(page, path)
        encoded = base64.b64encode(path.read_bytes()).decode()
        answer = stack_http.post(f"/jobs/{shapes['id']}/predict", json={"images": [encoded], "fit": True}).json()
        winner, probability = answer["class_names"][answer["classes"][0]], max(answer["probabilities"][0])
        expect(page.locator("#verdict")).to_have_text(f"{winner}, {100 * probability:.0f}%")
    coloured_pixels = page.locator("#looked").evaluate(
        "canvas => { const { data } = canvas.getContext('2d').getImageData(0, 0, 280, 280);"
        " return data.filter((value, at) => at % 4 === 0 && Math.abs(value - data[at + 1]) > 40).length; }"
    )
    assert coloured_pixels > 1000


def test_images_too_large_to_send_are_scaled_down_and_classified(
    stack_visit: Visit, shapes: dict[str, Any], tmp_path: Path
) -> None:
    page = stack_visit.open(f"/ui/play/{shapes['id']}")
    (_, image), *_ = coloured_shapes.iter_images(1, 64, seed=5)
    image.resize((3000, 2400)).save(tmp_path / "large.png")
    noise = Image.effect_noise((1200, 1200), 90).convert("RGB")
    noise.save(tmp_path / "noise.bmp")
    for name, size in (("large.png", (SENT_SIDE, SENT_SIDE * 4 // 5)), ("noise.bmp", (SENT_SIDE, SENT_SIDE))):
        page.get_by_role("button", name="Clear").click()
        with page.expect_request("**/predict") as predicting:
            page.set_input_files("#file", str(tmp_path / name))
        [encoded] = predicting.value.post_data_json["images"]
        sent = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        assert sent.size == size
        colours, sent_colours = (
            np.array(picture.resize((8, 8), Image.Resampling.BOX), dtype=int)
            for picture in (Image.open(tmp_path / name), sent)
        )
        assert np.abs(sent_colours - colours).max() < 10, "the whole image is sent"
        expect(page.locator("#verdict")).to_contain_text("%")


HOLD_FILE_READS = """() => {
    const read = Blob.prototype.arrayBuffer;
    const goOn = new Promise((resolve) => (window.goOn = resolve));
    Blob.prototype.arrayBuffer = async function () { await goOn; return read.call(this); };
}"""


def test_a_file_that_is_not_an_image_leaves_the_previous_verdict(
    stack_visit: Visit, shapes: dict[str, Any], tmp_path: Path
) -> None:
    page = stack_visit.open(f"/ui/play/{shapes['id']}")
    (_, image), *_ = coloured_shapes.iter_images(1, 64, seed=5)
    image.save(tmp_path / "photo.png")
    (tmp_path / "no.png").write_bytes(b"no picture")
    verdict = page.locator("#verdict")
    page.set_input_files("#file", str(tmp_path / "photo.png"))
    expect(verdict).to_contain_text("%")
    previous_verdict = verdict.text_content() or ""
    page.evaluate(HOLD_FILE_READS)
    page.set_input_files("#file", str(tmp_path / "photo.png"))
    expect(verdict).to_have_text("Computing…")
    page.set_input_files("#file", str(tmp_path / "no.png"))
    expect(page.get_by_text("This browser cannot read that file as an image.").first).to_be_attached()
    page.evaluate("goOn()")
    expect(verdict).to_have_text(previous_verdict)


def test_a_photo_is_opened_instead_of_drawn(stack_visit: Visit, shapes: dict[str, Any], tmp_path: Path) -> None:
    page = stack_visit.open(f"/ui/jobs/{shapes['id']}")
    page.get_by_role("link", name="Classify a photo").click()
    page.wait_for_load_state()
    expect(page.locator("h1")).to_have_text("Classify a photo")
    expect(page.get_by_text("Drop a photo here")).to_be_visible()
    for absent in (page.locator("#pad"), page.locator("#looked"), page.get_by_label("Pen", exact=True)):
        expect(absent).to_be_hidden()
    assert serious_violations(page) == []
    predict = hold(page, "POST .*/predict")
    (_, image), *_ = coloured_shapes.iter_images(1, 64, seed=5)
    image.save(tmp_path / "photo.png")
    with page.expect_file_chooser() as chosen:
        page.get_by_text("Drop a photo here").click()
    chosen.value.set_files(tmp_path / "photo.png")
    expect(page.locator("#verdict")).to_have_text("Computing…")
    expect(page.locator("#pad")).to_be_visible()
    predict.wait(1)
    predict.release_all()
    expect(page.locator("#verdict")).to_contain_text("%")
    expect(page.locator("#looked")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("Drop a photo here")).to_be_visible()
    expect(page.locator("#verdict")).to_have_text("Open a photo")


def test_pages_show_colours(stack_visit: Visit, stack_http: httpx.Client, shapes: dict[str, Any]) -> None:
    page = stack_visit.open(f"/ui/jobs/{shapes['id']}")
    source = page.locator("img.pixels").first.get_attribute("src")
    assert source is not None
    pixels = Image.open(io.BytesIO(stack_http.get(source).content)).convert("HSV")
    assert pixels.getextrema()[1][1] > 150
    page = stack_visit.open("/ui/datasets")
    row = page.locator(".dataset").filter(has=page.get_by_role("link", name="shapes", exact=True))
    expect(row).to_contain_text("16 \u00d7 16, colour")


@pytest.fixture(scope="session")
def wide_greys(stack_http: httpx.Client, finish: Finish, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A classifier of photos that were converted to grey at upload and are twice as wide as high."""
    path = coloured_shapes.write_archive(tmp_path_factory.mktemp("greys") / "greys.zip", 120, side=SIDE)
    with path.open("rb") as file:
        options = {"name": "greys", "size": "32x16", "channels": "1"}
        stack_http.post("/datasets", data=options, files={"archive": file}).raise_for_status()
    spec = {"kind": "classifier", "dataset": "greys", "epochs": 1, "name": "greys"}
    return finish(stack_http.post("/jobs", json=spec).raise_for_status().json())


@pytest.mark.parametrize("size", [(240, 60), (90, 160)])
def test_the_pad_shows_the_part_of_a_photo_that_the_network_sees(
    stack_visit: Visit, stack_http: httpx.Client, wide_greys: dict[str, Any], tmp_path: Path, size: tuple[int, int]
) -> None:
    """A bright photo is neither inverted like ink on paper nor framed in black; the API predicts the same."""
    image = Image.linear_gradient("L").resize(size).point(lambda level: 120 + level // 2).convert("RGB")
    image.paste((200, 30, 40), (size[0] // 2 - 20, size[1] // 2 - 20, size[0] // 2 + 5, size[1] // 2 + 20))
    image.save(tmp_path / "photo.jpg", quality=95)
    encoded = base64.b64encode((tmp_path / "photo.jpg").read_bytes()).decode()
    answer = stack_http.post(f"/jobs/{wide_greys['id']}/predict", json={"images": [encoded], "explain": True}).json()
    page = stack_visit.open(f"/ui/play/{wide_greys['id']}")
    drop(page, tmp_path / "photo.jpg")
    winner, probability = answer["class_names"][answer["classes"][0]], max(answer["probabilities"][0])
    expect(page.locator("#verdict")).to_have_text(f"{winner}, {100 * probability:.0f}%")
    expect(page.locator("#latency")).to_have_text(re.compile(r"^\d+ ms from opened file to prediction$"))
    for name in ("#pad", "#looked"):
        box = page.locator(name).bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(2, abs=0.02)
    pad_data = page.locator("#pad").evaluate(
        "pad => { const small = new OffscreenCanvas(32, 16).getContext('2d'); small.imageSmoothingQuality = 'high';"
        " small.drawImage(pad, 0, 0, 32, 16); return [...small.getImageData(0, 0, 32, 16).data]; }"
    )
    pixels = np.array(pad_data).reshape(16, 32, 4)[:, :, :3]
    assert np.ptp(pixels, axis=2).max() <= 1  # in grey
    assert np.abs(pixels[:, :, 0] / 255 - np.array(answer["seen"][0])).mean() < 0.03
