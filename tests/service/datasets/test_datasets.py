"""The shipped digits, the catalogue, and files that users add."""

import hashlib
import multiprocessing
import pickle
import time
from multiprocessing.synchronize import Barrier as BarrierType
from pathlib import Path

import numpy as np
import pytest

from service.datasets.builtins import BUILT_IN
from service.datasets.cache import load
from service.datasets.catalogue import catalogue, describe
from service.datasets.errors import DatasetBroken, DatasetError, DatasetNotFound, DatasetUnavailable
from service.datasets.formats.array_folders import ArrayCache
from service.datasets.info import IDX_NAMES, DatasetState, content_sha256
from tests.service.datasets.conftest import TRAIN_IMAGES, TRAIN_LABELS, VALIDATION_IMAGES, VALIDATION_LABELS, make_files

# --- shipped digits ---------------------------------------------------------------------------------------------


def test_the_shipped_digits_load_without_a_data_folder(root: Path, cache: Path) -> None:
    dataset = load("mnist-10k", root, cache=ArrayCache(cache))
    assert dataset.train.inputs.shape == (8500, 28, 28)
    assert dataset.validation.inputs.shape == (1500, 28, 28)
    assert dataset.train.labels.shape == (8500,)
    assert dataset.sha256 == dataset.info.sha256 == BUILT_IN["mnist-10k"].info.sha256
    assert min(np.bincount(dataset.train.labels, minlength=10)) > 700
    assert min(np.bincount(dataset.validation.labels, minlength=10)) > 100
    assert not root.exists()


def test_the_shipped_digits_contain_no_duplicates(root: Path, cache: Path) -> None:
    dataset = load("mnist-10k", root, cache=ArrayCache(cache))
    images = [*dataset.train.inputs, *dataset.validation.inputs]
    assert len({image.tobytes() for image in images}) == 10_000


def test_arrays_are_memory_mapped_read_only(root: Path, cache: Path) -> None:
    dataset = load("mnist-10k", root, cache=ArrayCache(cache))
    assert isinstance(dataset.train.inputs, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        dataset.train.inputs[0, 0, 0] = 1


def test_a_dataset_digest_can_be_reproduced_with_sha256sum() -> None:
    digests = BUILT_IN["mnist-10k"].digests
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(IDX_NAMES, key=IDX_NAMES.index))
    assert content_sha256(digests) == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


# --- the catalogue ----------------------------------------------------------------------------------------------


def test_the_catalogue_lists_built_in_and_user_datasets(root: Path) -> None:
    make_files(root / "shapes")
    make_files(root / "mnist" / "deeper")  # one level too deep
    make_files(root / ".cache")
    infos = {info.name: info for info in catalogue(root)}
    assert list(infos) == [
        "mnist-10k",
        "mnist",
        "fashion-mnist",
        "iris",
        "breast-cancer",
        "diabetes",
        "stacked-mnist",
        "shapes",
    ]
    assert infos["mnist-10k"].available
    assert not infos["mnist"].available
    shapes = infos["shapes"]
    assert (shapes.image_shape, shapes.classes, shapes.train_count, shapes.validation_count) == ((8, 8), 3, 30, 9)
    assert shapes.available
    assert shapes == describe("shapes", root)


def test_a_broken_folder_is_listed_with_its_problem(root: Path) -> None:
    make_files(root / "shapes", {TRAIN_LABELS: [0, 1, 2]})
    info = catalogue(root)[-1]
    assert info.name == "shapes"
    assert not info.available
    assert "3 labels for the 30 images" in str(info.problem)


def test_a_broken_folder_is_unavailable(root: Path) -> None:
    make_files(root / "shapes", {TRAIN_LABELS: [0, 1, 2]})
    info = catalogue(root)[-1]
    assert (info.state, info.state_reason) == (DatasetState.UNAVAILABLE, info.problem)


def test_built_in_datasets_are_listed_without_a_data_folder(root: Path) -> None:
    assert [info.name for info in catalogue(root)] == [
        "mnist-10k",
        "mnist",
        "fashion-mnist",
        "iris",
        "breast-cancer",
        "diabetes",
        "stacked-mnist",
    ]


def test_an_unknown_name_is_rejected_with_the_closest_match(root: Path) -> None:
    with pytest.raises(DatasetNotFound, match="Did you mean 'mnist'") as caught:
        describe("minst", root)
    assert caught.value.suggestion == "mnist"
    assert caught.value.available == (
        "mnist-10k",
        "mnist",
        "fashion-mnist",
        "iris",
        "breast-cancer",
        "diabetes",
        "stacked-mnist",
    )
    assert caught.value.code == "dataset_not_found"


@pytest.mark.parametrize("name", ["", ".", "..", "../shapes", "shapes/", "/etc", ".cache", "a" * 65, "mnist\n", "\0"])
def test_a_name_cannot_escape_the_data_folder(root: Path, cache: Path, name: str) -> None:
    make_files(root / ".cache")
    make_files(root.parent / "shapes")
    with pytest.raises(DatasetNotFound):
        load(name, root, cache=ArrayCache(cache))


def test_errors_survive_pickling() -> None:
    errors: list[DatasetError] = [
        DatasetNotFound("a", ["b"], "b"),
        DatasetUnavailable("a", "b", "c"),
        DatasetBroken(Path("a"), "b"),
    ]
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.code) == (type(error), str(error), error.code)


