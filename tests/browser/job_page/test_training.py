from __future__ import annotations

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Finish, Visit
from tests.browser.pixels import dot_positions, wait_for_dots


def wait_for_epochs(page: Page, count: int) -> None:
    """Wait until the first chart shows ``count`` epochs: as dots, or in its readout if dots are too many."""
    plot = page.locator(".charts.main .plot canvas").first
    plot.wait_for()
    for _ in range(400):
        if len(dot_positions(plot, 1)) >= count or last_epoch(page) >= count:
            return
        page.wait_for_timeout(100)  # until the next look
    raise AssertionError(f"{len(dot_positions(plot, 1))} of {count} epochs were drawn")


def last_epoch(page: Page) -> int:
    """The epoch that the readout shows at the right edge of the first chart."""
    plot = page.locator(".charts.main .plot").first
    plot.hover(position={"x": (plot.bounding_box() or {"width": 0})["width"] - 16, "y": 100})
    text = plot.locator(".readout strong").text_content() or "epoch 0"
    return int(text.removeprefix("epoch "))


@pytest.mark.stack
def test_a_job_from_the_form_is_watched_and_cancelled(stack_visit: Visit, stack_http: httpx.Client) -> None:
    stack_visit.error_log.expected = ["422"]
    page = stack_visit.open("/ui/new")
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    plan = stack_http.post("/jobs", params={"dry_run": True}, json={"kind": "classifier"}).json()
    expect(page.locator("#cost")).to_contain_text(f"{plan['parameters']:,}")
    page.fill("#field-epochs", "0")
    expect(page.locator("#field-epochs-fault")).to_contain_text("greater than or equal to 1")
    expect(page.locator("#start")).to_be_disabled()
    page.fill("#field-epochs", "200")
    page.fill("#field-name", "from the form")
    page.get_by_text("Training", exact=True).click()
    page.select_option("#field-optimizer", "adam")
    expect(page.locator("#verdict")).to_have_text("Ready to start")
    assert '"epochs": 200' in page.input_value("#json")
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/ui/jobs/job_*")

    page.evaluate("window.same = true")
    wait_for_epochs(page, 4)
    assert page.evaluate("window.same"), "the page was loaded again"
    expect(page.locator("#eta")).to_contain_text("left")

    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#state .status")).to_have_text("cancelled")
    job = stack_http.get(f"/jobs/{page.url.rpartition('/')[2]}").json()
    assert (job["name"], job["status"], job["resolved"]["optimizer"]["name"]) == ("from the form", "cancelled", "adam")


