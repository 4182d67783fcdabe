"""Replay and the plain tape train to the same bits: each loss, optimizer, schedule and activation."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine import (
    SGD,
    Activation,
    Adam,
    AdamW,
    BinaryCrossEntropy,
    ClassifierTrainer,
    Dense,
    Dropout,
    EngineError,
    EpochDone,
    GanTrainer,
    GradientError,
    ImageData,
    Latent,
    Sequential,
    SoftmaxCrossEntropy,
    SquaredError,
    Tensor,
    checkpoint,
    generator_for,
    schedules,
)
from engine.nn.layer import Layer
from engine.replay import Replay

OPTIMIZERS = {
    "sgd": lambda: SGD(0.02),
    "momentum": lambda: SGD(0.02, 0.9),
    "nesterov": lambda: SGD(0.02, 0.9, nesterov=True, weight_decay=0.01, clip_norm=0.5),
    "adam": lambda: Adam(0.01, 0.5),
    "adamw": lambda: AdamW(0.01, 0.5, clip_norm=0.5),
}
SCHEDULES = {
    "constant": schedules.constant(),
    "step": schedules.step([1], 0.5),
    "one_cycle": schedules.one_cycle(),
    "cosine": schedules.cosine(warmup=0.1),
}
LOSSES = {
    "squared_error": (SquaredError, None),
    "binary_cross_entropy": (BinaryCrossEntropy, "sigmoid"),
    "softmax_cross_entropy": (SoftmaxCrossEntropy, "softmax"),
    "smoothed": (lambda reduction: SoftmaxCrossEntropy(reduction, 0.1), "softmax"),
}

NEVER_AGAIN = 10**9
"""``verify_steps`` of the runs here: a later comparison with the tape would hide a plan that is wrong since."""


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """Every Replay that the test creates."""
    created: list[Replay] = []
    original = Replay.__init__

    def spy(self: Replay, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        created.append(self)

    monkeypatch.setattr(Replay, "__init__", spy)
    return created


def images(count: int = 50) -> ImageData:
    rng = np.random.default_rng(0)
    return ImageData(rng.integers(0, 256, (count, 5, 5), np.uint8), rng.integers(0, 4, count), (-1, 1), classes=4)


def classifier(
    replay: bool, loss: Any, output_activation: str | None, optimizer: Any, hidden: Any, schedule: Any, **changes: Any
):
    rng, dtype = generator_for(0, "init"), changes.get("dtype", np.float32)
    layers = [
        Dense(25, 7, hidden, rng=rng, dtype=dtype),
        Dropout(0.2),
        Dense(7, 4, output_activation, rng=rng, dtype=dtype),
    ]
    arguments = {"train": images(), "validation": images(), "epochs": 3, "batch_size": 16, "shuffle": True, "seed": 1}
    arguments |= {"verify_steps": NEVER_AGAIN}
    return ClassifierTrainer(Sequential(layers), loss, optimizer(), schedule, **(arguments | changes), replay=replay)


def gan(replay: bool, optimizer: Any, hidden: Any, schedule: Any, reduction: Any, **changes: Any) -> GanTrainer:
    rng, dtype = generator_for(0, "init"), changes.get("dtype", np.float32)
    generator = [Dense(6, 9, hidden, rng=rng, dtype=dtype), Dropout(0.1), Dense(9, 25, "tanh", rng=rng, dtype=dtype)]
    discriminator = [
        Dense(25, 8, hidden, rng=rng, dtype=dtype),
        Dropout(0.3),
        Dense(8, 1, "sigmoid", rng=rng, dtype=dtype),
    ]
    arguments = {"train": images(), "latent": Latent(6), "epochs": 3, "batch_size": 16, "shuffle": True, "seed": 1}
    arguments |= {
        "verify_steps": NEVER_AGAIN,
        "skip_every": 3,
        "label_smoothing": 0.1,
        "reduction": reduction,
    } | changes
    return GanTrainer(
        Sequential(generator),
        Sequential(discriminator),
        optimizer(),
        optimizer(),
        schedule,
        schedule,
        **arguments,
        replay=replay,
    )


def whole_run(trainer: ClassifierTrainer | GanTrainer) -> tuple[bytes, list[dict[str, float]]]:
    metrics = [report.metrics for report in trainer.run() if isinstance(report, EpochDone)]
    return checkpoint.dumps(trainer.state_dict()), metrics


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_classifier_trains_to_the_same_bits(
    replays: list[Replay], loss: str, reduction: str, optimizer: Any, schedule: Any
) -> None:
    make, output_activation = LOSSES[loss]
    runs = [
        whole_run(classifier(on, make(reduction), output_activation, optimizer, "tanh", schedule))
        for on in (True, False)
    ]
    assert runs[0] == runs[1]
    assert [len(replay.plans) for replay in replays] == [2, 0]  # whole batches, and the short one


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("hidden", [None, *Activation])
def test_each_activation_trains_to_the_same_bits(replays: list[Replay], hidden: Any, dtype: Any) -> None:
    pairs = [
        [
            classifier(on, SquaredError(), hidden, SGD_MOMENTUM, hidden, schedules.constant(), dtype=dtype)
            for on in REPLAY_MODES
        ],
        [gan(on, SGD_MOMENTUM, hidden, schedules.constant(), "mean", dtype=dtype) for on in REPLAY_MODES],
    ]
    for pair in pairs:
        replayed, plain = map(whole_run, pair)
        assert replayed == plain
    assert all(len(replay.plans) >= 2 for replay in replays[::2])


REPLAY_MODES, SGD_MOMENTUM = (True, False), OPTIMIZERS["momentum"]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("skip_every", [None, 3])
def test_a_gan_trains_to_the_same_bits(
    replays: list[Replay], skip_every: int | None, reduction: str, optimizer: Any, schedule: Any
) -> None:
    runs = [
        whole_run(gan(on, optimizer, "leaky_relu", schedule, reduction, skip_every=skip_every)) for on in (True, False)
    ]
    assert runs[0] == runs[1]
    assert len(replays[0].plans) >= 2


def test_all_plans_share_the_memory_of_the_largest(replays: list[Replay]) -> None:
    trainer = gan(True, OPTIMIZERS["sgd"], "tanh", schedules.constant(), "sum", epochs=8)
    sizes = {replays[0].size_bytes for _ in trainer.run()}
    assert len(replays[0].plans) == 4  # with and without the discriminator's update, whole batch and short
    assert max(sizes) == max(plan.size_bytes for plan in replays[0].plans)


class UserLayer(Layer):
    """A layer of a user, made of one function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def __call__(self, x: Any, *, training: bool = False, rng: Any = None) -> Any:
        return self.function(x)


