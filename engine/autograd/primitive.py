"""Primitive: a function on arrays together with the rules for its gradients.

A rule (one per argument) takes the output and the arguments of one call, and returns the VJP for that argument::

    exp = Primitive("exp", np.exp, lambda y, x: lambda g: g * y)

The outer function runs during the forward pass and must compute nothing. The inner one, the VJP, keeps exactly the
arrays that it needs (here the output, not the input), so everything else is freed. A tape calls only the rules of
tracked arguments, and only the VJPs on paths between the target and the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from engine.autograd.graph import Array, Node, Record, Recorder, Vjp, running
from engine.autograd.tensor import Tensor, has_gradients, is_tracked
from engine.autograd.tracing import computing
from engine.errors import EngineError, GradientError, ShapeError

_view = np.ndarray.view  # Tensor's own view raises an error on a tape

Rule: TypeAlias = Callable[..., Vjp]
"""``rule(output, *arguments, **options) -> vjp``.

For gradients of gradients, a rule and its VJP are called with tensors. A rule made of NumPy functions works without
changes, because these are recorded. A rule that writes into arrays or leaves the tape needs another form (``graph``).
"""


class Primitive:
    """A differentiable function of arrays.

    Args:
        name: for error messages.
        forward: takes plain arrays and returns one plain array.
        rules: one per positional argument; None for an argument without a gradient.
        graph: rules for tensors that replace those that cannot be recorded; None for an argument whose rule can be.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        *rules: Rule | None,
        graph: Sequence[Rule | None] = (),
        doc: str | None = None,
    ) -> None:
        self.name = name
        self.forward = forward
        self.rules = rules
        self.graph = graph
        self.__name__ = name
        self.__doc__ = doc or forward.__doc__

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def rule(self, argument: int) -> Rule | None:
        """The rule for the argument at this position."""
        return self.rules[argument] if argument < len(self.rules) else None

    def graph_rule(self, argument: int) -> Rule:
        """The rule for the argument at this position, in the form that can be recorded. The argument must have one."""
        recorded = self.graph[argument] if argument < len(self.graph) else None
        rule = recorded or self.rule(argument)
        assert rule is not None  # noqa: S101 - the operation was recorded by it
        return rule

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Apply to arrays and tensors; record on the running tape if an argument is tracked."""
        recorder, array_class = running.recorder, computing.array_class
        arrays: list[Any] = []
        tracked: list[tuple[int, Node]] = []
        has_tensors = False
        for position, value in enumerate(args):
            if isinstance(value, Tensor):
                has_tensors = True
                arrays.append(_view(value, array_class))
                node = value._node
                if recorder is not None and node is not None and (node.leaf or node.tape is recorder.reference):
                    tracked.append((position, node))
            elif recorder is not None and isinstance(value, (list, tuple)) and is_tracked(value):
                raise GradientError(f"{self.name}: a list of tensors; np.stack them first", operation=self.name)
            else:
                arrays.append(value)
        if options and is_tracked(options.values()):
            raise GradientError(f"{self.name}: pass tracked tensors as positional arguments", operation=self.name)
        try:
            output = self.forward(*arrays, **options)
        except ValueError as error:
            raise self._shape_error(arrays, error) from error
        if not has_tensors:
            return output
        output = np.asanyarray(output)  # NumPy returns scalars instead of arrays without axes
        tensor = output.view(Tensor)
        if recorder is not None and tracked:
            edges = self._edges(tracked, output, arrays, options)
            tensor._node = Node(False, recorder.reference)
            self._protect(recorder, tensor, args)
            record = Record(self.name, tensor._node, edges)
            if recorder.keeps_graph:
                record.make_recorded_vjp = partial(self._recorded_vjp, tracked, tensor, args, options)
            recorder.records.append(record)
        return tensor

    def _edges(
        self, tracked: list[tuple[int, Node]], output: Array, arrays: list[Any], options: dict[str, Any]
    ) -> list[tuple[Node, Vjp]]:
        """The node and the VJP of each tracked argument."""
        if not has_gradients(output.dtype):
            raise GradientError(f"{self.name}: a result of dtype {output.dtype} has no gradient", operation=self.name)
        edges = []
        for position, node in tracked:
            rule = self.rule(position)
            if rule is None:
                raise GradientError(f"{self.name}: argument {position} has no gradient", operation=self.name)
            edges.append((node, rule(output, *arrays, **options)))
        return edges

    def _protect(self, recorder: Recorder, tensor: Tensor, args: tuple[Any, ...]) -> None:
        """Protect the operands and the result from writes, until the tape has computed its gradient."""
        lifetimes, reference = recorder.lifetimes, recorder.reference
        # Plain arrays may share the memory of any operand but the result of a recorded operation.
        exposed = [
            value
            for value in args
            if isinstance(value, np.ndarray)
            and not (isinstance(value, Tensor) and value._node is not None and value._node.tape is reference)
        ]
        lifetimes.add_operands(self.name, exposed)
        if computing.array_class is np.ndarray:  # traced arrays are read-only anyway
            for value in exposed:
                if isinstance(value, Tensor):
                    lifetimes.lock_with_bases(value)
            lifetimes.lock(tensor)

    def _recorded_vjp(
        self, tracked: list[tuple[int, Node]], tensor: Tensor, args: tuple[Any, ...], options: dict[str, Any], edge: int
    ) -> Vjp:
        return self.graph_rule(tracked[edge][0])(tensor, *args, **options)

    def _shape_error(self, arrays: Sequence[Any], error: ValueError) -> Exception:
        if isinstance(error, (EngineError, np.linalg.LinAlgError)):
            return error
        listed = " and ".join(str(np.shape(array)) for array in arrays)
        return ShapeError.of(self.name, f"shapes {listed} do not fit: {error}", *arrays)


class VariadicPrimitive(Primitive):
    """A primitive with any number of equivalent arguments.

    Its single rule also takes the position: ``rule(position, output, *arguments, **options) -> vjp``.
    """

    def rule(self, argument: int) -> Rule:
        """The rule for the argument at this position."""
        return self._rule_for(self.rules[0], argument)

    def graph_rule(self, argument: int) -> Rule:
        """Like :meth:`rule`, in the form that can be recorded."""
        return self._rule_for(self.graph[0] if self.graph else self.rules[0], argument)

    def _rule_for(self, shared: Rule | None, argument: int) -> Rule:
        assert shared is not None  # noqa: S101 - a promise of the constructor's caller, not input
        return lambda output, *arrays, **options: shared(argument, output, *arrays, **options)


def sum_to_shape(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum ``gradient`` over the axes along which an array of ``shape`` was broadcast."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    repeated = tuple(range(extra)) + tuple(
        axis + extra for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis + extra] != 1
    )
    summed: Array = gradient.sum(axis=repeated, keepdims=True)
    return summed.reshape(shape)


def unbroadcast(output: Array, argument: Array, vjp: Vjp) -> Vjp:
    """``vjp`` followed by :func:`sum_to_shape`, if the shape of ``argument`` differs from that of the output."""
    shape = argument.shape
    if output.shape == shape:
        return vjp
    return lambda gradient: sum_to_shape(vjp(gradient), shape)
