"""The rows of the table: for each row, functions that do the same work in different ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import digits, floor, handwritten, scalars
from benchmarks.digits import CLASSIFIER, DISCRIMINATOR, GENERATOR, Sizes, network
from engine import (
    SGD,
    Adam,
    BatchDone,
    ClassifierTrainer,
    GanTrainer,
    GradientTape,
    ImageData,
    Latent,
    SquaredError,
    ops,
    schedules,
)
from engine.optim.optimizer import Optimizer

try:
    from benchmarks import pytorch
except ImportError:
    pytorch = None  # type: ignore[assignment]

Work = Callable[[], object]
RATE = 1e-4
"""Small, so that the values stay finite for thousands of steps; it does not affect the time."""


@dataclass
class Row:
    """One line of the table.

    Attributes:
        contestants: ``engine`` and any of ``tape``, ``floor``, ``handwritten``, ``torch``, ``torch_floor``: each does
            one piece of the same work.
        unit: number of pieces in a cycle.
    """

    name: str
    contestants: dict[str, Work]
    unit: int = 1


def classifier(
    data: ImageData, sizes: Sizes, batch: int, optimizer: Optimizer | None = None, replay: bool = True
) -> ClassifierTrainer:
    """A trainer that practically never ends, with a single validation image, so that only steps cost time."""
    one = ImageData(data.images[:1], data.labels[:1], data.scale, classes=sizes[-1][1])
    return ClassifierTrainer(
        network(sizes, "init"),
        SquaredError("sum"),
        optimizer or SGD(RATE),
        schedules.constant(),
        train=data,
        validation=one,
        epochs=10**9,
        batch_size=batch,
        shuffle=False,
        seed=0,
        replay=replay,
    )


def gan(
    data: ImageData, batch: int, skip_every: int | None, optimizer: Callable[[], Optimizer], replay: bool = True
) -> GanTrainer:
    """The two networks of the preset ``seed``."""
    return GanTrainer(
        network(GENERATOR, "generator"),
        network(DISCRIMINATOR, "discriminator"),
        optimizer(),
        optimizer(),
        schedules.constant(),
        schedules.constant(),
        train=data,
        latent=Latent(GENERATOR[0][0]),
        epochs=10**9,
        batch_size=batch,
        shuffle=False,
        seed=0,
        reduction="sum",
        skip_every=skip_every,
        replay=replay,
    )


def stepper(trainer: ClassifierTrainer | GanTrainer) -> Work:
    """A function that runs one training step per call."""
    reports = trainer.run()

    def step() -> None:
        while not isinstance(next(reports), BatchDone):
            pass

    return step


def classifier_row(name: str, batch: int, *, sizes: Sizes = CLASSIFIER, data: ImageData | None = None) -> Row:
    """A step with SGD."""
    # Whole batches only, because the floor and the hand-written loop support only one shape.
    data = first(data or digits.training(), batch)
    model = network(sizes, "init")
    contestants: dict[str, Work] = {
        "engine": stepper(classifier(data, sizes, batch)),
        "tape": stepper(classifier(data, sizes, batch, replay=False)),
        "floor": floor.runner(floor.classifier_step(sizes, batch)),
        "handwritten": handwritten.Classifier(model, sizes, data, batch, RATE).step,
    }
    if pytorch:
        contestants["torch"] = pytorch.Classifier(pytorch.network(model, sizes), data, batch, pytorch.sgd(RATE)).step
        contestants["torch_floor"] = pytorch.products(floor.classifier_step(sizes, batch))
    return Row(name, contestants)


def gan_row(name: str, batch: int, skip_every: int | None) -> Row:
    """A step with SGD; the mean over a cycle of ``skip_every`` steps."""
    data = first(digits.training(), batch)
    generator, discriminator = network(GENERATOR, "generator"), network(DISCRIMINATOR, "discriminator")
    cycle = [skip_every is None or index % skip_every != 0 for index in range(skip_every or 1)]
    products = [floor.gan_step(GENERATOR, DISCRIMINATOR, batch, updates) for updates in cycle]
    contestants: dict[str, Work] = {
        "engine": stepper(gan(data, batch, skip_every, lambda: SGD(RATE))),
        "tape": stepper(gan(data, batch, skip_every, lambda: SGD(RATE), replay=False)),
        "floor": in_turn([floor.runner(shapes) for shapes in products]),
        "handwritten": handwritten.Gan(
            (generator, GENERATOR), (discriminator, DISCRIMINATOR), data, batch, RATE, skip_every
        ).step,
    }
    if pytorch:
        contestants["torch"] = pytorch.Gan(
            pytorch.network(generator, GENERATOR),
            pytorch.network(discriminator, DISCRIMINATOR, last=False),
            data,
            batch,
            pytorch.sgd(RATE),
            skip_every,
            GENERATOR[0][0],
        ).step
        contestants["torch_floor"] = in_turn([pytorch.products(shapes) for shapes in products])
    return Row(name, contestants, len(cycle))


def adam_rows() -> Iterator[Row]:
    """Steps with Adam, compared with PyTorch."""
    data = first(digits.training(), 100)
    contestants: dict[str, Work] = {"engine": stepper(classifier(data, CLASSIFIER, 50, Adam(RATE)))}
    contestants["floor"] = floor.runner(floor.classifier_step(CLASSIFIER, 50))
    model = network(CLASSIFIER, "init")
    if pytorch:
        contestants["torch"] = pytorch.Classifier(pytorch.network(model, CLASSIFIER), data, 50, pytorch.adam(RATE)).step
    yield Row("classifier step, batch 50, Adam", contestants)
    contestants = {"engine": stepper(gan(data, 100, None, lambda: Adam(RATE)))}
    contestants["floor"] = floor.runner(floor.gan_step(GENERATOR, DISCRIMINATOR, 100, True))
    if pytorch:
        contestants["torch"] = pytorch.Gan(
            pytorch.network(network(GENERATOR, "generator"), GENERATOR),
            pytorch.network(network(DISCRIMINATOR, "discriminator"), DISCRIMINATOR, last=False),
            data,
            100,
            pytorch.adam(RATE),
            None,
            GENERATOR[0][0],
        ).step
    yield Row("GAN step, batch 100, Adam", contestants)


def whole_set_rows() -> Iterator[Row]:
    """Inference and evaluation of 10,000 digits, in parts of 500."""
    data = digits.everything()
    model = network(CLASSIFIER, "init")
    trainer = ClassifierTrainer(
        model,
        SquaredError("sum"),
        SGD(RATE),
        schedules.constant(),
        train=first(data, 50),
        validation=data,
        epochs=1,
        batch_size=50,
        shuffle=False,
        seed=0,
    )
    products = floor.runner(floor.forward(CLASSIFIER, 500))

    def bare() -> None:
        for _ in range(len(data) // 500):
            products()

    def inference() -> Any:
        parts = [slice(start, start + 500) for start in range(0, len(data), 500)]
        return np.concatenate([np.argmax(np.asarray(model(data.inputs(part, np.float32))), axis=1) for part in parts])

    contestants: dict[str, Work] = {"engine": inference, "floor": bare}
    if pytorch:
        contestants["torch"] = pytorch.inference(pytorch.network(model, CLASSIFIER), data)
    yield Row("inference of 10,000 digits", contestants)
    contestants = {"engine": trainer._evaluate, "floor": bare}
    if pytorch:
        contestants["torch"] = pytorch.evaluation(pytorch.network(model, CLASSIFIER), data)
    yield Row("evaluation on 10,000 digits", contestants)


def scalar_row() -> Row:
    """One step of a 16-8-3 network on four images: arrays on the tape, and one object per number."""
    sizes, batch = ((16, 8, "sigmoid"), (8, 3, "sigmoid")), 4
    model = network(sizes, "init")
    rng = np.random.default_rng(0)
    x, targets = rng.random((batch, 16), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    units = [
        np.vstack([np.asarray(layer.weight), np.asarray(layer.bias)]).T.tolist()  # type: ignore[attr-defined]
        for layer in model.layers
    ]
    graph = scalars.Network(units)
    images, wanted = x.tolist(), targets.tolist()

    def on_arrays() -> float:
        with GradientTape() as tape:
            loss = ops.squared_error(model(x), targets)
        SGD(RATE).apply(model.parameters, tape.gradient(loss, model.parameters), RATE)
        return float(loss)

    return Row(
        "scalar graph, 16-8-3, batch 4",
        {"engine": on_arrays, "scalars": lambda: graph.step(images, wanted, RATE)},
    )


def first(data: ImageData, batch: int) -> ImageData:
    """The largest number of images that gives whole batches."""
    count = len(data) // batch * batch
    labels = None if data.labels is None else data.labels[:count]
    return ImageData(data.images[:count], labels, data.scale, classes=10)


def in_turn(works: list[Work]) -> Work:
    """A function that calls these in turn."""
    position = -1

    def run() -> None:
        nonlocal position
        position = (position + 1) % len(works)
        works[position]()

    return run


def table() -> Iterator[Row]:
    """All rows, created lazily."""
    yield classifier_row("classifier step, batch 50", 50)
    yield classifier_row("classifier step, batch 512", 512)
    yield gan_row("GAN step, batch 100", 100, 3)
    yield gan_row("GAN step, batch 100, no rest", 100, None)
    yield from adam_rows()
    yield from whole_set_rows()
    yield scalar_row()


def growth() -> Iterator[tuple[str, int, Row]]:
    """How the cost of a step grows: (what grows, its value, the row)."""
    data = digits.training()
    for width in (25, 100, 400, 1600):
        sizes = ((784, width, "sigmoid"), (width, 10, "sigmoid"))
        yield "width", width, classifier_row(f"width {width}", 50, sizes=sizes, data=data)
    for depth in (1, 2, 4, 8, 16):
        sizes = ((784, 100, "sigmoid"), *[(100, 100, "sigmoid")] * (depth - 1), (100, 10, "sigmoid"))
        yield "depth", depth, classifier_row(f"depth {depth}", 50, sizes=sizes, data=data)
    for batch in (1, 10, 50, 200, 1000):
        yield "batch", batch, classifier_row(f"batch {batch}", batch, data=data)
