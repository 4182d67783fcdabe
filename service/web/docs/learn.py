"""The values of the Learn page: examples from the reader's own jobs, or measured ones that come with the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeGuard

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import kinds, statistics
from service.jobs.queries import listing
from service.kinds.pages import page_of
from service.states import Status
from service.storage.database import visible
from service.storage.sweep_tables import Sweep
from service.storage.tables import Job
from service.sweeps import queries as sweep_queries
from service.web.core.core import core
from service.web.jobs.overview import matrix_table
from service.web.jobs.schemas import JobUrls
from service.wording import rounded

WIDTH, HEIGHT = 360, 190
"""Of a chart, in the units of its ``viewBox``."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 10, 34
_LOSSES: Final = ("train_loss", "val_loss")
_BY_HEART: Final[Mapping[str, Sequence[float]]] = {
    "train_loss": (0.787, 0.352, 0.262, 0.202, 0.165, 0.142, 0.133, 0.13, 0.113, 0.093, 0.083, 0.08, 0.072, 0.059),
    "val_loss": (0.44, 0.35, 0.354, 0.327, 0.268, 0.299, 0.274, 0.263, 0.272, 0.278, 0.272, 0.308, 0.294, 0.359),
    "val_accuracy": (0.861, 0.9, 0.895, 0.905, 0.927, 0.917, 0.926, 0.933, 0.93, 0.934, 0.936, 0.932, 0.932, 0.917),
}
"""A classifier with 256 hidden units on half of mnist-10k, without augmentation."""
_FRECHET: Final = {5: 802.6, 10: 467.1, 12: 383.3}
"""Of the default GAN on mnist-10k, by epoch."""
_WINS, _CANNOT_MOVE, _LEARNS = "the discriminator wins", "the generator cannot move", "with r1=1"
_GANS: Final[Mapping[str, tuple[str, str, Mapping[str, Sequence[float]]]]] = {
    "mode-collapse": (
        "The Fréchet distance of GANs of digits",
        "{:.4g}",
        {
            _WINS: (1510, 1200, 1180, 1180, 1190, 1190, 1190, 1190, 1180, 1180),
            _CANNOT_MOVE: (1650,) * 10,
            _LEARNS: (1140, 1080, 1020, 916, 771, 751, 585, 466, 417, 363),
        },
    ),
    "d-real-d-fake": (
        "D(fake) of GANs of digits",
        "{:.0%}",
        {
            _WINS: (0.433, 0.001, 0, 0, 0, 0, 0, 0, 0, 0),
            _CANNOT_MOVE: (0.5,) * 10,
            _LEARNS: (0.324, 0.27, 0.298, 0.281, 0.277, 0.296, 0.287, 0.289, 0.311, 0.331),
        },
    ),
    "sample-diversity": (
        "The sample diversity of GANs of digits",
        "{:.0%}",
        {
            _WINS: (0.392, 0.034, 0.039, 0.002, 0.041, 0, 0.001, 0.004, 0.02, 0.021),
            _CANNOT_MOVE: (0,) * 10,
            _LEARNS: (0.939, 0.877, 0.913, 0.903, 0.886, 0.845, 0.924, 0.999, 0.941, 1.03),
        },
    ),
    "mode-coverage": (
        "The mode coverage of GANs of digits",
        "{:.0%}",
        {
            _WINS: (0.1,) * 10,
            _CANNOT_MOVE: (0.1,) * 10,
            _LEARNS: (0.2, 0.1, 0.2, 0.5, 0.7, 0.7, 0.8, 0.9, 0.9, 1),
        },
    ),
    "vanishing-gradient": (
        "The gradient norms, times 1,000, of a GAN whose generator cannot move",
        "{:.1g}",
        {
            "discriminator": (0.347, 0.344, 0.335, 0.355, 0.375, 0.403, 0.419, 0.447, 0.477, 0.507),
            "generator": (0.0002, 0.0002, 0.0002, 0.0003, 0.0003, 0.0003, 0.0003, 0.0003, 0.0004, 0.0004),
        },
    ),
}
"""By term: a caption, the format of the values, and the values after each epoch of the collapsed and the cured GAN of
docs/learn/gan.md and of the preset classic."""
_MATRIX: Final = (
    (494, 0, 0, 0, 1, 0, 1, 2, 1, 1),
    (0, 550, 6, 2, 1, 1, 1, 0, 3, 0),
    (7, 5, 468, 2, 2, 0, 2, 3, 3, 3),
    (1, 0, 15, 477, 0, 13, 2, 3, 1, 4),
    (0, 1, 6, 1, 454, 2, 9, 0, 4, 13),
    (5, 0, 1, 8, 1, 409, 2, 1, 5, 0),
    (4, 0, 4, 0, 2, 2, 494, 0, 1, 0),
    (3, 1, 3, 3, 8, 0, 0, 501, 3, 13),
    (4, 5, 7, 11, 0, 12, 9, 0, 418, 6),
    (7, 4, 0, 5, 16, 3, 0, 4, 8, 442),
)
"""Of such a classifier."""
_CALIBRATION: Final[dict[str, Any]] = {
    "validation_count": 5000,
    "expected_error": 0.0354,
    "bins": [
        {"confidence": confidence, "accuracy": accuracy, "count": count}
        for confidence, accuracy, count in (
            (0.398, 0.5, 4),
            (0.467, 0.409, 22),
            (0.556, 0.491, 55),
            (0.648, 0.483, 60),
            (0.751, 0.533, 60),
            (0.856, 0.629, 116),
            (0.997, 0.971, 4683),
        )
    ],
}
_TRIALS: Final[Mapping[str, Sequence[float]]] = {
    "0.0001": (0.8095, 0.8095, 0.619, 0.8095, 0.5714),
    "0.001": (0.8095,) * 5,
    "0.01": (0.9048, 0.9048, 0.9048, 0.9048, 0.9524),
}
"""The validation accuracy of each seed, by learning rate, of the sweep in docs/learn/seeds.md."""
_RATES: Final = ((0.05, "too low"), (0.5, "suitable"), (2.02, "too high"))
_UPDATES: Final = 20


