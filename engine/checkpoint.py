"""Checkpoints: safetensors files with the complete state of a trainer. Nothing is ever unpickled.

Tensors have names such as ``layers.0.weight`` and ``optimizer.velocity.0``. The metadata has ``tapeline.format``, and
``spec`` and ``state`` as JSON.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from engine.autograd.graph import Array
from engine.errors import CheckpointError

FORMAT = "1"

_DTYPES = {"I64": "int64", "F64": "float64", "F32": "float32", "F16": "float16"}
"""The dtypes of tensors, in the order in which a file has them: the name in the file format, and NumPy's. Larger
elements come first, so that all tensors are aligned."""
_NAMES = {np.dtype(name): key for key, name in _DTYPES.items()}
_HEADER_LIMIT = 2**20
"""Maximum size of a header in bytes. A genuine header lists a few dozen tensors."""


@dataclass
class State:
    """The content of a checkpoint.

    Attributes:
        tensors: arrays by name.
        state: the rest of the trainer's state, as a JSON object.
        spec: the description that the trainer was built from; the engine stores it without interpreting it.
    """

    tensors: dict[str, Array]
    state: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


def dumps(state: State) -> bytes:
    """The bytes of a checkpoint: equal states give equal bytes, and :func:`loads` reads them.

    They are what the library safetensors writes, except that it writes the metadata in the random order of a hash map.

    Raises:
        CheckpointError: a tensor has an unsupported dtype or name; state or spec is not JSON, or is too large for a
            header.
    """
    arrays = {name: _to_native_layout(name, array) for name, array in state.tensors.items()}
    texts = {"spec": _to_json("spec", state.spec), "state": _to_json("state", state.state)}
    header: dict[str, Any] = {"__metadata__": texts | {"tapeline.format": FORMAT}}
    order = list(_NAMES)
    names = sorted(arrays, key=lambda name: (order.index(arrays[name].dtype), name))
    end = 0
    for name in names:
        array, start = arrays[name], end
        end += array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        raise _header_error(len(text))
    return b"".join((len(text).to_bytes(8, "little"), text, *(arrays[name].data for name in names)))


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{name!r} is not a valid tensor name: {error}", tensor=name) from error
    if name == "__metadata__":
        raise CheckpointError("__metadata__ is not a valid tensor name: the format reserves it", tensor=name)


def _to_json(key: str, value: dict[str, Any]) -> str:
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"state or spec is not JSON: {error}") from error
    if len(text) > _HEADER_LIMIT:
        raise _header_error(len(text))
    _check_readable(text, key)
    return text


@functools.lru_cache(maxsize=4)  # the spec is the same in each checkpoint of a training
def _check_readable(text: str, key: str) -> None:
    _json_object({key: text}, key)  # do not write anything that cannot be read


def _to_native_layout(name: str, array: Array) -> Array:
    """The array in row-major and native byte order, which the format assumes."""
    _check_name(name)
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    if native.dtype not in _NAMES:
        raise _dtype_error(name, array.dtype.name)
    return native


def save(target: str | os.PathLike[str] | BinaryIO, state: State) -> None:
    """Write a checkpoint to a path or an open binary file."""
    data = dumps(state)
    if isinstance(target, (str, os.PathLike)):
        Path(target).write_bytes(data)
    else:
        target.write(data)


def load(path: str | os.PathLike[str]) -> State:
    """Read a checkpoint from a file. The data is read only if the header is valid.

    Raises:
        CheckpointError: like :func:`loads`, with the path.
        OSError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            prefix = file.read(8)
            length = min(int.from_bytes(prefix, "little"), _HEADER_LIMIT + 1)
            _read_metadata(prefix + file.read(length), os.fstat(file.fileno()).st_size)
            file.seek(0)
            return loads(file.read())
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}", tensor=error.tensor) from error


def loads(data: bytes) -> State:
    """Read a checkpoint.

    Raises:
        CheckpointError: truncated, not safetensors, another format, an unsupported dtype, or a duplicate key.
    """
    metadata = _read_metadata(data, len(data))
    try:
        loaded: Mapping[str, Array] = safetensors.numpy.load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"not a whole safetensors file: {error}") from error
    return State(
        tensors={name: np.array(array) for name, array in sorted(loaded.items())},
        state=_json_object(metadata, "state"),
        spec=_json_object(metadata, "spec"),
    )


def _read_metadata(data: bytes, size: int) -> dict[str, Any]:
    """The ``__metadata__`` of a safetensors file that begins with ``data`` and has ``size`` bytes. Checks everything in
    the header that can be checked without the tensors."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > size - 8:
        raise CheckpointError(f"truncated: {size} bytes, but the header alone declares {length}")
    if length > _HEADER_LIMIT:
        raise _header_error(length)
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the header is not JSON: {error}") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or "tapeline.format" not in metadata:
        raise CheckpointError("not a checkpoint of this engine: the metadata has no tapeline.format")
    if metadata["tapeline.format"] != FORMAT:
        raise CheckpointError(f"format {metadata['tapeline.format']!r}, but this engine reads {FORMAT!r}")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, (_, end) = entry["dtype"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not a whole safetensors file: {name} is described as {entry!r}") from error
        if dtype not in _DTYPES:
            raise _dtype_error(name, str(dtype))
        if not isinstance(end, int) or end > size - 8 - length:
            raise CheckpointError(f"not a whole safetensors file: {name} ends at {end} of {size - 8 - length} bytes")
    return metadata


def _header_error(size: int) -> CheckpointError:
    return CheckpointError(f"the header has {size} bytes; at most {_HEADER_LIMIT} are supported")


def _dtype_error(name: str, dtype: str) -> CheckpointError:
    return CheckpointError(f"{name} has dtype {dtype}; checkpoints hold {', '.join(_DTYPES.values())}", tensor=name)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} is given twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e400 is JSON, and infinite for Python
        raise ValueError(f"the number {text} is too large")
    return number


def _json_object(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    try:
        value = json.loads(
            metadata[key],
            parse_constant=_refuse_constant,
            parse_float=_parse_finite,
            object_pairs_hook=_refuse_duplicates,
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the metadata has no JSON under {key!r}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"the metadata's {key!r} is {type(value).__name__}, not an object")
    return value
