"""Downloads of the built-in datasets: mirrors, checksums, and the state that the catalogue shows."""

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from service.datasets import download
from service.datasets.cache import load
from service.datasets.catalogue import catalogue, describe
from service.datasets.errors import DatasetUnavailable
from service.datasets.formats.array_folders import ArrayCache
from service.datasets.info import IDX_NAMES, DatasetState
from tests.service.datasets.conftest import (
    TRAIN_IMAGES,
    TRAIN_LABELS,
    VALIDATION_IMAGES,
    Mirror,
    make_files,
    tiny_builtin,
)


def test_missing_files_are_downloaded_once(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    reports: list[tuple[int, int | None]] = []
    dataset = load(
        "mnist",
        root,
        cache=ArrayCache(cache),
        builtins=builtins,
        progress=lambda done, total: reports.append((done, total)),
    )
    assert dataset.sha256 == builtins["mnist"].info.sha256
    assert sorted(path.name for path in (root / "mnist").iterdir()) == sorted(f"{name}.gz" for name in IDX_NAMES)
    total = sum(builtins["mnist"].packed_bytes.values())
    assert reports[-1] == (total, total)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert describe("mnist", root, builtins=builtins).available
    load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    assert len(mirror.requests) == 4


def test_only_missing_files_are_downloaded(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    make_files(root / "mnist")
    (root / "mnist" / f"{TRAIN_LABELS}.gz").unlink()
    load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    assert mirror.requests == [f"{TRAIN_LABELS}.gz"]


def test_an_unreachable_mirror_is_skipped(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    dead = Mirror()
    dead.close()
    builtins = tiny_builtin(tmp_path / "published", dead.url, mirror.url)
    load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    assert len(mirror.requests) == 4


def test_content_with_another_checksum_is_rejected(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    mirror.files[f"{VALIDATION_IMAGES}.gz"] = mirror.files[f"{TRAIN_IMAGES}.gz"]
    with pytest.raises(DatasetUnavailable, match="has other content: sha256"):
        load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    assert sorted(path.name for path in (root / "mnist").iterdir()) == [f"{TRAIN_IMAGES}.gz", f"{TRAIN_LABELS}.gz"]


def test_a_truncated_download_leaves_no_file(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    mirror.truncate = True
    with pytest.raises(DatasetUnavailable, match="truncated"):
        load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    assert not list((root / "mnist").iterdir())


def test_a_download_larger_than_expected_is_aborted(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    mirror.files[f"{TRAIN_IMAGES}.gz"] = bytes(2**20)
    with pytest.raises(DatasetUnavailable, match="is larger than"):
        load("mnist", root, cache=ArrayCache(cache), builtins=builtins)


def test_the_error_names_each_mirror_and_the_remedy(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    dead = Mirror()
    dead.close()
    mirror.files.clear()
    builtins = tiny_builtin(tmp_path / "published", dead.url, mirror.url)
    with pytest.raises(DatasetUnavailable) as caught:
        load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    assert mirror.requests == [f"{TRAIN_IMAGES}.gz"], "each mirror is tried once"
    text = str(caught.value)
    for part in (dead.url, "refused", mirror.url, "HTTP 404", str(root / "mnist"), f"{TRAIN_IMAGES}.gz", "mnist-10k"):
        assert part in text
    assert caught.value.code == "dataset_unavailable"


def test_the_state_of_a_dataset_follows_its_downloads(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    total = sum(builtins["mnist"].packed_bytes.values())
    info = describe("mnist", root, builtins=builtins)
    assert (info.state, info.download_bytes, info.download_from) == (DatasetState.DOWNLOAD, total, ("127.0.0.1",))
    assert "the first job downloads" in str(info.state_reason)

    mirror.truncate = True
    with pytest.raises(DatasetUnavailable):
        load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    info = describe("mnist", root, builtins=builtins)
    assert info.state is DatasetState.UNAVAILABLE
    assert re.search(r"the last download failed \(\d{4}-\d\d-\d\d .* UTC\): .*truncated", str(info.state_reason))
    assert [info.name for info in catalogue(root, builtins=builtins)] == ["mnist"]

    mirror.truncate = False
    load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    info = describe("mnist", root, builtins=builtins)
    assert (info.state, info.state_reason, info.download_bytes) == (DatasetState.READY, None, 0)
    assert [path.name for path in root.iterdir()] == ["mnist"]


def test_a_failed_download_is_forgotten_after_a_day(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    download.record_failure(root / "mnist", "no route to host")
    assert describe("mnist", root).state is DatasetState.UNAVAILABLE
    later = time.time() + download.FAILURE_RETENTION_S
    monkeypatch.setattr(download.time, "time", lambda: later)
    assert describe("mnist", root).state is DatasetState.DOWNLOAD


def test_the_catalogue_reports_an_unwritable_data_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    info = describe("fashion-mnist", tmp_path / "file")
    assert info.state is DatasetState.UNAVAILABLE
    assert info.state_reason == "It is not downloaded yet, and its folder cannot be written."


class Cancelled(Exception):
    pass


def test_a_progress_callback_can_cancel_a_download(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    def cancel(done: int, total: int | None) -> None:
        raise Cancelled

    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    with pytest.raises(Cancelled):
        load("mnist", root, cache=ArrayCache(cache), builtins=builtins, progress=cancel)
    assert not list((root / "mnist").iterdir())


def test_loading_into_an_unwritable_folder_fails_before_any_request(
    cache: Path, tmp_path: Path, mirror: Mirror
) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetUnavailable, match="cannot be written"):
        load("mnist", tmp_path / "file", cache=ArrayCache(cache), builtins=builtins)
    assert not mirror.requests


def test_files_in_a_system_folder_are_not_downloaded(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    builtins = {"mnist": replace(builtins["mnist"], system=tmp_path / "published")}
    load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    assert not mirror.requests
    assert not root.exists()


def test_old_leftovers_of_killed_downloads_are_removed(root: Path, cache: Path, tmp_path: Path, mirror: Mirror) -> None:
    builtins = tiny_builtin(tmp_path / "published", mirror.url)
    (root / "mnist").mkdir(parents=True)
    old, young = root / "mnist" / ".old.part", root / "mnist" / ".young.part"
    old.write_bytes(b"1")
    young.write_bytes(b"1")
    os.utime(old, (time.time() - 7200,) * 2)
    load("mnist", root, cache=ArrayCache(cache), builtins=builtins)
    assert not old.exists()
    assert young.exists()
