"""The upload form: photos, tables, progress, and files that are no dataset."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Dialog, Page, expect

from tapeline.inputs.uploads import dataset_name
from tests import coloured_shapes
from tests.browser.apps.simulated_worker import WebProcess
from tests.browser.conftest import Visit
from tests.browser.datasets.image_uploads import upload
from tests.browser.waiting import until


def test_an_upload_error_uses_the_labels_of_the_form(
    open_window: Callable[..., Visit], bare: WebProcess, tmp_path: Path
) -> None:
    photos = coloured_shapes.write_archive(tmp_path / "photos.zip", 24, side=16)
    with zipfile.ZipFile(photos, "a") as archive:
        archive.writestr("shapes/red-circle/kaputt.jpg", b"no image")
    visit = open_window(bare.url, width=1440)
    visit.error_log.expected.append("422")
    page = visit.open("/ui/datasets")
    page.select_option("#format", "archive")
    page.set_input_files("[name=archive]", str(photos))
    page.get_by_role("button", name="Upload").click()
    advice = "remove or replace it, or leave it out: choose “leave them out” under “Unreadable images”"
    expect(page.locator("#upload-error")).to_contain_text(advice)
    expect(page.locator("#upload-error")).not_to_contain_text("on_bad")
    boxes = [page.locator(selector).bounding_box() for selector in ("#upload", "#upload-error", "#folder-chosen")]
    tops = [box["y"] for box in boxes if box is not None]
    assert tops == sorted(tops)
    assert len(tops) == 3, "the error is next to the form, above the help"
    page.get_by_label("Unreadable images").select_option("leave them out")


@pytest.mark.stack
def test_a_folder_of_photos_is_summarized_checked_and_uploaded(
    open_window: Callable[..., Visit], bare: WebProcess, tmp_path: Path
) -> None:
    photos = tmp_path / "obst"
    for fruit, colour in (("apfel", (200, 30, 40)), ("banane", (230, 210, 60)), ("kirsche", (120, 0, 30))):
        for number in range(8):
            folder = photos / fruit / ("neu" if number % 2 else "alt")  # folders inside a class folder are not classes
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60 + number, 50), colour).save(folder / f"{number}.jpg")
    visit = open_window(bare.url, width=1440)
    visit.error_log.expected.append("422")
    page = visit.open("/ui/datasets")
    help_text = page.locator("#folder-chosen")
    page.select_option("#format", "table")
    expect(help_text).to_contain_text("Choose a CSV or TSV file")
    page.select_option("#format", "folder")
    expect(help_text).to_contain_text("Choose a folder")
    page.get_by_label("Size in pixels").focus()
    page.set_input_files("#folder", str(photos))
    expect(help_text).to_contain_text("24 images in 3 classes: apfel, banane, kirsche.")
    expect(page.get_by_label("Size in pixels")).to_have_value("32")
    expect(help_text).to_contain_text("different sizes")
    page.keyboard.type("48")  # replaces the proposal, which has just arrived
    expect(page.get_by_label("Size in pixels")).to_have_value("48")
    (photos / "apfel" / "alt" / "kaputt.jpg").write_bytes(b"no image")
    page.set_input_files("#folder", str(photos))
    expect(help_text).to_contain_text("25 images in 3 classes")
    page.get_by_role("button", name="Upload").click()
    error = page.locator("#upload-error")
    expect(error).to_contain_text("The folder has one file that cannot be read")
    expect(error).to_contain_text("kaputt.jpg")
    expect(error).not_to_contain_text("archive")
    page.get_by_label("Unreadable images").select_option("leave them out")
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/ui/datasets/obst")
    expect(page.locator("main")).to_contain_text("48 \u00d7 48")


def test_a_name_is_derived_as_by_the_command(open_window: Callable[..., Visit], bare: WebProcess) -> None:
    visit = open_window(bare.url)
    visit.error_log.expected = ["422"]  # to the previews of tables with a single row
    page = visit.open("/ui/datasets")
    files = [
        "Meine Äpfel.csv",
        "weights (2).v3.csv",
        ".hidden.tsv",
        "A-.tar.gz",
        "写真.zip",
        "Ærø große.csv.gz",
        "x" * 80 + ".csv",
    ]
    for name in files:
        file = {"name": name, "mimeType": "", "buffer": b"a,b\n1,2\n"}
        page.locator("#format").select_option("table" if "csv" in name or "tsv" in name else "archive")
        page.locator("[name=table]:enabled, [name=archive]:enabled").set_input_files([file])  # type: ignore[list-item]
        expect(page.locator("#upload [name=name]")).to_have_value(dataset_name(name))


SHOWS_READING_PROGRESS = r"""(() => {
  const [text, bar] = ["doing", "progress"].map((part) => document.querySelector(`#upload-${part}`));
  return /^Reading: [1-9]\d?%$/.test(text?.textContent) && 0 < bar.value && bar.value <= 1;
})()"""


def test_an_upload_shows_the_progress_of_reading(
    open_window: Callable[..., Visit], bare: WebProcess, tmp_path: Path
) -> None:
    """The form names the column of the parts. Reading takes several of the page's polling intervals."""
    rng, parts = np.random.default_rng(0), ("train", "train", "val", "test")
    rows = [
        f"{','.join(map(str, row))},{parts[n % 4]},{'ab'[n // 4 % 2]}"
        for n, row in enumerate(rng.random((40_000, 12)).round(6).tolist())
    ]
    header = ",".join([*(f"c{n}" for n in range(12)), "part", "label"])
    (tmp_path / "large.csv").write_text("\n".join([header, *rows * 10]) + "\n")
    page = open_window(bare.url).open("/ui/datasets")
    page.locator("#format").select_option("table")
    page.locator("[name=table]").set_input_files(tmp_path / "large.csv")
    page.locator("[name=split]").select_option("part")
    expect(page.locator("#table-preview")).to_contain_text("In the first 256 kB")
    page.get_by_role("button", name="Upload", exact=True).click()
    until(page, SHOWS_READING_PROGRESS)
    page.wait_for_url("**/ui/datasets/large", timeout=120_000)
    expect(page.locator("main")).to_contain_text(re.compile(r"100,000\s*scored once, at the end of a job"))


