"""The page of a job, except curves: tiles, scores of the classes, mistakes, samples, lineage and the note."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page, expect

from service.spec import metric_info
from tests.browser.accessibility import serious_violations
from tests.browser.conftest import Finish, Visit
from tests.browser.pixels import stable_pixels
from tests.browser.waiting import until

PHONE = {"width": 390, "height": 844}


def wait_until_decoded(page: Page, selector: str) -> None:
    """Wait until an image is decoded and laid out on the page."""
    until(page, "selector => document.querySelector(selector).naturalWidth > 0", selector)
    page.locator(selector).evaluate("image => image.decode()")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def is_inside(page: Page, locator: Locator, width: int) -> bool:
    box = locator.bounding_box()
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


def test_tiles_show_the_latest_and_the_best_value(visit: Visit, http: httpx.Client, jobs: dict[str, Any]) -> None:
    job = jobs["reader"]
    series = http.get(job["urls"]["metrics"]).json()["series"]
    page = visit.open(f"/ui/jobs/{job['id']}?checkpoint=latest")
    expect(page.get_by_role("heading", name="Metrics latest: epoch 6")).to_be_visible()
    for name, best in (("val_accuracy", max), ("val_loss", min), ("train_loss", min)):
        tile = page.locator(f"[data-metric={name}]")
        values = series[name]
        ranked = list(zip(values, (-loss for loss in series["val_loss"]), strict=True))  # the lowest loss breaks a tie
        epoch = 1 + (ranked.index(max(ranked)) if name == "val_accuracy" else values.index(best(values)))
        expect(tile.locator(".value")).to_have_text(metric_info.number(name, values[-1]))
        expect(tile.locator(".best")).to_have_text(f"best {metric_info.number(name, best(values))} in epoch {epoch}")
    expect(page.locator("[data-resource=duration] .value")).to_contain_text("s")


def test_the_explanation_of_a_metric_is_opened_by_keyboard(visit: Visit, jobs: dict[str, Any]) -> None:
    page = visit.open(f"/ui/jobs/{jobs['painter']['id']}")
    tile = page.locator("[data-metric=d_fake]")
    expect(tile.locator("summary")).to_have_text("D(fake)")
    expect(tile.locator(".best")).to_have_count(0)  # neither direction is better
    text = metric_info.describe("d_fake").description
    expect(tile.locator("summary")).to_have_attribute("title", text)
    expect(tile.get_by_text(text)).to_be_hidden()
    tile.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(tile.get_by_text(text)).to_be_visible()


@pytest.mark.stack
def test_tiles_and_scores_follow_a_running_job(stack_visit: Visit, stack_http: httpx.Client) -> None:
    job = stack_http.post("/jobs", json={"kind": "classifier", "name": "moving", "epochs": 2000}).json()
    page = stack_visit.open(f"/ui/jobs/{job['id']}?checkpoint=latest")
    expect(page.locator("[data-metric=val_loss] .best")).to_contain_text("in epoch")
    page.locator("#explained-val_loss summary").click()
    before = {name: page.locator(name).inner_text() for name in ("#tiles-title", "#classes .head", "#confusion .head")}
    mistakes = page.locator("#mistakes [data-of]")
    page.locator("#mistakes").scroll_into_view_if_needed()
    expect(mistakes).to_contain_text("latest: epoch")
    first = mistakes.inner_text()
    for selector, text in before.items():
        expect(page.locator(selector)).not_to_have_text(text, use_inner_text=True)
    expect(page.locator("#explained-val_loss p")).to_be_visible()  # still open
    expect(mistakes).not_to_have_text(first)
    stack_http.post(f"/jobs/{job['id']}/cancel").raise_for_status()
    expect(page.locator("#state .status")).to_have_text("cancelled")
    last = stack_http.get(job["urls"]["self"]).json()["progress"]["epoch"]
    expect(page.locator("#tiles-title")).to_have_text(f"Metrics latest: epoch {last}")
    expect(page.locator("#classes .head")).to_contain_text(f"epoch {last}")
    stack_visit.leave()
    stack_http.delete(job["urls"]["self"])


def test_each_class_has_its_precision_recall_and_f1(visit: Visit, http: httpx.Client, jobs: dict[str, Any]) -> None:
    job = jobs["reader"]
    confusion = http.get(f"/jobs/{job['id']}/confusion?checkpoint=best").json()
    page = visit.open(f"/ui/jobs/{job['id']}")
    rows = page.locator("#classes tbody tr")
    expect(rows).to_have_count(10)
    for row, score in zip(rows.all(), confusion["per_class"], strict=True):
        percentages = [f"{score[name]:.1%}" for name in ("precision", "recall", "f1")]
        assert row.locator("th, td").all_inner_texts() == [score["class_name"], str(score["support"]), *percentages]
    means = page.locator("#classes tfoot td").all_inner_texts()
    assert means[2:] == [f"{confusion[name]:.1%}" for name in ("balanced_accuracy", "macro_f1")]


@pytest.mark.stack
def test_a_cell_of_the_confusion_matrix_is_described_in_words(visit: Visit, jobs: dict[str, Any]) -> None:
    page = visit.open(f"/ui/jobs/{jobs['reader']['id']}")
    expect(page.locator("#confusion")).to_contain_text("Rows: true class. Columns: predicted class.")
    cell = page.locator("#confusion td.wrong button").first
    count = int(cell.inner_text())
    true, predicted = cell.get_attribute("data-actual"), cell.get_attribute("data-predicted")
    title = f"True {true}, predicted {predicted}: {count} image{'' if count == 1 else 's'}"
    page.get_by_role("button", name=title, exact=True).click()
    expect(page.locator("#cell-title")).to_have_text(title)
    expect(page.locator("#cell-images img")).to_have_count(count)
    page.locator("#cell-images button").first.click()
    expect(page.locator("#viewer")).to_be_visible()
    wait_until_decoded(page, "#viewer img")
    box = page.locator("#viewer img").bounding_box()
    assert box is not None
    assert box["width"] >= 280
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator("#cell")).to_be_visible()


def test_the_most_confident_mistakes_are_shown_and_enlarged(
    visit: Visit, http: httpx.Client, jobs: dict[str, Any]
) -> None:
    job = jobs["reader"]
    mistakes = http.get(f"/jobs/{job['id']}/mistakes?limit=24").json()
    page = visit.open(f"/ui/jobs/{job['id']}")
    thumbs = page.locator("#mistakes-images button")
    page.locator("#mistakes").scroll_into_view_if_needed()
    expect(thumbs).to_have_count(len(mistakes["data"]))
    expect(page.locator("#mistakes-state")).to_contain_text(f"{mistakes['count']} of {mistakes['validation_count']}")
    first = mistakes["data"][0]
    title = f"True {first['true_class']}, predicted {first['predicted_class']}"
    expect(thumbs.first).to_have_attribute("aria-label", f"{title}, {100 * first['confidence']:.1f}% confident")
    thumbs.first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-title")).to_have_text(title)
    expect(page.locator("#viewer-about")).to_contain_text(f"Validation image {first['index']}.")
    wait_until_decoded(page, "#viewer img")
    image = page.locator("#viewer img")
    source = image.get_attribute("src") or ""
    page.keyboard.press("ArrowRight")
    second = mistakes["data"][1]
    expect(page.locator("#viewer-about")).to_contain_text(f"Validation image {second['index']}.")
    expect(image).not_to_have_attribute("src", source)
    wait_until_decoded(page, "#viewer img")


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_calibration_dots_are_at_their_confidence_and_accuracy(
    open_site: Callable[..., Visit], http: httpx.Client, jobs: dict[str, Any], width: int, scheme: str
) -> None:
    job = jobs["reader"]
    calibration = http.get(f"/jobs/{job['id']}/calibration?checkpoint=best").json()
    page = open_site(width=width, color_scheme=scheme).open(f"/ui/jobs/{job['id']}")
    card = page.locator("#calibration")
    card.scroll_into_view_if_needed()
    gap = f"{100 * calibration['expected_error']:.1f} percentage points"
    expect(card.locator("[data-state]")).to_contain_text(f"Confidence and accuracy differ by {gap} on average")
    bins = [item for item in calibration["bins"] if item["count"]]
    dots = card.locator("circle")
    expect(dots).to_have_count(len(bins))

    def center(locator: Locator) -> tuple[float, float]:
        box = locator.bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    low, high = card.locator("text", has_text=re.compile("^0%$")), card.locator("text", has_text=re.compile("^100%$"))
    (left, _), (right, _) = center(low.nth(0)), center(high.nth(0))  # labels below the confidence axis
    (_, bottom), (_, top) = center(low.nth(1)), center(high.nth(1))  # labels beside the accuracy axis
    for number, item in enumerate(bins):
        x, y = center(dots.nth(number))
        assert (x - left) / (right - left) == pytest.approx(item["confidence"], abs=0.02)
        assert (bottom - y) / (bottom - top) == pytest.approx(item["accuracy"], abs=0.02)


@pytest.mark.stack
def test_samples_are_shown_full_size_epoch_by_epoch(visit: Visit, jobs: dict[str, Any]) -> None:
    job = jobs["painter"]
    page = visit.open(f"/ui/jobs/{job['id']}")
    page.locator("#sample-large").focus()
    small = page.locator("#samples img").first.bounding_box()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-title")).to_have_text("Samples, epoch 3")
    expect(page.locator("#viewer-next")).to_be_disabled()
    wait_until_decoded(page, "#viewer img")
    large = page.locator("#viewer img").bounding_box()
    assert small is not None
    assert large is not None
    assert large["width"] > small["width"]
    page.locator("#viewer-previous").click()
    expect(page.locator("#viewer-title")).to_have_text("Samples, epoch 2")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#viewer img")).to_have_attribute("src", f"/jobs/{job['id']}/samples/1.png")
    with page.expect_download() as downloaded:
        page.locator("#viewer-file").click()
    assert downloaded.value.suggested_filename == "samples-epoch-1.png"
    page.locator("#viewer").get_by_role("button", name="Close").click()
    expect(page.locator("#one-epoch output")).to_have_text("epoch 1 of 3")


@pytest.mark.parametrize("name", ["painter", "reader"])
def test_the_samples_of_two_epochs_are_split_by_a_divider(visit: Visit, jobs: dict[str, Any], name: str) -> None:
    job = jobs[name]
    last = job["progress"]["epoch"]
    page = visit.open(f"/ui/jobs/{job['id']}")
    page.get_by_role("button", name="Compare epochs").click()
    stack, divider = page.locator(".stack"), page.get_by_label("Divider between the two epochs")
    for side in ("left", "right"):
        wait_until_decoded(page, f".stack img[data-side={side}]")
    page.evaluate("document.querySelector('.stack .divider').hidden = true")  # compare the images only

    def pixels_at(position: str) -> NDArray[np.int64]:
        divider.fill(position)
        return stable_pixels(page, stack)

    left, right, both = pixels_at("100"), pixels_at("0"), pixels_at("50")
    assert (left != right).any()
    half = both.shape[1] // 2
    assert (both[:, : half - 4] == left[:, : half - 4]).all()
    assert (both[:, half + 4 :] == right[:, half + 4 :]).all()
    expect(page.locator("output[for=split-left]")).to_have_text("epoch 1")
    expect(page.locator("output[for=split-right]")).to_have_text(f"epoch {last}")
    # Choose the left epoch by keyboard.
    page.locator("#split-left").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".stack img[data-side=left]")).to_have_attribute("src", f"/jobs/{job['id']}/samples/2.png")
    wait_until_decoded(page, ".stack img[data-side=left]")
    assert (pixels_at("100") != left).any()
    # Drag the divider on the image.
    box = stack.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 10, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 40)
    page.mouse.up()
    assert 20 <= float(divider.input_value()) <= 30
    page.get_by_role("button", name="Compare epochs").click()
    expect(page.locator("#one-epoch img")).to_be_visible()
    expect(stack).to_be_hidden()


def test_a_note_and_a_star_are_edited(visit: Visit, http: httpx.Client, jobs: dict[str, Any]) -> None:
    url = jobs["other"]["urls"]["self"]
    page = visit.open(f"/ui/jobs/{jobs['other']['id']}")
    page.evaluate("window.same = true")
    star = page.get_by_role("button", name="Star", exact=True)
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(page.locator("h1")).to_have_text("other ★")
    assert http.get(url).json()["starred"] is True
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_role("checkbox", name="Starred")).to_be_checked()
    page.locator("#edit-note").fill("First line\n<b>second</b>")
    page.get_by_role("checkbox", name="Starred").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#edit")).to_be_hidden()
    expect(page.locator("#note")).to_have_text("First line\n<b>second</b>", use_inner_text=True)
    expect(page.locator("h1")).to_have_text("other")
    expect(star).to_have_attribute("aria-pressed", "false")
    job = http.get(url).json()
    assert (job["note"], job["starred"], job["name"]) == ("First line\n<b>second</b>", False, "other")
    page.get_by_role("button", name="Edit").click()
    page.locator("#edit-note").fill("")
    page.get_by_role("button", name="Cancel").click()
    assert http.get(url).json()["note"] is not None
    # Changes made elsewhere are shown, too.
    http.patch(url, json={"note": None, "name": "renamed"}).raise_for_status()
    page.get_by_role("button", name="Star", exact=True).click()
    expect(page.locator("h1")).to_have_text("renamed ★")
    expect(page.locator("#note")).to_have_count(0)
    assert page.title() == "renamed · Tapeline"
    assert page.evaluate("window.same"), "the page was loaded again"
    http.patch(url, json={"name": "other", "starred": False}).raise_for_status()


def test_parents_and_children_are_linked_by_name(
    stack_visit: Visit, stack_http: httpx.Client, jobs: dict[str, Any], finish: Finish
) -> None:
    parent = jobs["other"]
    body = {"checkpoint": 2, "overrides": {"epochs": 4, "name": "branch"}}
    fork = finish(stack_http.post(f"/jobs/{parent['id']}/fork", json=body).raise_for_status().json())
    page = stack_visit.open(f"/ui/jobs/{fork['id']}")
    expect(page.locator("#notes")).to_contain_text("Forked from other after epoch 2.")
    page.locator("#facts").get_by_role("link", name="other").click()
    page.wait_for_url(f"**/ui/jobs/{parent['id']}")
    child = page.locator("#children li", has_text="branch")
    expect(child).to_contain_text("fork after epoch 2 · succeeded")
    child.get_by_role("link").click()
    page.wait_for_url(f"**/ui/jobs/{fork['id']}")
    stack_visit.leave()
    stack_http.delete(fork["urls"]["self"]).raise_for_status()


@pytest.mark.stack
def test_a_phone_shows_metrics_in_rows_the_entire_matrix_and_downloads(
    open_site: Callable[..., Visit], jobs: dict[str, Any]
) -> None:
    page = open_site(**PHONE, has_touch=True, is_mobile=True).open(f"/ui/jobs/{jobs['reader']['id']}")
    tops = []
    for tile in page.locator(".tile").all():
        name, value = tile.locator("summary").bounding_box(), tile.locator(".value").bounding_box()
        box = tile.bounding_box()
        assert name is not None
        assert value is not None
        assert box is not None
        assert name["x"] + name["width"] <= value["x"]
        assert box["height"] < 80
        tops.append(box["y"])
    assert tops == sorted(set(tops))  # one below the other
    for selector in ("#confusion .scroll", "#classes .scroll", "#files .scroll"):
        scroll_width, client_width = page.locator(selector).evaluate("part => [part.scrollWidth, part.clientWidth]")
        assert scroll_width <= client_width, f"{selector} must be scrolled sideways"
    for cell in page.locator("#confusion tr").last.locator("td").all():
        assert is_inside(page, cell, PHONE["width"])
    numbers_fit = page.locator("#confusion td button").evaluate_all(
        "all => all.every((b) => b.scrollWidth <= b.clientWidth)"
    )
    assert numbers_fit, "a number of the matrix is cut off"
    link = page.locator("#files a.download").first
    link.scroll_into_view_if_needed()
    assert is_inside(page, link, PHONE["width"])
    with page.expect_download() as downloaded:
        link.tap()
    assert downloaded.value.path().stat().st_size > 1000


def test_an_image_larger_than_the_window_is_shown_fitted_and_in_actual_size(
    open_site: Callable[..., Visit], jobs: dict[str, Any]
) -> None:
    page = open_site(**PHONE).open(f"/ui/jobs/{jobs['reader']['id']}")
    page.locator("#sample-large").click()
    wait_until_decoded(page, "#viewer img")
    image, natural = page.locator("#viewer img"), page.locator("#viewer img").evaluate("image => image.naturalWidth")
    assert natural > PHONE["width"]
    assert is_inside(page, image, PHONE["width"])
    page.get_by_role("button", name="Actual size").click()
    box = image.bounding_box()
    assert box is not None
    assert box["width"] == natural
    stage = page.locator("#viewer .stage")
    stage.evaluate("stage => stage.scrollTo(stage.scrollWidth, 0)")
    assert stage.evaluate("stage => stage.scrollLeft") > 100
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.stack
@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1440, "light", marks=pytest.mark.nightly), (390, "dark")])
def test_the_page_and_its_dialogs_are_accessible(
    open_site: Callable[..., Visit], jobs: dict[str, Any], width: int, scheme: str
) -> None:
    visit = open_site(width=width, color_scheme=scheme)
    faults = {}
    page = visit.open(f"/ui/jobs/{jobs['reader']['id']}")
    page.locator("#mistakes").scroll_into_view_if_needed()
    expect(page.locator("#mistakes-images button").first).to_be_visible()
    page.get_by_role("button", name="Compare epochs").click()
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    faults["page"] = serious_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#mistakes-images button").first.click()
    faults["viewer"] = serious_violations(page)
    page.keyboard.press("Escape")
    page.locator("#confusion td.right button").first.click()
    expect(page.locator("#cell")).to_be_visible()
    faults["cell"] = serious_violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Edit").click()
    expect(page.locator("#edit")).to_be_visible()
    faults["edit"] = serious_violations(page)
    assert {name: violations for name, violations in faults.items() if violations} == {}


@pytest.mark.stack
def test_the_trained_model_is_exported_by_a_button(visit: Visit, jobs: dict[str, Any]) -> None:
    job = jobs["reader"]
    page = visit.open(f"/ui/jobs/{job['id']}?checkpoint=latest")
    for name, file in {"ONNX": f"{job['id']}-epoch-0006.onnx", "PyTorch": f"{job['id']}-epoch-0006-torch.zip"}.items():
        with page.expect_download() as downloaded:
            page.locator("#export").get_by_role("button", name=name).click()
        assert downloaded.value.suggested_filename == file
        assert downloaded.value.path().stat().st_size > 10_000
    assert page.url.endswith(f"{job['id']}?checkpoint=latest")
