"""Splits of a pool, and which jobs are compared."""

from __future__ import annotations

import pytest

from service.spec.splits import SAME_JOBS, Split, why_not_compared


@pytest.mark.parametrize(("pool", "folds"), [(10, 3), (11, 3), (12, 3), (150, 7)])
def test_each_example_is_in_the_validation_part_of_one_fold(pool: int, folds: int) -> None:
    counts = [Split(seed=0, folds=folds, fold=fold).validation_count(pool) for fold in range(folds)]
    assert sum(counts) == pool
    assert max(counts) - min(counts) <= 1


def test_a_job_is_the_same_as_another_one_only() -> None:
    job = {"id": "job_1", "resolved": {"seed": 1, "dataset": {"name": "iris"}}, "dataset_sha256": "sha256:1"}
    assert why_not_compared([job]) is None
    assert why_not_compared([job, job]) == SAME_JOBS
