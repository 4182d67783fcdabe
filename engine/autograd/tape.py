"""GradientTape: records operations as they run, and plays the records backwards to compute gradients."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self, cast

import numpy as np

from engine.autograd.graph import Array, Node, Record, Recorder, running
from engine.autograd.tensor import Tensor, is_tracked, untracked
from engine.autograd.tracing import computing
from engine.errors import GradientError, SettingError, ShapeError

__all__ = ["GradientTape"]


class GradientTape(Recorder):
    """Records the operations on watched tensors inside its ``with`` block, in this thread.

    Reverse-mode differentiation (Griewank & Walther 2008, chapter 3): one sweep over the records, from the target
    back to the sources.

    A nested tape shares the list of records of the outer tape, which also records the computation of the nested
    tape's gradients.

    Args:
        persistent: keep the records after :meth:`gradient`, so that it can be called again.
        keeps_graph: keep the tensors that only ``gradient(create_graph=True)`` needs. None: if the tape is persistent.
    """

    __slots__ = ("_outer", "_spent", "_start", "_wanted", "persistent")

    def __init__(self, persistent: bool = False, *, keeps_graph: bool | None = None) -> None:
        super().__init__(persistent if keeps_graph is None else keeps_graph)
        self.persistent = persistent
        self._spent = False
        self._outer: GradientTape | None = None  # the outermost tape, whose records all nested tapes share
        self._start = 0  # the first record of this tape
        self._wanted = self.keeps_graph

    def __enter__(self) -> Self:
        outer = running.recorder
        if outer is None:
            if self._outer is not None:
                raise GradientError("this tape was nested in another one, whose records it shared; create a new tape")
            running.recorder = self
        elif outer is self:
            raise GradientError("this tape is already running; create a new tape to nest inside it")
        else:
            self._outer = cast(GradientTape, outer)
            self.records, self.reference, self._start = outer.records, outer.reference, len(outer.records)
            self._wanted, outer.keeps_graph = outer.keeps_graph, True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outer is not None:
            self._outer.keeps_graph = self._wanted
        # gradient() inside the block already stopped a tape that is not persistent.
        elif running.recorder is self:
            running.recorder = None

    def gradient(
        self,
        target: Tensor,
        sources: Sequence[Tensor] | Tensor,
        output_gradients: Array | float | None = None,
        *,
        unconnected: Literal["raise", "zero"] = "raise",
        create_graph: bool | None = None,
    ) -> list[Tensor]:
        """The gradients of ``target`` with respect to ``sources``, in the same order.

        The gradient of a target with several elements is that of their sum, weighted by ``output_gradients`` if given.
        Each result is a new array with the shape and dtype of its source.

        Args:
            target: computed inside this tape.
            sources: watched tensors, or values computed inside this tape.
            output_gradients: gradient of a further value with respect to ``target``; same shape.
            unconnected: for a source on which the target does not depend: ``raise`` an error, or return ``zero``.
            create_graph: also record the computation of the gradients, so that they can be differentiated: on this tape
                if it is persistent and still running, or on the outer tape. None: wherever that is possible.

        Raises:
            GradientError: the tape has no records any more; ``target`` or a source is unknown to it; the target does
                not depend on a source; a source has another shape than when it was recorded; an operand has been
                overwritten (of large arrays, only a sample is compared); or ``output_gradients`` are on a running tape
                that does not record this gradient. With ``create_graph`` also: no tape can record, or a rule cannot be
                recorded.
            ShapeError: ``output_gradients`` does not have the target's shape.
        """
        if unconnected not in ("raise", "zero"):
            raise SettingError(f"unconnected {unconnected!r} is neither raise nor zero", setting="unconnected")
        if isinstance(sources, np.ndarray):  # would be read as the sequence of its rows
            raise GradientError("gradient: sources must be a list of tensors, as in tape.gradient(y, [x])")
        outermost = self._outer or self
        if self._spent or outermost._spent:
            raise GradientError("this tape has already computed its gradient; use GradientTape(persistent=True)")
        target_node = self._node_of(target, "the target")
        source_nodes = [self._node_of(source, f"source {i}") for i, source in enumerate(sources)]
        graph = self._creates_graph(create_graph)
        continues = self.persistent or running.recorder is not self
        if not graph and create_graph is None and continues and is_tracked((output_gradients,)):
            raise GradientError(
                "gradient: output_gradients is on the running tape, which does not record this gradient; compute the "
                "target inside it, too, or give np.asarray(output_gradients) if no gradient should flow through it"
            )
        outermost.lifetimes.refuse_overwritten()
        if not outermost.persistent and running.recorder is not outermost:
            outermost.lifetimes.forget_operands()
        keeps_records = self.persistent or outermost is not self
        records = self.records[self._start :] if keeps_records else self.records
        seed: Any = _tracked_seed(target, output_gradients) if graph else _seed(target, output_gradients)
        gradients: dict[Node, Any] = {target_node: seed}
        needed = _depending_on(records, source_nodes)
        if not self.persistent:
            self._spent = True
            if running.recorder is self:
                running.recorder = None
        if not keeps_records:
            self.lifetimes.unlock()
        retained = set(source_nodes)

        # Recording order is already a topological order: no sort, and no recursion limit on deep networks.
        while records:
            record = records.pop()  # dropping a record frees the arrays that only its VJPs keep
            gradient = gradients.get(record.output)
            if gradient is None or record.output not in needed:
                continue
            if record.output not in retained:
                del gradients[record.output]
            for edge, (node, vjp) in enumerate(record.edges):
                if node in needed:
                    contribution = _recorded_contribution(record, edge, gradient) if graph else vjp(gradient)
                    accumulated = gradients.get(node)
                    # Add, never assign: x * x gives x two gradients.
                    gradients[node] = contribution if accumulated is None else accumulated + contribution
        results = [gradients.get(node) for node in source_nodes]
        if unconnected == "raise":
            for number, gradient in enumerate(results):
                if gradient is None:
                    raise _unconnected(number, sources[number])
        return _as_tracked_tensors(results, sources, seed) if graph else _as_owned_tensors(results, sources, seed)

    def _creates_graph(self, requested: bool | None) -> bool:
        """Whether to record the computation of the gradient.

        Raises:
            GradientError: it was requested, but is not possible.
        """
        can_record = running.recorder is (self._outer or self) and (self.persistent or self._outer is not None)
        if not requested:
            return requested is None and can_record and (self._outer is not None or self.keeps_graph)
        if not can_record:
            raise GradientError(
                "gradient(create_graph=True) needs a tape that records it: call it inside the with block of a "
                "GradientTape(persistent=True), or of a tape around this one"
            )
        return True

    def _node_of(self, tensor: Tensor, role: str) -> Node:
        node = tensor._node if isinstance(tensor, Tensor) else None
        if node is None or not (node.leaf or node.tape is self.reference):
            raise GradientError(
                f"gradient: {role} is neither watched (Tensor(..., watch=True)) nor computed inside this tape from "
                "something that is"
            )
        return node


def _depending_on(records: Sequence[Record], source_nodes: Sequence[Node]) -> set[Node]:
    """The nodes that depend on ``source_nodes``. Only these need gradients."""
    reached = set(source_nodes)
    for record in records:
        for node, _ in record.edges:
            if node in reached:
                reached.add(record.output)
                break
    return reached


def _seed(target: Tensor, output_gradients: Any) -> Array:
    if output_gradients is None:
        return computing.constant(np.ones(target.shape, target.dtype))
    if isinstance(output_gradients, np.ndarray):
        seed: Array = untracked(output_gradients).astype(target.dtype)
    else:
        seed = np.array(output_gradients, target.dtype)
    if seed.shape != target.shape:
        problem = f"output_gradients {seed.shape} for a target {target.shape}: the shapes must be equal"
        raise ShapeError.of("gradient", problem, seed, target)
    return seed


def _tracked_seed(target: Tensor, output_gradients: Any) -> Tensor:
    """Like :func:`_seed`, but tracked by the tape, and with it the result of every VJP, because VJPs are linear."""
    if is_tracked((output_gradients,)) and output_gradients.shape == target.shape:
        seed: Tensor = output_gradients.astype(target.dtype)
        return seed
    return Tensor(_seed(target, output_gradients), watch=True)


def _recorded_contribution(record: Record, edge: int, gradient: Tensor) -> Any:
    """The contribution of the gradient of a record's output to one of its inputs, computed by recorded operations."""
    if record.make_recorded_vjp is None:
        raise GradientError(
            f"gradient(create_graph=True): the tape kept no tensors of {record.name}; use GradientTape("
            "persistent=True), or two tapes, one inside the other",
            operation=record.name,
        )
    try:
        contribution = record.make_recorded_vjp(edge)(gradient)
    except GradientError as error:
        raise GradientError(f"the gradient of {record.name} has no gradient: {error}", operation=record.name) from error
    if not is_tracked((contribution,)):
        raise GradientError(
            f"the gradient of {record.name} has no gradient: its rule leaves the tape, as by np.asarray(g) or "
            "array[...] = g; give the primitive a form of it that does not (graph=)",
            operation=record.name,
        )
    return contribution