def examples(*, owner: str | None, has_jobs: bool) -> dict[str, Any]:
    """The values of the template; ``own`` has what is from jobs of the reader.

    Args:
        owner: whose jobs they may be; ``None``: all, without API keys.
        has_jobs: whether the reader may see any.
    """
    with core().database.read() as session:
        own = _own(session, owner) if has_jobs else {}
    history = own.get("history") or {"epochs": range(1, 1 + len(_BY_HEART["val_loss"])), **_BY_HEART}
    distances = own.get("distances") or _FRECHET
    epochs, accuracy = history["epochs"], own.get("interval")
    return {
        "own": own,
        "width": WIDTH,
        "height": HEIGHT,
        "accuracy_chart": chart(epochs, {"val_accuracy": history["val_accuracy"]}, label="{:.0%}".format),
        "loss_chart": chart(epochs, {name: history[name] for name in _LOSSES}, low=0),
        "overfits": overfitting(epochs, history["train_loss"], history["val_loss"]),
        "rate_labels": [f"{label}: {rate}" for rate, label in _RATES],
        "rate_chart": chart(range(_UPDATES + 1), {label: _descent(rate) for rate, label in _RATES}, low=0),
        "confusion": own.get("confusion") or matrix_table([str(digit) for digit in range(10)], _MATRIX),
        "calibration": _CALIBRATION,
        "trials": [_strip(label, values, *statistics.interval(values)) for label, values in _TRIALS.items()],
        "accuracy": [_strip("", [accuracy.value], accuracy.low, accuracy.high)] if accuracy else None,
        "gan_charts": {
            term: (caption, list(series), chart(range(1, 11), series, low=0, label=label.format))
            for term, (caption, label, series) in _GANS.items()
        },
        "distance_chart": chart(list(distances), {"frechet_distance": list(distances.values())}, low=0),
    }


