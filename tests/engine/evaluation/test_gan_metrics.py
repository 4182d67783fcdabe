import numpy as np
import pytest

from engine import (
    DataError,
    Dense,
    Dropout,
    FeatureStatistics,
    ReferenceClassifier,
    Sequential,
    SettingError,
    ShapeError,
    generator_for,
)
from engine.evaluation.gan_metrics import frechet_distance, symmetric_root

RNG = np.random.default_rng(0)


def normal_statistics(features: int, seed: int) -> FeatureStatistics:
    rows = np.random.default_rng(seed).standard_normal((3 * features, features)) @ np.diag(np.arange(1, features + 1))
    return FeatureStatistics.of(rows + seed)


def brightest_pixel_classifier() -> ReferenceClassifier:
    """Classifies an image of four pixels by the brightest, more confidently the more it stands out."""
    rng = generator_for(0, "init")
    model = Sequential([Dense(4, 4, "relu", rng=rng), Dropout(0.5), Dense(4, 4, "softmax", rng=rng)])
    first, _, last = model.layers
    for layer, weight in ((first, 1.0), (last, 10.0)):
        assert isinstance(layer, Dense)
        layer.weight[...], layer.bias[...] = np.eye(4) * weight, 0
    return ReferenceClassifier(model, FeatureStatistics.of(images([0, 1, 2, 3] * 5).reshape(-1, 4) / 255))


def images(classes: list[int]) -> np.ndarray:
    pixels = np.zeros((len(classes), 2, 2), np.uint8)
    pixels.reshape(-1, 4)[np.arange(len(classes)), classes] = 255
    return pixels


def test_statistics_are_mean_and_covariance_in_double_precision() -> None:
    rows = RNG.standard_normal((50, 7)).astype(np.float32) + 1000
    statistics = FeatureStatistics.of(rows)
    np.testing.assert_allclose(statistics.mean, rows.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(statistics.covariance, np.cov(rows.astype(np.float64), rowvar=False))
    with pytest.raises(DataError, match="at least two rows"):
        FeatureStatistics.of(rows[:1])


def test_a_distribution_has_distance_zero_to_itself() -> None:
    assert frechet_distance(normal_statistics(6, 1), normal_statistics(6, 1)) == pytest.approx(0, abs=1e-10)


def test_a_shift_of_the_mean_adds_its_square() -> None:
    a = normal_statistics(6, 1)
    shift = RNG.standard_normal(6)
    assert frechet_distance(a, FeatureStatistics(a.mean + shift, a.covariance)) == pytest.approx(shift @ shift)


def test_isotropic_normals_differ_by_the_squared_difference_of_their_deviations() -> None:
    a, b = (FeatureStatistics(np.zeros(5), scale**2 * np.eye(5)) for scale in (1.0, 3.0))
    assert frechet_distance(a, b) == pytest.approx(5 * 2.0**2)


def test_the_trace_term_uses_the_root_of_the_covariance_product() -> None:
    a, b = normal_statistics(8, 1), normal_statistics(8, 2)
    eigenvalues = np.linalg.eigvals(a.covariance @ b.covariance)  # the product itself, which is not symmetric
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(eigenvalues.real).sum()
    expected = np.sum((a.mean - b.mean) ** 2) + trace
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_constant_features_are_supported() -> None:
    flat = FeatureStatistics.of(np.ones((10, 4)))
    assert frechet_distance(flat, flat) == 0
    assert frechet_distance(flat, FeatureStatistics(np.ones(4), np.eye(4))) == pytest.approx(4)


def test_the_square_of_a_symmetric_root_is_the_matrix() -> None:
    matrix = normal_statistics(9, 3).covariance
    root = symmetric_root(matrix)
    np.testing.assert_allclose(root @ root, matrix)
    np.testing.assert_allclose(root, root.T)


def test_different_numbers_of_features_cannot_be_compared() -> None:
    with pytest.raises(ShapeError, match="5 and 6 features"):
        frechet_distance(normal_statistics(5, 1), normal_statistics(6, 1))


def test_a_reference_classifier_returns_labels_confidences_and_features() -> None:
    evaluation = brightest_pixel_classifier().evaluate(images([2, 0, 3] * 300))
    assert evaluation.labels.tolist() == [2, 0, 3] * 300
    assert evaluation.confidences == pytest.approx(1 / (1 + 3 * np.exp(-10)))
    np.testing.assert_allclose(evaluation.features, images([2, 0, 3] * 300).reshape(-1, 4) / 255)


def test_images_like_the_real_ones_get_the_best_scores() -> None:
    scores = brightest_pixel_classifier().score(images([0, 1, 2, 3] * 5))
    assert scores["mode_coverage"] == 1
    assert scores["min_class_share"] == 0.25
    assert scores["class_entropy"] == pytest.approx(1)
    assert scores["confidence"] > 0.99
    assert scores["frechet_distance"] == pytest.approx(0, abs=1e-9)


def test_copies_of_one_image_get_the_worst_scores() -> None:
    scores = brightest_pixel_classifier().score(images([3] * 20))
    assert (scores["mode_coverage"], scores["min_class_share"], scores["class_entropy"]) == (0.25, 0, 0)
    assert scores["frechet_distance"] > 0.7


@pytest.mark.parametrize(("rare", "covered"), [(3, 1), (2, 0.75)])
def test_a_class_is_covered_from_three_tenths_of_an_equal_part(rare: int, covered: float) -> None:
    scores = brightest_pixel_classifier().score(images([0] * (40 - 2 * 10 - rare) + [1] * 10 + [2] * 10 + [3] * rare))
    assert scores["mode_coverage"] == covered
    assert scores["min_class_share"] == rare / 40
    shares = np.array([20 - rare, 10, 10, rare]) / 40
    divergence = (shares * np.log(shares * 4)).sum()
    assert (1 - scores["class_entropy"]) * np.log(4) == pytest.approx(divergence)


def test_a_reference_classifier_rejects_images_of_another_size_or_dtype() -> None:
    with pytest.raises(ShapeError, match="the reference classifier takes 4 pixels, not 9"):
        brightest_pixel_classifier().evaluate(np.zeros((1, 3, 3), np.uint8))
    with pytest.raises(DataError):
        brightest_pixel_classifier().evaluate(np.zeros((1, 2, 2), np.float32))


def test_statistics_that_are_not_finite_are_rejected() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(DataError, match="not finite"):
            FeatureStatistics.of(np.array([[1.0, 2.0], [value, 3.0], [2.0, 1.0]]))
        with pytest.raises(DataError, match="not finite"):
            FeatureStatistics(np.array([value]), np.ones((1, 1)))
    with pytest.raises(ShapeError, match="do not fit"):
        FeatureStatistics(np.zeros(2), np.ones((3, 3)))
    broken = brightest_pixel_classifier()
    np.asarray(broken.model.layers[0].weight)[...] = np.nan
    with pytest.raises(DataError, match="not finite"), np.errstate(invalid="ignore"):
        broken.score(images([0, 1, 2]))


def test_a_reference_classifier_needs_two_classes() -> None:
    rng = generator_for(0, "init")
    model = Sequential([Dense(4, 4, rng=rng), Dense(4, 1, "softmax", rng=rng)])
    with pytest.raises(SettingError, match="at least two classes"):
        ReferenceClassifier(model, FeatureStatistics.of(np.eye(4)))
