"""Panels and dashboards of Grafana, from few words, all in one style.

Each web instance reads the same database, so what comes from there is the maximum over instances; requests and streams
are summed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import common as build_common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, text, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.text import TextMode

TAG: Final = "tapeline"
_SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_SELECTOR: Final = 'job="$job"'
_METRIC: Final = re.compile(r"\b(tapeline_\w+|up\b(?=\{))(\{)?")
_TRAFFIC_LIGHT: Final = ("green", "orange", "red")

STATES: Final = {
    "queued": "yellow",
    "running": "blue",
    "paused": "purple",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "text",
}
RUNNING: Final = "sum(max by (worker) (tapeline_worker_running))"
LOAD: Final = "max by (owner) (avg_over_time(tapeline_owner_load[10m]))"
COMPETING: Final = f"({LOAD} and on (owner) max by (owner) (min_over_time(tapeline_owner_queued_jobs[10m])) > 0)"
"""The loads of the owners whose jobs waited for all of the last 10 minutes."""


NONE_THOUGH_WANTED: Final = {"-1": ("0", "red")}
"""How a number of ``or_missing`` shows it."""


def or_missing(metric: str) -> str:
    """The metric; -1 where it is 0 although jobs want slots. Without jobs, an autoscaler may stop all workers."""
    return f"(max({metric}) > 0) or 0 - (max(tapeline_slots_wanted) > bool 0)"


class Query(NamedTuple):
    """A query, and the name of its series, with labels as ``{{label}}``."""

    expr: str
    legend: str = ""


class Variable(NamedTuple):
    """A choice above the panels: a value of a label of a metric."""

    name: str
    title: str
    metric: str


def quantile(q: float, histogram: str, window: str, by: str = "", within: str = "kind") -> str:
    """A quantile of a histogram that each instance counts from the same log."""
    kept = f"le, {by}" if by else "le"
    rates = f"max by (le, {within}) (rate({histogram}_bucket[{window}]))"
    return f"histogram_quantile({q}, sum by ({kept}) ({rates}))"


def selected(expr: str) -> str:
    """The query for the metrics of the chosen scrape job only."""
    return _METRIC.sub(lambda found: f"{found[1]}{{{_SELECTOR}" + (", " if found[2] else "}"), expr)


def chart(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    stacked: bool = False,
    maximum: float | None = None,
    colours: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Values over time.

    Args:
        unit: by Grafana's id, such as ``s`` or ``percentunit``.
        width: of 24 columns.
        colours: of series by name.
    """
    legend = build_common.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    legend = legend.display_mode(common.LegendDisplayMode.LIST).calcs([])
    tooltip = build_common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    panel = timeseries.Panel().title(title).description(description).datasource(_SOURCE).unit(unit).min(0)
    panel = panel.height(8).span(width).legend(legend).tooltip(tooltip).line_width(1).fill_opacity(10)
    panel = panel.show_points(common.VisibilityMode.NEVER)
    if stacked:
        panel = panel.stacking(build_common.StackingConfig().mode(common.StackingMode.NORMAL).group("A")).fill_opacity(
            40
        )
    if maximum is not None:
        panel = panel.max(maximum)
    for name, colour in (colours or {}).items():
        fixed = model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
        panel = panel.override_by_name(name, [fixed])
    for query, ref in zip(queries, "ABCDEFGH", strict=False):
        target = prometheus.Dataquery().expr(selected(query.expr)).legend_format(query.legend or "__auto")
        panel = panel.with_target(target.range().ref_id(ref).datasource(_SOURCE))
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    width: int = 4,
    limits: Sequence[float] = (),
    falling: bool = False,
    words: Mapping[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
) -> stat.Panel:
    """The latest value, large, above its curve.

    Args:
        limits: from which on it is orange, then red; one limit: red.
        falling: it is red below the first limit, orange below the second.
        words: text and colour for values.
    """
    colours = _TRAFFIC_LIGHT if len(limits) > 1 else _TRAFFIC_LIGHT[::2]
    colours = colours[: len(limits) + 1]
    if falling:
        colours = colours[::-1]
    steps = [model.Threshold(value, colour) for value, colour in zip((None, *limits), colours, strict=True)]
    panel = stat.Panel().title(title).description(description).datasource(_SOURCE).unit(unit).height(4).span(width)
    panel = panel.thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    panel = panel.graph_mode(common.BigValueGraphMode.NONE if words else common.BigValueGraphMode.AREA)
    panel = panel.reduce_options(build_common.ReduceDataOptions().calcs(["lastNotNull"])).no_value("no data")
    if decimals is not None:
        panel = panel.decimals(decimals)
    if words:
        results = {
            value: model.ValueMappingResult(text=word, color=colour, index=index)
            for index, (value, (word, colour)) in enumerate(words.items())
        }
        panel = panel.mappings([model.ValueMap(options=results)])
    target = prometheus.Dataquery().expr(selected(expr)).range().ref_id("A").datasource(_SOURCE)
    return panel.with_target(target)


def note(title: str, content: str, *, width: int = 12, height: int = 8) -> text.Panel:
    """A text in Markdown."""
    return text.Panel().title(title).mode(TextMode.MARKDOWN).content(content).height(height).span(width)


def dashboard(
    uid: str, title: str, description: str, rows: Mapping[str, Sequence[Any]], *variables: Variable
) -> dict[str, Any]:
    """A dashboard of rows of panels, as the document that Grafana imports."""
    built = build.Dashboard(f"Tapeline / {title}").uid(f"{TAG}-{uid}").description(description).tags([TAG]).editable()
    built = built.refresh("30s").time("now-3h", "now").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR)
    links = build.DashboardLink("Tapeline").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    built = built.link(links.as_dropdown(True).keep_time(True).include_vars(True))
    source = build.DatasourceVariable("datasource").label("Data source").type("prometheus")
    built = built.with_variable(source)
    for variable in (Variable("job", "Scrape job", "tapeline_database_up"), *variables):
        metric = variable.metric if variable.name == "job" else selected(variable.metric)
        choice = build.QueryVariable(variable.name).label(variable.title).datasource(_SOURCE)
        choice = choice.query(f"label_values({metric}, {variable.name})").sort(model.VariableSort.ALPHABETICAL_ASC)
        built = built.with_variable(choice.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED))
    firing = build.AnnotationQuery().name("Alerts").datasource(_SOURCE).enable(True).icon_color("red")
    built = built.annotation(firing.expr('ALERTS{alertname=~"Tapeline.+", alertstate="firing"}'))
    ids = itertools.count(1)
    for name, panels in rows.items():
        built = built.with_row(build.Row(name).id(next(ids)))
        for panel in panels:
            built = built.with_panel(panel.id(next(ids)))
    document: dict[str, Any] = built.build().to_json()
    del document["style"]  # that of the reader
    return document
