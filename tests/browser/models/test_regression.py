"""A price that a regressor predicts, as the pages show it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Finish, Visit

ROWS = 200
AREAS = [30 + 7 * number % 120 for number in range(ROWS)]
TABLE = "area,city,price\n" + "".join(
    f"{area},{('Oslo', 'Bergen')[number % 2]},{1_500_000 + 25_000 * area + 1000 * (number % 37)}\n"
    for number, area in enumerate(AREAS)
)


@pytest.fixture
def job(stack_http: httpx.Client, finish: Finish) -> dict[str, Any]:
    files = {"table": ("flats.csv", TABLE.encode())}
    stack_http.post("/datasets", data={"name": "flats"}, files=files)  # refused if it is there already
    spec = {"kind": "regressor", "dataset": "flats", "epochs": 12}
    job: dict[str, Any] = finish(stack_http.post("/jobs", json=spec).raise_for_status().json())
    return job


def number_of(text: str) -> float:
    return float(text.replace(",", ""))


@pytest.mark.stack
def test_the_page_of_a_job_draws_each_row_and_lists_the_largest_errors(
    open_stack: Callable[..., Visit], stack_http: httpx.Client, job: dict[str, Any]
) -> None:
    residuals = stack_http.get(f"/jobs/{job['id']}/residuals").json()
    visit = open_stack()
    page = visit.open(f"/ui/jobs/{job['id']}")
    page.locator("#residuals").scroll_into_view_if_needed()
    expect(page.locator("#residuals circle")).to_have_count(residuals["validation_count"])
    expect(page.locator("#residuals [data-state]")).to_have_text(f"{residuals['validation_count']} validation rows.")
    box = page.locator("#residuals svg").bounding_box()
    assert box is not None
    for dot in page.locator("#residuals circle").all():
        inside = dot.bounding_box()
        assert inside is not None
        assert box["x"] < inside["x"] < box["x"] + box["width"]
        assert box["y"] < inside["y"] < box["y"] + box["height"]
    cells = page.locator("#worst tbody tr").first.locator("td").all_inner_texts()
    worst = residuals["worst"][0]
    numbers = [worst["target"], worst["prediction"], worst["target"] - worst["prediction"]]
    expected = [worst["index"] + 1, *numbers, worst["row"]["area"]]
    assert [number_of(cell) for cell in cells[:5]] == pytest.approx(expected, rel=1e-3)
    assert cells[5] == worst["row"]["city"]
    page.locator("#importance").scroll_into_view_if_needed()
    expect(page.locator("#importance li .label").first).to_have_text("area")
    tile = page.locator("#tiles [data-metric=val_rmse]")
    expect(tile).to_contain_text("95% interval")
    assert page.locator("#confusion, #calibration, #mistakes").filter(visible=True).count() == 0


REGRESSOR = {"kind": "regressor", "dataset": "flats", "epochs": 12}
CLASSIFIER = {"kind": "classifier", "dataset": "iris", "epochs": 12}


@pytest.fixture
def occupied(stack_http: httpx.Client) -> Iterator[Callable[[], None]]:
    """Two long jobs occupy both workers until the function is called."""
    spec = {"kind": "classifier", "epochs": 1000, "priority": 5}
    urls = [stack_http.post("/jobs", json=spec).raise_for_status().json()["urls"]["self"] for _ in range(2)]

    def release() -> None:
        while urls:
            stack_http.post(f"{urls.pop()}/cancel").raise_for_status()

    yield release
    release()


@pytest.mark.parametrize(
    ("spec", "cards"),
    [
        (REGRESSOR, ["#residuals circle", "#worst td", "#importance li"]),
        (CLASSIFIER, ["#confusion td", "#classes td", "#importance li", "#calibration svg", "#mistakes"]),
    ],
    ids=["regressor", "classifier"],
)
def test_the_page_of_a_job_that_is_watched_from_the_start_shows_its_evaluation(
    open_stack: Callable[..., Visit],
    stack_http: httpx.Client,
    job: dict[str, Any],
    occupied: Callable[[], None],
    spec: dict[str, Any],
    cards: list[str],
) -> None:
    watched = stack_http.post("/jobs", json=spec | {"seed": 5}).raise_for_status().json()
    page = open_stack().open(f"/ui/jobs/{watched['id']}")
    expect(page.locator("#status .queued")).to_be_visible()
    assert page.locator(", ".join(card.split()[0] for card in cards)).filter(visible=True).count() == 0
    occupied()
    expect(page.locator("#status .succeeded")).to_be_visible()
    for card in cards:
        root = page.locator(card.split()[0])
        root.scroll_into_view_if_needed()
        expect(root).to_be_visible()
        expect(page.locator(card).first).to_be_attached()


def test_a_row_is_predicted_in_the_unit_of_the_target(
    open_stack: Callable[..., Visit], stack_http: httpx.Client, job: dict[str, Any]
) -> None:
    visit = open_stack()
    page = visit.open(f"/ui/play/{job['id']}")
    page.locator('[data-column="area"]').fill("90")
    page.locator('[data-column="city"]').select_option("Bergen")
    row = {"rows": [{"area": 90, "city": "Bergen"}]}
    (value,) = stack_http.post(f"/jobs/{job['id']}/predict", json=row).json()["values"]
    verdict = page.locator("#verdict")
    expect(verdict).to_have_attribute("data-answer", str(value))
    assert number_of(verdict.inner_text().removeprefix("price: ")) == pytest.approx(value, rel=1e-3)
    about = page.locator("#row-about div")
    assert re.fullmatch(r"Typical error [\d,]+, the RMSE on validation data\.", about.inner_text())
    page.locator('[data-column="area"]').fill("900")
    expect(about.nth(1)).to_have_text("Column 'area' is outside the range of the dataset (30 to 149): 900.")


def test_the_first_rows_of_a_predicted_file_are_shown(
    open_stack: Callable[..., Visit], job: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(
        "area,city\n" + "".join(f"{50 + number},Oslo\n" for number in range(30)) + "60,\n"
    )
    page = open_stack().open(f"/ui/play/{job['id']}")
    page.locator("#rows-file").set_input_files(tmp_path / "rows.csv")
    expect(page.locator("#rows-state")).to_contain_text("Column 'city' is empty in 1 row")
    assert page.locator("#rows-first th").all_inner_texts() == ["area", "city", "prediction"]
    expect(page.locator("#rows-first tbody tr")).to_have_count(10)
    cells = page.locator("#rows-first tbody tr").first.locator("td").all_inner_texts()
    assert cells[:2] == ["50", "Oslo"]
    assert 2_000_000 < float(cells[2]) < 4_000_000


def test_the_preview_of_a_table_names_the_number_to_predict_and_its_range(
    open_stack: Callable[..., Visit], tmp_path: Path
) -> None:
    (tmp_path / "flats.csv").write_text(TABLE)
    page = open_stack().open("/ui/datasets")
    page.get_by_label("Format").select_option("table")
    page.get_by_label("Table", exact=True).set_input_files(tmp_path / "flats.csv")
    preview = page.locator("#table-preview")
    expect(preview).to_contain_text(f"{ROWS} rows; the number to predict is price (2,250,000 to 5,251,000).")
    assert preview.locator("thead tr").nth(1).locator("td").last.inner_text() == "target"
    expect(page.locator("#table-help")).to_contain_text("predict its number")


def test_a_job_of_an_uploaded_dataset_is_named_after_it(open_stack: Callable[..., Visit], job: dict[str, Any]) -> None:
    page = open_stack().open("/ui/new?dataset=flats")
    expect(page.get_by_label("Name", exact=True)).to_have_value("flats")
    expect(page.locator("#dataset-about")).to_contain_text("price")
    page.get_by_role("link", name="Use your own data").click()
    expect(page.get_by_role("heading", name="Upload a dataset")).to_be_in_viewport()


def test_the_page_of_a_dataset_shows_the_distribution_of_the_number_to_predict(
    open_stack: Callable[..., Visit], job: dict[str, Any]
) -> None:
    visit = open_stack()
    page = visit.open("/ui/datasets/flats")
    expect(page.get_by_role("heading", name="price", exact=True)).to_be_visible()
    expect(page.locator("svg.target")).to_be_visible()
    expect(page.locator("#shown tbody tr").first).to_be_visible()
    prices = [number_of(text) for text in page.locator("#shown tbody th").all_inner_texts()]
    assert min(prices) >= 1_500_000
    expect(page.locator("#part option").first).to_have_text(re.compile(r"training, 1[67]\d"))
    assert page.locator("#class").is_hidden()
