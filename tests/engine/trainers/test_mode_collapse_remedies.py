"""Each remedy for mode collapse in a trainer: same bits replayed, on the tape and resumed; invalid settings."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from engine import (
    Adam,
    AvgPool2D,
    BatchDone,
    BatchNorm,
    Conv2D,
    DataError,
    Dense,
    EpochDone,
    Flatten,
    GanLoss,
    GanTrainer,
    ImageData,
    Latent,
    LayerNorm,
    Reshape,
    Sequential,
    SettingError,
    ShapeError,
    checkpoint,
    generator_for,
    schedules,
)
from engine.replay import Replay
from engine.trainers.gan_losses import last_activation

CLASSES, SIDE = 4, 6


def images(count: int = 26) -> ImageData:
    rng = np.random.default_rng(0)
    bytes_ = rng.integers(0, 256, (count, SIDE, SIDE), np.uint8)
    return ImageData(bytes_, rng.integers(0, CLASSES, count), (-1, 1), classes=CLASSES)


def make(kind: str = "dense", loss: str = "binary_cross_entropy", **settings: Any) -> GanTrainer:
    rng, dtype = generator_for(0, "init"), settings.get("dtype", np.float32)
    spectral = settings.pop("spectral_norm", False)
    pack, classes = settings.get("pack", 1), CLASSES if settings.get("conditional") else 0
    output_activation = last_activation(GanLoss(loss))
    options: dict[str, Any] = {"rng": rng, "dtype": dtype, "spectral_norm": spectral}
    generator = Sequential(
        [Dense(5 + classes, 9, "tanh", rng=rng, dtype=dtype), Dense(9, 36, "tanh", rng=rng, dtype=dtype)]
    )
    if kind == "dense":
        first = Dense(pack * (36 + classes), 7, "leaky_relu", **options)
        discriminator = Sequential(
            [first, settings.pop("norm", LayerNorm(7, dtype=dtype)), Dense(7, 1, output_activation, **options)]
        )
    else:
        channels = pack * (1 + classes)
        layers = [Conv2D(channels, 4, 3, 2, "same", "silu", **options)]
        if kind == "conv":
            layers += [AvgPool2D(3), Flatten(), Dense(4, 1, output_activation, **options)]
        else:
            layers += [Flatten(), Dense(36, 18, "silu", **options), Reshape((3, 3, 2))]
            layers += [Conv2D(2, 1, 3, 1, "valid", output_activation, **options)]
        discriminator = Sequential(layers, (SIDE, SIDE, channels))
    arguments: dict[str, Any] = {"train": images(), "latent": Latent(5, "normal"), "epochs": 3, "batch_size": 8}
    arguments |= {"shuffle": True, "seed": 0, "loss": loss} | settings
    constant = schedules.constant()
    return GanTrainer(generator, discriminator, Adam(0.01, 0.5), Adam(0.01, 0.5), constant, constant, **arguments)


def weights(network: Sequential) -> bytes:
    return b"".join(tensor.tobytes() for tensor in network.parameters)


def whole_run(trainer: GanTrainer) -> tuple[bytes, list[dict[str, float]]]:
    metrics = [report.metrics for report in trainer.run() if isinstance(report, EpochDone)]
    return checkpoint.dumps(trainer.state_dict()), metrics


CURES: dict[str, dict[str, Any]] = {
    "least squares": {"loss": "least_squares", "label_smoothing": 0.1},
    "hinge": {"loss": "hinge"},
    "wasserstein": {"loss": "wasserstein", "reduction": "sum"},
    "gradient penalty": {"loss": "wasserstein", "gradient_penalty": 10.0, "critic_steps": 2},
    "penalty, sums": {"loss": "wasserstein", "gradient_penalty": 10.0, "reduction": "sum"},
    "r1": {"r1": 1.0},
    "r1 and gradient penalty": {"r1": 1.0, "gradient_penalty": 1.0, "label_smoothing": 0.1},
    "critic steps": {"critic_steps": 3, "average_decay": 0.9},
    "spectral norm": {"loss": "hinge", "spectral_norm": True},
    "spectral norm, r1": {"spectral_norm": True, "r1": 1.0},
    "pack": {"pack": 2},
    "pack, penalty": {"pack": 4, "loss": "wasserstein", "gradient_penalty": 10.0},
    "conditional": {"conditional": True},
    "conditional, pack, penalty": {"conditional": True, "pack": 2, "gradient_penalty": 1.0},
    "accumulate": {"accumulate": 3},
    "accumulate, skip": {"accumulate": 2, "skip_every": 2, "reduction": "sum", "average_decay": 0.9},
}


@pytest.mark.parametrize(
    ("cure", "kind"), [*product(CURES, ["dense", "conv"]), ("gradient penalty", "dense inside conv")]
)
def test_replay_tape_and_a_resumed_run_have_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, cure: str, kind: str
) -> None:
    replays: list[Replay] = []
    original = Replay.__init__

    def spy(self: Replay, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        replays.append(self)

    monkeypatch.setattr(Replay, "__init__", spy)
    replayed, metrics = whole_run(make(kind, **CURES[cure]))
    assert (replayed, metrics) == whole_run(make(kind, **CURES[cure], replay=False))
    assert replays[0].plans, "the steps were not replayed"
    stopped, resumed = make(kind, **CURES[cure]), make(kind, **CURES[cure])
    for report in stopped.run():
        if isinstance(report, EpochDone):
            break
    resumed.load_state_dict(checkpoint.loads(checkpoint.dumps(stopped.state_dict())))
    assert whole_run(resumed)[0] == replayed
    assert all(np.isfinite(value) for epoch in metrics for value in epoch.values())
    assert ("d_penalty" in metrics[0]) == ("penalty" in cure or "r1" in cure)
    assert (resumed.samples(5) == stopped.samples(5)).mean() < 1


def test_a_spectral_norm_divides_by_the_largest_singular_value() -> None:
    rng = generator_for(0, "x")
    for layer in (Dense(6, 4, rng=rng, spectral_norm=True), Conv2D(2, 4, rng=rng, spectral_norm=True)):
        x = np.ones((1, 6) if isinstance(layer, Dense) else (1, 3, 3, 2), np.float32)
        for _ in range(100):
            layer(x, training=True)
        weight = np.asarray(layer.normalized_weight()).reshape(-1, 4)
        np.testing.assert_allclose(np.linalg.svd(weight)[1][0], 1, rtol=1e-5)
        before = layer.buffers["spectral"].copy()
        assert (layer(x) == layer(x)).all()
        assert (layer.buffers["spectral"] == before).all()  # inference changes nothing


def test_conditional_samples_have_the_requested_class() -> None:
    """A conditional GAN, and images whose brightness shows their class."""
    labels = np.arange(400) % CLASSES
    noise = generator_for(1, "noise").integers(0, 30, (400, SIDE, SIDE))
    data = ImageData((noise + 70 * labels[:, None, None]).astype(np.uint8), labels, (-1, 1), classes=CLASSES)
    trainer = make(conditional=True, train=data, epochs=30, batch_size=20)
    whole_run(trainer)
    latent = trainer.latent.draw(generator_for(5, "z"), 50, np.float32)
    means = [trainer.generate(latent, label).mean() for label in range(CLASSES)]
    assert means == sorted(means)
    assert means[-1] - means[0] > 70  # the difference in brightness of neighbouring classes
    assert (trainer.generate(latent[:8]) == trainer.generate(latent[:8], np.arange(8) % CLASSES)).all()
    with pytest.raises(DataError, match="class must be in 0 to 3; it is 4"):
        trainer.generate(latent, 4)
    with pytest.raises(DataError, match="one for each of 50 images"):
        trainer.generate(latent, [1, 2])


def test_accumulated_batches_are_equivalent_to_one_large_batch() -> None:
    """Without dropout, and with batches of equal size, the updates are those of the large batch."""
    for reduction in ("mean", "sum"):
        common: dict[str, Any] = {"train": images(24), "dtype": np.float64, "reduction": reduction}
        accumulated, large = make(batch_size=4, accumulate=3, **common), make(batch_size=12, **common)
        whole_run(accumulated)
        whole_run(large)
        for actual, expected in zip(accumulated.discriminator.parameters, large.discriminator.parameters, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def test_the_generator_is_updated_in_every_nth_step_and_only_then() -> None:
    """An epoch has 4 steps; the count continues over the epochs."""
    trainer = make(critic_steps=3)
    networks, updates = (trainer.generator, trainer.discriminator), []
    before = [weights(network) for network in networks]
    for report in trainer.run():
        if isinstance(report, BatchDone):
            after = [weights(network) for network in networks]
            updates.append(tuple(new != old for new, old in zip(after, before, strict=True)))
            before = after
    assert updates == [(step % 3 == 0, True) for step in range(1, 13)]


def test_an_epoch_without_a_generator_update_reports_no_generator_loss() -> None:
    trainer = make(critic_steps=100)
    before = [weights(network) for network in (trainer.generator, trainer.discriminator)]
    _, metrics = whole_run(trainer)
    assert weights(trainer.generator) == before[0]
    assert weights(trainer.discriminator) != before[1]
    assert "g_loss" not in metrics[0]
    assert {"d_loss", "d_real", "d_fake"} <= metrics[0].keys()


INVALID_SETTINGS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"loss": "absolute"}, ValueError, "absolute"),
    ({"loss": "hinge", "label_smoothing": 0.1}, SettingError, "hinge has no targets to smooth"),
    ({"gradient_penalty": -1.0}, SettingError, "gradient_penalty -1.0 must not be negative"),
    ({"r1": np.inf}, SettingError, "r1 inf"),
    ({"r1": 1.0, "norm": BatchNorm(7)}, SettingError, "r1: a discriminator with BatchNorm"),
    ({"critic_steps": 0}, SettingError, "critic_steps 0 must be positive"),
    ({"critic_steps": 2, "skip_every": 3}, SettingError, "1 where skip_every is given"),
    ({"accumulate": 0}, SettingError, "accumulate 0"),
    ({"conditional": True, "train": ImageData(np.zeros((9, 6, 6), np.uint8), None)}, SettingError, "have no labels"),
]


@pytest.mark.parametrize(("settings", "error", "message"), INVALID_SETTINGS)
def test_invalid_settings_are_named_in_the_error(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**settings)


def test_settings_that_do_not_fit_the_discriminator_are_rejected() -> None:
    trainer = make(pack=2)
    arguments: dict[str, Any] = {"train": images(), "latent": Latent(5), "epochs": 1, "batch_size": 8}
    arguments |= {"shuffle": True, "seed": 0}
    networks = (
        trainer.generator,
        trainer.discriminator,
        Adam(0.1),
        Adam(0.1),
        schedules.constant(),
        schedules.constant(),
    )
    with pytest.raises(ShapeError, match=r"inputs \(72,\) does not fit images of 36 pixels, 3 together"):
        GanTrainer(*networks, **arguments, pack=3)
    with pytest.raises(SettingError, match="pack 0 must be positive"):
        GanTrainer(*networks, **arguments, pack=0)
    with pytest.raises(SettingError, match="hinge needs a discriminator that ends with no activation, not sigmoid"):
        GanTrainer(*networks, **arguments, pack=2, loss="hinge")
    with pytest.raises(SettingError, match="unknown loss 'absolute'; known are binary_cross_entropy, least_squares"):
        GanTrainer(*networks, **arguments, pack=2, loss="absolute")
