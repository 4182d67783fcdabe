import numpy as np
import pytest

from engine import DataError, ShapeError, accuracy, confusion_matrix
from engine.evaluation.metrics import balanced_accuracy, log_likelihoods, macro_f1, roc_auc

LABELS, PREDICTIONS = np.array([0, 1, 1, 2], np.uint8), np.array([0, 1, 2, 2])


def test_accuracy_is_the_fraction_of_correct_predictions() -> None:
    assert accuracy(LABELS, PREDICTIONS) == 0.75


def test_rows_of_the_confusion_matrix_are_true_labels() -> None:
    assert confusion_matrix(LABELS, PREDICTIONS, 3).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_invalid_labels_and_predictions_are_rejected() -> None:
    with pytest.raises(DataError, match="2 classes"):
        confusion_matrix(LABELS, PREDICTIONS, 2)
    with pytest.raises(ShapeError, match=r"\(4,\) and predictions \(3,\)"):
        accuracy(LABELS, PREDICTIONS[:3])
    with pytest.raises(DataError, match="no predictions"):
        accuracy(LABELS[:0], PREDICTIONS[:0])


def test_balanced_accuracy_and_macro_f1_weight_present_classes_equally() -> None:
    matrix = np.array([[8, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert balanced_accuracy(matrix) == pytest.approx((1 + 1 / 2) / 2)  # the third class is absent
    assert macro_f1(matrix) == pytest.approx((16 / 17 + 2 / 3) / 2)


def test_log_likelihoods_normalize_each_row_and_are_finite() -> None:
    actual = log_likelihoods(np.array([0, 1, 1]), np.array([[0.5, 0.5], [0.2, 0.6], [1.0, 0.0]]))
    np.testing.assert_allclose(actual, np.log([0.5, 0.75, 1e-15]))
    assert np.isfinite(log_likelihoods(np.array([0]), np.zeros((1, 2)))).all()


def test_roc_auc_is_the_fraction_of_correctly_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 10, 60) / 10  # with ties
    positives, negatives = scores[labels == 1], scores[labels == 0]
    pairs = (positives[:, None] > negatives).mean() + (positives[:, None] == negatives).mean() / 2
    assert roc_auc(labels, scores) == pytest.approx(pairs)
    assert roc_auc(np.array([0, 0, 1]), np.array([0.1, 0.2, 0.9])) == 1
    assert np.isnan(roc_auc(np.zeros(3, int), np.ones(3)))
