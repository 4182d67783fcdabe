import numpy as np
import pytest

from engine import DataError, ShapeError, accuracy, confusion_matrix

LABELS, PREDICTIONS = np.array([0, 1, 1, 2], np.uint8), np.array([0, 1, 2, 2])


def test_accuracy_is_the_part_that_is_right() -> None:
    assert accuracy(LABELS, PREDICTIONS) == 0.75


def test_rows_of_the_confusion_matrix_are_labels() -> None:
    assert confusion_matrix(LABELS, PREDICTIONS, 3).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_unsuited_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="2 classes"):
        confusion_matrix(LABELS, PREDICTIONS, 2)
    with pytest.raises(ShapeError, match=r"\(4,\) and predictions \(3,\)"):
        accuracy(LABELS, PREDICTIONS[:3])
    with pytest.raises(DataError, match="no predictions"):
        accuracy(LABELS[:0], PREDICTIONS[:0])
