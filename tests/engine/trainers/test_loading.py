"""States that do not fit are rejected, and leave the trainer unchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine import (
    SGD,
    Adam,
    CheckpointError,
    ClassifierTrainer,
    Dense,
    EarlyStopping,
    EpochDone,
    GanTrainer,
    ImageData,
    Latent,
    Sequential,
    SoftmaxCrossEntropy,
    checkpoint,
    generator_for,
    schedules,
)
from engine.checkpoint import State

Trainer = ClassifierTrainer | GanTrainer


def images() -> ImageData:
    rng = np.random.default_rng(0)
    return ImageData(rng.integers(0, 256, (20, 4, 4), np.uint8), rng.integers(0, 3, 20), classes=3)


def classifier(average_decay: float | None = 0.9, make: Callable[[], Any] = lambda: Adam(0.01)) -> ClassifierTrainer:
    rng = generator_for(0, "init")
    return ClassifierTrainer(
        Sequential([Dense(16, 5, "tanh", rng=rng), Dense(5, 3, "softmax", rng=rng)]),
        SoftmaxCrossEntropy(),
        make(),
        schedules.constant(),
        train=images(),
        validation=images(),
        epochs=4,
        batch_size=8,
        shuffle=True,
        seed=0,
        average_decay=average_decay,
        early_stopping=EarlyStopping("val_loss", higher_is_better=False, patience=9),
    )


def gan(average_decay: float | None = 0.9, make: Callable[[], Any] = lambda: Adam(0.01)) -> GanTrainer:
    rng = generator_for(0, "init")
    return GanTrainer(
        Sequential([Dense(3, 16, "tanh", rng=rng)]),
        Sequential([Dense(16, 4, "relu", rng=rng), Dense(4, 1, "sigmoid", rng=rng)]),
        make(),
        make(),
        schedules.constant(),
        schedules.constant(),
        train=images(),
        latent=Latent(3),
        epochs=4,
        batch_size=8,
        shuffle=True,
        seed=0,
        average_decay=average_decay,
    )


TRAINERS = {"classifier": (classifier, "", "optimizer."), "gan": (gan, "generator.", "optimizer.generator.")}


def state_after(trainer: Trainer, epochs: int) -> State:
    reports = trainer.run()
    for _ in range(epochs):
        next(report for report in reports if isinstance(report, EpochDone))
    return checkpoint.loads(checkpoint.dumps(trainer.state_dict()))


def without(state: State, prefix: str) -> State:
    return State({n: a for n, a in state.tensors.items() if not n.startswith(prefix)}, state.state)


def with_tensor(state: State, name: str, change: Callable[[np.ndarray], Any]) -> State:
    tensors = dict(state.tensors)
    tensors[name] = change(tensors[name].copy())
    return State(tensors, state.state)


def set_last(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def fill(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[-1] = value
        return array

    return fill


def faults(weights: str, optimizer: str) -> dict[str, tuple[Callable[[State], State], str]]:
    """Ways in which a state can be wrong, and the error message of each."""
    return {
        "moments that are not numbers": (
            lambda s: with_tensor(s, f"{optimizer}first_sum.0", set_last(np.nan)),
            "first_sum.0 has values in the checkpoint that are not finite",
        ),
        "moments that are infinite": (
            lambda s: with_tensor(s, f"{optimizer}second_sum.1", set_last(np.inf)),
            "second_sum.1 has values in the checkpoint that are not finite",
        ),
        "squares that are negative": (
            lambda s: with_tensor(s, f"{optimizer}second_sum.0", set_last(-1e-9)),
            "second_sum.0 is a sum of squares, but negative",
        ),
        "no moments": (lambda s: without(s, optimizer), f"'{optimizer}' is missing"),
        "no second moments": (lambda s: without(s, f"{optimizer}second_sum"), "are inconsistent"),
        "no step count": (lambda s: without(s, f"{optimizer}steps"), "are inconsistent"),
        "one moment less": (lambda s: without(s, f"{optimizer}second_sum.1"), "second_sum.1 is missing"),
        "no averages": (lambda s: without(s, f"{weights}training."), "'.*training.layers.' is missing"),
        "part of the averages": (lambda s: without(s, f"{weights}training.layers.0.bias"), "training.layers.0.bias is"),
        "a tensor of nothing": (
            lambda s: State(s.tensors | {"momentum": np.ones(1)}, s.state),
            "momentum is in the checkpoint, but this trainer does not use it",
        ),
        "a moment of nothing": (
            lambda s: State(s.tensors | {f"{optimizer}third": np.ones(1)}, s.state),
            "another kind of optimizer",
        ),
        "a layer of nothing": (
            lambda s: State(s.tensors | {f"{weights}layers.9.weight": np.ones(1)}, s.state),
            "layers.9.weight is in the checkpoint but not in this model",
        ),
        "a part of nothing": (
            lambda s: State(s.tensors, s.state | {"parts": ["sun."]}),
            "a part 'sun.', which this trainer does not use",
        ),
        "parts that are no list": (lambda s: State(s.tensors, s.state | {"parts": 3}), "are 3, not a list"),
        "weights that are not finite": (
            lambda s: with_tensor(s, f"{weights}training.layers.0.bias", set_last(np.inf)),
            "not finite",
        ),
        "an epoch that is none": (lambda s: State(s.tensors, s.state | {"epoch": 9}), "epoch 9"),
    }


@pytest.mark.parametrize("kind", TRAINERS)
@pytest.mark.parametrize("fault", faults("", ""))
def test_a_state_that_does_not_fit_leaves_the_trainer_unchanged(kind: str, fault: str) -> None:
    make, weights, optimizer = TRAINERS[kind]
    state = state_after(make(), 2)
    change, message = faults(weights, optimizer)[fault]
    trainer = make()
    original = checkpoint.dumps(state_after(trainer, 1))
    with pytest.raises(CheckpointError, match=message):
        trainer.load_state_dict(change(copy.deepcopy(state)))
    assert checkpoint.dumps(trainer.state_dict()) == original
    assert trainer.epoch == 1
    trainer.load_state_dict(state)
    assert checkpoint.dumps(trainer.state_dict()) == checkpoint.dumps(state)


def test_a_discriminator_state_that_does_not_fit_leaves_the_trainer_unchanged() -> None:
    state, trainer = state_after(gan(), 2), gan()
    original = checkpoint.dumps(state_after(trainer, 1))
    for name in ("discriminator.layers.1.bias", "optimizer.discriminator.first_sum.0"):
        with pytest.raises(CheckpointError, match=r"is missing|missing from"):
            trainer.load_state_dict(without(state, name))
        assert checkpoint.dumps(trainer.state_dict()) == original


def test_a_failed_load_leaves_an_unfinished_epoch_unfinished() -> None:
    state, trainer = state_after(classifier(), 1), classifier()
    next(iter(trainer.run()))
    with pytest.raises(CheckpointError):
        trainer.load_state_dict(without(state, "optimizer."))
    with pytest.raises(Exception, match="was not finished"):
        trainer.state_dict()


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_trainer_without_averaging_rejects_a_state_with_averages(kind: str) -> None:
    make, *_ = TRAINERS[kind]
    averaged, plain = state_after(make(), 1), make(average_decay=None)
    with pytest.raises(CheckpointError, match=r"training\.layers\.', which this trainer does not use"):
        plain.load_state_dict(averaged)
    make().load_state_dict(state_after(make(average_decay=None), 1))  # averaging can start later


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_fork_that_lists_no_parts_starts_with_a_new_optimizer_state(kind: str) -> None:
    make, _, optimizer = TRAINERS[kind]
    state = state_after(make(), 1)
    fork = State(
        {name: array for name, array in state.tensors.items() if not name.startswith("optimizer.")},
        {"trainer": state.state["trainer"], "epoch": 1},
    )
    for trainer in (make(make=lambda: SGD(0.1, 0.9)), make(average_decay=None)):
        trainer.load_state_dict(fork)
        assert trainer.epoch == 1
        assert not any(name.startswith(optimizer) for name in trainer.state_dict().tensors)
