import functools
import io
import json
import pickle
import subprocess
import sys
import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from engine import CheckpointError, DivergedError, checkpoint
from engine.checkpoint import State

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name != "__metadata__")
arrays = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int64]),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
)
json_objects = st.dictionaries(
    st.text(max_size=5),
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
)


def example() -> State:
    return State({"layers.0.weight": np.arange(6.0).reshape(2, 3)}, {"epoch": 3}, {"kind": "classifier"})


def edit(change) -> bytes:
    """The example's bytes with its header changed."""
    data = checkpoint.dumps(example())
    header_end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:header_end])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[header_end:]


@given(tensors=st.dictionaries(names, arrays, max_size=4), state=json_objects, spec=json_objects)
def test_states_round_trip_bit_for_bit(tensors, state, spec) -> None:
    data = checkpoint.dumps(State(tensors, state, spec))
    loaded = checkpoint.loads(data)
    assert (loaded.state, loaded.spec, sorted(loaded.tensors)) == (state, spec, sorted(tensors))
    for name, array in tensors.items():
        assert loaded.tensors[name].dtype == array.dtype
        assert loaded.tensors[name].shape == array.shape
        assert loaded.tensors[name].tobytes() == array.tobytes()
        assert loaded.tensors[name].flags.writeable
    assert checkpoint.dumps(loaded) == data


def test_the_safetensors_library_can_read_the_file(tmp_path) -> None:
    checkpoint.save(tmp_path / "a.safetensors", example())
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        assert file.metadata() == {
            "tapeline.format": "1",
            "spec": '{"kind": "classifier"}',
            "state": '{"epoch": 3}',
        }
        np.testing.assert_array_equal(file.get_tensor("layers.0.weight"), np.arange(6.0).reshape(2, 3))


@given(tensors=st.dictionaries(names, arrays, max_size=6))
def test_the_safetensors_library_writes_the_same(tensors) -> None:
    """Except for the order of the metadata, which is random there."""

    def parts(data: bytes):
        header_end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:header_end])
        return header.pop("__metadata__"), list(header.items()), data[header_end:]

    ours = parts(checkpoint.dumps(State(tensors, {"epoch": 3})))
    assert parts(safetensors.numpy.save(tensors, ours[0])) == ours


def test_paths_and_buffers_get_the_same_bytes(tmp_path) -> None:
    buffer = io.BytesIO()
    checkpoint.save(buffer, example())
    checkpoint.save(str(tmp_path / "a"), example())
    assert buffer.getvalue() == (tmp_path / "a").read_bytes() == checkpoint.dumps(example())
    assert checkpoint.load(tmp_path / "a").state == {"epoch": 3}


def test_a_non_contiguous_array_is_written_in_row_major_order() -> None:
    array = np.arange(12.0).reshape(3, 4)[::2, ::-1].T
    loaded = checkpoint.loads(checkpoint.dumps(State({"a": array})))
    np.testing.assert_array_equal(loaded.tensors["a"], array)


@given(cut=st.integers(0, len(checkpoint.dumps(example())) - 1))
def test_a_truncated_file_is_rejected(cut: int) -> None:
    with pytest.raises(CheckpointError):
        checkpoint.loads(checkpoint.dumps(example())[:cut])


@given(data=st.binary(max_size=200))
def test_random_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        checkpoint.loads(data)


@given(position=st.integers(0, len(checkpoint.dumps(example())) - 1), value=st.integers(0, 255))
def test_a_file_with_a_changed_byte_is_read_as_it_stands_or_raises_checkpoint_error(position: int, value: int) -> None:
    data = bytearray(checkpoint.dumps(example()))
    data[position] = value
    header_end = 8 + int.from_bytes(data[:8], "little")
    try:
        loaded = checkpoint.loads(bytes(data))
    except CheckpointError:
        assert position < header_end, "every value of the tensor can be read"
        return
    header = json.loads(data[8:header_end])
    metadata = header.pop("__metadata__")
    assert (loaded.state, loaded.spec) == (json.loads(metadata["state"]), json.loads(metadata["spec"]))
    [(name, entry)] = header.items()
    [(loaded_name, array)] = loaded.tensors.items()
    assert loaded_name == name
    assert array.dtype == {"F64": np.float64, "I64": np.int64}[entry["dtype"]]
    assert array.shape == (2, 3)
    assert array.tobytes() == data[header_end:]


