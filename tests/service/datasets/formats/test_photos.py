from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.datasets.cache import open_arrays
from service.datasets.formats.options import OnBad, PhotoOptions
from service.datasets.importer import UploadRefused, import_dataset
from service.datasets.info import DatasetInfo
from service.datasets.sandbox import import_in_sandbox
from tapeline.images.files import parse_size


def picture(
    size: tuple[int, int] = (8, 6),
    colour: object = (255, 255, 255),
    *,
    mode: str = "RGB",
    fmt: str = "PNG",
    **save_options: object,
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, fmt, **save_options)  # type: ignore[arg-type]
    return file.getvalue()


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def import_archive(path: Path, tmp_path: Path, **options: object) -> tuple[DatasetInfo, dict[str, np.ndarray]]:
    """Import an archive; return its dataset and arrays as a training loads them."""
    folder = tmp_path / "arrays"
    folder.mkdir()
    dataset = import_in_sandbox({"archive": path}, folder, fraction=None, **options)  # type: ignore[arg-type]
    info = DatasetInfo(
        name="x", title="x", image_shape=tuple(dataset.image_shape), classes=dataset.classes,
        train_count=dataset.train_count, validation_count=dataset.validation_count,
        class_names=tuple(dataset.class_names or ()), source="", licence="", sha256=dataset.sha256, available=True,
    )  # fmt: skip
    data = open_arrays(folder, info)
    return info, {
        "train": np.array(data.train.inputs), "labels": np.array(data.train.labels),
        "validation": np.array(data.validation.inputs), "validation_labels": np.array(data.validation.labels),
    }  # fmt: skip


def refusal(path: Path, tmp_path: Path, **options: object) -> str:
    folder = tmp_path / "refused"
    folder.mkdir(exist_ok=True)
    with pytest.raises(UploadRefused) as error:
        import_dataset({"archive": path}, folder, fraction=None, **options)  # type: ignore[arg-type]
    return error.value.faults["archive"]


LEVELS = {"dark": 9, "light": 200}
TWO_CLASSES = {
    **{f"photos/{name}/{index}.png": picture(colour=(LEVELS[name],) * 3) for name in LEVELS for index in range(10)},
    "photos/README.txt": b"not an image",
    "__MACOSX/photos/dark/._0.png": b"junk",
    "photos/.DS_Store": b"junk",
}  # fmt: skip


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_folders_become_classes(tmp_path: Path, name: str) -> None:
    pack: Callable[[Path, Mapping[str, bytes]], Path] = write_zip if name.endswith("zip") else write_tar
    info, arrays = import_archive(pack(tmp_path / name, TWO_CLASSES), tmp_path)
    assert (info.image_shape, info.class_names) == ((6, 8), ("dark", "light"))
    assert (info.train_count, info.validation_count) == (18, 2)
    for part, labels in (("train", "labels"), ("validation", "validation_labels")):
        assert arrays[part].shape[1:] == (6, 8)
        assert [int(image.max()) for image in arrays[part]] == [(9, 200)[label] for label in arrays[labels]]


