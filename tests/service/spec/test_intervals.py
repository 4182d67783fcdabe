"""The text of an interval keeps its width, whatever its distance from zero."""

from __future__ import annotations

import pytest

from service.spec.intervals import interval_of


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (7480, 898, "5720 to 9240"),
        (59.47, 4, "51.6 to 67.3"),
        (999, 2, "995.08 to 1002.92"),
        (104.9, 0.05, "104.802 to 104.998"),
        (1_234_000, 300, "1,233,410 to 1,234,590"),
        (1.7e9, 1.2, "1699999997.65 to 1700000002.35"),
        (2e-5, 1e-6, "1.804e-05 to 2.196e-05"),
        (0.5, 1, "0.00 to 2.46"),
        (5.0, 0.0, "5 to 5"),
    ],
)
def test_both_ends_have_the_digits_of_their_distance(value: float, error: float, text: str) -> None:
    interval = interval_of("val_rmse", {"val_rmse": value, "val_rmse_error": error}, None)
    assert interval is not None
    assert interval.text == f"95% CI {text}"
