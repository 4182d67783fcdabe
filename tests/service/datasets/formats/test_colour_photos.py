"""Archives of colour images, archives with parts, and archives with unreadable images."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.datasets.importer import DEFAULT_PHOTOS, UploadRefused, import_dataset
from service.datasets.info import TEST_NAMES, Channels, ImportedDataset, OnBad, PhotoOptions
from service.datasets.sandbox import import_in_sandbox
from tests.service.datasets.formats.test_photos import picture, tarred, zipped

RED, BLUE, GREY = (200, 10, 10), (10, 10, 200), (90, 90, 90)


def imported(path: Path, tmp_path: Path, options: PhotoOptions = DEFAULT_PHOTOS) -> tuple[ImportedDataset, np.ndarray]:
    """What became of an archive, and its training images."""
    folder = tmp_path / f"arrays-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    found = import_in_sandbox({"archive": path}, folder, fraction=None, photos=options)
    return found, np.load(folder / "train-images-idx3-ubyte.npy")


def files(*colours: object, count: int = 8, **how: object) -> dict[str, bytes]:
    suffix = str(how.get("fmt", "PNG")).lower()
    return {
        f"{label}/{index}.{suffix}": picture(colour=colour, **how)  # type: ignore[arg-type]
        for label, colour in zip("abc", colours, strict=False)
        for index in range(count)
    }


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_colours_stay(tmp_path: Path, pack: object) -> None:
    found, train = imported(pack(tmp_path / "x.tar.gz", files(RED, BLUE)), tmp_path)  # type: ignore[operator]
    assert (tuple(found.image_shape), train.shape) == ((6, 8, 3), (14, 6, 8, 3))
    assert {tuple(image[0, 0]) for image in train} == {RED, BLUE}
    assert found.report == {"channels": {"value": 3, "reason": "a/0.png has colours"}}


def test_one_colour_image_among_grey_ones_decides_by_default(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", files(GREY, GREY) | {"b/9.png": picture(colour=RED)})
    found, train = imported(path, tmp_path)
    assert (tuple(found.image_shape), found.report["channels"]["reason"]) == ((6, 8, 3), "b/9.png has colours")  # type: ignore[index]
    assert {tuple(image[0, 0]) for image in train} == {GREY, RED}
    grey, levels = imported(path, tmp_path, PhotoOptions(channels=Channels.GREY))
    assert (tuple(grey.image_shape), {int(image[0, 0]) for image in levels}) == ((6, 8), {90, 67})


def test_grey_images_stay_grey_by_default(tmp_path: Path) -> None:
    """A tint, as scans have it, is no colour; its levels are those of channels=1."""
    path = zipped(tmp_path / "x.zip", files(GREY, (100, 100, 80)))
    found, train = imported(path, tmp_path)
    grey, levels = imported(path, tmp_path, PhotoOptions(channels=Channels.GREY))
    assert (tuple(found.image_shape), found.sha256) == ((6, 8), grey.sha256)
    assert np.array_equal(train, levels)
    coloured, colours = imported(path, tmp_path, PhotoOptions(channels=Channels.COLOUR))
    assert tuple(coloured.image_shape) == (6, 8, 3)
    assert {tuple(image[0, 0]) for image in colours} == {GREY, (100, 100, 80)}


def test_digests_of_grey_archives_are_what_they_were(tmp_path: Path) -> None:
    """Written down from a version that stored photos in the order of the archive, from one in the order of paths."""
    image = Image.fromarray(np.arange(40 * 30, dtype=np.uint32).reshape(30, 40).astype(np.uint8))
    data = {}
    for number, mode in enumerate(("L", "RGB", "RGBA", "P", "LA")):
        file = io.BytesIO()
        image.convert(mode).save(file, "PNG")
        data |= {f"{label}/{number}-{index}.png": file.getvalue() for label in "ab" for index in range(3)}
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=90)
    data |= {f"{label}/j{index}.jpg": file.getvalue() for label in "ab" for index in range(3)}
    for order in (sorted(data), sorted(data, reverse=True)):
        path = zipped(tmp_path / "x.zip", {name: data[name] for name in order})
        found, _ = imported(path, tmp_path, PhotoOptions(size=(16, 12)))
        assert tuple(found.image_shape) == (12, 16)
        assert found.sha256 == GREY_DIGEST


GREY_DIGEST = "sha256:63c7f89817c5136a82759d85f366030f90499da2c7a96c1da1797f7fc97bb2b5"


@pytest.mark.parametrize(
    ("mode", "colour", "how", "seen"),
    [
        ("RGBA", (200, 10, 10, 255), {}, RED),
        ("RGBA", (200, 10, 10, 0), {}, (0, 0, 0)),  # what is transparent is black, as in /predict
        ("P", None, {}, RED),
        ("CMYK", (0, 255, 255, 0), {"fmt": "JPEG", "quality": 95}, (255, 0, 0)),
        ("RGB", RED, {"fmt": "JPEG", "quality": 95}, RED),
        ("RGB", RED, {"fmt": "WEBP", "lossless": True}, RED),
        ("RGB", RED, {"fmt": "BMP"}, RED),
        ("RGB", RED, {"fmt": "GIF"}, RED),
        ("I;16", 257 * 100, {}, (100, 100, 100)),
        ("1", 1, {}, (255, 255, 255)),
    ],
)
def test_every_kind_of_pixel_is_stored_in_colour(
    tmp_path: Path, mode: str, colour: object, how: dict[str, object], seen: tuple[int, ...]
) -> None:
    if mode == "P":
        file = io.BytesIO()
        Image.new("RGB", (8, 6), RED).quantize(4).save(file, "PNG")
        data = {f"{label}/{index}.png": file.getvalue() for label in "ab" for index in range(8)}
    else:
        data = files(colour, colour, mode=mode, **how)
    _, train = imported(zipped(tmp_path / "x.zip", data), tmp_path, PhotoOptions(channels=Channels.COLOUR))
    assert np.abs(train[0, 3, 4].astype(int) - seen).max() <= 3


def test_sixteen_bits_a_channel_are_scaled(tmp_path: Path) -> None:
    data = _png_of_16_bits((51400, 2570, 2570))
    _, train = imported(
        zipped(tmp_path / "x.zip", {f"{label}/{index}.png": data for label in "ab" for index in range(8)}), tmp_path
    )
    assert tuple(train[0, 0, 0]) == RED


def _png_of_16_bits(colour: tuple[int, int, int]) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">3H", *colour) * 8
    header = struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 6)) + chunk(b"IEND", b"")


def test_a_photo_in_colour_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    data = {f"{label}/{index}.jpg": file.getvalue() for label in "ab" for index in range(8)}
    found, train = imported(zipped(tmp_path / "x.zip", data), tmp_path)
    assert tuple(found.image_shape) == (40, 20, 3)
    assert np.abs(train[0, 5, 5].astype(int) - RED).max() < 8
    assert np.abs(train[0, 35, 5].astype(int) - BLUE).max() < 8


def parted(*parts: str) -> dict[str, bytes]:
    return {f"d/{part}/{name}": data for part in parts for name, data in files(RED, BLUE, count=4).items()}


def test_test_images_are_a_part_of_their_own_beside_validation_images(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = zipped(tmp_path / "x.zip", parted("train", "val", "test"))
    found = import_dataset({"archive": path}, folder, fraction=None)
    assert (found.train_count, found.validation_count, found.test_count) == (8, 8, 8)
    images, labels = (np.load(folder / f"{name}.npy") for name in TEST_NAMES)
    assert (images.shape, sorted(labels)) == ((8, 6, 8, 3), [0] * 4 + [1] * 4)
    assert tuple(images[0, 0, 0]) == RED
    two, _ = imported(zipped(tmp_path / "y.zip", parted("train", "test")), tmp_path)
    assert (two.train_count, two.validation_count, two.test_count) == (8, 8, 0)
    assert two.sha256 != found.sha256
    as_validation, _ = imported(zipped(tmp_path / "z.zip", parted("train", "validation")), tmp_path)
    assert as_validation.sha256 == two.sha256


def test_arrays_in_colour_are_imported(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3)).astype(np.uint8)
    labels = np.arange(40) % 4
    arrays = {"x_train": images, "y_train": labels, "x_val": images[:8], "y_val": labels[:8]}
    np.savez(tmp_path / "x.npz", **arrays, x_test=images[8:20], y_test=labels[8:20])
    found, train = imported(tmp_path / "x.npz", tmp_path)
    assert (tuple(found.image_shape), found.validation_count, found.test_count) == ((5, 4, 3), 8, 12)
    assert np.array_equal(train, images)
    np.savez(tmp_path / "y.npz", **{**arrays, "x_val": images[:8, :, :, 0]})
    with pytest.raises(UploadRefused, match="holds images of"):
        imported(tmp_path / "y.npz", tmp_path)


def test_options_of_image_files_are_refused_for_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 5, 4), np.uint8), labels=np.arange(40) % 4)
    with pytest.raises(UploadRefused) as error:
        imported(tmp_path / "x.npz", tmp_path, PhotoOptions(channels=Channels.COLOUR, on_bad=OnBad.SKIP))
    assert set(error.value.faults) == {"channels", "on_bad"}


def broken(good: Mapping[str, bytes]) -> dict[str, bytes]:
    """The good files, two that are cut off, and two that are something else."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).save(file, "PNG")
    jpeg = picture(fmt="JPEG")
    return {
        "a/cut.png": file.getvalue()[:-40],
        **good,
        "b/cut.jpg": jpeg[: len(jpeg) // 2],
        "b/page.png": b"<html>not found</html>",
        "c/video.jpg": b"\0\0\0\x18ftypmp42" + bytes(40),
    }


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_images_that_cannot_be_read_are_named_and_counted_or_left_out(tmp_path: Path, pack: object) -> None:
    good = files(RED, BLUE)
    path = pack(tmp_path / "x.tar", broken(good))  # type: ignore[operator]
    with pytest.raises(UploadRefused) as error:
        imported(path, tmp_path)
    said = error.value.faults["archive"]
    assert "has 4 files that cannot be read" in said
    assert "on_bad=skip" in said
    assert all(name in said for name in ("a/cut.png is truncated", "b/cut.jpg", "b/page.png is not a PNG", "c/video"))
    found, _ = imported(path, tmp_path, PhotoOptions(on_bad=OnBad.SKIP))
    kept, _ = imported(zipped(tmp_path / "good.zip", good), tmp_path)
    assert (found.sha256, list(found.class_names or ())) == (kept.sha256, ["a", "b"])
    left_out = (found.report or {})["left_out"]
    assert left_out["count"] == 4
    assert [one["file"] for one in left_out["files"]] == ["a/cut.png", "b/cut.jpg", "b/page.png", "c/video.jpg"]


def test_nothing_but_broken_images_is_refused_in_any_case(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {f"{label}/{index}.png": b"junk" for label in "ab" for index in range(8)})
    with pytest.raises(UploadRefused, match="has no image that can be read"):
        imported(path, tmp_path, PhotoOptions(on_bad=OnBad.SKIP))


def test_damaged_members_of_an_archive_can_be_skipped(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", files(RED, BLUE) | {"a/odd.png": picture(colour=(1, 2, 3), size=(8, 6))})
    data = bytearray(path.read_bytes())
    at = data.index(b"a/odd.png") + len("a/odd.png") + 20
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UploadRefused, match=r"a/odd.png is damaged in the archive"):
        imported(path, tmp_path)
    found, _ = imported(path, tmp_path, PhotoOptions(on_bad=OnBad.SKIP))
    assert found.train_count + found.validation_count == 16


def test_nothing_is_left_in_the_folder_but_the_arrays(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    import_dataset({"archive": zipped(tmp_path / "x.zip", files(RED, BLUE))}, folder, fraction=None)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npy", ".npy", ".npy", ".npy"]
