import numpy as np
import pytest

from engine import GradientError, gradcheck, ops


def test_correct_gradients_pass() -> None:
    gradcheck(lambda x, y: x * np.sin(y), np.ones(3), np.arange(6.0).reshape(2, 3))


def test_a_wrong_gradient_is_reported_with_both_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.exp, "rules", (lambda y, x: lambda g: g * np.array([1.0, 2.0]),))
    with pytest.raises(GradientError, match=r"input 0 of shape \(2,\) at \(1,\): the tape says 1\.5\d+, .* say 0\.75"):
        gradcheck(lambda x: np.exp(x) / np.ones(2), np.zeros(2))


def test_a_nan_gradient_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.exp, "rules", (lambda y, x: lambda g: g * np.nan,))
    with pytest.raises(GradientError, match="says nan"):
        gradcheck(np.exp, np.zeros(2))