@pytest.mark.parametrize("condition", [lambda y: np.mean(y).item() > 0.05, lambda y: (y > 0.9).any()])
def test_a_layer_that_decides_by_the_values_of_its_input_trains_to_the_same_bits(condition: Any) -> None:
    def trainer(replay: bool) -> ClassifierTrainer:
        trainer = classifier(replay, SquaredError(), None, SGD_MOMENTUM, "tanh", schedules.constant(), epochs=5)
        trainer.model.layers[1] = UserLayer(lambda y: y * 0.5 if condition(y) else y)
        return trainer

    assert whole_run(trainer(True)) == whole_run(trainer(False))


def changed_run(trainer: Any, change: Callable[[Any], None]) -> bytes:
    """A run in which something is changed after the second epoch."""
    for report in trainer.run():
        if isinstance(report, EpochDone) and report.epoch == 2:
            change(trainer)
    return checkpoint.dumps(trainer.state_dict())


@pytest.mark.parametrize(("verify_steps", "verifications"), [(1, [1, 2, 2, 2, 2]), (8, [1, 1, 2, 0, 2]), (99, [1, 1])])
def test_replays_are_compared_with_the_tape_again_after_enough_steps(
    monkeypatch: pytest.MonkeyPatch, verify_steps: int, verifications: list[int]
) -> None:
    """An epoch has three whole batches, and a short one, which has a plan of its own."""
    compared, counts = Replay._check, list[int]()

    def count(self: Replay, *arguments: Any) -> Any:
        counts[-1] += 1
        return compared(self, *arguments)

    monkeypatch.setattr(Replay, "_check", count)
    trainer = classifier(
        True, SquaredError(), None, SGD_MOMENTUM, "tanh", schedules.constant(), epochs=5, verify_steps=verify_steps
    )
    for report in trainer.run():
        if isinstance(report, EpochDone) or not counts:
            counts.append(0)
    assert counts[:5] == verifications + [0] * (5 - len(verifications))


