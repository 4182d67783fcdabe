"""Replay gives the bits of the plain tape, in memory that does not grow."""

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
    EpochDone,
    GanTrainer,
    GradientTape,
    ImageData,
    Latent,
    Sequential,
    SoftmaxCrossEntropy,
    SquaredError,
    Tensor,
    checkpoint,
    generator_for,
    ops,
    schedules,
)
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


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """All that have been made."""
    made: list[Replay] = []
    original = Replay.__init__

    def spy(self: Replay, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(Replay, "__init__", spy)
    return made


def images(count: int = 50) -> ImageData:
    rng = np.random.default_rng(0)
    return ImageData(rng.integers(0, 256, (count, 5, 5), np.uint8), rng.integers(0, 4, count), (-1, 1), classes=4)


def classifier(replay: bool, loss: Any, end: str | None, optimizer: Any, hidden: Any, schedule: Any, **changes: Any):
    rng, dtype = generator_for(0, "init"), changes.get("dtype", np.float32)
    layers = [Dense(25, 7, hidden, rng=rng, dtype=dtype), Dropout(0.2), Dense(7, 4, end, rng=rng, dtype=dtype)]
    arguments = {"train": images(), "validation": images(), "epochs": 3, "batch_size": 16, "shuffle": True, "seed": 1}
    return ClassifierTrainer(Sequential(layers), loss, optimizer(), schedule, **(arguments | changes), replay=replay)


def gan(replay: bool, optimizer: Any, hidden: Any, schedule: Any, reduction: Any, **changes: Any) -> GanTrainer:
    rng, dtype = generator_for(0, "init"), changes.get("dtype", np.float32)
    generator = [Dense(6, 9, hidden, rng=rng, dtype=dtype), Dropout(0.1), Dense(9, 25, "tanh", rng=rng, dtype=dtype)]
    judge = [Dense(25, 8, hidden, rng=rng, dtype=dtype), Dropout(0.3), Dense(8, 1, "sigmoid", rng=rng, dtype=dtype)]
    arguments = {"train": images(), "latent": Latent(6), "epochs": 3, "batch_size": 16, "shuffle": True, "seed": 1}
    arguments |= {"skip_every": 3, "label_smoothing": 0.1, "reduction": reduction} | changes
    return GanTrainer(
        Sequential(generator),
        Sequential(judge),
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
    make, end = LOSSES[loss]
    runs = [whole_run(classifier(on, make(reduction), end, optimizer, "tanh", schedule)) for on in (True, False)]
    assert runs[0] == runs[1]
    assert [len(replay.programs) for replay in replays] == [2, 0]  # whole batches, and the short one


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("hidden", [None, *Activation])
def test_each_activation_trains_to_the_same_bits(replays: list[Replay], hidden: Any, dtype: Any) -> None:
    pairs = [
        [classifier(on, SquaredError(), hidden, SGD_MOMENTUM, hidden, schedules.constant(), dtype=dtype) for on in ON],
        [gan(on, SGD_MOMENTUM, hidden, schedules.constant(), "mean", dtype=dtype) for on in ON],
    ]
    for pair in pairs:
        replayed, plain = map(whole_run, pair)
        assert replayed == plain
    assert all(len(replay.programs) >= 2 for replay in replays[::2])


ON, SGD_MOMENTUM = (True, False), OPTIMIZERS["momentum"]


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
    assert len(replays[0].programs) >= 2


def test_all_programs_share_the_memory_of_the_largest(replays: list[Replay]) -> None:
    whole_run(gan(True, OPTIMIZERS["sgd"], "tanh", schedules.constant(), "sum"))
    assert len(replays[0].programs) == 4  # with and without the discriminator's update, whole batch and short
    assert replays[0].size_bytes == max(program.size_bytes for program in replays[0].programs)


def doubled(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
    return [np.add(x, x)]


def test_inputs_are_copied_unless_they_are_resident() -> None:
    replay, x = Replay([]), np.arange(3.0)
    replay(doubled, x)
    assert replay(doubled, x + 1)[0].tolist() == [2, 4, 6]
    assert x.tolist() == [0, 1, 2]
    resident = Replay([x])
    resident(doubled, x)
    x += 1
    assert resident(doubled, x)[0].tolist() == [2, 4, 6]


LEAKS = {
    "a number for Python": lambda x, rng: [x * float(x[0])],
    "a condition": lambda x, rng: [x * 2 if x[0] > 1 else x * 3],
    "an element": lambda x, rng: [x * x.tolist()[0]],
    "a loop": lambda x, rng: [x * sum(x)],
    "a mask": lambda x, rng: [np.resize(np.asarray(x[x > 1.5]), 3)],
    "an index": lambda x, rng: [x[np.asarray(x).astype(int) % 2]],
    "memory unseen": lambda x, rng: [x + np.asarray(x) * 2],
    "a result unseen": lambda x, rng: [np.asarray(x) * 2],
    "a method unseen": lambda x, rng: [x * x.argmax()],
    "a function with a target": lambda x, rng: [np.cumsum(x, out=np.empty(3))],
    "an accumulation": lambda x, rng: [np.add.accumulate(x)],
    "two outputs": lambda x, rng: [np.divmod(x, 2)[1]],
    "randomness first": lambda x, rng: [rng.random(3) + x, x * float(x[0])],
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_what_cannot_be_written_down_runs_plainly(leak: Any) -> None:
    def step(x: np.ndarray, *, rng: np.random.Generator) -> list[np.ndarray]:
        return leak(x, rng)

    replay = Replay([])
    rngs = [generator_for(0, "test") for _ in range(2)]
    for x in (np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0]), np.array([2.0, 3.0, 1.0])):
        for got, expected in zip(replay(step, x, rng=rngs[0]), step(x, rng=rngs[1]), strict=True):
            assert got.tolist() == expected.tolist()
    assert not replay.programs


def test_random_numbers_are_drawn_anew() -> None:
    def step(x: np.ndarray, *, rng: np.random.Generator) -> list[np.ndarray]:
        return [x * rng.standard_normal(3) + rng.integers(0, 9, 3)]

    replay, x = Replay([]), np.ones(3)
    for seed in range(3):
        expected = step(x, rng=generator_for(seed, "test"))[0]
        assert replay(step, x, rng=generator_for(seed, "test"))[0].tolist() == expected.tolist()
    assert len(replay.programs) == 1


def test_an_error_of_the_step_ends_the_recording() -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Replay([])(step, np.ones(2))
    w = Tensor(np.ones(2), watch=True)
    with GradientTape() as tape:
        y = ops.sum(w * 2)
    assert type(np.asarray(tape.gradient(y, [w])[0])) is np.ndarray
    assert type(ops.tanh(np.ones(2))) is np.ndarray


def test_a_result_lies_where_nothing_else_is_needed() -> None:
    """Many values alive at different times, most of them overwritten: the answer depends on none being so too early."""

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        values = [x]
        for i in range(40):
            values.append(np.sin(values[-1] + values[i // 2]) * values[(7 * i) % len(values)])
            values[-1] += 0.5
        return [values[20] @ values[40].T, values[33], sum_of(values)]

    def sum_of(values: list[np.ndarray]) -> np.ndarray:
        total = values[0] * 1.0
        for value in values[1:]:
            total = total + value
        return total

    replay, rng = Replay([]), np.random.default_rng(0)
    for _ in range(3):
        x = rng.random((8, 8))
        for got, expected in zip(replay(step, x), step(x, rng=None), strict=True):
            assert got.tobytes() == expected.tobytes()
    assert len(replay.programs) == 1
    assert replay.size_bytes < 60 * x.nbytes  # of some 200 results