def test_an_upload_is_cancelled_while_it_is_sent_or_read(
    open_window: Callable[..., Visit], bare: WebProcess, tmp_path: Path
) -> None:
    lines = [f"{n % 997},{n % 13},{'ab'[n % 2]}" for n in range(400_000)]
    (tmp_path / "long.csv").write_text("\n".join(["x,y,label", *lines]) + "\n")
    visit = open_window(bare.url)
    visit.error_log.expected.append("409")
    page = visit.open("/ui/datasets")
    page.locator("#format").select_option("table")
    page.locator("[name=table]").set_input_files(tmp_path / "long.csv")
    page.get_by_role("button", name="Upload", exact=True).click()
    until(page, SHOWS_READING_PROGRESS)
    questions: list[str] = []

    def stay(dialog: Dialog) -> None:
        questions.append(dialog.type)
        dialog.dismiss()

    page.once("dialog", stay)
    page.locator("nav a").first.click()
    assert questions == ["beforeunload"]
    page.get_by_role("button", name="Cancel the upload").click()
    expect(page.locator("#upload-busy")).to_be_hidden()
    expect(page.get_by_text("The upload was cancelled. Nothing was stored.")).to_be_visible()
    assert httpx.get(f"{bare.url}/datasets/long").status_code == 404


@pytest.mark.stack
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), pytest.param(390, "dark", marks=pytest.mark.nightly)])
def test_the_import_report_groups_rejected_lines_by_reason(
    open_window: Callable[..., Visit], bare: WebProcess, width: int, scheme: str
) -> None:
    lines = ["weight,sort", *(f"{1 + n / 10},{'ab'[n % 2]}" for n in range(600)), *["1.5,a,b"] * 25]
    with httpx.Client(base_url=bare.url, timeout=30) as http:
        table = {"table": ("fruit.csv", "\n".join(lines).encode())}
        assert http.post("/datasets", data={"name": "fruit"}, files=table).status_code == 201
    page = open_window(bare.url, width=width, color_scheme=scheme).open("/ui/datasets/fruit")
    report = page.locator("#report")
    expect(report).to_contain_text("25 lines were rejected")
    expect(report.locator("li")).to_have_count(1)
    expect(report.locator("li")).to_contain_text("has 3 fields instead of 2")
    expect(report.locator("li")).to_contain_text("25 lines: 602, 603")
    expect(report).to_contain_text("The class is the column sort. 600 rows were read")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1440, 390])
