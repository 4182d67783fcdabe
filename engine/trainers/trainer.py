"""The base of both trainers: the loop over epochs and batches, updates, the position in a run, and its state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np
from numpy.typing import DTypeLike

from engine import memory
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.checkpoint import State
from engine.data import Examples, batch_count, batches, generator_for
from engine.errors import CheckpointError, DivergedError, EngineError, SettingError, check_positive
from engine.evaluation.diagnostics import GradientNorms
from engine.nn.containers import Sequential
from engine.nn.losses import Reduction, mean_gradient_scale
from engine.optim.accumulation import Accumulation
from engine.optim.averaging import AveragedWeights
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.replay import Replay
from engine.trainers.early_stopping import EarlyStopping, StoppedEarly
from engine.trainers.reports import BatchDone, EpochDone


@dataclass(slots=True)
class Epoch:
    """What a trainer uses and collects during one epoch.

    Attributes:
        norms: gradient norms of each network.
        dropout, inputs: generators of dropout masks, and of what the inputs need: augmentation, or noise.
        parameters: of each network.
        optimizers, rates: of the networks in the latest step, with their learning rates.
        arithmetic: the context in which steps run.
    """

    norms: list[GradientNorms]
    dropout: np.random.Generator
    inputs: np.random.Generator
    parameters: list[list[Tensor]]
    optimizers: list[Optimizer] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    arithmetic: Context = field(default_factory=memory.training_context)
    _sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, name: str, total: float, count: int) -> None:
        """Add the ``total`` of a metric over ``count`` images."""
        previous, images = self._sums.get(name, (0.0, 0))
        self._sums[name] = (previous + total, images + count)

    def means(self) -> dict[str, float]:
        """The means of the metrics per image, by name."""
        return {name: total / images for name, (total, images) in self._sums.items()}


@dataclass(slots=True)
class Trained:
    """A network with what updates it.

    Attributes:
        prefix: of its names in a state; those of the optimizer begin with ``optimizer.`` and this.
    """

    prefix: str
    network: Sequential
    optimizer: Optimizer
    schedule: Schedule


class RunSettings(TypedDict):
    """The settings that both trainers take, see :class:`Trainer`."""

    epochs: int
    batch_size: int
    shuffle: bool
    seed: int
    accumulate: NotRequired[int]
    average_decay: NotRequired[float | None]
    early_stopping: NotRequired[EarlyStopping | None]
    dtype: NotRequired[DTypeLike]
    replay: NotRequired[bool]
    verify_steps: NotRequired[int]


class Trainer(ABC):
    """Base of both trainers; read :meth:`run` first.

    Args:
        seed: with the epoch, the source of all random numbers.
        accumulate: number of batches per update. The last update of an epoch uses the remaining batches.
        average_decay: evaluate and generate with averaged weights (:mod:`engine.optim.averaging`); None: with the last
            weights.
        early_stopping: ends the run when a metric stops improving; None: never.
        dtype: of the inputs; must be the dtype of the networks.
        replay: trace a step once and replay it (:mod:`engine.replay`), with the same bits; False always uses the tape.
        verify_steps: compare the replay with the tape again before an epoch if at least so many steps were taken since.
            With 1, before every epoch, so that settings and layers may be changed between epochs.

    Raises:
        SettingError: a setting is out of range.
    """

    kind: ClassVar[str]
    """The name of the trainer in states."""
    input_draws: ClassVar[str]
    """The purpose of the generator ``Epoch.inputs``."""
    critic_steps = 1
    """Number of updates for each update of the first network."""
    trained: list[Trained]
    """The networks, which a subclass sets first. The weights of the first one are averaged."""

    def __init__(
        self,
        train: Examples,
        reduction: Reduction,
        *,
        epochs: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        accumulate: int = 1,
        average_decay: float | None = None,
        early_stopping: EarlyStopping | None = None,
        dtype: DTypeLike = np.float32,
        replay: bool = True,
        verify_steps: int = 1,
    ) -> None:
        self.train = train
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.dtype = np.dtype(dtype)
        self.replay = replay
        self._verify_steps = verify_steps
        self.epochs = epochs
        self.epoch = 0
        """Number of finished epochs."""
        self._steps_per_epoch = batch_count(len(train), batch_size)
        self._steps_of_run = epochs * self._steps_per_epoch
        self._underway = False  # whether an epoch was started and not finished, so that the weights belong to no epoch
        self._early_stopping = early_stopping
        self._accumulation = Accumulation(accumulate, reduction)
        self._average = AveragedWeights(self.trained[0].network, average_decay)
        check_positive(epochs=epochs, verify_steps=verify_steps)
        for each in self.trained:
            if each.network.dtype != self.dtype:  # every step would convert the inputs
                raise SettingError(
                    f"dtype {self.dtype} for a model whose weights are {each.network.dtype}", setting="dtype"
                )
        memory.keep_freed()

    @property
    def stopped_early(self) -> StoppedEarly | None:
        """Why the run ended before its last epoch; None if it did not."""
        if self._early_stopping is None or self.epoch >= self.epochs:
            return None
        return self._early_stopping.stopped

    def run(self) -> Iterator[BatchDone | EpochDone]:
        """Train from the first unfinished epoch to the last, or until early stopping. Leaving the loop cancels.

        Raises:
            DivergedError: a loss, or after an epoch a weight, is not finite.
            EngineError: an earlier loop was left in the middle of an epoch, and no state was loaded since.
        """
        self._require_whole_epoch("run")
        networks = [each.network for each in self.trained]
        parameters = [network.parameters for network in networks]
        largest = self._whole_batch(np.arange(min(self.batch_size, len(self.train))))
        inputs = memory.empty((len(largest), self.train.features), self.dtype)
        replay = Replay(
            [inputs, *chain(*parameters)],
            changing=chain(*(network.buffers for network in networks)),
            enabled=self.replay,
        )
        arrays = self.named_arrays()
        verified = self._first_step
        while not self._over:
            self._underway = True
            self._accumulation.clear()
            if self._first_step - verified >= self._verify_steps:
                replay.verify_again()
                verified = self._first_step
            epoch = Epoch(
                [GradientNorms(network, self._steps_per_epoch) for network in networks],
                generator_for(self.seed, "dropout", self.epoch),
                generator_for(self.seed, self.input_draws, self.epoch),
                parameters,
            )
            order = batches(len(self.train), self.batch_size, seed=self.seed, epoch=self.epoch, shuffle=self.shuffle)
            for step, indices in enumerate(order, self._first_step):
                batch = self._whole_batch(indices)
                buffer = inputs if len(batch) == len(inputs) else inputs[: len(batch)]
                position = step, self._steps_per_epoch, self._steps_of_run
                epoch.optimizers = [each.optimizer for each in self.trained]
                epoch.rates = [each.optimizer.learning_rate * each.schedule(*position) for each in self.trained]
                self._train_batch(replay, batch, buffer, step, epoch)
                yield BatchDone(self.epoch + 1, step + 1, self._steps_of_run)
            self._check_weights(arrays)
            yield self._evaluate_epoch(epoch)

    @property
    def _over(self) -> bool:
        """Whether the run has no further epochs."""
        return self.epoch >= self.epochs or self.stopped_early is not None

    @property
    def _first_step(self) -> int:
        """Number of steps of the finished epochs."""
        return self.epoch * self._steps_per_epoch

    def _whole_batch(self, indices: Array) -> Array:
        """A batch of indices, padded to the size that the networks need."""
        return indices

    @abstractmethod
    def _train_batch(self, replay: Replay, batch: Array, buffer: Array, step: int, epoch: Epoch) -> None:
        """Take one step with the examples at the indices ``batch``, whose inputs fit into ``buffer``."""

    @abstractmethod
    def _evaluate_epoch(self, epoch: Epoch) -> EpochDone:
        """Evaluate the networks after an epoch; returns the result of :meth:`_finish_epoch`."""

    def _update(self, gradients: Mapping[int, list[Array]], rows: int, step: int, epoch: Epoch) -> None:
        """Add up the gradients of a batch of ``rows`` images, by the numbers of their networks, and update these
        networks if the batch completes an update."""
        for number, arrays in gradients.items():
            if epoch.norms[number].is_due(step - self._first_step):
                epoch.norms[number].add(arrays, mean_gradient_scale(self._accumulation.reduction, rows))
            self._accumulation.add(number, arrays, rows)
        if self._accumulation.completes(step, self._steps_per_epoch):
            for number in gradients:
                summed = self._accumulation.take(number)
                epoch.optimizers[number].apply(epoch.parameters[number], summed, epoch.rates[number])
            if 0 in gradients:
                self._average.update(self._accumulation.update_of(step, self._steps_per_epoch) // self.critic_steps)

    def _finish_epoch(self, metrics: dict[str, float], confusion: Array | None = None, **facts: Any) -> EpochDone:
        """Count the epoch that was underway; returns its report."""
        self.epoch += 1
        self._underway = False
        if self._early_stopping:
            self._early_stopping.update(self.epoch, metrics)
        facts = {"is_best": False, "is_last": self._over} | facts
        return EpochDone(self.epoch, self.epochs, self._first_step, metrics, confusion, **facts)

    def _check_finite(self, loss: str, value: float, step: int) -> None:
        """Raise DivergedError unless ``value`` is a finite number."""
        if not math.isfinite(value):
            raise DivergedError(epoch=self.epoch + 1, step=step, loss=loss, value=value)

    def named_arrays(self) -> dict[str, Array]:
        """All parameters and running statistics of the networks, by their names in a state."""
        return {each.prefix + name: a for each in self.trained for name, a in each.network.named_arrays().items()}

    def _check_weights(self, before: Mapping[str, Array]) -> None:
        """Check the weights after the last update of an epoch, because no loss follows it.

        Raises:
            DivergedError: a weight is not finite.
            EngineError: a weight or buffer has other memory than ``before`` the run, which the optimizer, the averages
                and the replay still use.
        """
        for name, array in self.named_arrays().items():
            if name not in before or memory.address(array) != memory.address(before[name]):
                raise EngineError(
                    f"{name} was replaced by another array during the run; write into it (array[...] = x)"
                )
            for extreme in (np.min(array), np.max(array)):  # both propagate NaN, and allocate nothing
                self._check_finite(name, float(extreme), self._first_step + self._steps_per_epoch)

    def _require_whole_epoch(self, operation: str) -> None:
        if self._underway:
            raise EngineError(f"{operation}: epoch {self.epoch + 1} was not finished; load a state first")

    def state_dict(self) -> State:
        """Weights, optimizer states, epoch and best result: everything needed to continue with the same bits.

        Raises:
            EngineError: in the middle of an epoch.
        """
        self._require_whole_epoch("state_dict")
        weights = [self._average.state_dict(), *(each.network.state_dict() for each in self.trained[1:])]
        tensors: dict[str, Array] = {}
        for each, arrays in zip(self.trained, weights, strict=True):
            tensors |= {each.prefix + name: array for name, array in arrays.items()}
        for each in self.trained:
            tensors |= {f"optimizer.{each.prefix}{name}": a for name, a in each.optimizer.state_dict().items()}
        state: dict[str, Any] = {"trainer": self.kind, "epoch": self.epoch} | self._results()
        if self._early_stopping:
            state["early_stopping"] = self._early_stopping.state_dict()
        state["parts"] = [part for part in self._parts if any(name.startswith(part) for name in tensors)]
        return State(tensors, state)

    def load_state_dict(self, state: State) -> None:
        """Load the state of a trainer with the same settings.

        Raises:
            CheckpointError: the state does not fit. The trainer is then unchanged.
        """
        self._check_parts(state)
        stopping = [self._early_stopping] if self._early_stopping else []
        arrays = [*self.named_arrays().values(), *self._average.arrays]
        with _unchanged_on_error(arrays, self, *stopping, *(each.optimizer for each in self.trained)):
            self._load_position(state.state)
            vars(self).update(self._checked_results(state.state))
            self._average.load_state_dict(state.tensors, self.trained[0].prefix)
            for each in self.trained[1:]:
                each.network.load_state_dict(state.tensors, each.prefix)
            for each in self.trained:
                prefix, tensors = f"optimizer.{each.prefix}", state.tensors.items()
                own = {name.removeprefix(prefix): array for name, array in tensors if name.startswith(prefix)}
                each.optimizer.load_state_dict(own, each.network.parameters)

    def _results(self) -> dict[str, Any]:
        """Results of earlier epochs that belong to a state, by their attributes."""
        return {}

    def _checked_results(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The :meth:`_results` in a state of the current epoch.

        Raises:
            CheckpointError: they are invalid.
        """
        return {}

    def _load_position(self, state: Mapping[str, Any]) -> None:
        if state.get("trainer") != self.kind:
            raise CheckpointError(f"a state of trainer {state.get('trainer')!r}, but this is a {self.kind!r}")
        epoch = state.get("epoch")
        if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch <= self.epochs:
            raise CheckpointError(f"the state is after epoch {epoch!r}, but this run has {self.epochs}")
        if self._early_stopping:
            self._early_stopping.load_state_dict(state.get("early_stopping"), epoch)
        self.epoch = epoch
        self._underway = False

    @property
    def _parts(self) -> list[str]:
        """The parts of a state besides the weights, by the prefixes of their names."""
        optimizers = [f"optimizer.{each.prefix}" for each in self.trained]
        return optimizers if self._average.decay is None else [*optimizers, self._training_weights]

    @property
    def _training_weights(self) -> str:
        """The prefix of the first network's weights in a state that also has their averages."""
        return self.trained[0].prefix + "training.layers."

    def _check_parts(self, state: State) -> None:
        """Raise unless a state has exactly the parts that it lists.

        A state that does not list its parts (for example, that of a fork) may lack some.

        Raises:
            CheckpointError: a part is missing or unknown, or a tensor belongs to no part.
        """
        listed = state.state.get("parts", [])
        if not isinstance(listed, list):
            raise CheckpointError(f"the state's parts are {listed!r}, not a list")
        for part in listed:
            if part not in self._parts:
                raise CheckpointError(f"the state has a part {part!r}, which this trainer does not use")
            if not any(name.startswith(part) for name in state.tensors):
                raise CheckpointError(f"the state's part {part!r} is missing from the checkpoint")
        weights = [f"{each.prefix}layers." for each in self.trained]
        for name in state.tensors:
            if not name.startswith((*weights, *self._parts, self._training_weights)):
                raise CheckpointError(f"{name} is in the checkpoint, but this trainer does not use it", tensor=name)


@contextmanager
def _unchanged_on_error(arrays: Sequence[Array], *objects: object) -> Iterator[None]:
    """If an error leaves the block, restore the content of the arrays and the attributes of the objects."""
    saved_arrays = [array.copy() for array in arrays]
    saved_attributes = [dict(vars(item)) for item in objects]
    try:
        yield
    except BaseException:
        for array, saved in zip(arrays, saved_arrays, strict=True):
            np.copyto(np.asarray(array), saved)
        for item, values in zip(objects, saved_attributes, strict=True):
            vars(item).clear()
            vars(item).update(values)
        raise
