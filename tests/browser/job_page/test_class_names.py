"""Class names beside their scores, on a phone and on a large screen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.apps.simulated_worker import Service, WebProcess, metrics
from tests.browser.conftest import Visit
from tests.browser.waiting import http_client

NAMES = ("bananen gelb", "kirschen", "pflaumen")
FIND_BROKEN_NAMES = """all => all.filter((name) => {
  const node = document.createTreeWalker(name, NodeFilter.SHOW_TEXT).nextNode();
  return [...node.data.matchAll(/\\S+/g)].some(({ index, 0: word }) => {
    const range = document.createRange();
    range.setStart(node, index);
    range.setEnd(node, index + word.length);
    return range.getClientRects().length > 1 || name.scrollWidth > name.clientWidth + 1;
  });
}).map((name) => name.textContent)"""
"""Returns the names that are cut off or have a word broken across lines."""


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_no_word_of_a_class_name_is_broken(
    serve_bare: Callable[..., WebProcess], open_window: Callable[..., Visit], width: int, scheme: str
) -> None:
    service = Service(serve_bare())
    table = "x,label\n" + "".join(f"{row * 37 % 11},{NAMES[row % 3]}\n" for row in range(90))
    files = {"table": ("fruit.csv", table.encode())}
    http_client.post(f"{service.url}/datasets", data={"name": "fruit"}, files=files).raise_for_status()
    job_id = service.submit(dataset="fruit")
    worker = service.claim()
    worker.commit_epoch(1, metrics=metrics(1), confusion=[[3, 1, 0], [0, 4, 0], [1, 0, 3]])
    worker.succeed()
    visit = open_window(service.url, width=width, color_scheme=scheme)
    visit.error_log.expected.append("status of 500")  # a simulated worker's checkpoints contain no network
    page = visit.open(f"/ui/jobs/{job_id}")
    for names in (page.locator(".scores tbody th"), page.locator(".confusion tbody th")):
        expect(names).to_have_text(list(NAMES))
        assert names.evaluate_all(FIND_BROKEN_NAMES) == []
    scores = page.locator(".scroll:has(> .scores)")
    assert scores.evaluate("one => one.scrollWidth <= one.clientWidth"), "all scores are in view"
