from __future__ import annotations

import json
import math
from typing import Any

import pytest

from service import kinds
from service.datasets.builtins import BUILT_IN
from service.datasets.shapes import shape_of
from service.diagnosis.rules import DiagnosticsTracker
from service.kinds import rooms
from service.schema.findings import Finding
from service.spec.schema import Kind, Spec
from service.spec.validation import resolve
from service.states import FindingCode, Severity

Epochs = list[dict[str, float | None]]
DIGITS = shape_of(BUILT_IN["mnist-10k"].info)
CLASSIFIER, GAN = resolve({"kind": "classifier"}), resolve({"kind": "gan"})


def history(spec: Spec, epochs: Epochs) -> list[list[str]]:
    """The codes of the findings after each epoch."""
    tracker = DiagnosticsTracker(spec, DIGITS)
    codes_by_epoch = []
    for number, metrics in enumerate(epochs, 1):
        tracker.add(number, metrics)
        codes_by_epoch.append([finding.code.value for finding in tracker.findings])
    return codes_by_epoch


def only_finding(spec: Spec, epochs: Epochs) -> Finding:
    """The only finding after the last epoch."""
    tracker = DiagnosticsTracker(spec, DIGITS)
    for number, metrics in enumerate(epochs, 1):
        tracker.add(number, metrics)
    (finding,) = tracker.findings
    return finding


def classifier_epochs(count: int, **overrides: float) -> Epochs:
    """Epochs of a classifier that learns well, except for the overrides."""
    return [
        {
            "train_loss": 0.5 / n,
            "val_loss": 0.3 + 0.2 / n,
            "train_accuracy": 1 - 0.3 / n,
            "val_accuracy": 0.97 - 0.2 / n,
            "grad_norm/layers.0": 0.5 / n,
            "grad_norm/layers.1": 0.5 / n,
            **overrides,
        }
        for n in range(1, count + 1)
    ]


def gan_epochs(count: int, **overrides: float | None) -> Epochs:
    """Epochs of a GAN in balance, except for the overrides."""
    metrics = {"d_loss": 0.6, "g_loss": 1.1, "d_real": 0.6, "d_fake": 0.35, "g_grad_norm": 1.0, "d_grad_norm": 1.2}
    return [{**metrics, "sample_diversity": 0.4, **overrides} for _ in range(count)]


def test_a_healthy_training_has_no_findings() -> None:
    assert history(CLASSIFIER, classifier_epochs(20)) == [[]] * 20
    assert history(GAN, gan_epochs(20)) == [[]] * 20


def test_samples_without_diversity_are_a_mode_collapse_from_the_second_epoch() -> None:
    epochs = gan_epochs(3, sample_diversity=0.0012)
    assert history(GAN, epochs) == [[], ["mode_collapse"], ["mode_collapse"]]
    finding = only_finding(GAN, epochs)
    assert (finding.epoch, finding.severity) == (2, Severity.ERROR)
    assert finding.numbers == {"sample_diversity": 0.0012}
    assert "its samples have 0.1% of the diversity of real images" in finding.message


# The diversity of samples after each epoch, measured on mnist-10k: the preset classic with glorot alone and with Adam
# alone, and the preset stable.
GLOROT_ALONE = [0.443, 0.421, 0.357, 0.272, 0.234, 0.206, 0.187, 0.181, 0.172, 0.156, 0.161, 0.163]
ADAM_ALONE = [0.235, 0.0973, 0.267, 0.0565, 0.174, 0.0737, 0.0937, 0.482, 0.151, 0.163, 0.389, 0.166]
STABLE = [0.419, 0.591, 0.721, 0.751, 0.793, 0.832, 0.827, 0.818, 0.847, 0.896, 0.864, 0.844]
SLOW = [0.02 * n for n in range(5, 17)]


@pytest.mark.parametrize(("spreads", "found"), [(GLOROT_ALONE, 7), (ADAM_ALONE, 7), (STABLE, None), (SLOW, None)])
def test_samples_that_stay_much_alike_are_a_mode_collapse(spreads: list[float], found: int | None) -> None:
    codes = history(GAN, [epoch for value in spreads for epoch in gan_epochs(1, sample_diversity=value)])
    assert next((number for number, names in enumerate(codes, 1) if names), None) == found


def evaluated_epochs(coverage: float, distance: float) -> Epochs:
    return [*gan_epochs(4), *gan_epochs(1, mode_coverage=coverage, frechet_distance=distance)]


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ([(0.1, 1170), (0.1, 1190)], 10),  # classic, with Adam alone
        ([(0.1, 1172), (0.1, 1123)], 10),  # a fork of classic, with Adam
        ([(0.3, 500), (0.2, 490), (0.3, 495)], 15),
    ],
)
def test_low_coverage_without_improvement_is_a_mode_collapse(scores: list[tuple[float, float]], found: int) -> None:
    finding = only_finding(GAN, [epoch for pair in scores for epoch in evaluated_epochs(*pair)])
    assert (finding.code, finding.epoch) == (FindingCode.MODE_COLLAPSE, found)
    coverage, distance = scores[-1]
    assert finding.numbers == {"sample_diversity": 0.4, "mode_coverage": coverage, "frechet_distance": distance}


