"""The table of jobs: the text of its cells, on a wide screen and on a phone."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.apps.stored_jobs import COLUMNS, JOB_COUNT, load_all_jobs, store_jobs
from tests.browser.conftest import Visit
from tests.browser.waiting import http_client, wait_for_frames

NO_VALUE = "\N{EN DASH}"


def headings(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("thead th.c-own, thead th.c-status").all_inner_texts()]


def cells(row: Locator, *names: str) -> list[str]:
    return [row.locator(f"td[data-column='{name}'] .shown").inner_text() for name in names]


@pytest.mark.parametrize("query", ["tag=night", "q=NIGHT", "q=run+1", "preset=conv", "tag=night&preset=fast"])
def test_counts_above_the_table_match_its_rows(
    open_window: Callable[..., Visit], forty_jobs: WebProcess, query: str
) -> None:
    page = open_window(forty_jobs.url, height=4000).open(f"/?{query}")
    rows = page.locator("tr.job")
    expect(rows.first).to_be_visible()
    assert page.locator("#more").inner_text() == f"{rows.count()} jobs"
    assert rows.count() < JOB_COUNT
    chips = page.locator("#statuses button:visible")
    counts = {name: int(count) for name, count in (text.rsplit(maxsplit=1) for text in chips.all_inner_texts())}
    assert counts["All"] == rows.count()
    for status in ("succeeded", "failed"):
        assert counts.get(status.capitalize(), 0) == page.locator(f"tr.job .status.{status}").count()


@pytest.mark.stack
def test_chosen_columns_and_their_order_survive_a_reload(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    page = open_window(forty_jobs.url).open("/")
    assert headings(page) == ["Status", "Created"]
    expect(page.locator("th.c-metrics")).to_have_text("Metrics (last epoch)")
    expect(page.locator("tr.job .metrics").first).to_have_text(re.compile(r"val accuracy\d\d\.\d\d%train loss0\.5"))
    page.get_by_role("button", name="Columns").click()
    dialog = page.locator("#columns")
    dialog.get_by_label("Search columns").fill("optimizer.learning_rate")
    expect(dialog.locator("fieldset legend")).to_have_text(["Settings that differ"])
    dialog.get_by_role("checkbox", name="optimizer.learning_rate").check()
    dialog.get_by_label("Search columns").fill("best val acc")
    dialog.get_by_role("checkbox", name="best val accuracy").check()
    for name in ("Progress", "Metrics (last epoch)", "Created"):
        dialog.get_by_label(f"Remove: {name}").click()
    for _ in range(2):
        dialog.get_by_label("Move up: best val accuracy").press("Enter")  # the focus stays on the button
    dialog.get_by_role("button", name="Done").click()
    expected = ["best val accuracy", "Status", "optimizer.learning_rate"]
    expect(page.locator("thead th.c-own, thead th.c-status")).to_have_text(expected)
    assert page.url.endswith("/?columns=best:val_accuracy,status,optimizer.learning_rate")
    page.reload()
    expect(page.locator("tr.job").first).to_be_visible()
    assert headings(page) == expected
    assert cells(page.locator("tr.job").nth(1), "best:val_accuracy", "optimizer.learning_rate") == ["91.75%", "0.4"]


@pytest.mark.stack
def test_the_csv_has_the_rows_and_values_of_the_table(
    open_window: Callable[..., Visit], forty_jobs: WebProcess, tmp_path: Path
) -> None:
    page = open_window(forty_jobs.url).open(f"/?columns=status,{COLUMNS}&tag=night&sort=-best:val_accuracy")
    load_all_jobs(page, 14)
    with page.expect_download() as downloading:
        page.locator("#csv").click()
    assert downloading.value.suggested_filename == "tapeline-jobs.csv"
    downloading.value.save_as(tmp_path / "jobs.csv")
    with (tmp_path / "jobs.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 14
    assert list(table[0]) == ["id", "name", "status", *COLUMNS.split(",")]
    page.evaluate("scrollTo(0, 0)")
    for index, line in enumerate(table[:8]):
        row = page.locator("tr.job").nth(index)
        assert row.get_attribute("data-id") == line["id"]
        assert row.locator(".status").inner_text() == line["status"]
        assert cells(row, *COLUMNS.split(",")) == [
            line["preset"],
            line["optimizer.learning_rate"],
            f"{float(line['best:val_accuracy']):.2%}",
            f"{float(line['val_loss']):.4g}",
            line["parent"][-6:].lower() or NO_VALUE,
        ]


def test_the_best_value_of_each_metric_stands_out(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url, height=4000).open("/?columns=best:val_accuracy,val_loss,optimizer.learning_rate")
    expect(page.locator("tr.job")).to_have_count(JOB_COUNT)
    for name, best in (("best:val_accuracy", max), ("val_loss", min)):
        shown = page.locator(f"td[data-column='{name}'] .shown")
        values = [float(text.strip("%")) for text in shown.all_text_contents()]
        marked = page.locator(f"td.best[data-column='{name}'] .shown")
        expect(marked).to_have_count(1)
        assert float(marked.inner_text().strip("%")) == best(values)
        weights = {element.evaluate("e => getComputedStyle(e).fontWeight") for element in (marked, shown.nth(3))}
        assert len(weights) == 2, "seen without colours too"
    assert page.locator("td.best[data-column='optimizer.learning_rate']").count() == 0


@pytest.mark.stack
def test_groups_show_their_count_best_value_and_jobs(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url, height=3000).open("/?columns=preset,best:val_accuracy")
    page.get_by_label("Groups").select_option("By preset")
    expect(page.locator("tr.group")).to_have_count(3)
    assert "group=preset" in page.url
    expect(page.locator("#more")).to_have_text("3 groups, 40 jobs")
    assert page.locator("tr.job").count() == 0
    for index, (name, count) in enumerate((("fast", 14), ("best", 13), ("conv", 13))):
        group = page.locator("tr.group").nth(index)
        expect(group.locator("button")).to_have_text(f"▸{name} {count} jobs")
        group.locator("button").press("Enter")
        expect(page.locator("tr.job")).to_have_count(count)
        accuracies = page.locator("tr.job td[data-column='best:val_accuracy'] .shown").all_text_contents()
        best = max(float(text.partition("%")[0]) for text in accuracies)
        assert cells(group, "best:val_accuracy") == [f"{best:.2f}%"]
        assert set(page.locator("tr.job td[data-column='preset'] .shown").all_inner_texts()) == {name}
        group.locator("button").click()
        expect(page.locator("tr.job")).to_have_count(0)
    page.reload()
    expect(page.locator("tr.group")).to_have_count(3)
    page.get_by_label("Groups").select_option("By tag")
    expect(page.locator("tr.group button")).to_have_text(["▸night 14 jobs", "▸without a tag 26 jobs"])
    page.locator("tr.group button").nth(1).click()
    expect(page.locator("tr.job")).to_have_count(26)


def test_a_large_group_is_loaded_by_scrolling(
    open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]
) -> None:
    bare = serve_bare()
    store_jobs(bare, 700)
    page = open_window(bare.url).open("/?group=dataset")
    page.locator("tr.group button").click()
    seen_ids: set[str] = set()
    scroll_and_draw = (
        "y => new Promise(done => { scrollTo(0, y); requestAnimationFrame(() => requestAnimationFrame(done)); })"
    )
    top = 0
    for _ in range(600):
        page.evaluate(scroll_and_draw, top)
        top = min(top + 800, int(page.evaluate("document.documentElement.scrollHeight")))  # skip no page of rows
        seen_ids |= set(page.evaluate("[...document.querySelectorAll('tr.job')].map(row => row.dataset.id)"))
        if len(seen_ids) == 700:
            break
        assert page.locator("tr.job").count() < 80
        page.wait_for_timeout(20)  # scrolling, as a person does, until all rows were seen
    assert len(seen_ids) == 700


def test_a_scroll_beyond_the_drawn_rows_ends_at_its_target(
    open_window: Callable[..., Visit], forty_jobs: WebProcess
) -> None:
    """The browser's scroll anchoring would move the page when rows are drawn in place of a spacer."""
    page = open_window(forty_jobs.url, height=500).open("/")
    expect(page.locator("#more")).to_have_text(f"{JOB_COUNT} jobs")
    page.mouse.move(600, 300)
    for _ in range(3):
        page.keyboard.press("j")
    expect(page.locator("a.name").nth(2)).to_be_focused()
    page.mouse.wheel(0, 20_000)
    expect(page.locator("tr.job").last).to_be_in_viewport()
    wait_for_frames(page, 6)  # rows are drawn in one, measured in the next, and drawn at their place
    assert page.evaluate("scrollY + innerHeight - document.documentElement.scrollHeight") == pytest.approx(0, abs=1)


