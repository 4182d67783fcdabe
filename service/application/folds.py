"""Cross-validation: a spec with ``dataset.folds`` becomes one job per fold, all stored together."""

from __future__ import annotations

from typing import Any, Final

from service.spec.schema import Spec

_MAX_NAME: Final = 200


def expand(document: Any, spec: Spec) -> list[tuple[Any, Spec]]:
    """The spec of each job, as sent and resolved. A spec without ``folds``, or with a ``fold``, is a single job."""
    folds = spec.dataset.folds
    if folds is None or spec.dataset.fold is not None:
        return [(document, spec)]
    jobs = []
    for fold in range(folds):
        name = _name(spec.name, fold, folds)
        sent = document | {"name": name, "dataset": document["dataset"] | {"fold": fold}}
        data = spec.dataset.model_copy(update={"fold": fold})
        jobs.append((sent, spec.model_copy(update={"name": name, "dataset": data})))
    return jobs


def _name(name: str | None, fold: int, folds: int) -> str:
    label = f"fold {fold + 1} of {folds}"
    return f"{name[: _MAX_NAME - len(label) - 3]} ({label})" if name else label
