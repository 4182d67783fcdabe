import numpy as np
import pytest

from engine import (
    AbsoluteError,
    Activation,
    BinaryCrossEntropy,
    DataError,
    GradientTape,
    Huber,
    SettingError,
    ShapeError,
    SoftmaxCrossEntropy,
    SquaredError,
    Tensor,
    balanced_class_weights,
    gradcheck,
    ops,
)

LOGITS = np.array([[0.5, -1.0, 2.0], [0.1, 0.2, 0.3]])
LABELS = np.array([2, 0])


def test_squared_error_sums_over_outputs_and_averages_over_the_batch() -> None:
    one_hot = np.array([[0, 0, 1], [1, 0, 0]])
    total = np.sum((LOGITS - one_hot) ** 2)
    assert SquaredError("sum")(LOGITS, LABELS) == pytest.approx(total)
    assert SquaredError("mean")(LOGITS, LABELS) == pytest.approx(total / 2)
    assert SquaredError("sum")(LOGITS, one_hot) == pytest.approx(total)


def test_binary_cross_entropy_applies_the_sigmoid_to_logits() -> None:
    p, t = ops.sigmoid(LOGITS), np.array([[0, 0, 1], [1, 0, 0]])
    total = -np.sum(t * np.log(p) + (1 - t) * np.log(1 - p))
    assert BinaryCrossEntropy("sum")(LOGITS, LABELS) == pytest.approx(total)
    assert BinaryCrossEntropy()(LOGITS, t) == pytest.approx(total / 2)
    assert BinaryCrossEntropy("sum")(LOGITS, 1.0) == pytest.approx(-np.sum(np.log(p)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy_applies_the_softmax_to_logits(smoothing: float) -> None:
    target = np.full((2, 3), smoothing / 3)
    target[[0, 1], LABELS] += 1 - smoothing
    total = -np.sum(target * np.log(ops.softmax(LOGITS)))
    assert SoftmaxCrossEntropy("sum", smoothing)(LOGITS, LABELS) == pytest.approx(total)
    assert SoftmaxCrossEntropy("mean", smoothing)(LOGITS, LABELS) == pytest.approx(total / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_multiply_the_losses_of_their_examples(smoothing: float) -> None:
    weights = np.array([3.0, 1.0, 0.5])
    losses = [SoftmaxCrossEntropy("sum", smoothing)(LOGITS[[row]], LABELS[[row]]) for row in (0, 1)]
    weighted = SoftmaxCrossEntropy("mean", smoothing, weights)
    assert weighted(LOGITS, LABELS) == pytest.approx((0.5 * losses[0] + 3 * losses[1]) / 2)
    gradcheck(lambda x: weighted(x, LABELS), LOGITS)
    uniform = SoftmaxCrossEntropy("mean", smoothing, np.ones(3))
    assert uniform(LOGITS, LABELS) == pytest.approx(SoftmaxCrossEntropy("mean", smoothing)(LOGITS, LABELS))
    with pytest.raises(ShapeError, match=r"\(2,\) class weights for 3 classes"):
        SoftmaxCrossEntropy(class_weights=np.ones(2))(LOGITS, LABELS)
    with pytest.raises(SettingError, match="positive"):
        SoftmaxCrossEntropy(class_weights=np.array([1.0, 0.0, 1.0]))


def test_balanced_class_weights_give_each_class_the_same_total_weight() -> None:
    labels = np.array([0] * 6 + [2] * 2)
    weights = balanced_class_weights(labels, 4)
    np.testing.assert_allclose(weights, [8 / 12, 1, 8 / 4, 1])
    assert weights[labels].mean() == pytest.approx(1)
    assert weights[0] * 6 == pytest.approx(weights[2] * 2)


@pytest.mark.parametrize(("loss", "uniform"), [(SquaredError, 1 / 3), (BinaryCrossEntropy, 1 / 2)])
def test_smoothed_labels_are_equivalent_to_smoothed_one_hot_rows(loss, uniform) -> None:
    rows = 0.8 * np.array([[0, 0, 1], [1, 0, 0]]) + 0.2 * uniform
    smoothed, plain = loss("sum", 0.2), loss("sum")
    np.testing.assert_allclose(smoothed.targets(LABELS, 3, np.float64), rows)
    for targets in (LABELS, smoothed.targets(LABELS, 3, np.float64)):
        assert smoothed(LOGITS, targets) == pytest.approx(plain(LOGITS, rows))
    gradcheck(lambda x: smoothed(x, LABELS), LOGITS)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", [SquaredError, BinaryCrossEntropy, SoftmaxCrossEntropy])
def test_gradients_are_correct_for_every_reduction(loss, reduction) -> None:
    gradcheck(lambda x: loss(reduction)(x, LABELS), LOGITS)


@pytest.mark.parametrize("loss", [SquaredError(), BinaryCrossEntropy(), SoftmaxCrossEntropy()])
def test_precomputed_targets_and_labels_have_the_same_loss(loss) -> None:
    targets = loss.targets(LABELS, 3, np.float64)
    assert loss(LOGITS, targets) == loss(LOGITS, LABELS)


def test_invalid_targets_are_rejected() -> None:
    with pytest.raises(DataError, match=r"an empty batch has no loss: outputs \(0, 1\)"):
        BinaryCrossEntropy()(np.ones((0, 1)), 1.0)
    with pytest.raises(DataError, match=r"labels range from 0 to 3, but there are 3 classes"):
        SoftmaxCrossEntropy()(LOGITS, np.array([0, 3]))
    with pytest.raises(DataError, match="range from -1"):
        SquaredError()(LOGITS, np.array([0, -1]))
    with pytest.raises(DataError, match="float64"):
        SoftmaxCrossEntropy()(LOGITS, np.array([0.0, 1.0]))
    with pytest.raises(ShapeError, match=r"\(3,\) for a batch of 2"):
        SoftmaxCrossEntropy()(LOGITS, np.array([0, 1, 2]))
    with pytest.raises(ShapeError, match=r"\(2, 3\) and targets float64 \(2, 2\)"):
        SquaredError()(LOGITS, np.ones((2, 2)))
    with pytest.raises(DataError, match="empty"):
        SoftmaxCrossEntropy()(np.ones((0, 3)), np.ones(0, int))
    for loss in (SquaredError(), SquaredError("sum"), BinaryCrossEntropy()):
        with pytest.raises(DataError, match=r"an empty batch has no loss: outputs and targets \(0, 3\)"):
            loss(np.ones((0, 3)), np.ones((0, 3)))
        with pytest.raises(DataError, match="not finite"):
            loss(LOGITS, np.full(LOGITS.shape, np.nan))
    for target in (1.5, -0.1, float("nan"), np.full(LOGITS.shape, 2.0)):
        with pytest.raises(DataError, match=r"must lie in \[0, 1\]"):
            BinaryCrossEntropy()(LOGITS, target)


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(SettingError, match="neither mean nor sum"):
        SquaredError("max")  # type: ignore[arg-type]
    for loss in (SquaredError, BinaryCrossEntropy, SoftmaxCrossEntropy):
        with pytest.raises(SettingError, match="label_smoothing 1"):
            loss(label_smoothing=1.0)
    with pytest.raises(SettingError, match="ends with sigmoid, not softmax"):
        BinaryCrossEntropy().check_activation(Activation.SOFTMAX)
    with pytest.raises(SettingError, match="ends with softmax, not relu"):
        SoftmaxCrossEntropy().check_activation(Activation.RELU)
    SquaredError().check_activation(Activation.RELU)
    SoftmaxCrossEntropy().check_activation(None)


def test_regression_losses_have_the_values_and_gradients_of_their_definitions() -> None:
    outputs, targets = np.array([[0.0], [3.0], [0.5], [-4.0]]), np.array([[0.25], [1.0], [0.5], [1.0]])
    distances = np.abs(outputs - targets)
    assert AbsoluteError("sum")(outputs, targets) == pytest.approx(distances.sum())
    assert AbsoluteError()(outputs, targets) == pytest.approx(distances.mean())
    huber = np.where(distances <= 1, distances**2 / 2, distances - 0.5)
    assert Huber("sum")(outputs, targets) == pytest.approx(huber.sum())
    x = Tensor(outputs, watch=True)
    with GradientTape() as tape:
        loss = Huber("sum")(x, targets)
    np.testing.assert_allclose(tape.gradient(loss, [x])[0], np.clip(outputs - targets, -1, 1))
    with pytest.raises(ShapeError):
        AbsoluteError()(outputs, targets[:2])
