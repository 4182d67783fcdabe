"""Imports of uploaded files, without HTTP and without the sandbox process."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.datasets import sandbox
from service.datasets.formats.idx import idx_header
from service.datasets.importer import UploadRefused, import_dataset
from service.datasets.sandbox import import_in_sandbox

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (60, 9, 7)).astype(np.uint8)
LABELS = (np.arange(60) % 5).astype(np.uint8)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return idx_header(array.shape) + array.tobytes()


def npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("fields", "parameter", "reason"),
    [
        ({"images": idx(IMAGES)}, "labels", "is missing"),
        (
            {"images": idx(IMAGES), "labels": idx(LABELS), "validation_images": idx(IMAGES)},
            "validation_labels",
            "are required together",
        ),
        ({"images": idx(LABELS), "labels": idx(LABELS)}, "images", "has the shape (60,)"),
        ({"images": idx(IMAGES), "labels": idx(LABELS[:59])}, "labels", "59 labels for 60 images"),
        ({"archive": npz(x=IMAGES)}, "archive", "has no labels"),
        ({"archive": npz(x=IMAGES, y=LABELS.astype(float))}, "archive", "labels must have an integer type"),
        ({"archive": npz(x=IMAGES.astype(float), y=LABELS)}, "archive", "floats must be from 0 to 1"),
        ({"archive": npz(x=np.full((60, 4, 4), np.nan), y=LABELS)}, "archive", "not NaN"),
        ({"archive": npz(x=IMAGES.astype("<i2") + 300, y=LABELS)}, "archive", "must be from 0 to 255"),
        ({"archive": npz(x=IMAGES, y=LABELS.astype("<i8") * -1)}, "archive", "holds the label -4"),
        ({"archive": npz(x=IMAGES, y=LABELS.astype("<i8") + 300)}, "archive", "holds the label 304"),
        (
            {"archive": npz(x=np.zeros((2, 3, 3, 4), np.uint8), y=LABELS[:2])},
            "archive",
            "in colour (count, rows, columns, 3)",
        ),
        ({"archive": npz(x=np.zeros((2, 3, 513), np.uint8), y=LABELS[:2])}, "archive", "sides of 1 to 512"),
        ({"archive": npz(x=np.asfortranarray(IMAGES), y=LABELS)}, "archive", "C order"),
        ({"archive": npz(x=IMAGES[:2], y=LABELS[:2])}, "archive", "only one image of each class"),
        (
            {"archive": npz(x=IMAGES, y=LABELS, x_test=IMAGES[:9], y_test=LABELS[:9] + 9)},
            "archive",
            "the highest training label is 4",
        ),
    ],
)
def test_invalid_uploads_are_rejected_with_field_and_reason(
    tmp_path: Path, fields: dict[str, bytes], parameter: str, reason: str
) -> None:
    for field, content in fields.items():
        (tmp_path / field).write_bytes(content)
    (tmp_path / "arrays").mkdir()
    with pytest.raises(UploadRefused) as caught:
        import_dataset({field: tmp_path / field for field in fields}, tmp_path / "arrays", fraction=None)
    assert reason in caught.value.faults.get(parameter, ""), caught.value


def test_an_archive_must_be_the_only_file(tmp_path: Path) -> None:
    for field, content in {"archive": npz(x=IMAGES, y=LABELS), "images": idx(IMAGES)}.items():
        (tmp_path / field).write_bytes(content)
    with pytest.raises(UploadRefused, match="archive: must be the only file"):
        import_in_sandbox({field: tmp_path / field for field in ("archive", "images")}, tmp_path, fraction=None)


def test_the_archive_checksum_detects_a_damaged_last_value(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, images=IMAGES, labels=LABELS)
    damaged = buffer.getvalue().replace(IMAGES.tobytes(), IMAGES.tobytes()[:-1] + bytes([IMAGES[-1, -1, -1] ^ 1]))
    (tmp_path / "archive").write_bytes(damaged)
    (tmp_path / "arrays").mkdir()
    with pytest.raises(UploadRefused, match=r"archive: is a damaged archive .*CRC"):
        import_dataset({"archive": tmp_path / "archive"}, tmp_path / "arrays", fraction=None)


@pytest.mark.stack
@pytest.mark.parametrize(
    "fields", [{"archive": npz(x=IMAGES, y=LABELS)}, {"images": idx(IMAGES), "labels": idx(LABELS)}]
)
def test_a_full_disk_is_not_reported_as_a_fault_of_the_files(tmp_path: Path, fields: dict[str, bytes]) -> None:
    """The process cannot write files larger than a header, so writing the arrays fails as on a full disk."""
    for field, content in fields.items():
        (tmp_path / field).write_bytes(content)
    (tmp_path / "arrays").mkdir()
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from service.datasets.importer import import_dataset\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    import_dataset({name: folder / name for name in sys.argv[2:]}, folder / 'arrays', fraction=None)\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program, tmp_path, *fields], capture_output=True, text=True, check=False
    )
    assert (completed.stdout.strip(), completed.returncode) == ("File too large", 0), completed.stderr


def test_every_class_with_two_images_gets_validation_images(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), (20, 3, 2, 1))
    (tmp_path / "archive").write_bytes(npz(x=np.zeros((26, 4, 4), np.uint8), y=labels))
    (tmp_path / "arrays").mkdir()
    dataset = import_dataset({"archive": tmp_path / "archive"}, tmp_path / "arrays", fraction=None)
    assert (dataset.train_count, dataset.validation_count) == (21, 5)
    assert dataset.report == {"notes": ["the class '3' (1 image) has no validation images: no score covers it"]}


@pytest.mark.stack
def test_a_process_that_reads_files_yields_to_the_web_process() -> None:
    script = "import os\nfrom service.datasets import sandbox\nsandbox.apply_limits(60, 2**28)\nprint(os.nice(0))"
    completed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(completed.stdout) == min(19, os.nice(0) + sandbox.NICENESS)