def test_the_parts_of_an_archive_are_preserved(tmp_path: Path) -> None:
    files = {
        f"d/{part}/{digit}/{index}.png": picture(colour=(int(digit), index, 0))
        for part, count in (("train", 4), ("val", 2))
        for digit in ("2", "10", "1")
        for index in range(count)
    }
    info, arrays = import_archive(write_tar(tmp_path / "x.tar", files), tmp_path)
    assert info.class_names == ("1", "2", "10")
    assert (info.train_count, info.validation_count) == (12, 6)
    assert sorted(arrays["validation_labels"]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_formats_are_read_and_scaled(tmp_path: Path, fmt: str) -> None:
    """The left half is white, and stays white when the image is scaled and cropped."""
    image = Image.new("L", (64, 48))
    image.paste(255, (0, 0, 32, 48))
    file = io.BytesIO()
    image.convert("RGB").save(file, fmt)
    files = {f"{label}/{index}.{fmt.lower()}": file.getvalue() for label in "ab" for index in range(8)}
    info, arrays = import_archive(write_zip(tmp_path / "x.zip", files), tmp_path, photos=PhotoOptions(size=(16, 8)))
    assert info.image_shape == (8, 16)
    assert np.abs(arrays["train"][:, :, :7].astype(int) - 255).max() < 16
    assert arrays["train"][:, :, 9:].max() < 16


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    """EXIF orientation 6: the left of the stored image is the top of the photo."""
    image = Image.new("L", (40, 20))
    image.paste(255, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    files = {f"{label}/{index}.jpg": file.getvalue() for label in "ab" for index in range(8)}
    info, arrays = import_archive(write_zip(tmp_path / "x.zip", files), tmp_path)
    assert info.image_shape == (40, 20)
    assert arrays["train"][0, :18].min() > 240
    assert arrays["train"][0, 22:].max() < 15


@pytest.mark.parametrize(
    ("mode", "colour", "save_options", "level"),
    [
        ("RGBA", (255, 255, 255, 0), {}, 0),  # transparent pixels are black, as in /predict
        ("RGBA", (255, 255, 255, 255), {}, 255),
        ("LA", (200, 255), {}, 200),
        ("P", (200, 200, 200), {}, 200),  # entry 0 of the palette
        ("P", 1, {}, 0),  # the palette has no entry 1: black
        ("1", 1, {}, 255),
        ("I;16", 257 * 100, {}, 100),
        ("CMYK", (0, 0, 0, 0), {"fmt": "JPEG"}, 255),
        ("CMYK", (0, 0, 0, 255), {"fmt": "JPEG"}, 0),
    ],
)
def test_every_pixel_format_becomes_grey(
    tmp_path: Path, mode: str, colour: object, save_options: dict[str, str], level: int
) -> None:
    data = picture(colour=colour, mode=mode, **save_options)  # type: ignore[arg-type]
    suffix = save_options.get("fmt", "PNG").lower()
    files = {f"{label}/{index}.{suffix}": data for label in "ab" for index in range(8)}
    _, arrays = import_archive(write_zip(tmp_path / "x.zip", files), tmp_path)
    assert arrays["train"].shape[1:] == (6, 8)
    assert np.abs(arrays["train"].astype(int) - level).max() <= 1


def test_unsuitable_archives_are_refused_with_a_remedy(tmp_path: Path) -> None:
    good = {f"{label}/{index}.png": picture() for label in "ab" for index in range(8)}
    odd = picture((9, 9))
    cases: dict[str, tuple[dict[str, bytes], tuple[str, ...]]] = {
        "sizes": (good | {"a/9.png": odd, "b/9.png": odd}, ("2 sizes: 8x6 (16), 9x9 (2)", "give a size")),
        "broken": (good | {"a/9.png": b"\x89PNG junk"}, ("a/9.png", "is not a PNG", "remove")),
        "large": ({name: picture((600, 10)) for name in good}, ("sides of 1 to 512", "give a size")),
        "flat": ({f"{index}.png": picture() for index in range(8)}, ("outside of class folders", "a folder per class")),
        "one": ({f"a/{index}.png": picture() for index in range(8)}, ("one class folder",)),
        "none": ({"a/b.txt": b"text", "a/c.txt": b"text"}, ("contains no images", ".png")),
        "new": (
            {f"train/{name}": data for name, data in good.items()} | {"val/c/1.png": picture()},
            ("'c' for validation",),
        ),
        "twice": (good | {"./a/0.png": picture()}, ("two files a/0.png",)),
    }  # fmt: skip
    for name, (files, expected) in cases.items():
        message = refusal(write_zip(tmp_path / f"{name}.zip", files), tmp_path)
        assert all(part in message for part in expected), (name, message)


def test_an_image_with_unsupported_compression_is_refused_not_skipped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {f"{label}/{index}.png": picture() for label in "ab" for index in range(8)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/9.png", picture(), zipfile.ZIP_BZIP2)
    message = refusal(path, tmp_path)
    assert "a/9.png" in message
    assert "deflate" in message


def test_a_damaged_archive_is_imported_or_refused(tmp_path: Path) -> None:
    """With changed bytes, or truncated anywhere, an import ends in a dataset or a refusal, nothing else."""
    rng = random.Random(5)
    for pack, name in ((write_zip, "x.zip"), (write_tar, "x.tar"), (write_tar, "x.tar.gz")):
        whole = pack(tmp_path / name, TWO_CLASSES).read_bytes()
        for number in range(30):
            data = bytearray(whole)
            if number % 3:
                for _ in range(number % 5 + 1):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            else:
                del data[rng.randrange(len(data)) :]
            (tmp_path / "damaged").write_bytes(data)
            folder = tmp_path / f"out-{name}-{number}"
            folder.mkdir()
            try:
                import_dataset({"archive": tmp_path / "damaged"}, folder, fraction=None)
            except UploadRefused as error:
                assert str(error)


def test_decompression_bombs_are_refused(tmp_path: Path) -> None:
    """The sizes in headers are enough: what follows them need not exist."""
    bomb = picture((12_000, 12_000), 1, mode="1")
    assert len(bomb) < 100_000
    for image in (bomb, bomb[:64]):
        files = {f"{label}/{index}.png": image for label in "ab" for index in range(4)}
        assert "too many pixels" in refusal(write_zip(tmp_path / "x.zip", files), tmp_path)
    header = tarfile.TarInfo("a/0.png")
    header.size = 2**27
    (tmp_path / "large.tar.gz").write_bytes(gzip.compress(header.tobuf()))
    assert "unpacks to more than 67," in refusal(tmp_path / "large.tar.gz", tmp_path)


def test_a_gzip_stream_of_zeros_is_an_empty_tar_and_not_read_to_its_end(tmp_path: Path) -> None:
    zeros = gzip.compress(bytes(50 * 2**20))
    for data in (zeros, zeros[:2000]):  # the end of the second one is missing
        (tmp_path / "zeros.tar.gz").write_bytes(data)
        assert "contains no images" in refusal(tmp_path / "zeros.tar.gz", tmp_path)


@pytest.mark.parametrize(("text", "size"), [("32", (32, 32)), ("32x24", (32, 24)), (" 8X6 ", (8, 6))])
def test_sizes_are_parsed(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "x", "32x", "3.5", "-1", "32x24x3", "99999"])
def test_invalid_sizes_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="write 32"):
        parse_size(text)


def test_a_zip_member_without_a_name_is_ignored(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {**TWO_CLASSES, "z": b"nothing"})
    path.write_bytes(path.read_bytes().replace(b"z", b"\0"))  # zipfile reads the name up to the first zero byte
    with zipfile.ZipFile(path) as archive:
        assert "" in archive.namelist()
    info, _ = import_archive(path, tmp_path)
    assert info.class_names == ("dark", "light")


@pytest.mark.parametrize(
    ("place", "strays"),
    [
        ("{}", ["cover.png"]),
        ("photos/{}", ["photos/cover.png", "title.png"]),
        ("photos/train/{}", ["photos/train/cover.png", "photos/title.png"]),
    ],
)
def test_images_outside_of_class_folders_can_be_skipped(tmp_path: Path, place: str, strays: list[str]) -> None:
    files = {place.format(f"{label}/{index}.png"): picture() for label in "ab" for index in range(10)}
    path = write_zip(tmp_path / "x.zip", files | {name: picture((9, 9)) for name in strays})
    message = refusal(path, tmp_path)
    assert "outside of class folders, such as" in message
    assert "on_bad=skip" in message
    (tmp_path / "kept").mkdir()
    dataset = import_in_sandbox(
        {"archive": path}, tmp_path / "kept", fraction=None, photos=PhotoOptions(on_bad=OnBad.SKIP)
    )
    assert (dataset.train_count, dataset.validation_count, list(dataset.class_names or ())) == (18, 2, ["a", "b"])
    left_out = (dataset.report or {})["left_out"]
    assert left_out["count"] == len(strays)
    assert {entry["file"]: entry["reason"] for entry in left_out["files"]} == dict.fromkeys(
        strays, "is outside of class folders"
    )


def test_class_folders_may_have_the_names_of_parts(tmp_path: Path) -> None:
    files = {f"{label}/{index}.png": picture() for label in ("train", "test") for index in range(10)}
    info, _ = import_archive(write_zip(tmp_path / "x.zip", files), tmp_path)
    assert info.class_names == ("test", "train")
