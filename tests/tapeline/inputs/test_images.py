"""Conversion of users' images by the client."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tapeline import UnreadableImage
from tapeline.images.files import SENT_SIDE, SENT_UNCHANGED_BYTES
from tapeline.inputs.images import Encoded, as_png, encoded, in_requests


def picture(width: int = 40, height: int = 20, mode: str = "L") -> Image.Image:
    """An image whose left half is bright."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, : width // 2] = 255
    return Image.fromarray(pixels).convert(mode)


def file_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def converted(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(as_png(data)))
    assert image.format == "PNG"
    return image


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "GIF", "PNG"])
def test_each_common_format_is_converted_to_the_same_image(kind: str) -> None:
    levels = np.asarray(converted(file_bytes(picture(), kind)).convert("L"))
    assert levels.shape == (20, 40)
    assert levels[:, :18].min() > 240
    assert levels[:, 22:].max() < 15


def test_a_photo_is_rotated_according_to_its_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row of pixels is the right edge of the upright photo
    levels = np.asarray(converted(file_bytes(picture(), "JPEG", exif=exif)).convert("L"))
    assert levels.shape == (40, 20)
    assert levels[:18].min() > 240
    assert levels[22:].max() < 15


def test_a_large_photo_is_scaled_down_before_it_is_sent() -> None:
    data = file_bytes(picture(4000, 3000, "RGB"), "JPEG")
    assert converted(data).size == (SENT_SIDE, SENT_SIDE * 3 // 4)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 700, 3)).astype(np.uint8))
    assert len(as_png(file_bytes(noise, "PNG"))) < 400_000


def test_a_small_png_is_sent_bit_for_bit() -> None:
    data = file_bytes(picture(), "PNG")
    assert base64.b64decode(encoded(data).content) == data


def test_levels_of_16_bits_are_scaled_to_8_bits_and_not_clipped() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (700, 700)).astype(np.uint16)
    levels = {0: 0xFFFF, 100: 0x80FF, 200: 0x4000, 300: 0x0200}
    for left, level in levels.items():
        values[:, left : left + 100] = level
    image = np.asarray(converted(file_bytes(Image.fromarray(values), "PNG"))).astype(int)
    for left, level in levels.items():
        columns = image[:, image.shape[1] * (left + 20) // 700 : image.shape[1] * (left + 80) // 700]
        assert (columns.min(), columns.max()) == (round(level / 257), round(level / 257))


def test_transparent_areas_stay_transparent() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert converted(file_bytes(clear, "WEBP", lossless=True)).getpixel((5, 5))[3] == 0  # type: ignore[index]
    palette = Image.new("P", (20, 20), 1)
    assert converted(file_bytes(palette, "GIF", transparency=1)).convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]


def test_an_animation_is_converted_to_its_first_frame() -> None:
    frames = [Image.new("L", (8, 8), level) for level in (10, 200)]
    data = file_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert converted(data).convert("L").getpixel((4, 4)) == 10


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("TIFF", "has the format TIFF, which is not read: convert it to JPEG or PNG"),
        ("PPM", "is not a PNG, JPEG, WebP, BMP or GIF image"),
        ("ICO", "is not a PNG, JPEG, WebP, BMP or GIF image"),
    ],
)
def test_unsupported_formats_are_not_decoded(kind: str, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        as_png(file_bytes(picture(), kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "GIF"])
def test_an_image_truncated_in_its_header_is_reported_as_damaged(kind: str) -> None:
    with pytest.raises(UnreadableImage, match=r"is truncated or damaged|is broken"):
        as_png(file_bytes(picture(), kind)[:16])


def test_a_heic_photo_is_refused_with_its_format_and_the_remedy(tmp_path: Path) -> None:
    header = b"\0\0\0\x18ftypheic" + bytes(40)
    for name, data in {"photo.HEIC": header, "cut.heic": b"x", "photo.jpg": header}.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UnreadableImage, match=f"{name} has the format HEIC, which is not read: convert it to JPEG"):
            encoded(path)


