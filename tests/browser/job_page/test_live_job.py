"""The page, the log and the comparison of running jobs: focus is kept, and late responses change nothing."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from service.schema.findings import Advice, Finding
from service.states import FindingCode, Severity
from tests.browser.apps.simulated_worker import Service, canvas, metrics
from tests.browser.conftest import Visit, wait_until_accepted
from tests.browser.held_responses import deliver, hold, wait_for_count
from tests.browser.job_form import form_json
from tests.browser.job_page.conftest import RECEIVED, REFRESH_INTERVAL_MS
from tests.browser.waiting import http_client, until, wait_for_frames, wait_for_sent_requests

MATRIX = [[3 if row == column else 1 for column in range(10)] for row in range(10)]
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


@pytest.fixture
def page(service: Service, open_window: Callable[..., Visit]) -> Page:
    """The page requests mistakes of the shown model, but a simulated worker stores no network."""
    visit = open_window(service.url)
    visit.error_log.expected.append("status of 500")
    return visit.page


def focused_html(page: Page) -> str:
    return str(page.evaluate("document.activeElement.outerHTML"))


@pytest.mark.stack
def test_the_keyboard_focus_stays_while_epochs_complete(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    worker.commit_epoch(1, metrics=metrics(1), confusion=MATRIX)
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    for number, selector in enumerate(
        ("[data-action=pause]", "a.download", "[data-actual='1'][data-predicted='2']", "#facts a[href^='/ui/new']"), 2
    ):
        page.locator(selector).first.focus()
        before = focused_html(page)
        worker.commit_epoch(number, metrics=metrics(number), confusion=MATRIX, keep_last=9)
        expect(page.locator("#epoch")).to_have_text(f"Epoch {number} of 100")
        expect(page.locator("#tiles-title")).to_contain_text(f"epoch {number}")
        wait_for_frames(page)
        assert focused_html(page) == before
    page.locator("[data-action=pause]").focus()
    page.evaluate("window.button = document.activeElement")
    worker.commit_epoch(6, metrics=metrics(6))
    expect(page.locator("#tiles-title")).to_contain_text("epoch 6")
    assert page.evaluate("window.button.isConnected && document.activeElement === window.button")


@pytest.mark.stack
@pytest.mark.parametrize(("action", "remaining"), [("pause", "Cancel"), ("cancel", "Fork…")])
def test_a_second_press_triggers_none_of_the_actions_that_remain(
    service: Service, page: Page, action: str, remaining: str
) -> None:
    """After *Pause*, the first remaining action is *Cancel*."""
    job_id = service.submit()
    service.claim().commit_epoch(1, metrics=metrics(1))
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    page.locator(f"[data-action={action}]").press("Enter")
    expect(page.locator(f"[data-action={action}]")).to_have_count(0)
    expect(page.locator("#actions")).to_be_focused()
    requests = hold(page, f"POST /jobs/{job_id}")
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    wait_for_sent_requests(page)
    assert requests.requests == []
    job = http_client.get(f"{service.url}/jobs/{job_id}").json()
    assert (job["status"], job["requested"]) == ("running", action)
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name=remaining, exact=True)).to_be_focused()


@pytest.mark.stack
def test_a_page_is_refreshed_by_one_request_at_a_time(service: Service, page_with_clock: Page) -> None:
    page, job_id = page_with_clock, service.submit()
    worker = service.claim()
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    service.wait_for_stream(page)
    refreshes = hold(page, f"GET /ui/jobs/{job_id}")
    worker.commit_epoch(1, metrics=metrics(1))
    refreshes.wait(1)
    worker.commit_epoch(2, metrics=metrics(2))
    until(page, RECEIVED, 2)
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    wait_for_sent_requests(page)
    assert len(refreshes.requests) == 1
    refreshes.release_all()
    expect(page.locator("#tiles-title")).to_contain_text("epoch 2")


@pytest.mark.stack
def test_an_epoch_without_a_better_model_reaches_the_page_as_its_events_alone(
    service: Service, page_with_clock: Page
) -> None:
    page, job_id = page_with_clock, service.submit()
    worker = service.claim()
    worker.commit_epoch(1, metrics={"train_loss": 0.5, "val_accuracy": 0.9})
    page.set_viewport_size({"width": 1440, "height": 360})  # what depends on each epoch is below
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    service.wait_for_stream(page)
    page.clock.pause_at(page.evaluate("Date.now()") + 60_000)  # timers run when the test says so
    with page.expect_response(f"{service.url}/ui/jobs/{job_id}"):  # a job without progress is looked at
        page.clock.fast_forward(REFRESH_INTERVAL_MS)
    refreshes = hold(page, f"GET /ui/jobs/{job_id}")
    worker.commit_epoch(2, metrics={"train_loss": 0.25, "val_accuracy": 0.8}, best=False)
    until(page, RECEIVED, 2)
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    tile = page.locator("[data-metric=train_loss]")
    expect(tile.locator(".best")).to_have_text("best 0.25 in epoch 2")
    expect(tile.locator(".value")).to_have_text("0.5")
    expect(page.locator("#model a")).to_have_text(["best: epoch 1", "latest: epoch 2"])
    expect(page.locator("#epoch")).to_have_text("Epoch 2 of 100")
    wait_for_sent_requests(page)
    assert refreshes.requests == []


@pytest.mark.parametrize("width", [1440, 390])
def test_a_score_of_every_fifth_epoch_keeps_its_tile_and_names_its_epoch(
    service: Service, page: Page, width: int
) -> None:
    job_id = service.submit(kind="gan")
    worker = service.claim()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    tile = page.locator("[data-metric=frechet_distance]")
    measured = {1: "64", 5: "89.5"}
    notes = ["best 64 in epoch 1"] + 3 * ["epoch 1, the best"] + ["best 64 in epoch 1"]
    notes += 2 * ["epoch 5; best 64 in epoch 1"]
    for epoch, note in enumerate(notes, 1):
        score = {"frechet_distance": float(measured[epoch])} if epoch in measured else {}
        worker.commit_epoch(epoch, metrics={"g_loss": 1.0} | score)
        expect(page.locator("#tiles-title")).to_contain_text(f"epoch {epoch}")
        expect(tile.locator(".value")).to_have_text(measured[1 if epoch < 5 else 5])
        expect(tile.locator(".best")).to_have_text(note)
        expect(page.locator("#tiles [data-metric]")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_job_that_has_ended_shows_no_remaining_time(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    worker.report(5)
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    expect(page.locator("#eta")).to_contain_text("left")
    service.wait_for_stream(page)
    hold(page, f"GET /ui/jobs/{job_id}")  # the page rendered by the service does not arrive
    worker.succeed()
    expect(page.locator("#eta")).to_have_text("")


def test_the_star_is_set_without_a_refresh_of_the_page(service: Service, page: Page) -> None:
    job_id = service.submit()
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    hold(page, f"GET /ui/jobs/{job_id}")
    page.get_by_role("button", name="Star", exact=True).click()
    expect(page.locator("#star")).to_have_attribute("aria-pressed", "true")
    assert http_client.get(f"{service.url}/jobs/{job_id}").json()["starred"] is True


def test_the_star_is_what_the_response_says(service: Service, page: Page) -> None:
    job_id = service.submit()
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    updates: list[Route] = []
    page.route(f"**/jobs/{job_id}", lambda route: updates.append(route))
    refreshes = hold(page, f"GET /ui/jobs/{job_id}")
    star = page.get_by_role("button", name="Star", exact=True)
    star.click()
    wait_for_count(page, updates, 1, of="updates")
    updates[0].fulfill(json={"starred": False})  # another tab has removed it again
    refreshes.wait(1)  # the page refreshes after it has handled the response
    expect(star).to_have_attribute("aria-pressed", "false")


def test_a_log_has_each_line_once_despite_late_responses(service: Service, page_with_clock: Page) -> None:
    page, job_id = page_with_clock, service.submit()
    worker = service.claim()
    page.goto(f"{service.url}/ui/jobs/{job_id}/log")
    service.wait_for_stream(page)
    log_requests = hold(page, rf"GET /ui/jobs/{job_id}/log\?after=")
    worker.commit_epoch(1, metrics=metrics(1))
    log_requests.wait(1)
    worker.commit_epoch(2, metrics=metrics(2))
    until(page, RECEIVED, 2)
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    wait_for_sent_requests(page)
    assert len(log_requests.requests) == 1
    log_requests.release()
    log_requests.wait(1)
    log_requests.release_all()
    expect(page.locator("#log li", has_text="epoch 2:")).to_have_count(1)
    page.clock.fast_forward(REFRESH_INTERVAL_MS)
    wait_for_sent_requests(page)
    wait_for_frames(page)
    numbers = page.eval_on_selector_all("#log li", "all => all.map((line) => Number(line.dataset.seq))")
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_cell_clicked_last_is_shown_even_if_its_response_arrives_first(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    worker.commit_epoch(1, metrics=metrics(1), confusion=MATRIX)
    worker.succeed()
    routes: list[Route] = []
    page.route("**/confusion/**", lambda route: routes.append(route))
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    for predicted in (2, 3):
        page.locator(f"[data-actual='1'][data-predicted='{predicted}']").click()
    wait_for_count(page, routes, 2, of="cells")
    cell = {"checkpoint": 1, "count": 1, "images": [DOT], "indices": [7], "confidences": [0.9]}
    for route in reversed(routes):
        deliver(page, route, json=cell)
    expect(page.locator("#cell")).to_be_visible()
    expect(page.locator("#cell-title")).to_contain_text("predicted 3")


def test_the_fork_dialog_keeps_what_is_typed_and_drops_what_is_deleted(service: Service, page: Page) -> None:
    job_id = service.train(2)
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
    fork = http_client.get(f"{service.url}/jobs/{page.url.rpartition('/')[2]}").json()
    assert (fork["resolved"]["seed"], fork["resolved"]["optimizer"]["learning_rate"]) == (3, 0.01)


SLOW_DECODER = """
  const decode = createImageBitmap;
  window.createImageBitmap = (...given) => new Promise((done) => (window.decoded = () => done(decode(...given))));
