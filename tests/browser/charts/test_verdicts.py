"""What the page that compares jobs says of them: which is the best, and why they differ."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.apps.simulated_worker import Service
from tests.browser.charts.test_compare import open_comparison
from tests.browser.conftest import Visit


def test_jobs_on_different_data_get_no_verdict_and_none_is_the_best(
    service: Service, open_window: Callable[..., Visit]
) -> None:
    ids = [
        service.train(2, name=name, loss_offset=index, dataset=name) for index, name in enumerate(("iris", "mnist-10k"))
    ]
    page = open_comparison(service, open_window, ids)
    expect(page.locator("#why-sentence")).to_have_text(re.compile("The jobs also differ in [0-9]+ settings"))
    sentence = "The data differ: iris and mnist-10k. Scores on different data are not comparable."
    expect(page.locator("#why-not")).to_have_text(sentence)
    expect(page.get_by_role("row", name="best val accuracy")).to_be_visible()
    assert page.locator("#sentences, #sentences-hint, #replay").filter(visible=True).count() == 0
    expect(page.locator("#compared")).not_to_contain_text("best")
    expect(page.locator(".best-value")).to_have_count(0)


def test_two_identical_jobs_are_called_the_same(service: Service, open_window: Callable[..., Visit]) -> None:
    page = open_comparison(service, open_window, [service.train(2, name=name) for name in ("once", "again")])
    expect(page.locator("#why-not")).to_have_text("These jobs are the same.")
    expect(page.locator("#dots a")).to_have_count(2)
    assert page.locator("#sentences, #sentences-hint, #why, .best-value").filter(visible=True).count() == 0
    expect(page.locator("#compared")).not_to_contain_text("best")


@pytest.mark.parametrize("width", [1440, 390])
def test_both_jobs_are_visible_beside_each_other_where_layers_differ(
    service: Service, open_window: Callable[..., Visit], width: int
) -> None:
    hidden, output = {"units": 128, "activation": "relu"}, {"units": 10, "activation": "softmax"}
    stacks = ([hidden, output], [hidden, {"type": "dropout", "rate": 0.2}] * 4 + [output])
    ids = [service.train(1, name=f"stack {n}", loss_offset=n, layers=layers) for n, layers in enumerate(stacks)]
    page = open_comparison(service, open_window, ids, width=width)
    cells = page.locator("#why").get_by_role("row", name=re.compile("^layers")).locator("th, td")
    expect(cells).to_have_count(3)
    name, left, right = cells.all()
    expect(left).to_have_text("dense 128 relu, dense 10 softmax")
    expect(right).to_have_text(f"{'dense 128 relu, dropout 0.2, ' * 4}dense 10 softmax")
    expect(page.locator("#why")).not_to_contain_text("{")
    for cell in (name, left, right):
        box = cell.bounding_box()
        assert (box["x"] >= 0, box["x"] + box["width"] <= width) == (True, True)
    assert left.bounding_box()["y"] == right.bounding_box()["y"]
    assert page.locator("#why").evaluate("section => section.scrollWidth <= section.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
