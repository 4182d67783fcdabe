"""The initial state of a fork: the weights of its parent's checkpoint, and the optimizer state if the optimizer is the
same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.checkpoint import State
from service.spec.schema import Optimizer, Sgd, Spec


def adapt(state: State, spec: Spec) -> tuple[State, list[str]]:
    """The initial state of a fork.

    The best epoch so far is not copied, because it is meaningless under another spec.

    Args:
        state: the parent's checkpoint, which contains its spec.
        spec: the fork's.

    Returns:
        The state, and the networks whose optimizer state is reset, by name.
    """
    reset = [
        network.name
        for network in spec.trained_networks
        if _kind(network.optimizer) != _parent_kind(state.spec, network.name)
    ]
    dropped_prefixes = tuple(f"optimizer.{name}." if name else "optimizer." for name in reset)
    tensors = {name: array for name, array in state.tensors.items() if not name.startswith(dropped_prefixes)}
    progress: dict[str, Any] = {name: state.state[name] for name in ("trainer", "epoch") if name in state.state}
    return State(tensors, progress, state.spec), reset


def _kind(optimizer: Optimizer) -> tuple[str, bool]:
    """Optimizers of equal kind can share their state; learning rates may differ."""
    return optimizer.name, isinstance(optimizer, Sgd) and optimizer.momentum > 0


def _parent_kind(spec: Mapping[str, Any], name: str) -> tuple[str, bool]:
    optimizer = (spec.get(name) or {}).get("optimizer") if name else None
    optimizer = optimizer or spec.get("optimizer") or {}
    return str(optimizer.get("name")), bool(optimizer.get("momentum"))
