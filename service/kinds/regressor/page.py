"""The parts of pages that regressors bring with them."""

from __future__ import annotations

from typing import Final

from service.kinds.pages import PageOfKind

PAGE: Final = PageOfKind(
    results=("regressor/residuals.html",),
    importance="RMSE on validation rows that is gained when the values of a column are shuffled.",
)
