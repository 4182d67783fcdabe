"""Convolutional networks with batch normalization in both trainers: same bits replayed and after resuming."""

from typing import Any

import numpy as np
import pytest

from engine import (
    SGD,
    Adam,
    BatchNorm,
    ClassifierTrainer,
    Conv2D,
    Dense,
    Dropout,
    EpochDone,
    Flatten,
    GanTrainer,
    ImageData,
    Latent,
    MaxPool2D,
    Reshape,
    Sequential,
    SoftmaxCrossEntropy,
    Upsample2D,
    checkpoint,
    generator_for,
    schedules,
)
from engine.replay import Replay


def images(count: int = 22) -> ImageData:
    rng = np.random.default_rng(0)
    return ImageData(rng.integers(0, 256, (count, 8, 8), np.uint8), rng.integers(0, 3, count), (-1, 1), classes=3)


def classifier(**changes: Any) -> ClassifierTrainer:
    rng, dtype = generator_for(0, "init"), changes.get("dtype", np.float32)
    layers = [
        Conv2D(1, 4, rng=rng, dtype=dtype),
        BatchNorm(4, "relu", dtype=dtype),
        MaxPool2D(),
        Dropout(0.2),
        Conv2D(4, 5, 3, 2, activation="leaky_relu", rng=rng, dtype=dtype),
        Flatten(),
        Dense(20, 6, rng=rng, dtype=dtype),
        BatchNorm(6, "tanh", dtype=dtype),
        Dense(6, 3, "softmax", rng=rng, dtype=dtype),
    ]
    arguments = {"train": images(), "validation": images(), "epochs": 3, "batch_size": 8, "shuffle": True, "seed": 1}
    return ClassifierTrainer(
        Sequential(layers, (8, 8, 1)),
        SoftmaxCrossEntropy(),
        SGD(0.05, 0.9),
        schedules.one_cycle(),
        **(arguments | changes),
    )


def gan(**changes: Any) -> GanTrainer:
    rng, dtype = generator_for(0, "init"), changes.get("dtype", np.float32)
    generator = [
        Dense(5, 12, rng=rng, dtype=dtype),
        BatchNorm(12, "relu", dtype=dtype),
        Reshape((2, 2, 3)),
        Upsample2D(2),
        Conv2D(3, 4, rng=rng, dtype=dtype),
        BatchNorm(4, "leaky_relu", dtype=dtype),
        Upsample2D(2),
        Conv2D(4, 1, activation="tanh", rng=rng, dtype=dtype),
    ]
    discriminator = [
        Conv2D(1, 4, 3, 2, activation="leaky_relu", rng=rng, dtype=dtype),
        Conv2D(4, 6, 3, 2, rng=rng, dtype=dtype),
        BatchNorm(6, "leaky_relu", dtype=dtype),
        Flatten(),
        Dropout(0.1),
        Dense(24, 1, "sigmoid", rng=rng, dtype=dtype),
    ]
    arguments = {"train": images(), "latent": Latent(5), "epochs": 3, "batch_size": 8, "shuffle": True, "seed": 1}
    arguments |= {"skip_every": 3, "label_smoothing": 0.1} | changes
    return GanTrainer(
        Sequential(generator),
        Sequential(discriminator, (8, 8, 1)),
        Adam(0.01, 0.5),
        Adam(0.01, 0.5),
        schedules.constant(),
        schedules.constant(),
        **arguments,
    )


def whole_run(trainer: Any) -> tuple[bytes, list[dict[str, float]]]:
    metrics = [report.metrics for report in trainer.run() if isinstance(report, EpochDone)]
    return checkpoint.dumps(trainer.state_dict()), metrics


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    created: list[Replay] = []
    original = Replay.__init__

    def spy(self: Replay, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        created.append(self)

    monkeypatch.setattr(Replay, "__init__", spy)
    return created


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [classifier, gan])
def test_replay_and_tape_produce_the_same_bits(make: Any, dtype: Any, replays: list[Replay]) -> None:
    assert whole_run(make(dtype=dtype)) == whole_run(make(dtype=dtype, replay=False))
    # Whole batches and the short last one; a GAN also has whole batches that skip its discriminator.
    assert [len(replay.plans) for replay in replays] == [2 if make is classifier else 3, 0]


@pytest.mark.parametrize("make", [classifier, gan])
def test_a_run_resumed_after_any_epoch_produces_the_same_bits(make: Any) -> None:
    whole = make()
    states = [checkpoint.dumps(whole.state_dict()) for report in whole.run() if isinstance(report, EpochDone)]
    for state in states[:-1]:
        resumed = make()
        resumed.load_state_dict(checkpoint.loads(state))
        assert whole_run(resumed)[0] == states[-1]


def test_a_checkpoint_contains_the_running_statistics() -> None:
    trainer = classifier()
    before = trainer.model.state_dict()
    whole_run(trainer)
    tensors = checkpoint.loads(checkpoint.dumps(trainer.state_dict())).tensors
    for name in ("layers.1.running_mean", "layers.1.running_variance", "layers.7.running_mean"):
        assert not np.array_equal(tensors[name], before[name])
    assert "optimizer.velocity.12" not in tensors  # statistics have no velocities


def test_a_step_that_cannot_be_traced_updates_running_statistics_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole_run(classifier(replay=False))
    original = SoftmaxCrossEntropy.__call__

    def leaking(self: Any, outputs: Any, targets: Any) -> Any:
        int(targets[0])  # a conversion to a Python number, which cannot be traced
        return original(self, outputs, targets)

    monkeypatch.setattr(SoftmaxCrossEntropy, "__call__", leaking)
    assert whole_run(classifier()) == expected