"""


def test_an_image_that_loads_late_does_not_replace_a_newer_drawing(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    job_id = service.train(1)
    page = open_window(service.url, own=True).page
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
    bright_values = (
        "document.querySelector('#pad').getContext('2d').getImageData(0, 0, 280, 280).data.filter((v) => v > 250)"
    )
    before = page.evaluate(f"{bright_values}.length")
    page.evaluate("decoded()")
    expect(page.locator("#toasts")).to_contain_text("you changed the drawing while it was loading")
    assert page.evaluate(f"{bright_values}.length") == before


WAIT_UNTIL_OUT_OF_VIEW = """selector => new Promise((done) => {
  const observer = new IntersectionObserver((seen) => {
    if (seen.at(-1).isIntersecting) return;
    observer.disconnect();
    done();
  }, { rootMargin: "200px" });
  observer.observe(document.querySelector(selector));
})"""
"""Also waits until the page's own observer is notified: observers are notified in the order of creation."""


def test_mistakes_that_failed_to_load_are_requested_again(service: Service, open_window: Callable[..., Visit]) -> None:
    job_id = service.train(2)
    visit = open_window(service.url, own=True, height=360)
    visit.error_log.expected.append("status of 500")
    page = visit.page
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url) if "/mistakes?" in request.url else None)
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    for count in (1, 2):
        page.evaluate("scrollTo(0, 0)")
        page.evaluate(WAIT_UNTIL_OUT_OF_VIEW, "#mistakes")
        page.locator("#mistakes").scroll_into_view_if_needed()
        wait_for_count(page, urls, count, of="mistakes")
        expect(page.locator("#mistakes-state")).not_to_have_text("Loading…")
        wait_for_frames(page)
        wait_for_sent_requests(page)
        assert len(urls) == count


