"""Checkpoints: safetensors files that hold a trainer's whole state. Nothing is ever unpickled.

Tensors lie under their names (``layers.0.weight``, ``optimizer.velocity.0``, ...); the metadata has
``tapeline.format``, and ``spec`` and ``state`` as JSON.
"""

from __future__ import annotations

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

_DTYPES = ("float16", "float32", "float64", "int64")
_HEADER_LIMIT = 2**20
"""Bytes. A header names a few dozen tensors; one that claims more is hostile or not ours."""


@dataclass
class State:
    """What a checkpoint holds.

    Attributes:
        tensors: arrays by name.
        state: the rest of the trainer's state, as JSON knows it.
        spec: what the trainer was built from; the engine stores it unread.
    """

    tensors: dict[str, Array]
    state: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


def dumps(state: State) -> bytes:
    """The bytes of a checkpoint: equal states give equal bytes.

    Raises:
        CheckpointError: a tensor of a dtype that checkpoints do not have; state or spec that JSON cannot say.
    """
    for name, array in state.tensors.items():
        if array.dtype.name not in _DTYPES:
            raise CheckpointError(f"{name} has dtype {array.dtype}; checkpoints hold {', '.join(_DTYPES)}", tensor=name)
    try:
        metadata = {
            "tapeline.format": FORMAT,
            "spec": json.dumps(state.spec, sort_keys=True, allow_nan=False),
            "state": json.dumps(state.state, sort_keys=True, allow_nan=False),
        }
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"state or spec is not JSON: {error}") from error
    tensors = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in state.tensors.items()}
    data = safetensors.numpy.save(tensors, metadata)
    # safetensors writes the metadata in the order of a hash map, another one each time: write it sorted.
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[size:]


def save(target: str | os.PathLike[str] | BinaryIO, state: State) -> None:
    """Write a checkpoint to a path or an open binary file."""
    data = dumps(state)
    if isinstance(target, (str, os.PathLike)):
        Path(target).write_bytes(data)
    else:
        target.write(data)


def load(path: str | os.PathLike[str]) -> State:
    """Read a checkpoint from a file.

    Raises:
        CheckpointError: as :func:`loads`, with the path.
        OSError: the file cannot be read.
    """
    try:
        return loads(Path(path).read_bytes())
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}", tensor=error.tensor) from error


def loads(data: bytes) -> State:
    """Read a checkpoint.

    Raises:
        CheckpointError: truncated, not safetensors, another format, or tensors of a strange dtype.
    """
    metadata = _metadata(data)
    try:
        loaded: Mapping[str, Array] = safetensors.numpy.load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"not a whole safetensors file: {error}") from error
    for name, array in loaded.items():
        if array.dtype.name not in _DTYPES:
            raise CheckpointError(f"{name} has dtype {array.dtype}; checkpoints hold {', '.join(_DTYPES)}", tensor=name)
    return State(
        tensors={name: np.array(array) for name, array in sorted(loaded.items())},
        state=_json_object(metadata, "state"),
        spec=_json_object(metadata, "spec"),
    )


def _metadata(data: bytes) -> dict[str, Any]:
    """The ``__metadata__`` of a safetensors file, its format checked."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise CheckpointError(f"truncated: {len(data)} bytes, and the header alone claims {length}")
    if length > _HEADER_LIMIT:
        raise CheckpointError(f"the header claims {length} bytes; at most {_HEADER_LIMIT} are read")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the header is not JSON: {error}") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or "tapeline.format" not in metadata:
        raise CheckpointError("not a checkpoint of this engine: the metadata has no tapeline.format")
    if metadata["tapeline.format"] != FORMAT:
        raise CheckpointError(f"format {metadata['tapeline.format']!r}, but this engine reads {FORMAT!r}")
    return metadata


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e400 is JSON, and infinite for Python
        raise ValueError(f"{text} is too large a number")
    return number


def _json_object(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key], parse_constant=_no_number, parse_float=_finite)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the metadata has no JSON under {key!r}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"the metadata's {key!r} is {type(value).__name__}, not an object")
    return value
