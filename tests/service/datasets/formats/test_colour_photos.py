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

from service.datasets.formats.options import Channels, OnBad, PhotoOptions
from service.datasets.importer import DEFAULT_PHOTOS, UploadRefused, import_dataset
from service.datasets.info import TEST_NAMES, ImportedDataset
from service.datasets.sandbox import import_in_sandbox
from tests.service.datasets.formats.test_photos import picture, write_tar, write_zip

RED, BLUE, GREY = (200, 10, 10), (10, 10, 200), (90, 90, 90)


def import_archive(
    path: Path, tmp_path: Path, options: PhotoOptions = DEFAULT_PHOTOS
) -> tuple[ImportedDataset, np.ndarray]:
    """Import an archive; return the dataset and its training images."""
    folder = tmp_path / f"arrays-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    dataset = import_in_sandbox({"archive": path}, folder, fraction=None, photos=options)
    return dataset, np.load(folder / "train-images-idx3-ubyte.npy")


def files(*colours: object, count: int = 8, **save_options: object) -> dict[str, bytes]:
    suffix = str(save_options.get("fmt", "PNG")).lower()
    return {
        f"{label}/{index}.{suffix}": picture(colour=colour, **save_options)  # type: ignore[arg-type]
        for label, colour in zip("abc", colours, strict=False)
        for index in range(count)
    }


@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_colours_are_preserved(tmp_path: Path, pack: object) -> None:
    dataset, train = import_archive(pack(tmp_path / "x.tar.gz", files(RED, BLUE)), tmp_path)  # type: ignore[operator]
    assert (tuple(dataset.image_shape), train.shape) == ((6, 8, 3), (14, 6, 8, 3))
    assert {tuple(image[0, 0]) for image in train} == {RED, BLUE}
    assert dataset.report == {"channels": {"value": 3, "reason": "a/0.png has colours"}}


def test_one_colour_image_makes_the_dataset_coloured_by_default(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", files(GREY, GREY) | {"b/9.png": picture(colour=RED)})
    dataset, train = import_archive(path, tmp_path)
    assert (tuple(dataset.image_shape), dataset.report["channels"]["reason"]) == ((6, 8, 3), "b/9.png has colours")  # type: ignore[index]
    assert {tuple(image[0, 0]) for image in train} == {GREY, RED}
    grey, levels = import_archive(path, tmp_path, PhotoOptions(channels=Channels.GREY))
    assert (tuple(grey.image_shape), {int(image[0, 0]) for image in levels}) == ((6, 8), {90, 67})


def test_grey_images_stay_grey_by_default(tmp_path: Path) -> None:
    """A slight tint, as in scans, is not a colour; the levels are those of channels=1."""
    path = write_zip(tmp_path / "x.zip", files(GREY, (100, 100, 80)))
    dataset, train = import_archive(path, tmp_path)
    grey, levels = import_archive(path, tmp_path, PhotoOptions(channels=Channels.GREY))
    assert (tuple(dataset.image_shape), dataset.sha256) == ((6, 8), grey.sha256)
    assert np.array_equal(train, levels)
    coloured, colours = import_archive(path, tmp_path, PhotoOptions(channels=Channels.COLOUR))
    assert tuple(coloured.image_shape) == (6, 8, 3)
    assert {tuple(image[0, 0]) for image in colours} == {GREY, (100, 100, 80)}


def test_digests_of_grey_archives_are_unchanged(tmp_path: Path) -> None:
    """Recorded with a version that stored photos in archive order, from an archive in the order of paths."""
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
        path = write_zip(tmp_path / "x.zip", {name: data[name] for name in order})
        dataset, _ = import_archive(path, tmp_path, PhotoOptions(size=(16, 12)))
        assert tuple(dataset.image_shape) == (12, 16)
        assert dataset.sha256 == GREY_DIGEST


GREY_DIGEST = "sha256:63c7f89817c5136a82759d85f366030f90499da2c7a96c1da1797f7fc97bb2b5"


@pytest.mark.parametrize(
    ("mode", "colour", "save_options", "expected"),
    [
        ("RGBA", (200, 10, 10, 255), {}, RED),
        ("RGBA", (200, 10, 10, 0), {}, (0, 0, 0)),  # transparent pixels are black, as in /predict
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
def test_every_pixel_format_is_stored_in_colour(
    tmp_path: Path, mode: str, colour: object, save_options: dict[str, object], expected: tuple[int, ...]
) -> None:
    if mode == "P":
        file = io.BytesIO()
        Image.new("RGB", (8, 6), RED).quantize(4).save(file, "PNG")
        data = {f"{label}/{index}.png": file.getvalue() for label in "ab" for index in range(8)}
    else:
        data = files(colour, colour, mode=mode, **save_options)
    _, train = import_archive(write_zip(tmp_path / "x.zip", data), tmp_path, PhotoOptions(channels=Channels.COLOUR))
    assert np.abs(train[0, 3, 4].astype(int) - expected).max() <= 3


def test_sixteen_bits_per_channel_are_scaled_to_eight(tmp_path: Path) -> None:
    data = _png_16_bit((51400, 2570, 2570))
    _, train = import_archive(
        write_zip(tmp_path / "x.zip", {f"{label}/{index}.png": data for label in "ab" for index in range(8)}), tmp_path
    )
    assert tuple(train[0, 0, 0]) == RED


def _png_16_bit(colour: tuple[int, int, int]) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">3H", *colour) * 8
    header = struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 6)) + chunk(b"IEND", b"")


