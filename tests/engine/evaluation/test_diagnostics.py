from typing import Any

import numpy as np
import pytest

from engine import (
    SGD,
    BatchDone,
    BatchNorm,
    ClassifierTrainer,
    Conv2D,
    Dense,
    Dropout,
    EpochDone,
    GanTrainer,
    GradientTape,
    ImageData,
    Latent,
    Sequential,
    SquaredError,
    checkpoint,
    generator_for,
    schedules,
)
from engine.evaluation import diagnostics
from engine.evaluation.diagnostics import GradientNorms, activation_metrics, activations, probe, sample_diversity
from engine.trainers import gan, supervised

RNG = np.random.default_rng(0)
DATA = ImageData(RNG.integers(0, 256, (40, 4, 4), dtype=np.uint8), RNG.integers(0, 3, 40))


def network(*sizes: int, activation: str = "relu", last: str | None = None) -> Sequential:
    rng = generator_for(0, "init")
    names = [activation] * (len(sizes) - 2) + [last]
    return Sequential([Dense(a, b, name, rng=rng) for a, b, name in zip(sizes, sizes[1:], names, strict=False)])


def make_classifier(reduction: Any = "mean", epochs: int = 1, batch_size: int = 40) -> ClassifierTrainer:
    return ClassifierTrainer(
        network(16, 5, 3),
        SquaredError(reduction),
        SGD(0.01),
        schedules.constant(),
        train=DATA,
        validation=DATA,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=True,
        seed=0,
    )


def make_gan(epochs: int = 1, batch_size: int = 40) -> GanTrainer:
    return GanTrainer(
        network(5, 6, 16, activation="tanh", last="tanh"),
        network(16, 7, 1, activation="leaky_relu", last="sigmoid"),
        SGD(0.01),
        SGD(0.01),
        schedules.constant(),
        schedules.constant(),
        train=DATA,
        latent=Latent(5),
        epochs=epochs,
        batch_size=batch_size,
        shuffle=True,
        seed=0,
        skip_every=3,
    )


def last_metrics(trainer: ClassifierTrainer | GanTrainer) -> dict[str, float]:
    return [report for report in trainer.run() if isinstance(report, EpochDone)][-1].metrics


def test_gradient_norms_are_those_of_the_mean_loss_for_any_reduction() -> None:
    model = make_classifier().model
    targets = SquaredError().targets(DATA.labels, 3, np.float32)
    with GradientTape() as tape:
        loss = SquaredError()(model(DATA.inputs(slice(None), np.float32)), targets)
    gradients = tape.gradient(loss, model.parameters)
    expected = [np.linalg.norm(np.concatenate([g.ravel() for g in gradients[i : i + 2]])) for i in (0, 2)]
    for reduction in ("mean", "sum"):
        metrics = last_metrics(make_classifier(reduction))
        assert metrics["grad_norm/layers.0"] == pytest.approx(expected[0], rel=1e-5)
        assert metrics["grad_norm/layers.1"] == pytest.approx(expected[1], rel=1e-5)
        assert metrics["grad_norm"] == pytest.approx(np.hypot(*expected), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 5, 8, 85, 600])
