"""The table of metrics: label, description, kind of job, direction, unit, colour, chart, tile and summary.

Page, command line, plots, exports and sweeps read this table, so that a metric looks the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from service import kinds
from service.schema.metrics import Chart, MetricInfo, Place, Unit
from service.wording import SCIENTIFIC_FROM, rounded

PALETTE: Final = ("#0067a5", "#c14f00", "#00805c", "#a8528a", "#8a6a00", "#2b8fc4", "#6d5bb8", "#6b6b6b")
"""``--series-1`` to ``--series-8`` of the page's light theme: the palette of Okabe and Ito (2008), which remains
distinguishable with any kind of colour blindness, darkened for a white background."""

_ALL_KINDS: Final = tuple(kind.name for kind in kinds.TRAINED)
METRICS: Final[dict[str, MetricInfo]] = {
    **{
        name: replace(info, kinds=tuple(kind.name for kind in kinds.TRAINED if name in kind.metrics))
        for kind in kinds.TRAINED
        for name, info in kind.metrics.items()
    },
    "learning_rate": MetricInfo(
        "learning rate",
        "Step size of the optimizer in the last batch.",
        series=7,
        chart=Chart("learning rate"),
        kinds=_ALL_KINDS,
    ),
}

KEY_METRICS: Final[Mapping[str, Sequence[str]]] = {kind.name: kind.key_metrics for kind in kinds.TRAINED}
"""The metrics of each kind of training for summaries, most important first; the first is the default objective."""

RESOURCES: Final[dict[str, MetricInfo]] = {
    "seconds": MetricInfo("time", "Wall-clock time of the epoch.", series=3, unit=Unit.SECONDS, kinds=_ALL_KINDS),
    "cpu_seconds": MetricInfo(
        "CPU time",
        "CPU time of the training process during the epoch.",
        series=1,
        unit=Unit.SECONDS,
        chart=Chart("CPU time of an epoch"),
        kinds=_ALL_KINDS,
    ),
    "memory_bytes": MetricInfo(
        "memory",
        "Resident memory of the training process at the end of the epoch.",
        series=2,
        unit=Unit.BYTES,
        chart=Chart("memory"),
        kinds=_ALL_KINDS,
    ),
}
"""Time and memory of an epoch. They differ from run to run, so they are separate from ``METRICS``."""


def _by_chart(infos: Mapping[str, MetricInfo]) -> dict[Chart, list[str]]:
    found: dict[Chart, list[str]] = {}
    for name in sorted(infos, key=lambda name: infos[name].line):
        if (chart := infos[name].chart) is not None:
            found.setdefault(chart, []).append(name)
    order = [info.chart for info in infos.values()]
    return {
        chart: found[chart]
        for chart in sorted(found, key=lambda chart: (_PLACES.index(chart.place), order.index(chart)))
    }


def _in_order(places: Mapping[str, int | None]) -> tuple[str, ...]:
    """The names that have a place, the lowest first."""
    return tuple(sorted((name for name in places if places[name] is not None), key=lambda name: places[name] or 0))


_PLACES: Final = tuple(Place)
CHARTS: Final[Mapping[Chart, Sequence[str]]] = _by_chart(METRICS) | _by_chart(RESOURCES)
"""The charts in their order, each with its lines in theirs. Any other metric has a chart of its own, after these."""
TILES: Final = _in_order({name: info.tile for name, info in METRICS.items()})
"""The metrics of the tiles of a job's page."""
TEST_SCORES: Final = _in_order({name: info.test_score for name, info in METRICS.items()})
"""The scores on the test part of the data, most important first."""
NOT_DIGESTED: Final = frozenset({"test_count", *(name for name, info in METRICS.items() if not info.digested)})
"""What reports of epochs and test scores have beside what result digests and reproductions cover. ``test_count`` is
no metric, but the number of scored examples."""


_DECLARED: Final = frozenset({"line", "tile", "test_score", "digested"})
"""What declares the tables above, and is not for the page."""


def describe(name: str) -> MetricInfo:
    """How to present a metric. A metric of one layer (``grad_norm/layers.0``) is presented like that of the network."""
    base, _, layer = name.partition("/")
    info = (METRICS | RESOURCES).get(base, MetricInfo(base.replace("_", " "), "", can_be_negative=True))
    if not layer:
        return info
    return replace(info, label=f"{info.label} · {layer}")


def number(name: str, value: float | None) -> str:
    """A metric's value as text, with its unit; ``-`` if there is none."""
    if value is None:
        return "-"
    info = describe(name)
    if info.percent:
        return f"{value:.2%}"
    if info.unit is Unit.BYTES:
        return size(value)
    if info.unit is Unit.SECONDS:
        return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"
    return f"{value:.2e}" if value and not 1e-3 <= abs(value) < SCIENTIFIC_FROM else rounded(value)


def size(count: float) -> str:
    """A number of bytes as text, in powers of 1000: ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 100 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """A duration as text: ``7 s``, ``2 min``, ``1.5 h``. The page's ``dom.js`` formats durations in the same way."""
    if 0 < seconds < 0.95:
        return "under a second"
    if seconds < 90:
        return f"{_rounded(seconds)} s"
    if seconds < 5400:
        return f"{_rounded(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{_rounded(seconds / 86_400)} days"


def _rounded(value: float) -> int:
    """Round half up, like JavaScript's ``Math.round``."""
    return math.floor(value + 0.5)


def documents() -> dict[str, dict[str, Any]]:
    """All metrics and resources as JSON documents, for the page, with the chart and the place in a summary of each."""
    charts = {name: (rank, chart) for rank, (chart, names) in enumerate(CHARTS.items()) for name in names}
    keys: dict[str, int] = {}
    for names in KEY_METRICS.values():
        for rank, name in enumerate(names):
            keys.setdefault(name, rank)
    return {
        name: {field: value for field, value in asdict(info).items() if field not in _DECLARED}
        | {"chart": chart.title, "place": chart.place, "rank": rank, "key": keys.get(name)}
        for name, info in (METRICS | RESOURCES).items()
        for rank, chart in [charts.get(name) or (len(CHARTS), Chart(info.label))]
    }
