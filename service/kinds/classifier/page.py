"""The parts of pages that classifiers bring with them."""

from __future__ import annotations

from typing import Final

from service.web.http.job_pages import PageOfKind

PAGE: Final = PageOfKind(
    evaluation=("classifier/calibration.html",),
    examples=("classifier/mistakes.html",),
    importance="Accuracy on validation rows that is lost when the values of a column are shuffled, in percentage "
    "points.",
)
