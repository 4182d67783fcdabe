"""Random networks of all layers: gradients against central differences, replay against the tape, inference.

Each test is one seed after the other; a failure names its seed, and ``SEEDS`` can be set to repeat or prolong a run.
CI runs the first ones.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    ClassifierTrainer,
    DivergedError,
    Dropout,
    EpochDone,
    GanTrainer,
    GradientTape,
    ImageData,
    Latent,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    Tensor,
    checkpoint,
    schedules,
)
from engine.autograd.gradcheck import gradient_of
from engine.nn.linear import Weighted
from engine.replay import Replay
from tests.engine.arrays import LAYOUTS
from tests.engine.random_networks import Networks

pytestmark = pytest.mark.stack

SEEDS = range(400)
FEW = 120
BATCHES = (1, 1, 2, 3)


@pytest.fixture(params=[SEEDS[:FEW], pytest.param(SEEDS[FEW:], marks=pytest.mark.nightly)], ids=["first", "others"])
def seeds(request: pytest.FixtureRequest) -> range:
    """The seeds of one run."""
    return request.param


def described(network: Sequential, seed: int) -> str:
    pairs = zip(network.layers, network.layer_shapes, strict=True)
    layers = ", ".join(f"{type(layer).__name__} {shape}" for layer, shape in pairs)
    return f"seed {seed}: {network.input_shape}: {layers}"


def weighted_sum(network: Sequential, x: Any, weights: np.ndarray, training: bool) -> Any:
    """A number that depends on all outputs, always with the same draws and the same running statistics."""
    before = [buffer.copy() for buffer in network.buffers]
    y = network(x, training=training, rng=np.random.default_rng(1))
    for buffer, value in zip(network.buffers, before, strict=True):
        buffer[...] = value
    return (y * weights).sum()


def slope(f: Callable[[], Any], array: np.ndarray, direction: np.ndarray, step: float = 1e-6) -> float:
    """The central difference of ``f`` when ``array`` moves in a direction."""
    middle, sides = array.copy(), []
    for sign in (1, -1):
        array[...] = middle + sign * step * direction
        sides.append(float(f()))
    array[...] = middle
    return (sides[0] - sides[1]) / (2 * step)


def assert_close(value: float, expected: float, tolerance: float, message: str) -> None:
    assert abs(value - expected) <= tolerance * (0.1 + abs(expected)), f"{message}: {value}, not {expected}"


def as_float32(network: Sequential) -> Sequential:
    """A copy of a network with float32 weights."""
    copied = copy.deepcopy(network)
    for layer in copied.all_layers():
        for name in layer.parameters if not isinstance(layer, Residual) else ():
            setattr(layer, name, Tensor(getattr(layer, name).astype(np.float32), watch=True))
        if isinstance(layer, BatchNorm):
            layer.running_mean, layer.running_variance = (b.astype(np.float32) for b in layer.buffers.values())
        if isinstance(layer, Weighted) and layer.spectral:
            layer.spectral.vector = layer.spectral.vector.astype(np.float32)
    return copied


def check_gradients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    networks = Networks(rng)
    network = networks.draw()
    x, training = networks.batch(network, rng.choice(BATCHES)), bool(rng.integers(2))
    weights = rng.uniform(0.5, 1.5, (len(x), network.units))
    spectral = {id(layer.weight) for layer in network.all_layers() if isinstance(layer, Weighted) and layer.spectral}
    results = []
    for model, inputs in ((network, x), (as_float32(network), x.astype(np.float32))):
        tensors = [Tensor(inputs, watch=True), *model.parameters]
        with GradientTape() as tape:
            y = weighted_sum(model, tensors[0], weights, training)
        results.append([np.asarray(a) for a in tape.gradient(y, tensors, unconnected="zero")])
        if model is network:
            exact = tensors
    for tensor, gradient, narrow in zip(exact, *results, strict=True):
        scale = 1e-3 * (1 + np.max(np.abs(gradient)))
        np.testing.assert_allclose(narrow, gradient, rtol=1e-3, atol=scale, err_msg=described(network, seed))
        if training and id(tensor) in spectral:
            continue  # no gradient flows through the power iteration
        direction = rng.standard_normal(tensor.shape)
        expected = slope(lambda: weighted_sum(network, exact[0], weights, training), np.asarray(tensor), direction)
        assert_close(float(np.sum(gradient * direction)), expected, 1e-5, described(network, seed))


def test_gradients_agree_with_central_differences_and_with_float32(seeds: range) -> None:
    for seed in seeds:
        check_gradients(seed)


def check_second_derivatives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    networks = Networks(rng, smooth=True)
    network = networks.draw()
    x, training = networks.batch(network, rng.choice(BATCHES)), bool(rng.integers(2))
    weights = rng.uniform(0.5, 1.5, (len(x), network.units))
    tensors = [Tensor(x, watch=True), *network.parameters]
    projection = rng.standard_normal(sum(tensor.size for tensor in tensors))

    def slopes() -> Any:
        gradients = gradient_of(lambda *_: weighted_sum(network, tensors[0], weights, training))
        return (gradients(*tensors) * projection).sum()

    with GradientTape() as tape:
        y = slopes()
    for tensor, gradient in zip(tensors, tape.gradient(y, tensors, unconnected="zero"), strict=True):
        direction = rng.standard_normal(tensor.shape)
        expected = slope(slopes, np.asarray(tensor), direction)
        assert_close(float(np.sum(gradient * direction)), expected, 1e-4, described(network, seed))


def test_second_derivatives_agree_with_central_differences(seeds: range) -> None:
    for seed in seeds[::2]:
        check_second_derivatives(seed)


def check_inference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    networks = Networks(rng)
    network = networks.draw()
    for count in (3, 1, 2):
        network(networks.batch(network, count), training=True, rng=rng)
    state, x = network.state_dict(), networks.batch(network, 3)
    outputs, message = np.asarray(network(x)), described(network, seed)
    for layout in LAYOUTS.values():
        np.testing.assert_allclose(network(layout(x)), outputs, 1e-9, 1e-12, err_msg=message)
        for row, expected in zip(x, outputs, strict=True):
            np.testing.assert_allclose(network(layout(row[None]))[0], expected, 1e-9, 1e-12, err_msg=message)
    assert {name: array.tobytes() for name, array in network.state_dict().items()} == {
        name: array.tobytes() for name, array in state.items()
    }
    if not network.buffers and not any(isinstance(layer, Dropout) for layer in network.all_layers()):
        np.testing.assert_array_equal(network(x, training=True, rng=rng), outputs, err_msg=message)


def test_inference_depends_on_neither_batch_nor_layout_and_changes_nothing(seeds: range) -> None:
    for seed in seeds:
        check_inference(seed)


def check_steps(seed: int) -> None:
    """Steps with batches of changing sizes and layouts, which change weights and running statistics."""
    rng = np.random.default_rng(seed)
    networks = Networks(rng, rng.choice([np.float32, np.float64]))
    network = networks.draw()
    batches = [networks.batch(network, rng.choice(BATCHES)) for _ in range(12)]
    runs = []
    for model, enabled in ((network, True), (copy.deepcopy(network), False)):
        parameters = [np.asarray(parameter) for parameter in model.parameters]
        replay = Replay(parameters, changing=model.buffers, enabled=enabled)

        def step(x: np.ndarray, rng: Any, model: Sequential = model) -> list[np.ndarray]:
            tensor = Tensor(x, watch=True)
            with GradientTape() as tape:
                y = model(tensor, training=True, rng=rng)
                loss = (y * y).sum()
            gradients = tape.gradient(loss, [tensor, *model.parameters], unconnected="zero")
            return [np.asarray(array) for array in (loss, *gradients)]

        bits = []
        for number, batch in enumerate(batches):
            results = replay(step, batch, rng=np.random.default_rng(number))
            for parameter, gradient in zip(parameters, results[2:], strict=True):
                parameter -= 0.01 * gradient / (1 + np.max(np.abs(gradient)))
            bits.append([array.tobytes() for array in (*results, *parameters, *model.buffers)])
        runs.append(bits)
    for number, (replayed, plain) in enumerate(zip(*runs, strict=True)):
        assert replayed == plain, f"step {number}: {described(network, seed)}"


def test_steps_have_the_same_bits_replayed_and_on_the_tape(seeds: range, plans: list[Replay]) -> None:
    for seed in seeds[::4]:
        check_steps(seed)
    assert all(None not in replay._prepared.values() for replay in plans)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """Every enabled Replay that the test creates."""
    created: list[Replay] = []
    original = Replay.__init__

    def spy(self: Replay, *args: Any, enabled: bool = True, **kwargs: Any) -> None:
        original(self, *args, enabled=enabled, **kwargs)
        created.extend([self] * enabled)

    monkeypatch.setattr(Replay, "__init__", spy)
    return created


def whole_run(make: Callable[[bool], Any], replay: bool) -> tuple[Any, list[dict[str, float]]]:
    """The state and the metrics of a run; or the error with which it ended."""
    trainer = make(replay)
    try:
        metrics = [report.metrics for report in trainer.run() if isinstance(report, EpochDone)]
    except DivergedError as error:
        return str(error), []
    return checkpoint.dumps(trainer.state_dict()), metrics


def settings_of(rng: np.random.Generator, dtype: Any) -> dict[str, Any]:
    """Settings of a run, whose last batch often has one image."""
    return {
        "epochs": 3,
        "batch_size": int(rng.choice([1, 2, 3, 4])),
        "accumulate": int(rng.choice([1, 1, 2])),
        "average_decay": rng.choice([None, 0.9]),
        "shuffle": True,
        "seed": 1,
        "dtype": dtype,
        "verify_steps": 10**9,
    }


def images(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> ImageData:
    return ImageData(rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, 3, count), (-1, 1), classes=3)


OPTIMIZERS: list[Callable[[], Any]] = [
    lambda: SGD(0.02, 0.9),
    lambda: Adam(0.01, 0.5),
    lambda: AdamW(0.01, clip_norm=0.5),
]


def check_classifier(seed: int) -> None:
    def make(replay: bool) -> ClassifierTrainer:
        rng = np.random.default_rng(seed)
        dtype = rng.choice([np.float32, np.float64])
        network = Networks(rng, dtype).draw(units=3)
        data, settings = images(rng, network.input_shape, int(rng.choice([5, 7, 9]))), settings_of(rng, dtype)
        optimizer = OPTIMIZERS[rng.integers(len(OPTIMIZERS))]()
        arguments = {"train": data, "validation": data, "replay": replay} | settings
        return ClassifierTrainer(network, SoftmaxCrossEntropy(), optimizer, schedules.constant(), **arguments)

    assert whole_run(make, True) == whole_run(make, False), f"seed {seed}"


def test_a_classifier_has_the_same_bits_replayed_and_on_the_tape(seeds: range, plans: list[Replay]) -> None:
    for seed in seeds[::4]:
        check_classifier(seed)
    assert all(None not in replay._prepared.values() for replay in plans)  # none was given up for the tape


def check_gan(seed: int) -> None:
    def make(replay: bool) -> GanTrainer:
        rng = np.random.default_rng(seed)
        dtype = rng.choice([np.float32, np.float64])
        networks = Networks(rng, dtype)
        discriminator = networks.draw(units=1)
        generator = networks.draw(units=discriminator.inputs)
        penalty = not any(isinstance(layer, BatchNorm) for layer in discriminator.all_layers())
        data = images(rng, discriminator.input_shape, int(rng.choice([5, 7, 9])))
        arguments = {"train": data, "latent": Latent(generator.inputs), "replay": replay, "r1": 0.1 * penalty}
        constant = [schedules.constant()] * 2
        optimizers = (Adam(0.01, 0.5), Adam(0.01, 0.5))
        return GanTrainer(generator, discriminator, *optimizers, *constant, **arguments, **settings_of(rng, dtype))

    assert whole_run(make, True) == whole_run(make, False), f"seed {seed}"


def test_a_gan_has_the_same_bits_replayed_and_on_the_tape(seeds: range, plans: list[Replay]) -> None:
    for seed in seeds[::8]:
        check_gan(seed)
    assert all(None not in replay._prepared.values() for replay in plans)  # none was given up for the tape
