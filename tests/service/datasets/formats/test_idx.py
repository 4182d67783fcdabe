import gzip
import os
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from service.datasets.errors import DatasetBroken
from service.datasets.formats.idx import read_idx, write_idx

small_arrays = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_header(path: Path, *sizes: int, kind: int = 8, data: bytes = b"") -> Path:
    path.write_bytes(bytes([0, 0, kind, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + data)
    return path


@same_folder
@given(small_arrays, st.sampled_from(["a", "a.gz"]))
def test_written_data_is_read_back(tmp_path: Path, array: NDArray[np.uint8], name: str) -> None:
    write_idx(tmp_path / name, array)
    read = read_idx(tmp_path / name).array
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def test_the_same_array_gives_the_same_gzip_file(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
    write_idx(tmp_path / "one.gz", array)
    write_idx(tmp_path / "two.gz", array)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_a_file_truncated_at_any_byte_is_rejected(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_idx(path, np.random.default_rng(0).integers(0, 256, (4, 5, 6)).astype(np.uint8))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetBroken):
            read_idx(path)


@same_folder
@given(small_arrays, st.sampled_from(["a", "a.gz"]), st.data())
def test_a_file_with_changed_bytes_is_read_or_reported_as_broken(
    tmp_path: Path, array: NDArray[np.uint8], name: str, data: st.DataObject
) -> None:
    path = tmp_path / name
    write_idx(path, array)
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(DatasetBroken):  # no other exception
        assert read_idx(path).array.dtype == np.uint8


@same_folder
@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_read_or_reported_as_broken(tmp_path: Path, content: bytes) -> None:
    for variant in (content, gzip.compress(content), b"\0\0\x08" + content, b"\x1f\x8b" + content):
        (tmp_path / "a").write_bytes(variant)
        with suppress(DatasetBroken):  # no other exception
            read_idx(tmp_path / "a")


def test_a_file_with_trailing_data_is_rejected(tmp_path: Path) -> None:
    path = write_header(tmp_path / "a", 3, data=b"\1\2\3\4")
    with pytest.raises(DatasetBroken, match="continues after its 3 bytes"):
        read_idx(path)


@pytest.mark.parametrize(
    ("sizes", "kind", "reason"),
    [
        ((3,), 0x0D, "type 0x0d"),
        ((), 0x08, "0 dimensions"),
        ((1, 1, 1, 1, 1), 0x08, "5 dimensions"),
        ((2**32 - 1, 2**32 - 1), 0x08, "over 536,870,912 bytes"),
        ((0, 2**32 - 1, 2**32 - 1), 0x08, "over 536,870,912 bytes"),
    ],
)
def test_an_invalid_header_is_rejected_with_the_reason(
    tmp_path: Path, sizes: tuple[int, ...], kind: int, reason: str
) -> None:
    with pytest.raises(DatasetBroken, match=reason):
        read_idx(write_header(tmp_path / "a", *sizes, kind=kind))


def test_a_large_declared_size_takes_no_memory(tmp_path: Path) -> None:
    path = write_header(tmp_path / "a", 500_000_000, data=b"\1")
    tracemalloc.start()
    try:
        with pytest.raises(DatasetBroken, match="1 of 500,000,000 bytes"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_not_unpacked_beyond_its_declared_size(tmp_path: Path) -> None:
    header = bytes([0, 0, 8, 1]) + struct.pack(">I", 1000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(header + bytes(64 * 2**20)))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetBroken, match="continues after its 1,000 bytes"):
            read_idx(tmp_path / "a.gz")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_the_callers_size_limit_is_enforced(tmp_path: Path) -> None:
    write_idx(tmp_path / "a.gz", np.zeros(1001, np.uint8))
    with pytest.raises(DatasetBroken, match="over 1,000 bytes"):
        read_idx(tmp_path / "a.gz", max_bytes=1000)


def test_a_path_that_is_not_a_regular_file_is_reported_as_broken(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing"):
        with pytest.raises(DatasetBroken):
            read_idx(path)
