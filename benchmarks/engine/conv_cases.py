"""The rows of convolutional networks: those of the presets ``conv`` and ``best``, without shifts and averages."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.engine import digits, networks
from benchmarks.engine.peers import jax_jit, pytorch
from benchmarks.engine.rows import Row, Work, stepper, whole_batches
from engine import Adam, AdamW, ClassifierTrainer, GanTrainer, ImageData, Latent, SoftmaxCrossEntropy, schedules

RATE = 1e-4
DECAY = 0.02


def classifier(data: ImageData, batch: int, dropout: float) -> ClassifierTrainer:
    """A trainer that practically never ends."""
    return ClassifierTrainer(
        networks.conv_classifier(dropout),
        SoftmaxCrossEntropy(label_smoothing=0.1),
        AdamW(RATE, weight_decay=DECAY),
        schedules.constant(),
        train=data,
        validation=data,
        epochs=10**9,
        batch_size=batch,
        shuffle=False,
        seed=0,
    )


def gan(data: ImageData, batch: int, dropout: float) -> GanTrainer:
    """Like :func:`classifier`."""
    return GanTrainer(
        networks.conv_generator(),
        networks.conv_discriminator(dropout),
        Adam(RATE, 0.5),
        Adam(RATE, 0.5),
        schedules.constant(),
        schedules.constant(),
        train=data,
        latent=Latent(networks.LATENT, "normal"),
        epochs=10**9,
        batch_size=batch,
        shuffle=False,
        seed=0,
        label_smoothing=0.1,
    )


def classifier_row(batch: int = 100, dropout: float = 0.2) -> Row:
    """A step with AdamW."""
    data = whole_batches(digits.training(), batch)
    model = networks.conv_classifier(dropout)
    contestants: dict[str, Work] = {"engine": stepper(classifier(data, batch, dropout))}
    if pytorch:
        torch_model = pytorch.network(model, last=False)
        optimizer = pytorch.adam(RATE, decay=DECAY)
        contestants["torch"] = pytorch.Classifier(
            torch_model, data, batch, optimizer, pytorch.smoothed_cross_entropy
        ).step
    if jax_jit:
        jax_optimizer = jax_jit.adam(RATE, decay=DECAY)
        contestants["jax"] = jax_jit.Classifier(model, data, batch, jax_optimizer, jax_jit.smoothed_cross_entropy).step
    return Row(f"conv classifier step, batch {batch}", contestants)


def gan_row(batch: int = 64, dropout: float = 0.4) -> Row:
    """A step with Adam."""
    data = whole_batches(digits.training(), batch)
    generator, discriminator = networks.conv_generator(), networks.conv_discriminator(dropout)
    contestants: dict[str, Work] = {"engine": stepper(gan(data, batch, dropout))}
    if pytorch:
        twins = (pytorch.network(generator), pytorch.network(discriminator, last=False))
        optimizers = (pytorch.adam(RATE, 0.5), pytorch.adam(RATE, 0.5))
        contestants["torch"] = pytorch.Gan(
            *twins,
            data,
            batch,
            optimizers,
            None,
            networks.LATENT,
            reduction="mean",
            smoothing=0.1,
            distribution="normal",
        ).step
    if jax_jit:
        contestants["jax"] = jax_jit.Gan(
            generator,
            discriminator,
            data,
            batch,
            (jax_jit.adam(RATE, 0.5), jax_jit.adam(RATE, 0.5)),
            reduction="mean",
            smoothing=0.1,
            distribution="normal",
        ).step
    return Row(f"conv GAN step, batch {batch}", contestants)


def rows() -> Iterator[Row]:
    """Both rows."""
    yield classifier_row()
    yield gan_row()
