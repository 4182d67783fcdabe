"""The page, the log and the comparison of running jobs: focus is kept, and late responses change nothing."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from service.spec.findings import Finding
from service.states import FindingCode, Severity
from tests.browser.conftest import Visit
from tests.browser.held import hold, wait_for_count
from tests.browser.played import Service, canvas, metrics
from tests.browser.waiting import patient, until

MATRIX = [[3 if row == column else 1 for column in range(10)] for row in range(10)]
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


@pytest.fixture
def page(service: Service, open_window: Callable[..., Visit]) -> Page:
    """A played worker's checkpoints hold no network, and the page asks for the mistakes of the best one."""
    visit = open_window(service.url)
    visit.watched.expected.append("status of 500")
    return visit.page


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.outerHTML"))


def test_the_keyboard_focus_stays_while_epochs_pass(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    worker.epoch(1, metrics=metrics(1), confusion=MATRIX)
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    for number, selector in enumerate(
        ("[data-action=pause]", "a.download", "[data-actual='1'][data-predicted='2']", "#facts a[href$='/metrics']"), 2
    ):
        page.locator(selector).first.focus()
        before = focused(page)
        worker.epoch(number, metrics=metrics(number), confusion=MATRIX, keep_last=9)
        expect(page.locator("#epoch")).to_have_text(f"Epoch {number} of 100")
        expect(page.locator("#tiles-title")).to_contain_text(f"epoch: {number}")
        page.wait_for_timeout(100)
        assert focused(page) == before
    page.locator("[data-action=pause]").focus()
    page.evaluate("window.button = document.activeElement")
    worker.epoch(6, metrics=metrics(6))
    expect(page.locator("#tiles-title")).to_contain_text("epoch: 6")
    assert page.evaluate("window.button.isConnected && document.activeElement === window.button")


def test_the_keyboard_stays_at_the_actions_when_they_are_others(service: Service, page: Page) -> None:
    job_id = service.submit()
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    page.get_by_role("button", name="Cancel", exact=True).press("Enter")
    expect(page.locator("#state .status")).to_have_text("cancelled")
    until(page, "document.activeElement.matches('#actions button') && document.activeElement.isConnected")
    assert page.locator("[data-action=cancel]").count() == 0


def test_a_page_that_is_renewed_asks_one_question_at_a_time(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    page.wait_for_timeout(1500)
    renewed = hold(page, f"GET /ui/jobs/{job_id}")
    worker.epoch(1, metrics=metrics(1))
    renewed.wait(1)
    worker.epoch(2, metrics=metrics(2))
    page.wait_for_timeout(2500)
    assert len(renewed.seen) == 1
    renewed.stop()
    expect(page.locator("#tiles-title")).to_contain_text("epoch: 2")


def test_nothing_is_left_of_a_job_that_has_ended(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    worker.report(5)
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    expect(page.locator("#eta")).to_contain_text("left")
    page.wait_for_timeout(1500)
    hold(page, f"GET /ui/jobs/{job_id}")  # the page's own words do not come
    worker.succeed()
    expect(page.locator("#eta")).to_have_text("")


def test_the_star_is_what_the_service_says(service: Service, page: Page) -> None:
    job_id = service.submit()
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    hold(page, f"GET /ui/jobs/{job_id}")
    page.get_by_role("button", name="Star", exact=True).click()
    expect(page.locator("#star")).to_have_attribute("aria-pressed", "true")
    assert patient.get(f"{service.url}/jobs/{job_id}").json()["starred"] is True


def test_a_log_has_each_line_once_where_answers_are_late(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    page.goto(f"{service.url}/jobs/{job_id}/events")
    page.wait_for_timeout(500)
    asked = hold(page, rf"GET /jobs/{job_id}/events\?after=")
    worker.epoch(1, metrics=metrics(1))
    asked.wait(1)
    worker.epoch(2, metrics=metrics(2))
    page.wait_for_timeout(1500)
    asked.stop()
    expect(page.locator("#log li", has_text="epoch 2:")).to_have_count(1)
    page.wait_for_timeout(800)
    numbers = page.eval_on_selector_all("#log li", "all => all.map((line) => Number(line.dataset.seq))")
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_cell_that_was_clicked_last_is_shown(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    worker.epoch(1, metrics=metrics(1), confusion=MATRIX)
    worker.succeed()
    waiting: list[Route] = []
    page.route("**/confusion/**", lambda route: waiting.append(route))
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    for predicted in (2, 3):
        page.locator(f"[data-actual='1'][data-predicted='{predicted}']").click()
    wait_for_count(page, waiting, 2, of="cells")
    cell = {"checkpoint": 1, "count": 1, "images": [DOT], "indices": [7], "confidences": [0.9]}
    for route in reversed(waiting):
        route.fulfill(content_type="application/json", body=json.dumps(cell))
        page.wait_for_timeout(200)
    expect(page.locator("#cell")).to_be_visible()
    expect(page.locator("#cell-title")).to_contain_text("predicted 3")


def test_the_fork_dialog_keeps_what_is_typed_and_drops_what_is_deleted(service: Service, page: Page) -> None:
    job_id = service.trained(2)
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    page.get_by_role("button", name="Fork…").click()
    rate, name, text = page.locator("#fork-rate"), page.locator("#fork-name"), page.locator("#fork-overrides")

    def overrides() -> Any:
        return json.loads(text.input_value())

    rate.fill("0.05")
    name.fill("faster")
    assert overrides() == {"epochs": 100, "optimizer": {"learning_rate": 0.05}, "name": "faster"}
    rate.fill("")
    name.fill("")
    assert overrides() == {"epochs": 100}
    text.fill('{"epochs": 7, "optimizer": "adam", ')
    expect(page.locator("#fork-error")).to_contain_text("not valid")
    name.fill("kept")
    assert text.input_value() == '{"epochs": 7, "optimizer": "adam", '
    page.locator("#fork-go").click()
    expect(page.locator("#fork")).to_be_visible()
    text.fill('{"epochs": 7, "optimizer": "adam", "seed": 3}')
    expect(page.locator("#fork-error")).to_be_hidden()
    expect(page.locator("#fork-epochs")).to_have_value("7")
    rate.fill("0.01")
    assert overrides() == {"epochs": 7, "optimizer": {"name": "adam", "learning_rate": 0.01}, "seed": 3}
    page.locator("#fork-go").click()
    page.wait_for_url(lambda url: "/ui/jobs/job_" in url and job_id not in url)
    fork = patient.get(f"{service.url}/jobs/{page.url.rpartition('/')[2]}").json()
    assert (fork["resolved"]["seed"], fork["resolved"]["optimizer"]["learning_rate"]) == (3, 0.01)


SLOW_DECODER = """
  const decode = createImageBitmap;
  window.createImageBitmap = (...given) => new Promise((done) => (window.decoded = () => done(decode(...given))));
"""


def test_an_image_that_comes_late_leaves_what_was_drawn_meanwhile(service: Service, page: Page) -> None:
    job_id = service.trained(1)
    answer = {"probabilities": [[0.1] * 10], "classes": [1], "class_names": [str(digit) for digit in range(10)]}
    page.route("**/predict", lambda route: route.fulfill(json=answer))
    page.add_init_script(SLOW_DECODER)
    page.goto(f"{service.url}/ui/play/{job_id}")
    page.locator("#file").set_input_files({"name": "dot.png", "mimeType": "image/png", "buffer": b64decode(DOT)})
    until(page, "Boolean(window.decoded)")
    box = page.locator("#pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 60, steps=4)
    page.mouse.up()
    light = "document.querySelector('#pad').getContext('2d').getImageData(0, 0, 280, 280).data.filter((v) => v > 250)"
    before = page.evaluate(f"{light}.length")
    page.evaluate("decoded()")
    expect(page.locator("#toasts")).to_contain_text("you changed the drawing while it was loading")
    assert page.evaluate(f"{light}.length") == before


OUT_OF_VIEW = """selector => new Promise((done) => {
  const observer = new IntersectionObserver((seen) => {
    if (seen.at(-1).isIntersecting) return;
    observer.disconnect();
    done();
  }, { rootMargin: "200px" });
  observer.observe(document.querySelector(selector));
})"""
"""Waits until the page knows, too: observers are told in the order in which they were made."""


def test_mistakes_that_could_not_be_read_are_requested_again(service: Service, page: Page) -> None:
    job_id = service.trained(2)
    asked: list[str] = []
    page.set_viewport_size({"width": 1280, "height": 360})
    page.on("request", lambda request: asked.append(request.url) if "/mistakes?" in request.url else None)
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    for times in (1, 2):
        page.evaluate("scrollTo(0, 0)")
        page.evaluate(OUT_OF_VIEW, "#mistakes")
        page.locator("#mistakes").scroll_into_view_if_needed()
        wait_for_count(page, asked, times, of="mistakes")
        assert len(asked) == times
        expect(page.locator("#mistakes-state")).not_to_have_text("Loading…")
        page.wait_for_timeout(500)


def test_a_comparison_has_an_epoch_that_ended_while_it_was_loaded(service: Service, page: Page) -> None:
    """The metrics are those from before the epoch, and the stream begins after it."""
    ids = [service.submit(name=name) for name in ("first", "second")]
    metrics_of = hold(page, "GET /jobs/.*/metrics")
    streams: list[Route] = []
    page.route("**/stream?*", lambda route: streams.append(route))
    page.goto(f"{service.url}/ui/compare?jobs={','.join(ids)}")
    metrics_of.wait(2)
    wait_for_count(page, streams, 1, of="streams")
    service.claim().epoch(1, metrics=metrics(1))
    streams[0].continue_()
    expect(page.locator("#compared .status.running")).to_have_count(1)
    metrics_of.stop()
    expect(canvas(page, "train loss")).to_be_visible()


def test_a_problem_that_is_over_is_told_as_resolved(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    problem = Finding(
        code=FindingCode.OVERFITTING,
        severity=Severity.WARNING,
        epoch=2,
        message="the validation loss has risen for 3 epochs",
        numbers={},
        advice=[],
    )
    worker.epoch(1, metrics=metrics(1))
    worker.epoch(2, metrics=metrics(2), health=[problem])
    worker.epoch(3, metrics=metrics(3))
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    told = page.locator("#events li", has_text="overfitting")
    expect(told).to_have_count(2)
    expect(told.filter(has_text="has risen")).to_have_count(1)
    expect(told.filter(has_text="overfitting resolved")).to_contain_text("after epoch 3")
    expect(told.filter(has_text="overfitting resolved")).to_contain_text("since epoch 2")