@pytest.mark.stack
def test_forks_and_reproductions_show_their_origin(open_window: Callable[..., Visit], forty_jobs: WebProcess) -> None:
    page = open_window(forty_jobs.url).open("/?columns=preset")
    marks = page.locator("tr.job .lineage")
    expect(marks).to_have_text(["↳ fork of run 1", "≡ reproduces run 1 ✓"])
    parent = page.locator("tr.job").nth(1)
    background = parent.evaluate("row => getComputedStyle(row).backgroundColor")
    marks.nth(1).hover()
    expect(parent).not_to_have_css("background-color", background)
    page.mouse.move(0, 0)
    expect(parent).to_have_css("background-color", background)
    marks.first.click()
    expect(page.locator("h1")).to_have_text("run 1")


@pytest.mark.stack
def test_columns_sort_the_whole_list(open_window: Callable[..., Visit], serve_bare: Callable[..., WebProcess]) -> None:
    bare = serve_bare()
    store_jobs(bare, 150)
    page = open_window(bare.url).open("/?columns=best:val_accuracy,preset")
    page.get_by_role("button", name="best val accuracy").click()
    heading = page.get_by_role("columnheader", name="best val accuracy")
    expect(heading).to_have_attribute("aria-sort", "descending")
    best = page.locator("td[data-column='best:val_accuracy'] .shown")
    expect(best.first).to_have_text(re.compile(r"^99\.93%"))
    page.get_by_role("button", name="best val accuracy").press("Enter")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    expect(best.first).to_have_text("90.00%")
    page.get_by_role("button", name="Preset").click()
    expect(page.locator("td[data-column='preset'] .shown").first).to_have_text("best")


