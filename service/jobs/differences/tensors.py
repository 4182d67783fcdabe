"""The tensors of two checkpoints, compared bit by bit, without NumPy: a checkpoint is a safetensors file."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_FORMATS: Final = {"F16": "<e", "F32": "<f", "F64": "<d", "I64": "<q"}
_BLOCK: Final = 1 << 16
_WEIGHTS: Final = ("layers.", "generator.", "discriminator.", "training.")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file, as bytes in row-major order."""

    format: str
    shape: tuple[int, ...]
    data: bytes

    def value(self, flat_index: int) -> float:
        """The element at a flat index."""
        return float(struct.unpack_from(self.format, self.data, flat_index * struct.calcsize(self.format))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDifference:
    """The first element in which two sets of tensors differ."""

    tensor: str
    element: list[int]
    """Its index; empty if the shapes differ or only one side has the tensor."""
    a: float | None
    b: float | None
    tensors: list[str]
    """All tensors that differ."""


def read(data: bytes) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name.

    Raises:
        ValueError: it is not a complete safetensors file.
    """
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                content = data[8 + length + begin : 8 + length + end]
                tensors[name] = Tensor(_FORMATS[entry["dtype"]], tuple(entry["shape"]), content)
        return tensors
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a whole checkpoint: {error}") from error


def first_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> TensorDifference | None:
    """The first difference between two checkpoints, in layer order, weights before the optimizer's state."""
    differing = [name for name in sorted({*a, *b}, key=order) if a.get(name) != b.get(name)]
    if not differing:
        return None
    first, second = a.get(differing[0]), b.get(differing[0])
    if first is None or second is None or (first.format, first.shape) != (second.format, second.shape):
        return TensorDifference(tensor=differing[0], element=[], a=None, b=None, tensors=differing)
    flat_index = _first_byte(first.data, second.data) // struct.calcsize(first.format)
    return TensorDifference(
        tensor=differing[0],
        element=index_of(flat_index, first.shape),
        a=first.value(flat_index),
        b=second.value(flat_index),
        tensors=differing,
    )


def order(name: str) -> tuple[bool, list[Any]]:
    """The sort key of a tensor: those of layers first, layer 2 before layer 10, and weights before biases."""
    key = [
        (0, int(segment), "") if segment.isdigit() else (1, segment != "weight", segment) for segment in name.split(".")
    ]
    return not name.startswith(_WEIGHTS), key


def index_of(flat_index: int, shape: Sequence[int]) -> list[int]:
    """The index of an element from its flat index."""
    index = []
    for size in reversed(shape):
        flat_index, coordinate = divmod(flat_index, size)
        index.append(coordinate)
    return index[::-1]


def _first_byte(a: bytes, b: bytes) -> int:
    start = next(i for i in range(0, len(a), _BLOCK) if a[i : i + _BLOCK] != b[i : i + _BLOCK])
    return next(i for i in range(start, len(a)) if a[i] != b[i])