def test_a_comparison_shows_an_epoch_that_ended_during_the_page_load(service: Service, page: Page) -> None:
    """The metrics were read before the epoch, and the stream begins after it."""
    ids = [service.submit(name=name) for name in ("first", "second")]
    metric_requests = hold(page, "GET /jobs/.*/metrics")
    streams: list[Route] = []
    page.route("**/stream?*", lambda route: streams.append(route))
    page.goto(f"{service.url}/ui/compare?jobs={','.join(ids)}")
    metric_requests.wait(2)
    wait_for_count(page, streams, 1, of="streams")
    service.claim().commit_epoch(1, metrics=metrics(1))
    streams[0].continue_()
    expect(page.locator("#compared .status.running")).to_have_count(1)
    metric_requests.release_all()
    expect(canvas(page, "train loss")).to_be_visible()


def test_a_finding_that_no_longer_holds_is_logged_as_resolved(service: Service, page: Page) -> None:
    job_id = service.submit()
    worker = service.claim()
    finding = Finding(
        code=FindingCode.OVERFITTING,
        severity=Severity.WARNING,
        epoch=2,
        message="the validation loss has risen for 3 epochs",
        numbers={},
        advice=[],
    )
    worker.commit_epoch(1, metrics=metrics(1))
    worker.commit_epoch(2, metrics=metrics(2), health=[finding])
    worker.commit_epoch(3, metrics=metrics(3))
    page.goto(f"{service.url}/ui/jobs/{job_id}")
    entries = page.locator("#events li", has_text="overfitting")
    expect(entries).to_have_count(2)
    expect(entries.filter(has_text="has risen")).to_have_count(1)
    expect(entries.filter(has_text="overfitting resolved")).to_contain_text("after epoch 3")
    expect(entries.filter(has_text="overfitting resolved")).to_contain_text("since epoch 2")