def test_a_job_that_spent_its_budget_is_resumed_with_a_larger_one(stack_visit: Visit, stack_http: httpx.Client) -> None:
    spec = {"kind": "classifier", "name": "on a budget", "epochs": 200, "budget": {"seconds": 1}}
    job = stack_http.post("/jobs", json=spec).raise_for_status().json()
    page = stack_visit.open(f"/ui/jobs/{job['id']}")
    expect(page.locator("#budget-spent")).to_contain_text("Paused because its budget of 1 s of CPU time is spent")
    expect(page.get_by_role("button", name="Resume", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Raise the budget and resume").click()
    dialog = page.get_by_role("dialog", name="Raise the budget and resume")
    dialog.get_by_label("CPU seconds").fill("5000")
    dialog.get_by_role("button", name="Resume").click()
    expect(page.locator("#state .status")).to_have_text("running")
    expect(page.locator("#budget-spent")).to_have_count(0)
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#state .status")).to_have_text("cancelled")


@pytest.mark.nightly
def test_a_paused_job_resumes_where_it_stopped(stack_visit: Visit, stack_http: httpx.Client) -> None:
    job = stack_http.post("/jobs", json={"kind": "classifier", "name": "interrupted", "epochs": 300}).json()
    page = stack_visit.open(f"/ui/jobs/{job['id']}")
    wait_for_epochs(page, 2)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state .status")).to_have_text("paused")
    paused_epoch = stack_http.get(job["urls"]["self"]).json()["progress"]["epoch"]
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#state")).to_contain_text(f"resumed after epoch {paused_epoch}")
    wait_for_epochs(page, paused_epoch + 2)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#state .status")).to_have_text("cancelled")
    stack_visit.error_log.expected = ["404"]  # requests sent just before the job was deleted
    page.get_by_role("button", name="Delete").click()
    page.locator("#delete").get_by_role("button", name="Delete").click()
    page.wait_for_url(f"{stack_visit.url}/")
    assert stack_http.get(job["urls"]["self"]).status_code == 404


def test_the_samples_are_those_of_the_model_on_the_page(visit: Visit, jobs: dict[str, Any]) -> None:
    job = jobs["reader"]
    page = visit.open(f"/ui/jobs/{job['id']}")
    for name in ("best", "latest"):
        link = page.locator(f"#model a[data-model={name}]")
        epoch = link.inner_text().split()[-1]
        link.click()
        expect(page.locator("#samples img").first).to_have_attribute("src", f"/jobs/{job['id']}/samples/{epoch}.png")


@pytest.mark.stack
def test_samples_are_scrubbed_and_played(visit: Visit, jobs: dict[str, Any]) -> None:
    job = jobs["painter"]
    page = visit.open(f"/ui/jobs/{job['id']}")
    image, slider = page.locator("#one-epoch img"), page.get_by_label("Epoch of the samples")
    expect(page.locator("#one-epoch output")).to_have_text("epoch 3 of 3")
    slider.focus()
    page.keyboard.press("Home")
    expect(image).to_have_attribute("src", f"/jobs/{job['id']}/samples/1.png")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#one-epoch output")).to_have_text("epoch 2 of 3")
    page.get_by_label("Speed").select_option("15")
    page.get_by_role("button", name="Play").click()
    expect(image).to_have_attribute("src", f"/jobs/{job['id']}/samples/3.png")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    page.get_by_label("Predicted classes").check()
    expect(image).to_have_attribute("src", f"/jobs/{job['id']}/samples/3.png?predicted_labels=true")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


@pytest.mark.nightly
def test_a_fork_continues_with_other_settings(
    stack_visit: Visit, stack_http: httpx.Client, jobs: dict[str, Any], finish: Finish
) -> None:
    parent = jobs["other"]
    page = stack_visit.open(f"/ui/jobs/{parent['id']}")
    page.get_by_role("button", name="Fork…").click()
    page.locator("dialog[open]").get_by_label("Checkpoint", exact=True).select_option("2")
    page.get_by_label("Total epochs").fill("4")
    page.locator("#fork-rate").fill("0.05")
    page.locator("#fork-name").fill("forked")
    page.locator("#fork-go").click()
    page.wait_for_url(lambda url: "/ui/jobs/job_" in url and parent["id"] not in url)
    expect(page.locator("#notes")).to_contain_text("Forked from other after epoch 2")
    job = finish(stack_http.get(f"/jobs/{page.url.rpartition('/')[2]}").json())
    assert (job["name"], job["start_epoch"], job["resolved"]["optimizer"]["learning_rate"]) == ("forked", 2, 0.05)
    expect(page.locator("#state .status")).to_have_text("succeeded")


@pytest.mark.nightly
def test_a_reproduction_reports_that_all_bits_are_equal(
    stack_visit: Visit, stack_http: httpx.Client, jobs: dict[str, Any]
) -> None:
    page = stack_visit.open(f"/ui/jobs/{jobs['other']['id']}")
    page.get_by_role("button", name="Reproduce").click()
    page.wait_for_url(lambda url: "/ui/jobs/job_" in url and jobs["other"]["id"] not in url)
    expect(page.locator("#notes")).to_contain_text("every epoch is bit-identical")
    expect(page.locator("#state .status")).to_have_text("succeeded")
    reproduction_id = page.url.rpartition("/")[2]
    stack_visit.leave()
    stack_http.delete(f"/jobs/{reproduction_id}").raise_for_status()  # it has the original's name and tags


@pytest.mark.stack
def test_a_failed_job_says_why_and_what_to_try(stack_visit: Visit, stack_http: httpx.Client) -> None:
    spec = {
        "kind": "classifier",
        "name": "too fast",
        "epochs": 20,
        "optimizer": {"name": "sgd", "learning_rate": 9.0},
        "health": {"stop_on": ["diverging", "dead_units"]},
    }
    job = stack_http.post("/jobs", json=spec).raise_for_status().json()
    page = stack_visit.open(f"/ui/jobs/{job['id']}")
    expect(page.locator("#state .status")).to_have_text("failed")
    note = page.locator("#notes .note.error")
    expect(note).to_contain_text("Stopped because health.stop_on lists this problem")
    note.get_by_text("What to try").click()
    expect(note.locator("li").first).to_be_visible()
    allowed = stack_http.get(job["urls"]["self"]).json()["allowed_actions"]
    offered = page.locator("#state [data-action]").evaluate_all(
        "buttons => buttons.map((button) => button.dataset.action)"
    )
    assert offered == allowed


@pytest.mark.stack
def test_two_jobs_are_compared(visit: Visit, jobs: dict[str, Any]) -> None:
    page = visit.open("/?tag=pair")  # other tests leave more jobs than the list shows at first
    for name in ("reader", "other"):
        page.get_by_label(f"Select {name}", exact=True).check()
    page.locator("#selection").get_by_role("button", name="Compare").click()
    page.wait_for_url("**/ui/compare?jobs=*")
    for series in page.locator("#compared .swatch").evaluate_all(
        "items => items.map(item => item.className.slice(-1))"
    ):
        wait_for_dots(page, page.locator(".plot canvas").first, int(series), 3)
    differing = page.locator("#differences tbody th code").all_text_contents()
    assert set(differing) == {"epochs", "seed", "tags"}
    page.get_by_label("Show identical settings").check()
    expect(page.locator("#differences tbody")).to_contain_text("optimizer.learning_rate")
    page.get_by_label("Epoch of the samples").focus()
    page.keyboard.press("Home")
    expect(page.locator("#beside figcaption")).to_contain_text(["epoch 1", "epoch 1"])
    page.keyboard.press("End")
    assert sorted(text.rpartition(" ")[2] for text in page.locator("#beside figcaption").all_text_contents()) == [
        "3",
        "6",
    ]
