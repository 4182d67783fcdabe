"""The bundled reference classifier recognizes digits, and distinguishes real from generated ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine import ReferenceClassifier, checkpoint
from service.datasets.builtins import BUILT_IN
from service.datasets.cache import Dataset, load
from service.datasets.formats.array_folders import ArrayCache
from service.kinds.gan.training import reference_classifier
from service.spec.validation import read_resolved, resolve
from workers import make_reference_classifier


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("data")
    return load("mnist-10k", folder, cache=ArrayCache(folder / "cache"))


@pytest.fixture(scope="module")
def reference(digits: Dataset) -> ReferenceClassifier:
    classifier = reference_classifier(digits)
    assert classifier is not None
    return classifier


def test_it_classifies_digits(digits: Dataset, reference: ReferenceClassifier) -> None:
    # It was trained on these digits; on others its error rate is 0.9%.
    predictions = reference.evaluate(digits.validation.inputs)
    assert np.mean(predictions.labels == digits.validation.labels) > 0.995
    assert predictions.confidences.mean() > 0.98


def test_real_digits_get_the_best_scores(digits: Dataset, reference: ReferenceClassifier) -> None:
    scores = reference.score(digits.validation.inputs)
    assert scores["mode_coverage"] == 1
    assert scores["class_entropy"] > 0.99
    assert scores["frechet_distance"] < 20


def test_noise_copies_and_blurred_digits_get_bad_scores(digits: Dataset, reference: ReferenceClassifier) -> None:
    real = reference.score(digits.validation.inputs[:500])["frechet_distance"]
    noise = np.random.default_rng(0).integers(0, 256, (500, 28, 28)).astype(np.uint8)
    copies = np.repeat(digits.validation.inputs[:1], 500, axis=0)
    assert reference.score(noise)["frechet_distance"] > 20 * real
    assert reference.score(copies)["frechet_distance"] > 20 * real
    assert reference.score(copies)["mode_coverage"] == 0.1
    blurred = (digits.validation.inputs[:500] // 2 + np.roll(digits.validation.inputs[:500], 1, axis=0) // 2).astype(
        np.uint8
    )
    assert reference.score(blurred)["frechet_distance"] > 5 * real


def test_the_bundled_checkpoint_has_the_spec_of_the_command_that_makes_it() -> None:
    path = BUILT_IN["mnist"].reference_classifier
    assert path is not None
    assert path.stat().st_size < 1_500_000
    bundled = checkpoint.load(path)
    # Checkpoint retention does not affect the weights, and its default has changed since.
    retention = {"checkpoint": {"keep_last": 3}}
    assert read_resolved(bundled.spec | retention) == resolve(make_reference_classifier.SPEC | retention)
    assert bundled.state["val_accuracy"] > 0.985


def test_other_datasets_have_no_reference_classifier() -> None:
    assert BUILT_IN["fashion-mnist"].reference_classifier is None
    assert BUILT_IN["mnist"].reference_classifier == BUILT_IN["mnist-10k"].reference_classifier
