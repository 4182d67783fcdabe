"""GradientTape: records operations as they happen, and plays them backwards."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from engine.autograd.graph import Array, Node, Recorder, running, sample
from engine.autograd.tensor import Tensor, plain
from engine.errors import GradientError, SettingError, ShapeError


class GradientTape(Recorder):
    """Records what is computed from watched tensors inside its ``with`` block, in this thread.

    Reverse-mode differentiation (Griewank & Walther 2008, chapter 3): one sweep over the records, from the target
    back to the sources.

    Args:
        persistent: keep the records after :meth:`gradient`, so that it can be asked again.
        verify: have :meth:`gradient` find operands that were overwritten in memory that a plain array shares. It takes
            some 5% of a small step; without it, the caller must see to it that no operand changes.
    """

    __slots__ = ("_spent", "persistent")

    def __init__(self, persistent: bool = False, *, verify: bool = True) -> None:
        super().__init__(verify)
        self.persistent = persistent
        self._spent = False

    def __enter__(self) -> Self:
        if running.recorder is not None:
            raise GradientError("a tape is already running in this thread: gradients of gradients are not supported")
        running.recorder = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # gradient() inside the block has already stopped a tape that is not persistent.
        if running.recorder is self:
            running.recorder = None

    def gradient(
        self,
        target: Tensor,
        sources: Sequence[Tensor] | Tensor,
        output_gradients: Array | float | None = None,
        *,
        unconnected: Literal["raise", "zero"] = "raise",
    ) -> list[Tensor]:
        """The gradient of ``target`` with respect to each of ``sources``, in their order.

        A target of several elements counts as their sum, unless ``output_gradients`` weighs them. Each answer is an
        array of its own, with its source's shape and dtype.

        Args:
            target: computed inside this tape.
            sources: watched tensors, or values computed inside this tape.
            output_gradients: gradient of some further value with respect to ``target``; same shape.
            unconnected: what a source gets that the target does not depend on: an error, or zeros.

        Raises:
            GradientError: the tape is spent, ``target`` or a source is unknown to it, the target does not depend on a
                source, a source has another shape than when it was recorded, or an array that went into an operation
                has been overwritten (of large arrays, a sample is compared).
            ShapeError: ``output_gradients`` does not have the target's shape.
        """
        if unconnected not in ("raise", "zero"):
            raise SettingError(f"unconnected {unconnected!r} is neither raise nor zero", setting="unconnected")
        if isinstance(sources, np.ndarray):  # would be taken for the sequence of its rows
            raise GradientError("gradient: sources must be a list of tensors, as in tape.gradient(y, [x])")
        if self._spent:
            raise GradientError("this tape has given its gradient already; use GradientTape(persistent=True)")
        end = self._node_of(target, "the target")
        starts = [self._node_of(source, f"source {i}") for i, source in enumerate(sources)]
        self._refuse_overwritten()
        seed = _seed(target, output_gradients)
        gradients: dict[Node, Array] = {end: seed}
        wanted = self._depending_on(starts)
        if not self.persistent:
            self._spent = True
            if running.recorder is self:
                running.recorder = None
        keep = set(starts)

        records = list(self.records) if self.persistent else self.records
        # Recording order is already a topological order: no sort, and no recursion limit on deep networks.
        while records:
            record = records.pop()  # dropping a record frees what its VJPs kept
            gradient = gradients.get(record.output)
            if gradient is None or record.output not in wanted:
                continue
            if record.output not in keep:
                del gradients[record.output]
            for node, vjp in record.edges:
                if node in wanted:
                    share = vjp(gradient)
                    before = gradients.get(node)
                    # Add, never assign: x * x gives x two gradients.
                    gradients[node] = share if before is None else before + share
        found = [gradients.get(node) for node in starts]
        if unconnected == "raise":
            for number, gradient in enumerate(found):
                if gradient is None:
                    raise _unconnected(number, sources[number])
        return _own(found, sources, seed)

    def _node_of(self, tensor: Tensor, role: str) -> Node:
        node = tensor._node if isinstance(tensor, Tensor) else None
        if node is None or not (node.leaf or node.tape is self.reference):
            raise GradientError(
                f"gradient: {role} is neither watched (Tensor(..., watch=True)) nor computed inside this tape from "
                "something that is"
            )
        return node

    def _refuse_overwritten(self) -> None:
        """Raise GradientError if an operand has changed since it was used: a plain array may share its memory."""
        for reference, operation, numbers in self.operands:
            array = reference()
            if array is not None and sample(np.ndarray.view(array, np.ndarray)) != numbers:
                raise GradientError(
                    f"gradient: an array of shape {array.shape} was overwritten after {operation} had used it; "
                    "give the operation a copy, or take the gradient first",
                    operation=operation,
                )
        if not self.persistent:
            self.operands = []

    def _depending_on(self, starts: Sequence[Node]) -> set[Node]:
        """The nodes on some path that begins at ``starts``: only these need gradients."""
        reached = set(starts)
        for record in self.records:
            for node, _ in record.edges:
                if node in reached:
                    reached.add(record.output)
                    break
        return reached


def _seed(target: Tensor, output_gradients: Any) -> Array:
    if output_gradients is None:
        return running.constant(np.ones(target.shape, target.dtype))
    if isinstance(output_gradients, np.ndarray):
        seed: Array = plain(output_gradients).astype(target.dtype)
    else:
        seed = np.array(output_gradients, target.dtype)
    if seed.shape != target.shape:
        raise ShapeError(
            f"gradient: output_gradients {seed.shape} for a target {target.shape}: the shapes must be equal",
            operation="gradient",
            shapes=(seed.shape, target.shape),
        )
    return seed


def _unconnected(number: int, source: Tensor) -> GradientError:
    return GradientError(
        f"gradient: the target does not depend on source {number}, of shape {source.shape}. Usual causes: it was not "
        "used; it was used before the tape or after the target; or its value left the tape, as by np.asarray(tensor), "
        "float(tensor), array[...] = tensor, or a NumPy function that was given a list of tensors (use np.stack). "
        'unconnected="zero" gives zeros instead.'
    )


def _is_view(array: Array) -> bool:
    """Whether the memory belongs to another array, which may be in use; a traced array is a view of a plain one."""
    return array.base is not None and (type(array) is np.ndarray or type(array.base) is not np.ndarray)


def _own(gradients: Sequence[Array | None], sources: Sequence[Tensor], seed: Array) -> list[Tensor]:
    """Gradients as tensors that share memory with nothing else."""
    answers: list[Tensor] = []
    given = {id(seed)}
    for gradient, source in zip(gradients, sources, strict=True):
        if gradient is None:
            array = np.zeros(source.shape, source.dtype)
        else:
            if gradient.shape != source.shape:
                raise GradientError(f"gradient: a source of shape {source.shape} was recorded as {gradient.shape}")
            array = np.asanyarray(gradient, source.dtype)
            if _is_view(array) or id(array) in given:
                array = array.copy()
            given.add(id(array))
        answers.append(array.view(Tensor))
    return answers
