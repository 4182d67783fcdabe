import gzip
import hashlib
import multiprocessing
import os
import pickle
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.synchronize import Barrier as BarrierType
from pathlib import Path

import numpy as np
import pytest

from service.datasets import failures
from service.datasets.builtins import BUILT_IN, BuiltIn
from service.datasets.cache import load
from service.datasets.catalogue import catalogue, describe
from service.datasets.errors import DatasetBroken, DatasetError, DatasetNotFound, DatasetUnavailable
from service.datasets.formats.idx import write_idx
from service.datasets.info import IDX_NAMES, DatasetState, content_sha256

TRAIN_IMAGES, TRAIN_LABELS, VALIDATION_IMAGES, VALIDATION_LABELS = IDX_NAMES


def make_files(
    folder: Path, changed: Mapping[str, object] | None = None, *, seed: int = 0, suffix: str = ".gz"
) -> dict[str, str]:
    """Four small IDX files, some of them with ``changed`` arrays; the digests of their unpacked content."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, object] = {
        TRAIN_IMAGES: rng.integers(0, 256, (30, 8, 8)),
        TRAIN_LABELS: np.arange(30) % 3,
        VALIDATION_IMAGES: rng.integers(0, 256, (9, 8, 8)),
        VALIDATION_LABELS: np.arange(9) % 3,
    } | dict(changed or {})
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, array in arrays.items():
        path = folder / f"{name}{suffix}"
        write_idx(path, np.asarray(array, np.uint8))
        content = path.read_bytes()
        digests[name] = hashlib.sha256(gzip.decompress(content) if suffix == ".gz" else content).hexdigest()
    return digests


class Mirror:
    """A server of files by name: bytes, or the status of a refusal."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | int] = {}
        self.asked: list[str] = []
        self.truncate = False
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                mirror.asked.append(name)
                found = mirror.files.get(name, 404)
                if isinstance(found, int):
                    self.send_error(found)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(found)))
                self.end_headers()
                self.wfile.write(found[: len(found) // 2] if mirror.truncate else found)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    mirror = Mirror()
    make_files(tmp_path / "published")
    mirror.files |= {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    yield mirror
    mirror.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def tiny_builtin(published: Path, *mirrors: str) -> Mapping[str, BuiltIn]:
    """A built-in ``mnist`` whose checksums are those of small files."""
    digests = make_files(published)
    sizes = {name: (published / f"{name}.gz").stat().st_size for name in IDX_NAMES}
    mnist = replace(BUILT_IN["mnist"], digests=digests, packed_bytes=sizes, mirrors=mirrors)
    return {"mnist": replace(mnist, info=replace(mnist.info, sha256=content_sha256(digests)))}


# --- what ships -------------------------------------------------------------------------------------------------


def test_the_shipped_digits_load_with_an_empty_data_folder(root: Path, cache: Path) -> None:
    dataset = load("mnist-10k", root, cache_root=cache)
    assert dataset.train.inputs.shape == (8500, 28, 28)
    assert dataset.validation.inputs.shape == (1500, 28, 28)
    assert dataset.train.labels.shape == (8500,)
    assert dataset.sha256 == dataset.info.sha256 == BUILT_IN["mnist-10k"].info.sha256
    assert min(np.bincount(dataset.train.labels, minlength=10)) > 700
    assert min(np.bincount(dataset.validation.labels, minlength=10)) > 100
    assert not root.exists()


def test_no_shipped_digit_is_there_twice(root: Path, cache: Path) -> None:
    dataset = load("mnist-10k", root, cache_root=cache)
    both = [*dataset.train.inputs, *dataset.validation.inputs]
    assert len({image.tobytes() for image in both}) == 10_000


def test_arrays_are_mapped_and_cannot_be_written(root: Path, cache: Path) -> None:
    dataset = load("mnist-10k", root, cache_root=cache)
    assert isinstance(dataset.train.inputs, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        dataset.train.inputs[0, 0, 0] = 1


def test_a_digest_can_be_had_from_sha256sum() -> None:
    digests = BUILT_IN["mnist-10k"].digests
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(IDX_NAMES, key=IDX_NAMES.index))
    assert content_sha256(digests) == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


# --- the catalogue ----------------------------------------------------------------------------------------------


def test_the_catalogue_lists_built_in_and_own_data_sets(root: Path) -> None:
    make_files(root / "shapes")
    make_files(root / "mnist" / "deeper")  # not four files in a sub-folder of their own
    make_files(root / ".cache")
    infos = {info.name: info for info in catalogue(root)}
    assert list(infos) == ["mnist-10k", "mnist", "fashion-mnist", "iris", "breast-cancer", "stacked-mnist", "shapes"]
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


def test_a_missing_data_folder_still_has_the_built_in_ones(root: Path) -> None:
    assert [info.name for info in catalogue(root)] == [
        "mnist-10k",
        "mnist",
        "fashion-mnist",
        "iris",
        "breast-cancer",
        "stacked-mnist",
    ]


def test_an_unknown_name_is_answered_with_the_nearest(root: Path) -> None:
    with pytest.raises(DatasetNotFound, match="Did you mean 'mnist'") as caught:
        describe("minst", root)
    assert caught.value.suggestion == "mnist"
    assert caught.value.known == ("mnist-10k", "mnist", "fashion-mnist", "iris", "breast-cancer", "stacked-mnist")
    assert caught.value.code == "dataset_not_found"


@pytest.mark.parametrize("name", ["", ".", "..", "../shapes", "shapes/", "/etc", ".cache", "a" * 65, "mnist\n", "\0"])
def test_a_name_cannot_lead_out_of_the_data_folder(root: Path, cache: Path, name: str) -> None:
    make_files(root / ".cache")
    make_files(root.parent / "shapes")
    with pytest.raises(DatasetNotFound):
        load(name, root, cache_root=cache)


def test_errors_survive_the_way_between_processes() -> None:
    errors: list[DatasetError] = [
        DatasetNotFound("a", ["b"], "b"),
        DatasetUnavailable("a", "b", "c"),
        DatasetBroken(Path("a"), "b"),
    ]
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.code) == (type(error), str(error), error.code)


# --- files of one's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_own_files_load_plain_or_gzipped(root: Path, cache: Path, suffix: str) -> None:
    digests = make_files(root / "shapes", suffix=suffix)
    dataset = load("shapes", root, cache_root=cache)
    assert dataset.train.inputs.shape == (30, 8, 8)
    assert dataset.sha256 == content_sha256(digests)


def test_the_dotted_spelling_is_known_too(root: Path, cache: Path) -> None:
    make_files(root / "shapes")
    for name in IDX_NAMES:
        (root / "shapes" / f"{name}.gz").rename(root / "shapes" / name.replace("-idx", ".idx"))
    assert load("shapes", root, cache_root=cache).train.inputs.shape == (30, 8, 8)


def test_a_replaced_source_is_unpacked_again(root: Path, cache: Path) -> None:
    make_files(root / "shapes", seed=1)
    before = load("shapes", root, cache_root=cache)
    kept = before.train.inputs.copy()
    make_files(root / "shapes", seed=2)
    after = load("shapes", root, cache_root=cache)
    assert after.sha256 != before.sha256
    assert not np.array_equal(after.train.inputs, kept)
    np.testing.assert_array_equal(before.train.inputs, kept)  # a training that goes on keeps its data


def test_a_cached_data_set_loads_in_milliseconds(root: Path, cache: Path) -> None:
    load("mnist-10k", root, cache_root=cache)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        load("mnist-10k", root, cache_root=cache)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02


@pytest.mark.parametrize("damaged", ["meta.json", f"{TRAIN_IMAGES}.npy", f"{VALIDATION_LABELS}.npy"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x93NUMPY", None])
def test_a_damaged_cache_is_rebuilt(root: Path, cache: Path, damaged: str, content: bytes | None) -> None:
    make_files(root / "shapes")
    first = load("shapes", root, cache_root=cache)
    expected = first.train.inputs.copy()
    del first
    (folder,) = cache.iterdir()
    if content is None:
        (folder / damaged).unlink()
    else:
        (folder / damaged).write_bytes(content)
    np.testing.assert_array_equal(load("shapes", root, cache_root=cache).train.inputs, expected)


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
def test_files_that_do_not_fit_together_say_so(
    root: Path, cache: Path, changed: dict[str, object], reason: str
) -> None:
    make_files(root / "shapes", changed)
    with pytest.raises(DatasetBroken, match=reason) as caught:
        load("shapes", root, cache_root=cache)
    assert caught.value.code == "dataset_broken"
    assert not cache.exists() or not list(cache.iterdir())


def test_a_truncated_file_is_named_and_leaves_nothing_behind(root: Path, cache: Path) -> None:
    make_files(root / "shapes")
    path = root / "shapes" / f"{VALIDATION_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetBroken, match="truncated") as caught:
        load("shapes", root, cache_root=cache)
    assert caught.value.path == path
    assert not list(cache.iterdir())


def test_other_data_under_a_known_name_are_refused(root: Path, cache: Path) -> None:
    make_files(root / "mnist")
    with pytest.raises(DatasetBroken, match=r"is not the file of mnist.*another name"):
        load("mnist", root, cache_root=cache)


def test_an_unwritable_cache_is_reported(root: Path, tmp_path: Path) -> None:
    make_files(root / "shapes")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetUnavailable, match="cannot be cached in"):
        load("shapes", root, cache_root=tmp_path / "file" / "cache")


def _load_at_once(root: Path, cache: Path, barrier: BarrierType) -> None:
    barrier.wait()
    dataset = load("shapes", root, cache_root=cache)
    assert dataset.train.inputs.sum() > 0


def test_processes_that_unpack_at_once_do_not_disturb_each_other(root: Path, cache: Path) -> None:
    count = 20_000  # enough for the unpacking of one to meet that of another
    many = {TRAIN_IMAGES: np.ones((count, 28, 28)), TRAIN_LABELS: np.arange(count) % 3}
    make_files(root / "shapes", many | {VALIDATION_IMAGES: np.ones((9, 28, 28))})
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_load_at_once, args=(root, cache, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(cache.iterdir())) == 1


# --- downloads --------------------------------------------------------------------------------------------------


def test_missing_files_are_downloaded_once(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    seen: list[tuple[int, int | None]] = []
    dataset = load(
        "mnist", root, cache_root=cache, builtins=builtins, progress=lambda done, total: seen.append((done, total))
    )
    assert dataset.sha256 == builtins["mnist"].info.sha256
    assert sorted(path.name for path in (root / "mnist").iterdir()) == sorted(f"{name}.gz" for name in IDX_NAMES)
    total = sum(builtins["mnist"].packed_bytes.values())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert describe("mnist", root, builtins=builtins).available
    load("mnist", root, cache_root=cache, builtins=builtins)
    assert len(mirror.asked) == 4


def test_only_what_is_missing_is_downloaded(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    make_files(root / "mnist")
    (root / "mnist" / f"{TRAIN_LABELS}.gz").unlink()
    load("mnist", root, cache_root=cache, builtins=builtins)
    assert mirror.asked == [f"{TRAIN_LABELS}.gz"]


def test_a_dead_mirror_is_passed_over(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    dead = Mirror()
    dead.close()
    builtins = tiny_builtin(tmp_path / "published", dead.url, mirror.url)
    load("mnist", root, cache_root=cache, builtins=builtins)
    assert len(mirror.asked) == 4


def test_other_content_is_not_taken(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    mirror.files[f"{VALIDATION_IMAGES}.gz"] = mirror.files[f"{TRAIN_IMAGES}.gz"]
    with pytest.raises(DatasetUnavailable, match="has other content: sha256"):
        load("mnist", root, cache_root=cache, builtins=builtins)
    assert sorted(path.name for path in (root / "mnist").iterdir()) == [f"{TRAIN_IMAGES}.gz", f"{TRAIN_LABELS}.gz"]


def test_a_download_that_breaks_off_leaves_no_file(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    mirror.truncate = True
    with pytest.raises(DatasetUnavailable, match="truncated"):
        load("mnist", root, cache_root=cache, builtins=builtins)
    assert not list((root / "mnist").iterdir())


def test_an_endless_download_is_ended(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    mirror.files[f"{TRAIN_IMAGES}.gz"] = bytes(2**20)
    with pytest.raises(DatasetUnavailable, match="is larger than"):
        load("mnist", root, cache_root=cache, builtins=builtins)


def test_the_error_names_each_mirror_and_what_to_do(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    dead = Mirror()
    dead.close()
    mirror.files.clear()
    builtins = tiny_builtin(tmp_path / "published", dead.url, mirror.url)
    start = time.perf_counter()
    with pytest.raises(DatasetUnavailable) as caught:
        load("mnist", root, cache_root=cache, builtins=builtins)
    assert time.perf_counter() - start < 5
    text = str(caught.value)
    for part in (dead.url, "refused", mirror.url, "HTTP 404", str(root / "mnist"), f"{TRAIN_IMAGES}.gz", "mnist-10k"):
        assert part in text
    assert caught.value.code == "dataset_unavailable"


def test_a_missing_dataset_says_what_a_job_would_do(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    total = sum(builtins["mnist"].packed_bytes.values())
    told = describe("mnist", root, builtins=builtins)
    assert (told.state, told.download_bytes, told.download_from) == (DatasetState.DOWNLOAD, total, ("127.0.0.1",))
    assert "the first job downloads" in str(told.state_reason)

    mirror.truncate = True
    with pytest.raises(DatasetUnavailable):
        load("mnist", root, cache_root=cache, builtins=builtins)
    told = describe("mnist", root, builtins=builtins)
    assert told.state is DatasetState.UNAVAILABLE
    assert re.search(r"the last download failed \(\d{4}-\d\d-\d\d .* UTC\): .*truncated", str(told.state_reason))
    assert [info.name for info in catalogue(root, builtins=builtins)] == ["mnist"]

    mirror.truncate = False
    load("mnist", root, cache_root=cache, builtins=builtins)
    told = describe("mnist", root, builtins=builtins)
    assert (told.state, told.state_reason, told.download_bytes) == (DatasetState.READY, None, 0)
    assert [path.name for path in root.iterdir()] == ["mnist"]


def test_a_failed_download_is_forgotten_after_a_day(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    failures.note(root / "mnist", "no route to host")
    assert describe("mnist", root).state is DatasetState.UNAVAILABLE
    later = time.time() + failures.REMEMBERED_FOR_S
    monkeypatch.setattr(failures.time, "time", lambda: later)
    assert describe("mnist", root).state is DatasetState.DOWNLOAD


def test_an_unwritable_data_folder_is_reported_before_a_download(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = describe("fashion-mnist", tmp_path / "file")
    assert told.state is DatasetState.UNAVAILABLE
    assert told.state_reason == "It is not downloaded yet, and its folder cannot be written."


def test_a_broken_folder_is_unavailable(root: Path) -> None:
    make_files(root / "shapes", {TRAIN_LABELS: [0, 1, 2]})
    told = catalogue(root)[-1]
    assert (told.state, told.state_reason) == (DatasetState.UNAVAILABLE, told.problem)


class GivenUp(Exception):
    pass


def test_progress_can_end_a_download(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    def give_up(done: int, total: int | None) -> None:
        raise GivenUp

    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    with pytest.raises(GivenUp):
        load("mnist", root, cache_root=cache, builtins=builtins, progress=give_up)
    assert not list((root / "mnist").iterdir())


def test_an_unwritable_data_folder_is_reported(cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetUnavailable, match="cannot be written"):
        load("mnist", tmp_path / "file", cache_root=cache, builtins=builtins)
    assert not mirror.asked


def test_a_system_folder_saves_the_download(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    builtins = {"mnist": replace(builtins["mnist"], system=tmp_path / "published")}
    load("mnist", root, cache_root=cache, builtins=builtins)
    assert not mirror.asked
    assert not root.exists()


def test_leftovers_of_killed_downloads_are_removed(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    (root / "mnist").mkdir(parents=True)
    old, young = root / "mnist" / ".old.part", root / "mnist" / ".young.part"
    old.write_bytes(b"1")
    young.write_bytes(b"1")
    os.utime(old, (time.time() - 7200,) * 2)
    load("mnist", root, cache_root=cache, builtins=builtins)
    assert not old.exists()
    assert young.exists()
