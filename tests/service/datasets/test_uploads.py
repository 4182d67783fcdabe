"""Uploaded datasets in an object store: each machine copies them into its cache once, and checks them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from service.datasets import uploads
from service.datasets.cache import load
from service.datasets.errors import DatasetUnavailable
from service.datasets.formats.array_files import ArrayFile, write_array, write_meta
from service.datasets.formats.array_folders import ArrayCache
from service.datasets.info import IDX_NAMES, TEST_NAMES, DatasetInfo
from service.datasets.repository import DatasetRepository
from service.datasets.uploads import UploadFiles
from service.runtime.settings import Settings
from service.states import DatasetKind
from service.storage.artifacts import ArtifactUnreadable
from service.storage.database import Database
from service.storage.stores import open_store
from tests.object_servers import BUCKET, Exchange, FaultyProxy, credentials
from tests.service.datasets.conftest import Mirror, tiny_builtin
from tests.waiting import wait_until


class Stopped(Exception):
    """The supervisor has asked the process to stop."""


COUNT = 300_000  # 19 MB of images: sent and read in parts

MakeMachine = Callable[..., DatasetRepository]


@pytest.fixture
def proxy(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    proxy = FaultyProxy(moto)
    yield proxy
    proxy.close()


@pytest.fixture
def make_machine(proxy: FaultyProxy, tmp_path: Path) -> MakeMachine:
    """Makes machines that share a database and a bucket, and no folder."""
    address = f"s3://{BUCKET}/uploads/{secrets.token_hex(4)}"

    def make(name: str, **variables: str) -> DatasetRepository:
        environ = {"TAPELINE_HOME": str(tmp_path / name), "TAPELINE_STORE": address, "TAPELINE_LEASE_S": "4"}
        environ |= {"TAPELINE_STORE_ENDPOINT": proxy.url, "TAPELINE_DATABASE_URL": f"sqlite:///{tmp_path / 'one.db'}"}
        found = Settings.from_env(environ | variables, cores=1)
        return DatasetRepository(found, Database(found.database_url))

    return make


def files_of(machine: DatasetRepository) -> UploadFiles:
    return UploadFiles.of(machine._settings)


def add(machine: DatasetRepository, upload_id: str, *, count: int = 50, has_test: bool = False) -> DatasetInfo:
    """Store a dataset as an import does."""
    files = files_of(machine)
    images, labels = np.arange(count * 64, dtype=np.uint8).reshape(count, 8, 8), np.arange(count, dtype=np.uint8)
    with files.scratch(upload_id) as folder:
        pairs = [*zip(IDX_NAMES, (images, labels, images[:9], labels[:9]), strict=True)]
        pairs += zip(TEST_NAMES, (images[:5], labels[:5]), strict=True) if has_test else ()
        sha256 = write_meta(folder, {name: write_array(folder, name, array) for name, array in pairs})
        files.add(upload_id, folder)
    return DatasetInfo(
        name="mine", title="mine", kind=DatasetKind.IMAGES, image_shape=(8, 8), classes=256, train_count=count,
        validation_count=9, class_names=(), source="", licence="", available=True, sha256=sha256, upload_id=upload_id,
    )  # fmt: skip


def folders(machine: DatasetRepository) -> set[str]:
    return {path.name for path in machine._settings.datasets_cache.glob("[!.]*")}


def test_each_machine_copies_a_dataset_once(make_machine: MakeMachine, proxy: FaultyProxy) -> None:
    first, second = make_machine("first"), make_machine("second")
    info = add(first, "ds_1", count=COUNT)
    assert list(first._settings.artifacts.rglob("*.npy")) == [], "nothing stays where it was received"
    seen: list[Exchange] = []
    proxy.fault = lambda exchange: seen.append(exchange)
    copied: list[int] = []
    dataset = second.load(info, progress=lambda done, total: copied.append(done))
    assert len(dataset.train) == COUNT
    assert dataset.train.inputs[COUNT - 1, 7, 7] == (COUNT * 64 - 1) % 256
    assert copied[-1] > COUNT * 65
    assert seen
    seen.clear()
    for _ in range(2):
        second.load(info)
    assert seen == []
    first.load(info)
    assert seen
    assert folders(first) == folders(second) == {"ds_1"}


def test_processes_of_one_machine_share_one_copy(make_machine: MakeMachine, proxy: FaultyProxy) -> None:
    machine = make_machine("only")
    info = add(machine, "ds_1")
    seen: list[str] = []

    def slow(exchange: Exchange) -> None:
        seen.append(exchange.path)
        time.sleep(0.1)  # the others start meanwhile

    proxy.fault = slow
    with ThreadPoolExecutor(4) as pool:  # a file lock holds between threads, too: each opens the file
        datasets = list(pool.map(lambda _: make_machine("only").load(info), range(4)))
    assert len({dataset.sha256 for dataset in datasets}) == 1
    assert len([path for path in seen if path.endswith("train-images-idx3-ubyte.npy")]) == 1


def test_other_bytes_are_refused(make_machine: MakeMachine) -> None:
    machine = make_machine("first")
    info, store = add(machine, "ds_1"), open_store(machine._settings)
    path = "datasets/ds_1/t10k-labels-idx1-ubyte.npy"
    with store.open(path) as file:
        content = file.read()
    for damaged in (content[:-1] + b"\xff", content[:-1], content + b"\x01", b""):
        store.remove([path])
        store.put_all({path: damaged})
        with pytest.raises(DatasetUnavailable, match=r"SHA-256 differs.*upload it again"):
            machine.load(info)
    other = add(machine, "ds_2", count=51)
    for name in ("meta.json", *(f"{name}.npy" for name in IDX_NAMES)):  # whole and intact, but of another dataset
        with store.open(f"datasets/ds_2/{name}") as file:
            content = file.read()
        store.remove([f"datasets/ds_1/{name}"])
        store.put_all({f"datasets/ds_1/{name}": content})
    with pytest.raises(DatasetUnavailable, match="differs from that of the dataset"):
        machine.load(info)
    assert folders(machine) == set()
    machine.load(other)


def test_a_lost_dataset_is_told_from_a_store_that_does_not_respond(
    make_machine: MakeMachine, proxy: FaultyProxy
) -> None:
    machine = make_machine("first")
    info = add(machine, "ds_1")
    proxy.fault = lambda exchange: (503, b"")
    with pytest.raises(ArtifactUnreadable):
        machine.load(info)
    proxy.fault = lambda exchange: (503, b"") if "train-images" in exchange.path else None
    with pytest.raises(ArtifactUnreadable):
        machine.load(info)
    proxy.fault = lambda exchange: None
    machine.load(info)
    files_of(machine).discard("ds_1")
    machine.load(info)  # a training continues
    with pytest.raises(DatasetUnavailable, match=r"meta.json: is missing.*upload it again"):
        make_machine("second").load(info)


def test_what_was_not_used_for_the_longest_time_is_removed(make_machine: MakeMachine) -> None:
    machine = make_machine("first")
    infos = [add(machine, f"ds_{number}", count=100) for number in range(4)]
    size = ArrayCache(machine._settings.datasets_cache)
    machine.load(infos[0])
    machine = make_machine("first", TAPELINE_CACHE_BYTES=str(2 * size.used_bytes() + 100))
    kept = machine.load(infos[0])
    for age_s, info in ((200, infos[0]), (100, infos[1])):
        machine.load(info)
        moment = time.time() - age_s
        os.utime(machine._settings.datasets_cache / str(info.upload_id), (moment, moment))
    machine.load(infos[0])  # used again
    machine.load(infos[2])
    assert folders(machine) == {"ds_0", "ds_2"}
    machine.load(infos[3])
    assert folders(machine) == {"ds_2", "ds_3"}
    assert kept.train.inputs.sum(), "what is mapped stays readable"
    assert make_machine("first", TAPELINE_CACHE_BYTES="1").load(infos[0]).train.labels[99] == 99


def test_what_killed_processes_left_is_removed_later_and_nothing_else(make_machine: MakeMachine) -> None:
    machine = make_machine("first", TAPELINE_CACHE_BYTES="1")
    cache = machine._settings.datasets_cache
    own, fresh, others = [".ds_0.1-0123abcd", ".ds_0.lock"], [".ds_2.1-0123abcd"], [".ssh", "thesis", "notes-2026"]
    for name in own + fresh + others:
        (cache / name).mkdir(parents=True)
    moment = time.time() - 25 * 3600
    for name in own + others:
        os.utime(cache / name, (moment, moment))
    machine.load(add(machine, "ds_1"))
    assert {path.name for path in cache.iterdir()} == {"ds_1", ".ds_1.lock", *fresh, *others}


def test_a_folder_that_lost_a_part_is_made_again(make_machine: MakeMachine) -> None:
    files = make_machine("first")
    info = add(files, "ds_1", has_test=True)
    assert files.load(info).test is not None
    (files._settings.datasets_cache / "ds_1" / f"{TEST_NAMES[0]}.npy").unlink()
    assert files.load(info).test is not None


def test_a_stop_ends_the_wait_for_another_process(make_machine: MakeMachine, proxy: FaultyProxy) -> None:
    machine = make_machine("first")
    info = add(machine, "ds_1")
    proxy.fault = lambda exchange: "hang"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(machine.load, info)
        wait_until(lambda: (machine._settings.datasets_cache / ".ds_1.lock").exists(), "the first copy")

        def stop(done: int, total: int | None) -> None:
            raise Stopped

        with pytest.raises(Stopped):
            make_machine("first").load(info, progress=stop)
        proxy.close()
        with pytest.raises(ArtifactUnreadable):
            first.result()


@settings(max_examples=60, deadline=None)
@given(
    values=st.one_of(
        arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9)),
        arrays(np.float64, array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=40)),
    )
)
def test_the_digest_of_a_stored_file_is_that_of_its_array(
    values: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    with ArrayFile.new(folder, "one", values.shape, is_float=values.dtype == np.float64) as written:
        written.add(values)
    with (folder / "one.npy").open("rb") as file:
        assert uploads._digest(file) == written.digest


def test_one_machine_downloads_for_all(make_machine: MakeMachine, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)

    def load_on(name: str) -> str:
        machine = make_machine(name)
        root, cache = machine._settings.data, ArrayCache(machine._settings.datasets_cache)
        return load("mnist", root, cache=cache, copies=files_of(machine), builtins=builtins).sha256

    expected = builtins["mnist"].info.sha256
    assert load_on("first") == expected
    mirror.files.clear()
    assert load_on("second") == expected
    assert len(mirror.requests) == 4
    store = open_store(make_machine("second")._settings)
    paths = [item.path for item in store.stored("datasets")]
    assert len(paths) == 5
    assert files_of(make_machine("second")).sweep(set, older_than_s=-1) == [], "a copy is no upload without a row"
    store.remove(path for path in paths if path.endswith("train-labels-idx1-ubyte.npy"))
    with pytest.raises(DatasetUnavailable, match="404"):
        load_on("third")