def smooth_less(trainer: Any) -> None:
    trainer._steps.losses = replace(trainer._steps.losses, label_smoothing=0.3)


def smooth_more(trainer: Any) -> None:
    trainer.loss.label_smoothing = 0.5


@pytest.mark.parametrize("make", ["classifier", "gan"])
def test_a_setting_that_changes_between_epochs_has_an_effect_on_a_replay_too(make: str) -> None:
    def trainer(replay: bool) -> Any:
        if make == "gan":
            return gan(replay, SGD_MOMENTUM, "tanh", schedules.constant(), "mean", verify_steps=1)
        loss = SoftmaxCrossEntropy("mean", 0.1)
        return classifier(replay, loss, "softmax", SGD_MOMENTUM, "tanh", schedules.constant(), verify_steps=1)

    change = smooth_less if make == "gan" else smooth_more
    with pytest.warns(RuntimeWarning, match="replay and the tape differ"):
        replayed = changed_run(trainer(True), change)
    assert replayed == changed_run(trainer(False), change)
    assert replayed != whole_run(trainer(False))[0]


class Centered(UserLayer):
    """Subtracts a running mean, which it updates without notice by the tape."""

    def __init__(self, units: int, *, in_place: bool) -> None:
        self.mean = np.zeros(units, np.float32)
        self.in_place = in_place

    @property
    def buffers(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def __call__(self, x: Any, *, training: bool = False, rng: Any = None) -> Any:
        if training and self.in_place:
            self.mean[...] = self.mean * 0.9 + np.mean(np.asarray(x), axis=0) * 0.1
        elif training:
            self.mean = self.mean * 0.9 + np.mean(np.asarray(x), axis=0) * 0.1
        return x - self.mean.copy()


@pytest.mark.filterwarnings("ignore:.*replay and the tape differ")
@pytest.mark.parametrize("replay", REPLAY_MODES)
def test_an_array_that_is_replaced_during_a_run_is_an_error(replay: bool) -> None:
    def trainer() -> ClassifierTrainer:
        return classifier(replay, SquaredError(), None, SGD_MOMENTUM, "tanh", schedules.constant())

    def replace_weight(trainer: Any) -> None:
        layer = trainer.model.layers[0]
        layer.weight = Tensor(layer.weight.copy(), watch=True)

    with pytest.raises(EngineError, match=r"layers\.0\.weight was replaced .*write into it"):
        changed_run(trainer(), replace_weight)
    rebinding = trainer()
    rebinding.model.layers[1] = Centered(7, in_place=False)
    with pytest.raises(EngineError, match=r"layers\.1\.mean was replaced"):
        whole_run(rebinding)


def test_threads_can_train_at_the_same_time() -> None:
    expected = whole_run(classifier(False, SquaredError(), None, SGD_MOMENTUM, "tanh", schedules.constant()))
    results: list[Any] = []

    def train() -> None:
        results.append(whole_run(classifier(True, SquaredError(), None, SGD_MOMENTUM, "tanh", schedules.constant())))

    threads = [threading.Thread(target=train) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 3


class Scaled(Centered):
    """Multiplies by a buffer, which each pass changes."""

    def __call__(self, x: Any, *, training: bool = False, rng: Any = None) -> Any:
        y = x * self.mean
        self.mean[...] += 0.25
        return y


@pytest.mark.parametrize("replay", REPLAY_MODES)
def test_a_buffer_that_changes_between_two_passes_of_a_step_is_an_error(replay: bool) -> None:
    trainer = gan(replay, SGD_MOMENTUM, "tanh", schedules.constant(), "mean")
    trainer.discriminator.layers[1] = Scaled(8, in_place=True)
    with pytest.raises(GradientError, match=r"an array of shape \(8,\) was overwritten after multiply had used it"):
        whole_run(trainer)