@pytest.mark.stack
@pytest.mark.parametrize("width", [pytest.param(390, marks=pytest.mark.nightly), 360])
def test_on_a_phone_values_become_rows_and_nothing_is_cut_off(
    open_window: Callable[..., Visit], forty_jobs: WebProcess, width: int
) -> None:
    long_job = http_client.post(
        forty_jobs.url + "/jobs",
        json={"kind": "classifier", "name": "averylongname" * 12, "tags": ["a tag of some length", "x" * 50]},
    ).json()
    page = open_window(forty_jobs.url, width=width, height=844).open(f"/?columns=status,progress,metrics,{COLUMNS}")
    expect(page.locator("tr.job a.name").nth(1)).to_have_text("classifier 000040")
    row = page.locator("tr.job").nth(1)
    row.scroll_into_view_if_needed()
    wait_for_frames(page, 6)  # which rows exist depends on their measured heights
    for name, label in (("best:val_accuracy", "best val accuracy"), ("val_loss", "val loss"), ("preset", "Preset")):
        cell = row.locator(f"td[data-column='{name}']")
        text, value = cell.locator(".label"), cell.locator(".shown")
        expect(text).to_have_text(label)
        expect(value).to_be_visible()
        # Read both at once: rows above may be measured in between.
        tops = cell.locator(".label, .shown").evaluate_all("all => all.map((part) => part.getBoundingClientRect().top)")
        assert len(tops) == 2
        assert abs(tops[0] - tops[1]) < 6, "the label stands beside its value"
    assert "train loss" in row.locator(".metrics").inner_text()
    find_cut_off = """() => [...document.querySelectorAll("tr.job *, .filters *, thead *")]
        .filter(e => e.offsetParent && !e.matches("select, option, input, .visually-hidden"))
        .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== "visible"
            || e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 120))"""
    expect(page.locator(f"tr[data-id={long_job['id']}]")).to_be_visible()
    assert [html for html in page.evaluate(find_cut_off) if 'class="tag"' not in html] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    row.locator(".star").click()
    expect(row.locator(".star")).to_have_attribute("aria-pressed", "true")
    row.locator(".noted").click()
    expect(page.locator("#note")).to_be_visible()
    page.keyboard.press("Escape")
    load_all_jobs(page, 41)
    page.evaluate("scrollTo(0, 0)")
    page.get_by_label("Select all loaded jobs").check()
    expect(page.locator("#selection strong")).to_have_text("41 selected")
    for name in ("Compare", "Cancel", "Delete", "Clear selection"):
        expect(page.locator("#selection").get_by_role("button", name=name, exact=True)).to_be_in_viewport()