def test_up_to_eight_evenly_spaced_steps_of_an_epoch_are_measured(steps: int) -> None:
    norms = GradientNorms(network(2, 2), steps)
    measured = []
    for step in range(steps):
        if norms.is_due(step):
            norms.add([np.full((2, 2), float(step)), np.zeros(2)])
            measured.append(step)
    assert len(measured) == min(steps, 8)
    assert norms.metrics()["grad_norm"] == pytest.approx(2 * np.mean(measured))
    if steps > 8:
        assert set(np.diff(measured)) <= {steps // 8, steps // 8 + 1}


def test_a_skipped_network_is_measured_in_its_next_update() -> None:
    metrics = last_metrics(make_gan(batch_size=40))  # a single step, which skips the discriminator
    assert "g_grad_norm" in metrics
    assert "d_grad_norm" not in metrics
    assert {"g_grad_norm", "d_grad_norm", "grad_norm/discriminator.layers.1"} <= set(last_metrics(make_gan(1, 10)))


def test_units_that_are_never_above_zero_are_dead() -> None:
    model = network(4, 10, 3)
    first = model.layers[0]
    assert isinstance(first, Dense)
    first.bias[:4] = -1e3
    x = np.abs(np.random.default_rng(0).standard_normal((50, 4))).astype(np.float32)
    first.weight[...] = 1
    metrics = activation_metrics(model, activations(model, x))
    assert metrics == {"dead_units": 0.4, "dead_units/layers.0": 0.4}
    first.bias[3] = -float(x.sum(axis=1).max()) * 0.99  # above zero once
    assert activation_metrics(model, activations(model, x))["dead_units"] == 0.3


def test_a_filter_is_dead_if_it_is_below_zero_everywhere() -> None:
    conv, norm = Conv2D(1, 3, activation="relu", rng=generator_for(0, "init")), BatchNorm(3, "tanh")
    model = Sequential([conv, norm, Conv2D(3, 1, activation="tanh", rng=generator_for(1, "init"))], (6, 6, 1))
    conv.bias[1], norm.shift[0] = -1e3, 1e3
    x = np.abs(np.random.default_rng(0).standard_normal((50, 36))).astype(np.float32)
    outputs = activations(model, x)
    assert outputs[-1].shape == (50, 36)
    metrics = activation_metrics(model, outputs)
    assert metrics["dead_units"] == pytest.approx(1 / 3)
    assert metrics["saturation"] >= 1 / 3


@pytest.mark.parametrize(("activation", "inputs"), [("tanh", (2.1, 2.3)), ("sigmoid", (4.2, 4.5))])
def test_outputs_are_saturated_below_a_twentieth_of_the_maximum_slope(
    activation: str, inputs: tuple[float, float]
) -> None:
    model = network(1, 1, 1, activation=activation)
    first = model.layers[0]
    assert isinstance(first, Dense)
    first.weight[...], first.bias[...] = 1, 0
    x = np.array([[0.0], [inputs[0]], [inputs[1]], [-inputs[1]]], np.float32)
    assert activation_metrics(model, activations(model, x))["saturation"] == 0.5


def test_dead_units_are_reported_per_layer_and_in_total() -> None:
    rng = generator_for(0, "init")
    model = Sequential([Dense(4, 6, "relu", rng=rng), Dropout(0.5), Dense(6, 2, "relu", rng=rng), Dense(2, 1, rng=rng)])
    model.parameters[3][...] = -1e3
    metrics = activation_metrics(model, activations(model, np.ones((3, 4), np.float32)), "d_", "discriminator.")
    assert metrics["dead_units/discriminator.layers.2"] == 1
    first = metrics["dead_units/discriminator.layers.0"]
    assert metrics["d_dead_units"] == pytest.approx((6 * first + 2) / 8)


def test_sample_diversity_is_zero_for_copies_and_one_for_the_real_images() -> None:
    real = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    assert sample_diversity(np.repeat(real[:1], 50, axis=0), real) < 1e-5
    assert sample_diversity(real, real) == pytest.approx(1)
    assert sample_diversity(real / 2, real) == pytest.approx(0.5)
    assert np.isfinite(sample_diversity(real, np.zeros_like(real)))


def test_the_probe_is_spread_evenly_over_the_whole_dataset() -> None:
    """A dataset can be sorted by class."""
    indices = probe(ImageData(np.zeros((5000, 2, 2), np.uint8), None))
    assert len(indices) == diagnostics.PROBE_IMAGES
    assert (indices[0], indices[-1]) == (0, 4999)
    gaps = np.diff(indices)
    assert gaps.max() - gaps.min() <= 1, "the gaps differ by rounding only"
    assert probe(DATA).tolist() == list(range(40))


@pytest.mark.parametrize("make", [make_classifier, make_gan])
def test_measuring_changes_no_bit_of_the_training(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = make(epochs=3, batch_size=7)
    last_metrics(measured)
    monkeypatch.setattr(GradientNorms, "is_due", lambda self, step: False)
    for module in (supervised, gan):
        monkeypatch.setattr(module, "activation_metrics", lambda *args: {})
    monkeypatch.setattr(supervised, "activations", lambda *args: [])
    unmeasured = make(epochs=3, batch_size=7)
    last_metrics(unmeasured)
    assert checkpoint.dumps(measured.state_dict()) == checkpoint.dumps(unmeasured.state_dict())


def test_a_gradient_norm_that_overflows_causes_no_warning() -> None:
    norms = GradientNorms(network(2, 2), 1)
    norms.add([np.full((2, 2), 1e30, np.float32), np.zeros(2, np.float32)])
    assert norms.metrics()["grad_norm"] == np.inf


def test_the_same_images_are_probed_after_every_epoch() -> None:
    """Without an update between them, two epochs measure the same values."""
    trainer = make_gan(epochs=2, batch_size=10)
    trainer.trained[0].optimizer, trainer.trained[1].optimizer = SGD(1e-30), SGD(1e-30)
    reports = [r for r in trainer.run() if not isinstance(r, BatchDone)]
    for name in ("sample_diversity", "g_saturation", "d_dead_units"):
        assert reports[0].metrics[name] == reports[1].metrics[name]