def test_a_colour_photo_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    data = {f"{label}/{index}.jpg": file.getvalue() for label in "ab" for index in range(8)}
    dataset, train = import_archive(write_zip(tmp_path / "x.zip", data), tmp_path)
    assert tuple(dataset.image_shape) == (40, 20, 3)
    assert np.abs(train[0, 5, 5].astype(int) - RED).max() < 8
    assert np.abs(train[0, 35, 5].astype(int) - BLUE).max() < 8


def files_in_parts(*parts: str) -> dict[str, bytes]:
    return {f"d/{part}/{name}": data for part in parts for name, data in files(RED, BLUE, count=4).items()}


def test_test_images_stay_separate_if_there_are_validation_images(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = write_zip(tmp_path / "x.zip", files_in_parts("train", "val", "test"))
    dataset = import_dataset({"archive": path}, folder, fraction=None)
    assert (dataset.train_count, dataset.validation_count, dataset.test_count) == (8, 8, 8)
    images, labels = (np.load(folder / f"{name}.npy") for name in TEST_NAMES)
    assert (images.shape, sorted(labels)) == ((8, 6, 8, 3), [0] * 4 + [1] * 4)
    assert tuple(images[0, 0, 0]) == RED
    two_parts, _ = import_archive(write_zip(tmp_path / "y.zip", files_in_parts("train", "test")), tmp_path)
    assert (two_parts.train_count, two_parts.validation_count, two_parts.test_count) == (8, 8, 0)
    assert two_parts.sha256 != dataset.sha256
    as_validation, _ = import_archive(write_zip(tmp_path / "z.zip", files_in_parts("train", "validation")), tmp_path)
    assert as_validation.sha256 == two_parts.sha256


def test_colour_arrays_are_imported(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3)).astype(np.uint8)
    labels = np.arange(40) % 4
    arrays = {"x_train": images, "y_train": labels, "x_val": images[:8], "y_val": labels[:8]}
    np.savez(tmp_path / "x.npz", **arrays, x_test=images[8:20], y_test=labels[8:20])
    dataset, train = import_archive(tmp_path / "x.npz", tmp_path)
    assert (tuple(dataset.image_shape), dataset.validation_count, dataset.test_count) == ((5, 4, 3), 8, 12)
    assert np.array_equal(train, images)
    np.savez(tmp_path / "y.npz", **{**arrays, "x_val": images[:8, :, :, 0]})
    with pytest.raises(UploadRefused, match="holds images of"):
        import_archive(tmp_path / "y.npz", tmp_path)


def test_options_for_image_files_are_refused_for_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 5, 4), np.uint8), labels=np.arange(40) % 4)
    with pytest.raises(UploadRefused) as error:
        import_archive(tmp_path / "x.npz", tmp_path, PhotoOptions(channels=Channels.COLOUR, on_bad=OnBad.SKIP))
    assert set(error.value.faults) == {"channels", "on_bad"}


def with_unreadable_files(good: Mapping[str, bytes]) -> dict[str, bytes]:
    """The good files, two truncated ones, and two that are not images."""
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


@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_unreadable_images_are_counted_and_named_or_skipped(tmp_path: Path, pack: object) -> None:
    good = files(RED, BLUE)
    path = pack(tmp_path / "x.tar", with_unreadable_files(good))  # type: ignore[operator]
    with pytest.raises(UploadRefused) as error:
        import_archive(path, tmp_path)
    message = error.value.faults["archive"]
    assert "has 4 files that cannot be read" in message
    assert "on_bad=skip" in message
    assert all(
        name in message for name in ("a/cut.png is truncated", "b/cut.jpg", "b/page.png is not a PNG", "c/video")
    )
    skipped, _ = import_archive(path, tmp_path, PhotoOptions(on_bad=OnBad.SKIP))
    good_only, _ = import_archive(write_zip(tmp_path / "good.zip", good), tmp_path)
    assert (skipped.sha256, list(skipped.class_names or ())) == (good_only.sha256, ["a", "b"])
    left_out = (skipped.report or {})["left_out"]
    assert left_out["count"] == 4
    assert [entry["file"] for entry in left_out["files"]] == ["a/cut.png", "b/cut.jpg", "b/page.png", "c/video.jpg"]


def test_an_archive_of_unreadable_images_only_is_refused_even_with_skip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {f"{label}/{index}.png": b"junk" for label in "ab" for index in range(8)})
    with pytest.raises(UploadRefused, match="has no image that can be read"):
        import_archive(path, tmp_path, PhotoOptions(on_bad=OnBad.SKIP))


def test_damaged_members_of_an_archive_can_be_skipped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", files(RED, BLUE) | {"a/odd.png": picture(colour=(1, 2, 3), size=(8, 6))})
    data = bytearray(path.read_bytes())
    offset = data.index(b"a/odd.png") + len("a/odd.png") + 20
    data[offset] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UploadRefused, match=r"a/odd.png is damaged in the archive"):
        import_archive(path, tmp_path)
    dataset, _ = import_archive(path, tmp_path, PhotoOptions(on_bad=OnBad.SKIP))
    assert dataset.train_count + dataset.validation_count == 16


def test_an_import_leaves_only_arrays_and_metadata_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    import_dataset({"archive": write_zip(tmp_path / "x.zip", files(RED, BLUE))}, folder, fraction=None)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npy", ".npy", ".npy", ".npy"]