@pytest.mark.parametrize(
    "scores",
    [
        [(0.1, 1155), (0.2, 982), (0.3, 942)],  # classic, with glorot and Adam
        [(0.2, 900), (0.2, 800), (0.4, 700)],  # early in the training, with a falling distance
        [(0.3, 500), (0.6, 500), (0.3, 500)],
        [(1.0, 300), (1.0, 300), (1.0, 320)],
    ],
)
def test_an_improving_or_diverse_generator_has_not_collapsed(scores: list[tuple[float, float]]) -> None:
    assert not any(history(GAN, [epoch for pair in scores for epoch in evaluated_epochs(*pair)]))


def test_scores_of_every_epoch_decide_no_sooner_than_those_of_every_fifth() -> None:
    stable = [(0.2, 1140), (0.2, 1150), (0.2, 1090), (0.5, 937), (0.6, 803), (0.9, 695), (0.9, 594)]
    epochs = [gan_epochs(1, mode_coverage=coverage, frechet_distance=distance)[0] for coverage, distance in stable]
    assert not any(history(GAN, epochs))
    stuck = gan_epochs(6, mode_coverage=0.1, frechet_distance=1190)
    assert [bool(codes) for codes in history(GAN, stuck)] == [False] * 5 + [True]


def test_a_discriminator_that_is_never_wrong_wins() -> None:
    finding = only_finding(GAN, gan_epochs(2) + gan_epochs(3, d_real=0.99, d_fake=0.001, g_loss=7.0))
    assert (finding.code, finding.epoch) == (FindingCode.DISCRIMINATOR_WINS, 5)
    assert finding.numbers == {"d_real": 0.99, "d_fake": 0.001, "g_loss": 7.0}
    assert not any(history(GAN, gan_epochs(9, d_real=0.9, d_fake=0.1, g_loss=2.5)))


def test_a_tiny_gradient_of_the_generator_is_a_vanishing_gradient() -> None:
    finding = only_finding(GAN, gan_epochs(3, g_grad_norm=1e-6, d_grad_norm=3e-4))
    assert (finding.code, finding.epoch) == (FindingCode.VANISHING_GRADIENT, 3)


def test_a_tiny_gradient_of_the_first_layer_vanishes_only_if_nothing_is_learned() -> None:
    stuck = {"train_loss": 2.3, "train_accuracy": 0.1, "grad_norm/layers.0": 1e-6, "grad_norm/layers.1": 0.1}
    finding = only_finding(CLASSIFIER, classifier_epochs(4, **stuck))
    assert (finding.code, finding.epoch) == (FindingCode.VANISHING_GRADIENT, 4)
    assert "0.1" in finding.message
    falling = [epoch | {"train_loss": 2.3 - 0.1 * n} for n, epoch in enumerate(classifier_epochs(8, **stuck))]
    assert not any(history(CLASSIFIER, falling))
    assert not any(history(CLASSIFIER, classifier_epochs(8, **(stuck | {"train_accuracy": 0.99}))))


def test_a_validation_loss_that_rises_while_the_training_loss_falls_is_overfitting() -> None:
    rising = [
        epoch | {"val_loss": 0.14 + 0.02 * abs(n - 3), "val_accuracy": 0.96}
        for n, epoch in enumerate(classifier_epochs(12))
    ]
    codes = history(CLASSIFIER, rising)
    finding = only_finding(CLASSIFIER, rising)
    assert codes.index(["overfitting"]) == finding.epoch - 1 == 7  # 1.2 x 0.14 is exceeded in epochs 6, 7 and 8
    assert (finding.severity, finding.numbers["lowest_val_loss"]) == (Severity.WARNING, 0.14)
    better = [epoch | {"val_accuracy": 0.9 + 0.005 * n} for n, epoch in enumerate(rising)]
    assert not any(history(CLASSIFIER, better))
    flat = [epoch | {"train_loss": 0.1} for epoch in rising]
    assert not any(history(CLASSIFIER, flat))


def test_overfitting_persists_through_epochs_that_are_better_by_chance() -> None:
    rising = [epoch | {"val_loss": 0.14 + 0.02 * abs(n - 3)} for n, epoch in enumerate(classifier_epochs(20))]
    by_chance = [epoch | {"val_accuracy": 0.97 if n % 3 == 2 else 0.95} for n, epoch in enumerate(rising)]
    steady = [epoch | {"val_accuracy": 0.95} for epoch in rising]
    assert not any(history(CLASSIFIER, by_chance)), "raised only if no epoch is better"
    assert history(CLASSIFIER, steady[:8] + by_chance[8:])[7:] == 13 * [["overfitting"]]
    dip = [*steady[:14], steady[14] | {"val_loss": 0.15}, *steady[15:]]
    assert history(CLASSIFIER, dip)[7:] == 13 * [["overfitting"]]


