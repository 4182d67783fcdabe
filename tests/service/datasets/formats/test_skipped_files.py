"""Files that are not read as images: reports and errors name their format and the remedy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from service.datasets.formats.options import OnBad, PhotoOptions
from service.datasets.importer import import_dataset
from tests.service.datasets.formats.test_photos import picture, refusal, write_tar, write_zip

CONVERT = "which is not read: convert it to JPEG or PNG"
GOOD = {f"{label}/{index}.png": picture() for label in "ab" for index in range(8)}


def encoded(fmt: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB").save(file, fmt)
    return file.getvalue()


def test_the_report_names_the_format_of_skipped_images(tmp_path: Path) -> None:
    names = ["a/scan.tif", "a/IMG_1.HEIC", "b/x.avif", "b/notes.txt", "b/line\nbreak.svg"]
    folder = tmp_path / "arrays"
    folder.mkdir()
    archive = write_tar(tmp_path / "x.tar", GOOD | dict.fromkeys(names, b"content"))
    dataset = import_dataset({"archive": archive}, folder, fraction=None)
    assert dataset.report is not None
    assert {entry["file"]: entry["reason"] for entry in dataset.report["left_out"]["files"]} == {
        "a/scan.tif": f"has the format TIFF, {CONVERT}",
        "a/IMG_1.HEIC": f"has the format HEIC, {CONVERT}",
        "b/x.avif": f"has the format AVIF, {CONVERT}",
        "b/notes.txt": "is not an image file",
        "b/line\N{REPLACEMENT CHARACTER}break.svg": f"has the format SVG, {CONVERT}",
    }


HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    ("data", "fmt"),
    [(HEIC, "HEIC"), (encoded("TIFF"), "TIFF"), (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL")]
    + ([(encoded("AVIF"), "AVIF")] if features.check("avif") else [(b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF")]),
)
def test_a_misnamed_image_is_identified_by_its_bytes(tmp_path: Path, data: bytes, fmt: str) -> None:
    message = refusal(write_zip(tmp_path / "x.zip", GOOD | {"a/9.jpg": data}), tmp_path)
    assert f"a/9.jpg has the format {fmt}, {CONVERT}" in message
    photos = PhotoOptions(on_bad=OnBad.SKIP)
    folder = tmp_path / "arrays"
    folder.mkdir()
    dataset = import_dataset({"archive": tmp_path / "x.zip"}, folder, fraction=None, photos=photos)
    assert (dataset.report or {})["left_out"]["files"] == [
        {"file": "a/9.jpg", "reason": f"has the format {fmt}, {CONVERT}"}
    ]


@pytest.mark.parametrize(
    ("names", "ending"),
    [
        (["a/1.heic", "a/2.HEIC", "b/3.tif"], "; 3 files have the formats HEIC and TIFF: convert them to JPEG or PNG"),
        (["a/1.heic", "x.csv"], f"; a/1.heic has the format HEIC, {CONVERT}"),
        (["titanic/train.csv"], "; it contains the table titanic/train.csv: unpack that, and upload it instead"),
        (["x/photos.zip", "x.csv"], "; it contains the archive x/photos.zip: unpack that, and pack its folders"),
        (["a.txt", ".hidden.csv", "noextension"], ".gif are read"),
    ],
)
def test_the_refusal_of_an_archive_without_images_names_its_contents(
    tmp_path: Path, names: list[str], ending: str
) -> None:
    message = refusal(write_zip(tmp_path / "x.zip", dict.fromkeys(names, b"content")), tmp_path)
    assert message.startswith("contains no images; files ending in .png, ")
    assert message.endswith(ending)


def test_labels_in_a_table_do_not_define_classes(tmp_path: Path) -> None:
    images = {f"images/{index}.png": picture() for index in range(8)}
    message = refusal(write_zip(tmp_path / "x.zip", images), tmp_path)
    assert message == (
        "has one class folder, 'images'; a classifier needs at least two: sort the images into a folder per class"
    )
    assert refusal(write_zip(tmp_path / "y.zip", images | {"labels.csv": b"file,label\n"}), tmp_path) == (
        f"{message}; labels.csv is not read"
    )