# --- files that users add ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_user_files_load_plain_or_gzipped(root: Path, cache: Path, suffix: str) -> None:
    digests = make_files(root / "shapes", suffix=suffix)
    dataset = load("shapes", root, cache=ArrayCache(cache))
    assert dataset.train.inputs.shape == (30, 8, 8)
    assert dataset.sha256 == content_sha256(digests)


def test_dotted_idx_file_names_are_accepted(root: Path, cache: Path) -> None:
    make_files(root / "shapes")
    for name in IDX_NAMES:
        (root / "shapes" / f"{name}.gz").rename(root / "shapes" / name.replace("-idx", ".idx"))
    assert load("shapes", root, cache=ArrayCache(cache)).train.inputs.shape == (30, 8, 8)


def test_replaced_source_files_are_unpacked_again(root: Path, cache: Path) -> None:
    make_files(root / "shapes", seed=1)
    before = load("shapes", root, cache=ArrayCache(cache))
    old_images = before.train.inputs.copy()
    make_files(root / "shapes", seed=2)
    after = load("shapes", root, cache=ArrayCache(cache))
    assert after.sha256 != before.sha256
    assert not np.array_equal(after.train.inputs, old_images)
    np.testing.assert_array_equal(before.train.inputs, old_images)  # a running training keeps its data


def test_a_cached_dataset_loads_with_milliseconds_of_processor_time(root: Path, cache: Path) -> None:
    load("mnist-10k", root, cache=ArrayCache(cache))
    processor_times_s = []
    for _ in range(5):
        start = time.process_time()
        load("mnist-10k", root, cache=ArrayCache(cache))
        processor_times_s.append(time.process_time() - start)
    assert min(processor_times_s) < 0.02


@pytest.mark.parametrize("damaged", ["meta.json", f"{TRAIN_IMAGES}.npy", f"{VALIDATION_LABELS}.npy"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x93NUMPY", None])
def test_a_damaged_cache_is_rebuilt(root: Path, cache: Path, damaged: str, content: bytes | None) -> None:
    make_files(root / "shapes")
    first = load("shapes", root, cache=ArrayCache(cache))
    expected = first.train.inputs.copy()
    del first
    (folder,) = cache.glob("[!.]*")
    if content is None:
        (folder / damaged).unlink()
    else:
        (folder / damaged).write_bytes(content)
    np.testing.assert_array_equal(load("shapes", root, cache=ArrayCache(cache)).train.inputs, expected)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({TRAIN_LABELS: np.zeros(29)}, "29 labels for the 30 images"),
        ({VALIDATION_LABELS: np.full(9, 3)}, "has the label 3, but the highest training label is 2"),
        ({VALIDATION_IMAGES: np.zeros((9, 8, 9))}, r"images of \(8, 9\)"),
        ({TRAIN_IMAGES: np.zeros((30, 64))}, r"shape \(30, 64\); images are"),
        ({TRAIN_LABELS: np.zeros((30, 1))}, r"shape \(30, 1\); labels are"),
        ({TRAIN_IMAGES: np.zeros((0, 8, 8)), TRAIN_LABELS: np.zeros(0)}, "contains no images"),
    ],
)
def test_invalid_arrays_are_rejected_with_the_reason(
    root: Path, cache: Path, changed: dict[str, object], reason: str
) -> None:
    make_files(root / "shapes", changed)
    with pytest.raises(DatasetBroken, match=reason) as caught:
        load("shapes", root, cache=ArrayCache(cache))
    assert caught.value.code == "dataset_broken"
    assert not cache.exists() or not list(cache.glob("[!.]*"))


def test_a_truncated_file_is_named_and_leaves_no_cache_entry(root: Path, cache: Path) -> None:
    make_files(root / "shapes")
    path = root / "shapes" / f"{VALIDATION_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetBroken, match="truncated") as caught:
        load("shapes", root, cache=ArrayCache(cache))
    assert caught.value.path == path
    assert not list(cache.glob("[!.]*"))


def test_other_data_under_a_built_in_name_are_rejected(root: Path, cache: Path) -> None:
    make_files(root / "mnist")
    with pytest.raises(DatasetBroken, match=r"is not the file of mnist.*another name"):
        load("mnist", root, cache=ArrayCache(cache))


def test_an_unwritable_cache_is_reported(root: Path, tmp_path: Path) -> None:
    make_files(root / "shapes")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetUnavailable, match="cannot be cached in"):
        load("shapes", root, cache=ArrayCache(tmp_path / "file" / "cache"))


def _load_after_barrier(root: Path, cache: Path, barrier: BarrierType) -> None:
    barrier.wait()
    dataset = load("shapes", root, cache=ArrayCache(cache))
    assert dataset.train.inputs.sum() > 0


def test_processes_can_unpack_a_dataset_concurrently(root: Path, cache: Path) -> None:
    count = 20_000  # enough that the processes unpack at the same time
    training_arrays = {TRAIN_IMAGES: np.ones((count, 28, 28)), TRAIN_LABELS: np.arange(count) % 3}
    make_files(root / "shapes", training_arrays | {VALIDATION_IMAGES: np.ones((9, 28, 28))})
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_load_after_barrier, args=(root, cache, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(cache.glob("[!.]*"))) == 1
