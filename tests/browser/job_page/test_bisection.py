"""The dialog on a job's page that finds the first epoch with a bad value of a metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.accessibility import serious_violations
from tests.browser.conftest import Visit


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_bad_epoch_is_found_and_forked_from(
    open_site: Callable[..., Visit], jobs: dict[str, dict[str, Any]], http: Any, width: int, scheme: str
) -> None:
    visit = open_site(width=width, color_scheme=scheme)
    visit.error_log.expected = ["400"]  # no value is below 0
    page = visit.open(f"/ui/jobs/{jobs['reader']['id']}")
    page.get_by_role("button", name="Find where epochs differ").click()
    page.get_by_label("Metric", exact=True).select_option("val_accuracy")
    expect(page.get_by_label("Bad values are")).to_have_value("below")
    page.get_by_label("Limit in percent").fill("0")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("#bisect-error")).to_contain_text("not below 0.00%, nor in any other epoch")

    history = http.get(jobs["reader"]["urls"]["metrics"]).json()
    first, second = history["series"]["train_loss"][:2]
    assert second < first, "the loss falls at first"
    page.get_by_label("Metric", exact=True).select_option("train_loss")
    page.get_by_label("Bad values are").select_option("below")
    page.get_by_label("Limit", exact=True).fill(str((first + second) / 2))
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("#bisect-sentence")).to_contain_text("Epoch 2 is the first bad one: train loss")
    expect(page.locator("#bisect-probes")).to_contain_text("Looked at epoch 3 (")
    assert serious_violations(page) == []
    box = page.locator("#bisect").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.get_by_role("button", name="Fork from epoch 1").click()
    expect(page.locator("#fork-from")).to_have_value("1")
