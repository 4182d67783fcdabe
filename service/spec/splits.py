"""The split of a dataset into training and validation examples, as a spec defines it, and which jobs are not compared:
those that were scored on different examples, and those that are the same.

The *pool* is the training part followed by the validation part; the test part is never split. ``cache.divide`` computes
the split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from service.spec.metric_info import NOT_DIGESTED
from service.wording import listed

COMPARED_FACTS: Final = ("id", "spec_hash", "dataset_sha256", "resolved", "provenance", "result_digest", "metrics")
"""The fields of a job that decide whether it is compared. Jobs are mappings with the field names of the API, so that
the service and its clients decide alike."""
SAME_JOBS: Final = "These jobs are the same."
_MAX_NAMED: Final = 3
VERSION_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A split of a pool: a fraction for validation, or one of several folds."""

    seed: int
    fraction: float | None = None
    folds: int | None = None
    fold: int = 0

    @classmethod
    def of(cls, resolved: Mapping[str, Any]) -> Split | None:
        """The split of a resolved spec; ``None`` to keep the dataset's own parts."""
        data = resolved["dataset"]
        fraction, folds, fold, seed = (
            data.get(name) for name in ("validation_fraction", "folds", "fold", "split_seed")
        )
        if fraction is None and folds is None:
            return None
        return cls(
            seed=resolved["seed"] if seed is None else seed,
            fraction=fraction if folds is None else None,
            folds=folds,
            fold=fold or 0,
        )

    def validation_count(self, pool: int) -> int:
        """Number of validation examples in a pool of this size."""
        if self.folds is not None:
            return len(range(min(self.fold, self.folds - 1), pool, self.folds))
        return max(1, min(round(pool * (self.fraction or 0.0)), pool - 1))


@dataclass(frozen=True, slots=True)
class _ScoredData:
    """The examples that the scores of a job are measured on: a version of a dataset, and its split."""

    version: str
    """The SHA-256; the name as long as it is unknown."""
    split: Split | None
    name: str = field(compare=False)


def why_not_compared(jobs: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence on why these jobs get no verdict and none of them is the best; ``None`` if they can be compared."""
    if len(jobs) > 1 and all(are_same(jobs[0], job) for job in jobs[1:]):
        return SAME_JOBS
    return data_difference(jobs)


def are_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two jobs are one, or have the same spec, data, environment and result."""
    return a["id"] == b["id"] or (a["result_digest"] is not None and _identity(a) == _identity(b))


def _identity(job: Mapping[str, Any]) -> list[Any]:
    metrics = {name: value for name, value in job["metrics"].items() if name not in NOT_DIGESTED}
    return [metrics, *(job.get(name) for name in ("spec_hash", "dataset_sha256", "provenance", "result_digest"))]


def data_difference(jobs: Sequence[Mapping[str, Any]]) -> str | None:
    """Sentences on the different data of the jobs; ``None`` if all were scored on the same examples."""
    data = list(dict.fromkeys(_data_of(jobs)))
    if len(data) < 2:
        return None
    with_version = len({item.version for item in data}) > len({item.name for item in data})
    with_split = len({item.split for item in data}) > 1
    names = list(dict.fromkeys(_text(item, with_version=with_version, with_split=with_split) for item in data))
    more = [f"{len(names) - _MAX_NAMED} more"] if len(names) > _MAX_NAMED else []
    sentence = f"The data differ: {listed([*names[:_MAX_NAMED], *more])}. Scores on different data are not comparable."
    apart_from_seed = {replace(item, split=item.split and replace(item.split, seed=0)) for item in data}
    hint = " Set dataset.split_seed to train jobs with different seeds on the same split."
    return f"{sentence}{hint}" if len(apart_from_seed) == 1 else sentence


def _data_of(jobs: Sequence[Mapping[str, Any]]) -> list[_ScoredData]:
    names = [job["resolved"]["dataset"]["name"] for job in jobs]
    digests = [job.get("dataset_sha256") for job in jobs]
    known = {name: digest for name, digest in zip(names, digests, strict=True) if digest}
    return [
        _ScoredData(digest or known.get(name, name), Split.of(job["resolved"]), name.partition("@")[0])
        for name, digest, job in zip(names, digests, jobs, strict=True)
    ]


def _text(data: _ScoredData, *, with_version: bool, with_split: bool) -> str:
    version = f"@{data.version.removeprefix('sha256:')[:VERSION_DIGITS]}" if with_version else ""
    return f"{data.name}{version}" + (f" ({_split_text(data.split)})" if with_split else "")


def _split_text(split: Split | None) -> str:
    if split is None:
        return "its own split"
    part = (
        f"fold {split.fold} of {split.folds}" if split.folds else f"{100 * (split.fraction or 0):.4g}% for validation"
    )
    return f"{part}, split seed {split.seed}"
