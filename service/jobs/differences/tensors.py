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

    def value(self, at: int) -> float:
        """The element at a flat index."""
        return float(struct.unpack_from(self.format, self.data, at * struct.calcsize(self.format))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDifference:
    """The first element in which two sets of tensors differ."""

    tensor: str
    element: list[int]
    """Its index; empty where the shapes differ, or only one has the tensor."""
    a: float | None
    b: float | None
    tensors: list[str]
    """All that differ."""


def read(data: bytes) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name.

    Raises:
        ValueError: it is not a whole safetensors file.
    """
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        found = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                held = data[8 + length + begin : 8 + length + end]
                found[name] = Tensor(_FORMATS[entry["dtype"]], tuple(entry["shape"]), held)
        return found
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a whole checkpoint: {error}") from error


def first_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> TensorDifference | None:
    """Where two checkpoints begin to differ, in the order of the layers, weights before the optimizer's state."""
    differing = [name for name in sorted({*a, *b}, key=order) if a.get(name) != b.get(name)]
    if not differing:
        return None
    first, second = a.get(differing[0]), b.get(differing[0])
    if first is None or second is None or (first.format, first.shape) != (second.format, second.shape):
        return TensorDifference(tensor=differing[0], element=[], a=None, b=None, tensors=differing)
    at = _first_byte(first.data, second.data) // struct.calcsize(first.format)
    return TensorDifference(
        tensor=differing[0],
        element=index_of(at, first.shape),
        a=first.value(at),
        b=second.value(at),
        tensors=differing,
    )


def order(name: str) -> tuple[bool, list[Any]]:
    """The place of a tensor: those of layers first, layer 2 before layer 10, and weights before biases."""
    parts = [(0, int(part), "") if part.isdigit() else (1, part != "weight", part) for part in name.split(".")]
    return not name.startswith(_WEIGHTS), parts


def index_of(at: int, shape: Sequence[int]) -> list[int]:
    """The index of an element from its flat index."""
    index = []
    for size in reversed(shape):
        at, place = divmod(at, size)
        index.append(place)
    return index[::-1]


def _first_byte(a: bytes, b: bytes) -> int:
    start = next(at for at in range(0, len(a), _BLOCK) if a[at : at + _BLOCK] != b[at : at + _BLOCK])
    return next(at for at in range(start, len(a)) if a[at] != b[at])