def test_damaged_oversized_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    path.write_bytes(file_bytes(picture(300, 300), "JPEG")[:900])
    with pytest.raises(UnreadableImage, match=r"half\.jpg is truncated or damaged"):
        encoded(path)
    for size in ((10_001, 8_000), (20_000, 9_000)):  # just more than we read, and more than Pillow opens
        huge = file_bytes(Image.new("1", size), "PNG")
        with pytest.raises(UnreadableImage, match=r"has too many pixels.*; at most 80,000,000 are read"):
            as_png(huge + bytes(300_000))
    with (tmp_path / "long.bmp").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(UnreadableImage, match=r"long\.bmp is larger than 64 MiB"):
        encoded(tmp_path / "long.bmp")
    with pytest.raises(FileNotFoundError):
        encoded(tmp_path / "missing.png")


def test_a_small_file_is_sent_bit_for_bit_and_a_large_one_as_a_png() -> None:
    small = file_bytes(picture(), "JPEG")
    assert base64.b64decode(encoded(small).content) == small
    large = file_bytes(picture(4000, 3000, "RGB"), "JPEG")
    assert base64.b64decode(encoded(large).content) == large
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1400, 1400, 3)).astype(np.uint8))
    heavy = file_bytes(noise, "JPEG")
    assert len(heavy) > SENT_UNCHANGED_BYTES
    for scaled in (heavy, file_bytes(picture(5000, 4000), "JPEG"), file_bytes(picture(3000, 10), "PNG")):
        assert base64.b64decode(encoded(scaled).content).startswith(b"\x89PNG")
        assert max(Image.open(io.BytesIO(base64.b64decode(encoded(scaled).content))).size) == SENT_SIDE


def test_many_images_are_sent_in_several_requests() -> None:
    images = [Encoded("x" * 250_000)] * 7
    assert [len(part) for part in in_requests(images)] == [3, 3, 1]
    assert [len(part) for part in in_requests([Encoded([[0.5]])] * 300)] == [256, 44]
    photos = [Encoded("x" * 100_000, 12_000_000)] * 2
    assert [len(part) for part in in_requests(photos)] == [1, 1], "the service reads so many pixels at once"
    assert list(in_requests([])) == [[]]


def test_numbers_and_small_files_are_sent_unchanged(tmp_path: Path) -> None:
    assert encoded([[0.5]]).content == [[0.5]]
    (tmp_path / "a.png").write_bytes(file_bytes(picture(), "PNG"))
    assert base64.b64decode(encoded(tmp_path / "a.png").content) == (tmp_path / "a.png").read_bytes()


def test_a_text_is_read_as_base64_if_possible_and_otherwise_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = base64.b64encode(b"pixels").decode()
    for name in (text, "small.png"):
        Image.new("L", (2, 2)).save(name, "PNG")
    assert encoded(text).content == text, "a program may pass on what strangers sent"
    assert base64.b64decode(encoded("small.png").content) == Path("small.png").read_bytes()
    with pytest.raises(FileNotFoundError, match="neither a file nor an image in base64"):
        encoded("no-such.png")


@pytest.mark.stack
def test_without_pillow_small_pngs_are_sent_and_other_files_name_the_package(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x.png", "a/x.jpg"):
        picture().save(tmp_path / name)
    program = """
import sys
sys.modules["PIL"] = None  # as if it were not installed
from tapeline import Client, MissingPackage
from tapeline.inputs.images import encoded

assert encoded("a/x.png").pixels == 800
for call in (lambda: encoded("a/x.jpg"), lambda: Client("http://127.0.0.1:9").train("a")):
    try:
        call()
    except MissingPackage as error:
        print(error)
"""
    command = [sys.executable, "-c", program]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    expected = "reading image files needs the package pillow: pip install pillow\n" * 2
    assert result.stdout == expected, result.stderr