def test_the_upload_form_is_one_click_away_with_thirty_datasets(
    open_window: Callable[..., Visit], bare: WebProcess, width: int
) -> None:
    for number in range(30):
        upload(bare, f"set-{number}", np.arange(20) % 2)
    page = open_window(bare.url, width=width).open("/ui/datasets")
    expect(page.locator("#upload")).not_to_be_in_viewport()
    page.get_by_role("link", name="Upload a dataset").click()
    expect(page.get_by_label("Name")).to_be_in_viewport()
    heading, header = page.locator("#upload-title").bounding_box(), page.locator("header").bounding_box()
    assert heading is not None
    assert header is not None
    assert heading["y"] > header["y"] + header["height"], "not behind the header"
    page.keyboard.press("Tab")
    expect(page.get_by_label("Name")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.stack
def test_column_types_are_chosen_in_the_form(
    open_window: Callable[..., Visit], bare: WebProcess, tmp_path: Path
) -> None:
    rows = (f"{10 + n % 7},{n % 5},{n * 7 % 11}.5,{'ab'[n % 2]}" for n in range(200))
    (tmp_path / "people.csv").write_text("\n".join(['zip,"age, in years",pay,label', *rows]) + "\n")
    visit = open_window(bare.url)
    visit.error_log.expected.append("422")
    page = visit.open("/ui/datasets")
    preview = page.locator("#table-preview")
    expect(preview).to_be_hidden()
    page.get_by_label("Format").select_option("table")
    page.get_by_label("Table", exact=True).set_input_files(tmp_path / "people.csv")
    expect(preview).to_contain_text("200 rows, 2 classes: a, b.")
    assert preview.locator("thead tr").first.locator("th").all_inner_texts() == ["zip", "age, in years", "pay", "label"]
    assert preview.locator("tbody tr").first.locator("td").all_inner_texts() == ["10", "0", "0.5", "a"]
    types = [preview.get_by_label(f"Type of {name}") for name in ("zip", "age, in years", "pay")]
    for select in types:
        assert select.locator("option").first.inner_text() == "number (detected)"

    page.get_by_label("Target column").select_option("zip")
    expect(preview).to_contain_text("7 classes: 10, 11, 12")
    expect(preview.get_by_label("Type of label").locator("option").first).to_have_text("category (detected)")
    page.get_by_label("Split column").select_option("label")
    expect(preview.locator(".fault")).to_contain_text("“Split column”")
    page.get_by_label("Split column").select_option("none")
    page.get_by_label("Target column").select_option("label")
    types[0].select_option("category")
    types[1].focus()
    types[1].select_option("category")
    expect(types[1]).to_be_focused()
    types[2].select_option("ignore")
    expect(preview).to_contain_text("200 rows, 2 classes")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/ui/datasets/people")
    columns = page.locator("#columns tbody tr")
    assert [row.locator("td").all_inner_texts()[:2] for row in columns.all()] == [
        ["zip", "category"],
        ["age, in years", "category"],
    ]
    expect(page.locator("#report")).to_contain_text("pay: left out by the option types")

    page.get_by_role("link", name="upload the table again").click()
    expect(page.get_by_role("heading", name="Upload a dataset")).to_be_in_viewport()
    page.wait_for_load_state()
    page.get_by_label("Format").select_option("table")
    page.get_by_label("Table", exact=True).set_input_files(tmp_path / "people.csv")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/ui/datasets/people")
    expect(columns).to_have_count(3)
    assert columns.first.locator("td").all_inner_texts()[1] == "number"


def drop_files(page: Page, *paths: Path) -> None:
    """Drag files from outside the browser onto the form and drop them."""
    browser = page.context.new_cdp_session(page)
    box = page.locator("#upload").bounding_box()
    assert box is not None
    drag_data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    position = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for event in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": event, "data": drag_data, **position})


def test_a_dropped_file_that_is_not_a_dataset_is_named_with_a_remedy(
    open_window: Callable[..., Visit], bare: WebProcess, tmp_path: Path
) -> None:
    """Nothing of it stays in the form: the next file sets the dataset's name."""
    messages = {
        "mine.xlsx": "mine.xlsx is a spreadsheet: save the sheet as CSV, and upload that file.",
        "mine.parquet": "mine.parquet is a Parquet file: convert the table to CSV, and upload that file.",
        "photo.jpg": "photo.jpg is a single image: upload a folder that has a folder of images for each class.",
        "train-images-idx3-ubyte.gz": "Choose the format “IDX files”",
        "README": "README is not a file that can be uploaded",
    }
    tables = [tmp_path / name for name in ("one.csv", "two.csv")]
    for path in (*tables, *(tmp_path / name for name in messages)):
        path.write_text("x,kind\n1,a\n2,b\n")
    visit = open_window(bare.url, width=1440)
    visit.error_log.expected = ["422"]  # to the preview of a file that only looks like a table
    page = visit.open("/ui/datasets")
    error, name = page.locator("#upload-error"), page.get_by_label("Name", exact=True)
    for file, text in messages.items():
        drop_files(page, tmp_path / file)
        expect(error).to_contain_text(text)
        expect(name).to_have_value("")
    drop_files(page, *tables)
    expect(error).to_contain_text("one.csv and two.csv are tables, and a dataset is one. Join them into one file")
    for path in tables:
        drop_files(page, path)
        expect(error).to_be_hidden()
        expect(name).to_have_value(path.stem)
    assert page.locator("[name=table]").evaluate("({ files }) => files[0].name") == "two.csv"
    page.locator("[name=table]").set_input_files(tmp_path / "mine.xlsx")
    expect(error).to_contain_text("save the sheet as CSV")
    assert page.locator("[name=table]").evaluate("({ files }) => files.length") == 0
    name.fill("kept")
    page.select_option("#format", "archive")
    page.locator("[name=archive]").set_input_files(tables[0])
    expect(page.locator("#format")).to_have_value("table")
    assert page.locator("[name=table]").evaluate("({ files }) => files[0].name") == "one.csv"
    expect(name).to_have_value("kept")