def _unconnected(number: int, source: Tensor) -> GradientError:
    return GradientError(
        f"gradient: the target does not depend on source {number}, of shape {source.shape}. Usual causes: it was not "
        "used; it was used before the tape or after the target; or its value left the tape, as by np.asarray(tensor), "
        "float(tensor), array[...] = tensor, or a NumPy function that was given a list of tensors (use np.stack). "
        'unconnected="zero" gives zeros instead.'
    )


def _is_view(array: Array) -> bool:
    """Whether the memory belongs to another array, which may be in use. A traced array is a view of a plain one."""
    return array.base is not None and (type(array) is np.ndarray or type(array.base) is not np.ndarray)


def _as_owned_tensors(gradients: Sequence[Array | None], sources: Sequence[Tensor], seed: Array) -> list[Tensor]:
    """Gradients as tensors that share memory with nothing else."""
    results: list[Tensor] = []
    used_ids = {id(seed)}
    for gradient, source in zip(gradients, sources, strict=True):
        if gradient is None:
            array = computing.constant(np.zeros(source.shape, source.dtype))
        else:
            _check_shape(gradient, source)
            array = np.asanyarray(gradient, source.dtype)
            if _is_view(array) or id(array) in used_ids:
                array = array.copy()
            used_ids.add(id(array))
        results.append(array.view(Tensor))
    return results


def _as_tracked_tensors(gradients: Sequence[Tensor | None], sources: Sequence[Tensor], seed: Tensor) -> list[Tensor]:
    """Gradients as tracked tensors. None of them is the seed itself, which is a separate source."""
    results: list[Tensor] = []
    for gradient, source in zip(gradients, sources, strict=True):
        if gradient is None:
            results.append(Tensor(np.zeros(source.shape, source.dtype)))
        else:
            _check_shape(gradient, source)
            as_source: Any = gradient.astype if gradient.dtype != source.dtype or gradient is seed else None
            results.append(gradient if as_source is None else as_source(source.dtype))
    return results


def _check_shape(gradient: Array, source: Tensor) -> None:
    if gradient.shape != source.shape:
        raise GradientError(f"gradient: a source of shape {source.shape} was recorded as {gradient.shape}")
