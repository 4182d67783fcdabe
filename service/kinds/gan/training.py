"""How GANs are trained, and how the reference classifier of a dataset scores their samples."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

import engine
from service.datasets.builtins import BUILT_IN
from service.datasets.cache import Dataset
from service.datasets.tables.preprocessing import Preprocessing
from service.kinds.classifier.spec import ClassifierSpec
from service.kinds.gan import model
from service.kinds.gan.spec import GanSpec
from service.kinds.supervised.model import network
from service.pictures import grids
from service.spec.validation import read_resolved
from workers.training import build
from workers.training.kinds import Arrays, Classify, Draw, TrainingOfKind

Images = NDArray[np.uint8]
SAMPLES_PER_BATCH: Final = 100
"""Samples generated at a time, so that they take no more memory than a training batch."""


def _trainer(resolved: GanSpec, dataset: Dataset, preprocessing: Preprocessing | None) -> engine.GanTrainer:
    generator, discriminator = resolved.generator, resolved.discriminator
    initializer = build.initializer(resolved.initializer)
    return engine.GanTrainer(
        model.generator(resolved, initializer, dataset.info.classes),
        model.discriminator(resolved, dataset.info.image_shape, initializer, dataset.info.classes),
        build.optimizer(generator.optimizer or resolved.optimizer),
        build.optimizer(discriminator.optimizer or resolved.optimizer),
        build.schedule(generator.schedule or resolved.schedule),
        build.schedule(discriminator.schedule or resolved.schedule),
        latent=model.latent(resolved),
        loss=engine.GanLoss(resolved.loss.name.value),
        skip_every=discriminator.skip_every,
        critic_steps=discriminator.critic_steps,
        label_smoothing=discriminator.label_smoothing,
        gradient_penalty=discriminator.gradient_penalty,
        r1=discriminator.r1,
        pack=discriminator.pack,
        conditional=resolved.conditional,
        accumulate=resolved.accumulate,
        reduction=resolved.loss.reduction.value,
        train=build.images(dataset, dataset.train, resolved),
        epochs=resolved.epochs,
        batch_size=resolved.batch_size,
        shuffle=resolved.shuffle,
        seed=resolved.seed,
        average_decay=generator.average_decay,
        dtype=np.dtype(resolved.dtype.value),
        verify_steps=build.VERIFY_STEPS,
    )


def reference_classifier(dataset: Dataset) -> engine.ReferenceClassifier | None:
    """The reference classifier of a dataset, or ``None`` if the package contains none."""
    built_in = BUILT_IN.get(dataset.info.name)
    if built_in is None or built_in.reference_classifier is None:
        return None
    state = engine.checkpoint.load(built_in.reference_classifier)
    resolved = read_resolved(state.spec)
    if not isinstance(resolved, ClassifierSpec):
        raise TypeError(f"{built_in.reference_classifier} holds a {resolved.kind}, not a classifier")
    classifier = network(resolved, dataset.info.image_shape, build.initializer(resolved.initializer))
    classifier.load_state_dict(state.tensors)
    low, high = resolved.dataset.scale
    real = engine.FeatureStatistics(state.tensors["real.mean"], state.tensors["real.covariance"])
    return engine.ReferenceClassifier(classifier, real, (low, high))


def _samples(
    trainer: engine.GanTrainer, count: int, class_names: Sequence[str], classify: Classify
) -> tuple[Draw, Arrays]:
    images = trainer.samples(count)
    return functools.partial(grids.sample_grid, images, sample_classes=classify(images)), [images]


def _score(trainer: engine.GanTrainer, spec: GanSpec, reference: engine.ReferenceClassifier) -> dict[str, float]:
    return reference.score(make_samples(trainer, spec.seed, "judge", spec.health.samples))


def make_samples(trainer: engine.GanTrainer, seed: int, purpose: str, count: int) -> Images:
    """Generate samples from noise that is the same in every epoch."""
    noise = trainer.draw_noise(engine.generator_for(seed, purpose), count)
    starts = range(0, count, SAMPLES_PER_BATCH)
    return np.concatenate([trainer.generate(noise[start : start + SAMPLES_PER_BATCH]) for start in starts])


TRAINING: Final = TrainingOfKind[GanSpec](
    trainer=_trainer, samples=_samples, reference=reference_classifier, score=_score
)