def test_advice_opens_the_form_with_the_jobs_spec_and_the_change(service: Service, page: Page) -> None:
    spec = {"kind": "gan", "preset": "classic", "optimizer": {"name": "sgd", "learning_rate": 0.01}, "batch_size": 50}
    job_id = service.submit(**spec)
    together = {"initializer": "glorot", "optimizer.name": "adam", "optimizer.beta1": 0.5}
    finding = Finding(
        code=FindingCode.MODE_COLLAPSE,
        severity=Severity.ERROR,
        epoch=1,
        message="all samples are alike",
        numbers={},
        advice=[Advice({"preset": "stable"}), Advice(together, "together")],
    )
    service.claim().commit_epoch(1, metrics=metrics(1), health=[finding])
    changed = {"initializer": "glorot", "optimizer": {"name": "adam", "beta1": 0.5}}
    for position, expected in enumerate(({"kind": "gan", "preset": "stable"}, spec | changed)):
        page.goto(f"{service.url}/ui/jobs/{job_id}")
        page.get_by_text("What to try").click()
        item = page.locator(".note li").nth(position)
        if position == 1:
            expect(item).to_contain_text("initializer=glorot optimizer.name=adam optimizer.beta1=0.5 together")
        item.get_by_role("link", name="New job with this change").click()
        wait_until_accepted(page)
        shown = form_json(page)
        shown.pop("name", None)
        assert {"epochs": 100, **shown} == {"epochs": 100, **expected}
        page.fill("#field-epochs", "9")
        page.reload()
        wait_until_accepted(page)
        assert form_json(page)["epochs"] == 9  # edits survive, and the change is not applied again over them