def test_any_bits_of_a_tensor_are_read_as_they_stand() -> None:
    """Also those of NaNs and infinities. The engine does not detect such damage: the service hashes the files."""
    original = checkpoint.dumps(example())
    start = len(original) - example().tensors["layers.0.weight"].nbytes
    for bit in range(8 * start, 8 * len(original)):
        data = bytearray(original)
        data[bit // 8] ^= 1 << bit % 8
        assert checkpoint.loads(bytes(data)).tensors["layers.0.weight"].tobytes() == data[start:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(example().tensors), "truncated"),
        ((2**62).to_bytes(8, "little") + b"{}", "header alone declares"),
        ((2**21).to_bytes(8, "little") + b" " * 2**21, "at most 1048576"),
        ((4).to_bytes(8, "little") + b"[[[[", "not JSON"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "not JSON"),
        (safetensors.numpy.save({"a": np.ones(2)}), "no tapeline.format"),
        (edit(lambda header: header["__metadata__"].update({"tapeline.format": "2"})), "format '2'"),
        (edit(lambda header: header["__metadata__"].pop("state")), "no JSON under 'state'"),
        (edit(lambda header: header["__metadata__"].update({"spec": "[]"})), "list, not an object"),
        (edit(lambda header: header["__metadata__"].update({"state": '{"loss": NaN}'})), "NaN is not JSON"),
        (edit(lambda header: header["__metadata__"].update({"state": '{"loss": -1e400}'})), "-1e400 is too large"),
        (edit(lambda header: header["layers.0.weight"].update(data_offsets=[0, 8])), "not a whole safetensors file"),
        (edit(lambda header: header["layers.0.weight"].update(shape=[2**40, 2**40])), "not a whole safetensors file"),
        (edit(lambda header: header["layers.0.weight"].update(dtype="I32", shape=[12])), "has dtype I32"),
        (edit(lambda header: header["layers.0.weight"].update(dtype="BF16", shape=[24])), "dtype|safetensors"),
    ],
)
def test_a_hostile_or_foreign_file_is_rejected_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.loads(data)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (State({}, {}, {"note": "x" * 2**20}), "at most 1048576 are supported"),
        (State({"__metadata__": np.ones(1)}), "__metadata__ is not a valid tensor name"),
        (State({"\ud800": np.ones(1)}), "not a valid tensor name"),
        (State({}, {"deep": functools.reduce(lambda inner, _: [inner], range(100_000), [])}), "not JSON"),
    ],
)
def test_states_that_could_not_be_read_are_not_written(state: State, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.dumps(state)


def test_lone_surrogates_in_specs_round_trip() -> None:
    assert checkpoint.loads(checkpoint.dumps(State({}, {}, {"name": "\ud800"}))).spec == {"name": "\ud800"}


def test_byte_order_in_memory_does_not_matter() -> None:
    array = np.arange(3.0)
    assert checkpoint.dumps(State({"a": array.astype(">f8")})) == checkpoint.dumps(State({"a": array}))


def replace_in_header(old: bytes, new: bytes) -> bytes:
    data = checkpoint.dumps(example())
    header_end = 8 + int.from_bytes(data[:8], "little")
    text = data[8:header_end].replace(old, new)
    return len(text).to_bytes(8, "little") + text + data[header_end:]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"layers.0.weight":', b'"layers.0.weight":{"dtype":"F64"},"layers.0.weight":'),
        (b'"__metadata__":', b'"__metadata__":{"tapeline.format":"1"},"__metadata__":'),
        (b'"dtype":', b'"dtype":"F32","dtype":'),
        (rb'{\"epoch\": 3}', rb'{\"epoch\": 3, \"epoch\": 4}'),
        (rb'{\"kind\": \"classifier\"}', rb'{\"kind\": {\"a\": 1, \"a\": 1}}'),
    ],
)  # fmt: skip
def test_a_duplicate_key_is_rejected(old: bytes, new: bytes) -> None:
    data = replace_in_header(old, new)
    assert data != checkpoint.dumps(example())
    with pytest.raises(CheckpointError, match="given twice"):
        checkpoint.loads(data)


def test_a_file_is_not_read_beyond_an_invalid_header(tmp_path) -> None:
    path = tmp_path / "large"
    for data, message in (
        (replace_in_header(b'"F64"', b'"F8"'), "has dtype F8"),
        (replace_in_header(b"[0,48]", b"[0,9000000000]"), "not a whole safetensors file"),
        (replace_in_header(b'"1"', b'"9"'), "format '9'"),
        ((2**30).to_bytes(8, "little"), "the header has 1073741824 bytes"),
    ):
        with path.open("wb") as file:
            file.write(data)
            file.truncate(2**32)  # a sparse file: reading it would take seconds and gigabytes
        tracemalloc.start()
        with pytest.raises(CheckpointError, match=f"large: .*{message}"):
            checkpoint.load(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**23


def test_the_error_message_names_the_file(tmp_path) -> None:
    (tmp_path / "broken").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"broken: truncated: 1 bytes"):
        checkpoint.load(tmp_path / "broken")


def test_state_that_a_file_cannot_represent_is_rejected() -> None:
    with pytest.raises(CheckpointError, match="a has dtype complex128"):
        checkpoint.dumps(State({"a": np.ones(1, complex)}))
    with pytest.raises(CheckpointError, match="not JSON"):
        checkpoint.dumps(State({}, {"loss": float("nan")}))
    with pytest.raises(CheckpointError, match="not JSON"):
        checkpoint.dumps(State({}, {"loss": object()}))


@pytest.mark.stack
def test_a_diverged_error_can_be_pickled_in_one_process_and_raised_in_another() -> None:
    code = """
import pickle, sys
from engine import DivergedError
try:
    raise DivergedError(epoch=2, step=7, loss="d_loss", value=float("inf"))
except DivergedError as error:
    sys.stdout.buffer.write(pickle.dumps(error))
"""
    pickled = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    with pytest.raises(DivergedError) as raised:
        raise pickle.loads(pickled)
    error = raised.value
    assert (error.epoch, error.step, error.loss, error.value) == (2, 7, "d_loss", float("inf"))
    assert str(error) == "d_loss is infinite in epoch 2 after 7 steps: the training diverged"
