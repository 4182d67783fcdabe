"""The page of a prediction: followed live, with its file, on a desk and on a phone."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from service.local import LocalStack
from tests.browser.accessibility import serious_violations
from tests.browser.conftest import Finish, Visit


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_prediction_is_followed_to_its_file(
    stack: LocalStack,
    stack_http: httpx.Client,
    open_window: Callable[..., Visit],
    jobs: dict[str, dict[str, Any]],
    tmp_path: Path,
    width: int,
    scheme: str,
) -> None:
    model = jobs["reader"]
    spec = {"kind": "prediction", "model": f"{model['id']}@2", "dataset": "mnist-10k", "name": f"digits {width}"}
    job = stack_http.post("/jobs", json=spec).raise_for_status().json()
    page = open_window(stack.url, width=width, color_scheme=scheme).open(job["urls"]["page"])
    expect(page.locator("#status")).to_contain_text("succeeded")  # without a reload
    expect(page.locator("#step")).to_have_text("10,000 of 10,000 images")
    expect(page.locator("#prediction")).to_contain_text(f"{spec['model']} looked up when the job was submitted")
    expect(page.get_by_role("link", name="reader")).to_have_attribute("href", f"/ui/jobs/{model['id']}")
    expect(page.locator("#actions button")).to_have_text(["Delete…"])
    for absent in ("#curves", "#tiles", "#export", "#samples", "#play-link"):
        expect(page.locator(absent)).to_have_count(0)
    assert serious_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=tmp_path / f"prediction-{width}.png", full_page=True)

    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    assert download.value.suggested_filename.endswith(".csv")
    header, *rows = csv.reader(Path(download.value.path()).read_text().splitlines())
    assert (header[:4], len(rows)) == (["index", "part", "class", "prediction"], 10_000)

    page.get_by_role("button", name="Delete…").click()
    page.locator("#delete").get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_url(f"{stack.url}/")
    assert stack_http.get(job["urls"]["self"]).status_code == 404


def test_the_list_counts_the_rows_of_predictions_and_compare_names_them(
    stack: LocalStack,
    stack_http: httpx.Client,
    open_window: Callable[..., Visit],
    jobs: dict[str, dict[str, Any]],
    finish: Finish,
) -> None:
    spec = {"kind": "prediction", "model": jobs["reader"]["id"], "dataset": {"name": "mnist-10k", "part": "validation"}}
    job = stack_http.post("/jobs", json=spec | {"name": "counted"}).raise_for_status().json()
    finish(job)
    page = open_window(stack.url).open("/?kind=prediction&q=counted")
    row = page.locator(f"tr.job[data-id='{job['id']}']")
    expect(row).to_contain_text("1,500 / 1,500")
    page.goto(f"{stack.url}/ui/compare?jobs={job['id']},{jobs['reader']['id']}")
    expect(page.locator("#predictions")).to_have_text("counted: a prediction has no metrics or weights to compare.")
    expect(page.locator("#compared")).not_to_contain_text("counted")
