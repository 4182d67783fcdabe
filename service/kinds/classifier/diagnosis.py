"""How failures of classifiers are recognized, and what helps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from service.kinds.advice import Case
from service.kinds.supervised import diagnosis as supervised
from service.schema.findings import Advice
from service.states import FindingCode


def _overfitting(case: Case) -> Iterable[Advice]:
    shift = Advice({"augmentation.max_shift": 2}, "for photos also augmentation.flip=true")
    return supervised.overfitting(case, augmentation=() if case.spec.augmentation.max_shift else (shift,))


DIAGNOSIS: Final = replace(
    supervised.DIAGNOSIS, advice={**supervised.DIAGNOSIS.advice, FindingCode.OVERFITTING: _overfitting}
)
