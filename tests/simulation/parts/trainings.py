"""What a training process computes, without NumPy: a chain of digests. Each epoch depends on the seed and on all epochs
before it, so a training that continues from a wrong checkpoint, or skips an epoch, has another result."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

from engine import BatchDone, EpochDone
from service.jobs import commits
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position, Usage, reaches_hold
from service.spec.validation import read_resolved
from tests.simulation.kernel.runtime import Time
from workers.training.epochs.snapshot import EpochSnapshot

STEPS_PER_EPOCH: Final = 2
_BATCHES_S: Final = (0.05, 0.3, 1.5, 4.0)
"""How long a batch takes, by the seed: short epochs share a commit, long ones have renewals in between."""
_CPU_SHARE: Final = 0.5
METRIC: Final = "val_accuracy"


@functools.cache
def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


Key = tuple[int, float]
"""What the result of a training depends on, besides the number of epochs: the seed and the learning rate."""


def key_of(resolved: Mapping[str, Any]) -> Key:
    """That of a resolved spec."""
    return resolved["seed"], resolved["optimizer"]["learning_rate"]


def state_after(key: Key, epoch: int) -> str:
    """The weights after an epoch."""
    state = _digest("initial", *key)
    for number in range(1, epoch + 1):
        state = _digest(state, number)
    return state


def metrics_of(state: str) -> dict[str, float]:
    """The metrics of an epoch with these weights."""
    return {METRIC: int(state[:6], 16) / 2**24, "train_loss": int(state[6:12], 16) / 2**24}


@functools.cache
def expected_result(key: Key, epochs: int) -> tuple[list[dict[str, float]], str]:
    """The metrics of all epochs and the result digest of an undisturbed training."""
    metrics = [metrics_of(state_after(key, epoch)) for epoch in range(1, epochs + 1)]
    rows = [(epoch, commits.storable(values), None) for epoch, values in enumerate(metrics, 1)]
    return metrics, commits.result_digest(rows, state_after(key, epochs))


class Trainer:
    """A trainer as ``workers.training.run`` uses it."""

    stopped_early = None

    def __init__(self, key: Key, epochs: int) -> None:
        self._batch_s, self._epochs = _BATCHES_S[key[0] % len(_BATCHES_S)], epochs
        self.epoch = 0
        self.state = state_after(key, 0)

    def run(self) -> Iterator[BatchDone | EpochDone]:
        """Train the epochs that are left."""
        steps = STEPS_PER_EPOCH * self._epochs
        while self.epoch < self._epochs:
            for batch in range(1, STEPS_PER_EPOCH + 1):
                Time.sleep(self._batch_s)
                yield BatchDone(self.epoch + 1, STEPS_PER_EPOCH * self.epoch + batch, steps)
            self.epoch += 1
            self.state = _digest(self.state, self.epoch)
            metrics, is_last = metrics_of(self.state), self.epoch == self._epochs
            is_best = self.epoch % 2 == 1
            yield EpochDone(self.epoch, self._epochs, STEPS_PER_EPOCH * self.epoch, metrics, None, is_best, is_last)

    def state_dict(self) -> str:
        """The weights."""
        return self.state

    def load_state_dict(self, document: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.epoch, self.state = document["epoch"], document["state"]


class Meter:
    """CPU time of a job: half of the time, for the supervisor and its child alike."""

    def __init__(self, claim: Claim, pid: int = 0) -> None:
        self._earlier_s, self._began_at = claim.cpu_seconds, Time.monotonic()

    def cpu_seconds(self) -> float:
        """Of all leases."""
        return self._earlier_s + _CPU_SHARE * (Time.monotonic() - self._began_at)

    def total(self) -> Usage:
        """So far."""
        return Usage(cpu_seconds=self.cpu_seconds(), peak_memory_bytes=1000)

    sample = total

    def begin_epoch(self) -> None:
        """Nothing is measured for an epoch."""


def take_snapshot(
    run: Any, trainer: Trainer, done: EpochDone, _: object, *, steps: int, hold_epoch: int | None, **__: object
) -> EpochSnapshot:
    """A snapshot whose checkpoint is a line of JSON."""
    is_paused = not done.is_last and reaches_hold(done.epoch, hold_epoch)
    record = EpochRecord(
        epoch=done.epoch,
        position=Position(step=done.step, steps=steps),
        metrics=done.metrics,
        confusion=None,
        samples_digest=None,
        seconds=1.0,
        is_best=done.is_best,
        files=(),
        goes_on=not done.is_last,
    )
    is_due = done.is_last or done.is_best or is_paused or done.epoch % run.spec.checkpoint.every_epochs == 0
    state = json.dumps({"epoch": trainer.epoch, "state": trainer.state}).encode()
    return EpochSnapshot(
        record=record, checkpoint=state if is_due else None, draw_samples=None, is_paused_by_sweep=is_paused
    )


class _Diagnostics:
    """Finds nothing."""

    reason_to_stop = None
    findings: Sequence[Any] = ()

    def evaluate(self, _: object, done: EpochDone) -> EpochDone:
        return done

    def replay(self, _: object) -> None:
        pass


def substitutes() -> Mapping[str, Any]:
    """What ``workers.training.run`` finds under these names in a life."""
    data = SimpleNamespace(info=SimpleNamespace(class_names=(), kind=None))
    return {
        "load_data": lambda run, settings, job: run.endpoint.check_stop() or data,
        "shape_of": lambda info: None,
        "networks": lambda spec, shape: None,
        "costs": SimpleNamespace(peak_bytes=lambda *_: 0, checkpoint_bytes=lambda *_: 0),
        "limits": SimpleNamespace(limit_memory=lambda _: None),
        "build": SimpleNamespace(
            trainer=lambda spec, *_: Trainer((spec.seed, spec.optimizer.learning_rate), spec.epochs)
        ),
        "provenance": lambda *_, **__: {"data": "simulated"},
        "checkpoint": SimpleNamespace(loads=json.loads),
        "TrainingDiagnostics": SimpleNamespace(of=lambda *_, **__: _Diagnostics()),
        "take_snapshot": take_snapshot,
        "weights_digest": lambda state: state,
        "test_scores": lambda *_, **__: None,
        "read_resolved": _read_resolved,
    }


def _read_resolved(document: Mapping[str, Any]) -> Any:
    """Read once for each spec: that takes longer than a whole epoch of a life."""
    return _read_once(json.dumps(document, sort_keys=True))


@functools.cache
def _read_once(text: str) -> Any:
    return read_resolved(json.loads(text))
