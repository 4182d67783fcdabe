"""The rows of the table: for each row, functions that do the same work in different ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.engine import conv_cases, digits, floor, handwritten, scalars
from benchmarks.engine.digits import CLASSIFIER, DISCRIMINATOR, GENERATOR, Sizes, network
from benchmarks.engine.peers import jax_jit, pytorch
from benchmarks.engine.rows import Row, Work, in_turn, stepper, whole_batches
from engine import (
    SGD,
    Adam,
    ClassifierTrainer,
    GanTrainer,
    GradientTape,
    ImageData,
    Latent,
    Sequential,
    SquaredError,
    ops,
    schedules,
)
from engine.optim.optimizer import Optimizer

RATE = 1e-4
"""Small, so that the values stay finite for thousands of steps; it does not affect the time."""


def classifier(
    data: ImageData, sizes: Sizes, batch: int, optimizer: Optimizer | None = None, replay: bool = True
) -> ClassifierTrainer:
    """A trainer that practically never ends, with a single validation image, so that only steps cost time."""
    single_image = ImageData(data.images[:1], data.labels[:1], data.scale, classes=sizes[-1][1])
    return ClassifierTrainer(
        network(sizes, "init"),
        SquaredError("sum"),
        optimizer or SGD(RATE),
        schedules.constant(),
        train=data,
        validation=single_image,
        epochs=10**9,
        batch_size=batch,
        shuffle=False,
        seed=0,
        replay=replay,
    )


def gan(
    data: ImageData, batch: int, skip_every: int | None, optimizer: Callable[[], Optimizer], replay: bool = True
) -> GanTrainer:
    """The two networks of the preset ``classic``."""
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


def classifier_row(name: str, batch: int, *, sizes: Sizes = CLASSIFIER, data: ImageData | None = None) -> Row:
    """A step with SGD."""
    # Whole batches only, because the floor and the hand-written loop support only one shape.
    data = whole_batches(data or digits.training(), batch)
    model = network(sizes, "init")
    contestants: dict[str, Work] = {
        "engine": stepper(classifier(data, sizes, batch)),
        "tape": stepper(classifier(data, sizes, batch, replay=False)),
        "floor": floor.runner(floor.classifier_step(sizes, batch)),
        "handwritten": handwritten.Classifier(model, sizes, data, batch, RATE).step,
    }
    if pytorch:
        contestants["torch"] = pytorch.Classifier(pytorch.network(model), data, batch, pytorch.sgd(RATE)).step
        contestants["torch_floor"] = pytorch.products(floor.classifier_step(sizes, batch))
    if jax_jit:
        contestants["jax"] = jax_jit.Classifier(model, data, batch, jax_jit.sgd(RATE), jax_jit.squared_error).step
    return Row(name, contestants)


def gan_row(name: str, batch: int, skip_every: int | None) -> Row:
    """A step with SGD; the mean over a cycle of ``skip_every`` steps."""
    data = whole_batches(digits.training(), batch)
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
        contestants["torch"] = torch_gan(data, batch, skip_every, pytorch.sgd(RATE))
        contestants["torch_floor"] = in_turn([pytorch.products(shapes) for shapes in products])
    if jax_jit:
        optimizers = (jax_jit.sgd(RATE), jax_jit.sgd(RATE))
        contestants["jax"] = jax_jit.Gan(generator, discriminator, data, batch, optimizers, skip_every).step
    return Row(name, contestants, len(cycle))


def torch_gan(data: ImageData, batch: int, skip_every: int | None, optimizer: Any) -> Work:
    """A step in PyTorch of the two networks of the preset ``classic``."""
    networks = (
        pytorch.network(network(GENERATOR, "generator")),
        pytorch.network(network(DISCRIMINATOR, "discriminator"), last=False),
    )
    step: Work = pytorch.Gan(*networks, data, batch, (optimizer, optimizer), skip_every, GENERATOR[0][0]).step
    return step


def adam_rows() -> Iterator[Row]:
    """Steps with Adam, compared with the peers."""
    data = whole_batches(digits.training(), 100)
    contestants: dict[str, Work] = {"engine": stepper(classifier(data, CLASSIFIER, 50, Adam(RATE)))}
    contestants["floor"] = floor.runner(floor.classifier_step(CLASSIFIER, 50))
    model = network(CLASSIFIER, "init")
    if pytorch:
        contestants["torch"] = pytorch.Classifier(pytorch.network(model), data, 50, pytorch.adam(RATE)).step
    if jax_jit:
        contestants["jax"] = jax_jit.Classifier(model, data, 50, jax_jit.adam(RATE), jax_jit.squared_error).step
    yield Row("classifier step, batch 50, Adam", contestants)
    contestants = {"engine": stepper(gan(data, 100, None, lambda: Adam(RATE)))}
    contestants["floor"] = floor.runner(floor.gan_step(GENERATOR, DISCRIMINATOR, 100, True))
    if pytorch:
        contestants["torch"] = torch_gan(data, 100, None, pytorch.adam(RATE))
    if jax_jit:
        networks = (network(GENERATOR, "generator"), network(DISCRIMINATOR, "discriminator"))
        optimizers = (jax_jit.adam(RATE), jax_jit.adam(RATE))
        contestants["jax"] = jax_jit.Gan(*networks, data, 100, optimizers).step
    yield Row("GAN step, batch 100, Adam", contestants)


def whole_set_rows() -> Iterator[Row]:
    """Inference and evaluation of 10,000 digits, in chunks of 500."""
    data, model = digits.everything(), network(CLASSIFIER, "init")
    products = floor.runner(floor.forward(CLASSIFIER, 500))

    def bare() -> None:
        for _ in range(len(data) // 500):
            products()

    for name, losses in (("inference of 10,000 digits", False), ("evaluation on 10,000 digits", True)):
        contestants: dict[str, Work] = {"engine": whole_set(model, data, losses=losses), "floor": bare}
        if pytorch:
            contestants["torch"] = pytorch.whole_set(pytorch.network(model), data, 500, losses=losses)
        if jax_jit:
            contestants["jax"] = jax_jit.whole_set(model, data, 500, losses=losses)
        yield Row(name, contestants)


def whole_set(model: Sequential, data: ImageData, *, losses: bool) -> Work:
    """Predictions for all images, and with ``losses`` the loss per image, as a trainer evaluates."""
    if not losses:
        chunks = [slice(start, start + 500) for start in range(0, len(data), 500)]
        return lambda: np.concatenate(
            [np.argmax(np.asarray(model(data.inputs(chunk, np.float32))), axis=1) for chunk in chunks]
        )
    trainer = ClassifierTrainer(
        model,
        SquaredError("sum"),
        SGD(RATE),
        schedules.constant(),
        train=whole_batches(data, 50),
        validation=data,
        epochs=1,
        batch_size=50,
        shuffle=False,
        seed=0,
    )
    return lambda: trainer._evaluate(data, trainer._validation_labels)


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
    images, target_rows = x.tolist(), targets.tolist()

    def on_arrays() -> float:
        with GradientTape() as tape:
            loss = ops.squared_error(model(x), targets)
        SGD(RATE).apply(model.parameters, tape.gradient(loss, model.parameters), RATE)
        return float(loss)

    return Row(
        "scalar graph, 16-8-3, batch 4",
        {"engine": on_arrays, "scalars": lambda: graph.step(images, target_rows, RATE)},
    )


def table() -> Iterator[Row]:
    """All rows, created lazily."""
    yield classifier_row("classifier step, batch 50", 50)
    yield classifier_row("classifier step, batch 512", 512)
    yield gan_row("GAN step, batch 100", 100, 3)
    yield gan_row("GAN step, batch 100, no rest", 100, None)
    yield from adam_rows()
    yield from conv_cases.rows()
    yield from whole_set_rows()
    yield scalar_row()


def growth() -> Iterator[tuple[str, int, Row]]:
    """Rows that show how the cost of a step grows: (growing quantity, its value, row)."""
    data = digits.training()
    for width in (25, 100, 400, 1600):
        sizes = ((784, width, "sigmoid"), (width, 10, "sigmoid"))
        yield "width", width, classifier_row(f"width {width}", 50, sizes=sizes, data=data)
    for depth in (1, 2, 4, 8, 16):
        sizes = ((784, 100, "sigmoid"), *[(100, 100, "sigmoid")] * (depth - 1), (100, 10, "sigmoid"))
        yield "depth", depth, classifier_row(f"depth {depth}", 50, sizes=sizes, data=data)
    for batch in (1, 10, 50, 200, 1000):
        yield "batch", batch, classifier_row(f"batch {batch}", batch, data=data)
