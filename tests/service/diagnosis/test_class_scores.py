from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.diagnosis.class_scores import ClassScore, class_scores


def test_scores_match_a_hand_computed_example() -> None:
    scores = class_scores([[8, 2, 0], [1, 5, 4], [0, 3, 7]])
    first, second, third = scores.classes
    assert first == ClassScore(support=10, precision=pytest.approx(8 / 9), recall=0.8, f1=pytest.approx(16 / 19))
    assert second == ClassScore(support=10, precision=0.5, recall=0.5, f1=0.5)
    assert third == ClassScore(support=10, precision=pytest.approx(7 / 11), recall=0.7, f1=pytest.approx(2 / 3))
    assert scores.macro_precision == pytest.approx((8 / 9 + 1 / 2 + 7 / 11) / 3)
    assert scores.balanced_accuracy == pytest.approx(2 / 3)
    assert scores.macro_f1 == pytest.approx((16 / 19 + 1 / 2 + 2 / 3) / 3)


def test_a_class_that_is_never_predicted_has_no_precision_and_counts_as_zero() -> None:
    scores = class_scores([[4, 0], [2, 0]])
    assert scores.classes[1] == ClassScore(support=2, precision=None, recall=0.0, f1=0.0)
    assert scores.macro_precision == pytest.approx(1 / 3)
    assert scores.balanced_accuracy == 0.5
    assert scores.macro_f1 == pytest.approx(0.4)


def test_a_class_without_images_has_no_recall_and_lowers_the_f1_only_if_predicted() -> None:
    predicted = class_scores([[3, 1], [0, 0]])
    assert predicted.classes[1] == ClassScore(support=0, precision=0.0, recall=None, f1=0.0)
    assert predicted.balanced_accuracy == 0.75
    assert predicted.macro_f1 == pytest.approx(3 / 7)
    absent = class_scores([[3, 0], [0, 0]])
    assert absent.classes[1] == ClassScore(support=0, precision=None, recall=None, f1=None)
    assert (absent.macro_precision, absent.balanced_accuracy, absent.macro_f1) == (1.0, 1.0, 1.0)


def test_an_empty_matrix_has_no_means() -> None:
    scores = class_scores([[0, 0], [0, 0]])
    assert (scores.macro_precision, scores.balanced_accuracy, scores.macro_f1) == (None, None, None)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)).map(lambda p: (n, p))))
def test_scores_match_their_definitions_over_single_predictions(given_pairs: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = given_pairs
    matrix = [[pairs.count((true, predicted)) for predicted in range(count)] for true in range(count)]
    scores = class_scores(matrix)
    for label, score in enumerate(scores.classes):
        of_class = [predicted for true, predicted in pairs if true == label]
        as_class = [true for true, predicted in pairs if predicted == label]
        assert score.support == len(of_class)
        assert score.recall == (of_class.count(label) / len(of_class) if of_class else None)
        assert score.precision == (as_class.count(label) / len(as_class) if as_class else None)
        if score.precision and score.recall:
            assert score.f1 == pytest.approx(2 / (1 / score.precision + 1 / score.recall))
        else:
            assert score.f1 == (0.0 if of_class or as_class else None)
    present = {true for true, _ in pairs}
    if present:
        recalls = [matrix[label][label] / sum(matrix[label]) for label in present]
        assert scores.balanced_accuracy == pytest.approx(sum(recalls) / len(recalls))
    if pairs and all(true == predicted for true, predicted in pairs):
        assert scores.macro_f1 == scores.macro_precision == scores.balanced_accuracy == 1.0
