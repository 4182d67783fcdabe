import numpy as np
import pytest

from engine import SettingError, initializers


def draw(initializer, shape=(300, 200), dtype=np.float32):
    return initializer(shape, np.random.default_rng(0), dtype)


def test_uniform_fills_its_range_for_weights_and_biases() -> None:
    for shape in ((300, 200), (5000,)):
        values = draw(initializers.uniform(0.01), shape)
        assert values.dtype == np.float32
        assert values.min() == pytest.approx(-0.01, rel=1e-2)
        assert values.max() == pytest.approx(0.01, rel=1e-2)
    with pytest.raises(SettingError, match="scale 0"):
        initializers.uniform(0)


def test_glorot_uniform_has_the_variance_of_the_paper() -> None:
    values = draw(initializers.glorot_uniform, dtype=np.float64)
    assert values.var() == pytest.approx(2 / 500, rel=0.02)
    assert values.max() == pytest.approx(np.sqrt(6 / 500), rel=1e-3)


def test_he_normal_has_the_variance_of_the_paper() -> None:
    assert draw(initializers.he_normal).var() == pytest.approx(2 / 300, rel=0.02)


@pytest.mark.parametrize("initializer", [initializers.glorot_uniform, initializers.he_normal])
def test_biases_start_at_zero(initializer) -> None:
    assert not draw(initializer, (10,)).any()