def _own(session: Session, owner: str | None) -> dict[str, Any]:
    """What the reader's latest job of each kind that has a lesson, and the latest sweep show."""
    found: dict[str, Any] = {}
    for kind in kinds.TRAINED:
        lesson = page_of(kind.name).lesson
        if lesson is not None and (job := _latest(session, kind.name, owner)) is not None:
            found |= {kind.name: _facts(job), **lesson(session, job)}
    newest = select(Sweep).where(visible(Sweep.owner, owner)).order_by(Sweep.created_ms.desc(), Sweep.id.desc())
    if (sweep := session.scalar(newest.limit(1))) is not None:
        found["sweep"] = {"title": sweep_queries.title(sweep), "page": f"/ui/sweeps/{sweep.id}"}
    return found


def _latest(session: Session, kind: str, owner: str | None) -> Job | None:
    """The newest job of a kind that succeeded and has a curve, outside sweeps."""
    conditions = (Job.kind == kind, Job.status == Status.SUCCEEDED, Job.epoch > 1, Job.sweep_id.is_(None))
    query = select(Job).where(*conditions, visible(Job.owner, owner))
    return session.scalar(query.order_by(Job.created_ms.desc(), Job.id.desc()).limit(1))


def _facts(job: Job) -> dict[str, Any]:
    return {
        "title": listing.title(job.id, job.name, job.kind),
        "urls": JobUrls.of(job.id).model_dump(),
        "id": job.id,
        "epoch": job.epoch,
        "updates": job.steps // job.epochs,
        "resolved": job.resolved,
    }


def overfitting(
    epochs: Sequence[int], train: Sequence[float | None], validation: Sequence[float | None]
) -> dict[str, Any] | None:
    """Where the validation loss was lowest, and whether it rose by 5% afterwards while the training loss fell;
    ``None`` without finite losses."""
    points = [
        (epoch, fitted, checked)
        for epoch, fitted, checked in zip(epochs, train, validation, strict=True)
        if _is_finite(fitted) and _is_finite(checked)
    ]
    if not points:
        return None
    best, last = min(points, key=lambda point: point[2]), points[-1]
    return {"best": best[0], "last": last[0], "rises": last[2] > 1.05 * best[2] and last[1] < best[1]}


def _descent(rate: float) -> list[float]:
    """The loss w² / 2, from w = 1, over updates of gradient descent."""
    return [0.5 * (1 - rate) ** (2 * update) for update in range(_UPDATES + 1)]


def _strip(label: str, values: Sequence[float], low: float | None, high: float | None) -> dict[str, Any]:
    """Values between 0.5 and 1 and their interval, as positions on a line."""
    ends = (low, high) if low is not None and high is not None else (min(values), max(values))
    return {"label": label, "dots": [_place(value) for value in values], "ends": [_place(end) for end in ends]}


def _place(accuracy: float) -> float:
    return round(_LEFT + (max(accuracy, 0.5) - 0.5) / 0.5 * (WIDTH - _LEFT - 2 * _RIGHT), 1)


def chart(
    xs: Sequence[int],
    series: Mapping[str, Sequence[float | None]],
    *,
    low: float | None = None,
    label: Callable[[float], str] = rounded,
) -> dict[str, Any]:
    """The lines of a chart.

    Args:
        low: the lower end of the scale; ``None``: the lowest value. The upper end is the highest one.
        label: the text of both.
    """
    columns = {name: [(x, y) for x, y in zip(xs, ys, strict=True) if _is_finite(y)] for name, ys in series.items()}
    values = [y for points in columns.values() for _, y in points] or [0.0]
    low, high = min(values) if low is None else low, max(values)
    across, up = (WIDTH - _LEFT - _RIGHT) / max(xs[-1] - xs[0], 1), (HEIGHT - _TOP - _BOTTOM) / ((high - low) or 1.0)
    lines = [
        {
            "name": name,
            "points": [(round(_LEFT + (x - xs[0]) * across, 1), round(_TOP + (high - y) * up, 1)) for x, y in points],
        }
        for name, points in columns.items()
    ]
    return {"lines": lines, "low": label(low), "high": label(high), "first": xs[0], "last": xs[-1]}


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