@pytest.mark.parametrize("change", [{"val_accuracy": 0.97}, {"val_loss": 0.15}])
def test_overfitting_ends_after_three_better_epochs_in_a_row(change: dict[str, float]) -> None:
    rising = [
        epoch | {"val_loss": 0.14 + 0.02 * abs(n - 3), "val_accuracy": 0.95}
        for n, epoch in enumerate(classifier_epochs(20))
    ]
    better = rising[:12] + [epoch | change for epoch in rising[12:]]
    assert history(CLASSIFIER, better)[7:] == 7 * [["overfitting"]] + 6 * [[]]


def test_a_training_loss_above_its_first_value_for_two_epochs_is_diverging() -> None:
    losses = [1.0, 0.3, 0.2, 2.5, 3.0]
    epochs = [epoch | {"train_loss": loss} for epoch, loss in zip(classifier_epochs(5), losses, strict=True)]
    finding = only_finding(CLASSIFIER, epochs)
    assert (finding.code, finding.epoch) == (FindingCode.DIVERGING, 5)
    bumpy = [
        epoch | {"train_loss": loss}
        for epoch, loss in zip(classifier_epochs(5), [1.0, 0.3, 2.5, 0.3, 0.9], strict=True)
    ]
    assert not any(history(CLASSIFIER, bumpy))
    assert only_finding(GAN, gan_epochs(2, d_loss=4.0)).code is FindingCode.DIVERGING


@pytest.mark.parametrize("metric", ["dead_units", "saturation"])
@pytest.mark.parametrize(("spec", "epochs"), [(CLASSIFIER, classifier_epochs), (GAN, gan_epochs)])
def test_a_dead_or_saturated_layer_is_named(metric: str, spec: Spec, epochs: Any) -> None:
    name = f"{metric}/layers.1"
    finding = only_finding(spec, epochs(3, **{f"{metric}/layers.0": 0.2, name: 0.95}))
    assert (finding.code.value, finding.numbers) == (metric, {name: 0.95})
    assert finding.message.startswith("95% of layers.1")
    assert not any(history(spec, epochs(5, **{name: 0.8})))


def test_a_finding_ends_after_three_healthy_epochs_in_a_row() -> None:
    sick, well = gan_epochs(1, sample_diversity=0.01), gan_epochs(1)
    codes_by_epoch = history(GAN, sick * 2 + well + sick * 2 + well * 3 + sick * 2)
    assert [bool(codes) for codes in codes_by_epoch] == [False] + [True] * 6 + [False] * 2 + [True]


def test_a_tracker_rebuilt_from_stored_metrics_has_the_same_findings() -> None:
    epochs = gan_epochs(3, sample_diversity=0.01) + gan_epochs(4, d_real=0.99, d_fake=0.001, g_loss=7.0) + gan_epochs(3)
    tracker = DiagnosticsTracker(GAN, DIGITS)
    for number, metrics in enumerate(epochs, 1):
        tracker.add(number, metrics)
        rebuilt = DiagnosticsTracker(GAN, DIGITS)
        for earlier, stored in enumerate(json.loads(json.dumps(epochs[:number])), 1):
            rebuilt.add(earlier, stored)
        assert [finding.document() for finding in rebuilt.findings] == [
            finding.document() for finding in tracker.findings
        ]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_none_nan_and_infinity_count_as_missing_values(value: float | None) -> None:
    assert not any(history(GAN, gan_epochs(4, sample_diversity=value, d_loss=value, g_grad_norm=value)))
    without_values: Epochs = [dict.fromkeys(epoch, value) for epoch in classifier_epochs(5)]
    assert not any(history(CLASSIFIER, without_values))
    assert not any(history(CLASSIFIER, [{}] * 5))


def test_a_finding_can_be_stored_as_json() -> None:
    document = only_finding(GAN, gan_epochs(3, sample_diversity=0.0012)).document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["code"] == "mode_collapse"


def test_a_finding_while_the_generator_stands_still_has_the_advice_for_it() -> None:
    """A lower learning rate would make it slower still, and limits are for a discriminator that wins."""
    still = gan_epochs(2, sample_diversity=0.0, g_grad_norm=2e-7, d_grad_norm=3e-4)
    optimizer = {"name": "adam", "learning_rate": 0.0003}
    spec = resolve({"kind": "gan", "discriminator": {"r1": 0}, "optimizer": optimizer})
    advice = [item.settings for item in only_finding(spec, still).advice]
    assert advice == [{"initializer": "he"}, {"optimizer.learning_rate": 0.0009}]
    assert {"discriminator.r1": 1} in [
        item.settings for item in only_finding(spec, gan_epochs(2, sample_diversity=0.0)).advice
    ]


def test_every_finding_code_belongs_to_a_kind() -> None:
    assert {code for kind in Kind for code in kinds.of(kind).findings} == set(FindingCode)


@pytest.mark.parametrize("kind", Kind)
def test_the_rules_of_a_kind_are_those_of_its_codes(kind: Kind) -> None:
    assert tuple(rule.code for rule in rooms.specs(kind).diagnosis.rules) == kinds.of(kind).findings
