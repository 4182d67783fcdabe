"""Prices of a table with German number formats, as pages show and accept them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Finish, Visit

PRICES = [13_607.78 + 117.31 * number for number in range(180)]
BALANCES = [1_250_000.25 + 9_000 * (number % 40) for number in range(180)]


def german(value: float, separator: str) -> str:
    return f"{value:,.2f}".replace(",", " ").replace(".", ",").replace(" ", separator)


@pytest.mark.parametrize("separator", [".", ""], ids=["grouped", "plain"])
def test_german_prices_are_ordinary_numbers_on_every_page(
    open_stack: Callable[..., Visit], stack_http: httpx.Client, finish: Finish, separator: str
) -> None:
    rows = [
        f"{german(price, separator)};{german(balance, separator)};{'ab'[number * 7 % 3 > 1]}"
        for number, (price, balance) in enumerate(zip(PRICES, BALANCES, strict=True))
    ]
    table = "\n".join(["Preis;Saldo;Art", *rows])
    name = f"prices-{len(separator)}"
    stack_http.post("/datasets", data={"name": name}, files={"table": ("x.csv", table.encode())}).raise_for_status()
    spec = {"kind": "classifier", "dataset": name, "epochs": 2}
    job: dict[str, Any] = finish(stack_http.post("/jobs", json=spec).raise_for_status().json())
    visit = open_stack(locale="de-DE")
    page = visit.open(f"/ui/datasets/{name}")
    cells = page.locator("tr", has_text="Preis").locator("td.number")
    assert cells.filter(has_text=re.compile(r"\d,\d")).all_inner_texts()[:3] == ["13,608", "24,107", "34,606"]
    assert "e+" not in page.locator("main").inner_text()
    page = visit.open(f"/ui/play/{job['id']}")
    expect(page.locator("#bars .winner")).to_have_count(1)  # the service accepts the page's initial values
    for column, pattern in (("Preis", r"24\d\d\d,\d\d"), ("Saldo", r"14\d\d000,25")):
        assert re.fullmatch(pattern, page.locator(f'[data-column="{column}"]').input_value())
    assert page.locator('[data-column="Preis"]').get_attribute("title") == "13607,78 to 34606,27"
    page = visit.open(f"/ui/jobs/{job['id']}")
    with page.expect_response(re.compile(r"/confusion/")) as answer:
        page.locator("#confusion td.wrong button").first.click()
    assert answer.value.ok, answer.value.text()
    shown = page.locator("#cell table.rows tbody tr").first.locator("td.number").first
    expect(shown).to_have_text(re.compile(r"\d"))
    assert float(shown.inner_text()) in {round(price, 2) for price in PRICES}
