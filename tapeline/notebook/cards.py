"""Jobs, sweeps, datasets and tables as HTML. It has the colours of the notebook around it, light or dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from tapeline.inputs.values import dotted
from tapeline.notebook.curves import chart, label
from tapeline.notebook.plain import cell

Document = Mapping[str, Any]

_CHARTS: Final = (
    ("Loss", ("train_loss", "val_loss")),
    ("Accuracy", ("train_accuracy", "val_accuracy")),
    ("Error", ("train_rmse", "val_rmse")),
    ("Losses", ("g_loss", "d_loss")),
    ("Fréchet distance", ("frechet_distance",)),
)
_COLOURS: Final = {"succeeded": "#10b981", "running": "#3b82f6", "failed": "#ef4444", "cancelled": "#ef4444"}
_MAX_ROWS: Final = 20
_MAX_CLASSES: Final = 12
_PIXELS: Final = "image-rendering:pixelated;max-width:100%"
_LINE: Final = "1px solid rgba(128,128,128,.35)"


def job(document: Document, history: Document, best: Document | None, sample: bytes | None) -> str:
    """A job: state, metrics of the best epoch, findings, curves, and its latest sample grid."""
    progress = document["progress"]
    facts = [f"epoch {progress['epoch']} of {progress['epochs']}", *([best_text(best)] if best else [])]
    findings = "".join(
        f'<p style="color:#d97706;margin:6px 0"><strong>{escape(finding_name(finding))}</strong>, epoch '
        f"{finding['epoch']}: {escape(finding['message'])}</p>"
        for finding in document["health"]
    )
    charts = []
    for title, names in _CHARTS:
        shown = {name: history["series"][name] for name in names if name in history["series"]}
        charts.append(chart(title, history["epochs"], shown) if shown and history["epochs"] else "")
    picture = f'<img alt="latest samples" src="{_uri(sample)}" style="{_PIXELS};max-height:320px;margin-top:8px">'
    return _card(
        document,
        document["kind"],
        facts,
        findings,
        f'<progress style="width:100%" value="{progress["fraction"]:.4f}"></progress>' if _is_open(document) else "",
        f'<div style="display:flex;flex-wrap:wrap;gap:8px 20px">{"".join(charts)}</div>' if any(charts) else "",
        picture if sample else "",
    )


def sweep(document: Document, trials: Sequence[Document]) -> str:
    """A sweep: state, the sentence about the best trial, and the first trials."""
    counts = document["trials"]
    facts = [f"{counts['succeeded'] + counts['stopped']} of {counts['total']} trials done"]
    metric, settings = document["objective"]["metric"], list(map(dotted, document["resolved"]["space"]))
    rows = [
        {"trial": row["trial"], "status": row["status"], metric: row[metric]}
        | ({"95% CI over seeds": _interval(row, metric)} if len(document["seeds"]) > 1 else {})
        | {name: row.get(name) for name in settings}
        for row in trials
    ]
    sentence = document.get("best_sentence")
    best = [index for index, row in enumerate(trials) if row["trial"] == document["best_trial"]]
    return _card(
        document,
        "sweep",
        facts,
        f"<p style='margin:6px 0'>{escape(sentence)}</p>" if sentence else "",
        table(rows, bold=best),
    )


def comparison(document: Document) -> str:
    """The comparison of two settings: the sentence, notes, and the mean of each side."""
    names = ("label", "n", "mean", "min", "max")
    rows = [{name: document[side][name] for name in names} for side in "ab"]
    texts = [document["sentence"], *document["notes"]]
    paragraphs = "".join(f"<p style='margin:6px 0'>{escape(text)}</p>" for text in texts)
    return f"{paragraphs}{table(rows)}"


def model(reference: str, aliases: Sequence[Document], versions: Sequence[Document]) -> str:
    """A model of the registry: its aliases, and its versions with the first metrics."""
    facts = [f"@{item['alias']} is version {item['version']}" for item in aliases if item["version"]]
    rows = [
        {"version": item["version"], "aliases": ", ".join(f"@{name}" for name in item["aliases"])}
        | {"metrics": ", ".join(metrics_text(item)[:2]), "job": item["job"], "epoch": item["checkpoint"]}
        for item in versions
    ]
    return _card({"id": reference}, "model", facts, table(rows))


def dataset(document: Document, examples: Sequence[Document], columns: Sequence[Document]) -> str:
    """A dataset: its parts, its classes or the range of its target, and some images or rows.

    Args:
        columns: statistics of the target of a regression.
    """
    facts = [*content(document), *(f"target {target_text(column)}" for column in columns)]
    if document["kind"] == "table":
        target = document.get("target") or "class"
        shown = table([{target: item["class_name"] or item.get("target"), **item["values"]} for item in examples])
    else:
        shown = "".join(
            f'<figure style="margin:0;text-align:center;font-size:11px"><img alt="" style="{_PIXELS};height:56px" '
            f'src="data:image/png;base64,{escape(item["image"])}"><figcaption>{escape(item["class_name"])}</figcaption>'
            "</figure>"
            for item in examples
        )
        shown = f'<div style="display:flex;flex-wrap:wrap;gap:8px">{shown}</div>'
    return _card(document, "dataset", facts, _classes(document), shown)


def content(document: Document) -> list[str]:
    """The parts and the shape of a dataset, in words."""
    is_table = document["kind"] == "table"
    counts = [
        f"{document[f'{part}_count']:,} {name} {'rows' if is_table else 'images'}"
        for part, name in (("train", "training"), ("validation", "validation"), ("test", "test"))
        if document[f"{part}_count"]
    ]
    shape = " x ".join(map(str, document["image_shape"]))
    return [*counts, f"{len(document['columns'])} columns" if is_table else f"{shape} pixels"]


def target_text(column: Document) -> str:
    """The target of a regression with its range: ``price from 10,200 to 512,000``."""
    return f"{column['name']} from {cell(float(column['low']))} to {cell(float(column['high']))}"


def table(rows: Sequence[Document], *, bold: Iterable[int] = ()) -> str:
    """Rows as a table, of which the first are shown."""
    names = list(dict.fromkeys(name for row in rows[:_MAX_ROWS] for name in row))
    if not names:
        return "<p>no rows</p>"
    style = f"padding:2px 8px;text-align:left;border-bottom:{_LINE}"
    head = "".join(f'<th style="{style}">{escape(str(name))}</th>' for name in names)
    body = "".join(
        f"<tr{' style=font-weight:bold' if index in bold else ''}>"
        + "".join(f'<td style="{style}">{escape(cell(row.get(name)))}</td>' for name in names)
        + "</tr>"
        for index, row in enumerate(rows[:_MAX_ROWS])
    )
    more = f"<p>and {len(rows) - _MAX_ROWS:,} more</p>" if len(rows) > _MAX_ROWS else ""
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;font-size:12px;margin:6px 0">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def metrics_text(metrics: Document, intervals: Document | None = None) -> list[str]:
    """The metrics that matter most, of those that there are."""
    names = ("val_accuracy", "val_rmse", "val_r2", "val_loss", "frechet_distance", "g_loss", "d_loss")
    texts = []
    for name in names:
        if (value := metrics.get(name)) is not None:
            shown = f"{value:.2%}" if name == "val_accuracy" else cell(value)
            interval = (intervals or {}).get(name)
            texts.append(f"{label(name)} {shown}" + (f" ({interval['text']})" if interval else ""))
    return texts


def best_text(best: Document) -> str:
    """The best epoch with its first two metrics, and their intervals."""
    return f"best epoch {best['epoch']}: {', '.join(metrics_text(best['metrics'], best['intervals'])[:2])}"


def finding_name(finding: Document) -> str:
    """The name of a finding: ``mode collapse``."""
    return str(finding["code"]).replace("_", " ")


def _card(document: Document, noun: str, facts: Sequence[str], *parts: str) -> str:
    status = document.get("status")
    name = escape(document.get("name") or document["id"])
    badge = f'<span style="color:{_COLOURS.get(status, "inherit")}">&#9679;</span> {escape(status)}' if status else ""
    error = document.get("error")
    problem = f'<p style="color:#ef4444;margin:6px 0">{escape(_reason(error))}</p>' if error else ""
    return (
        f'<div style="border:{_LINE};border-radius:6px;padding:10px 14px;max-width:680px;font-size:13px">'
        f'<div><strong>{name}</strong> <span style="opacity:.75">{escape(noun)}</span> {badge}</div>'
        f'<div style="opacity:.85">{escape(", ".join(facts))}</div>{problem}{"".join(parts)}</div>'
    )


def _reason(error: Document) -> str:
    return "; ".join(filter(None, (error["message"], error.get("hint"))))


def _classes(document: Document) -> str:
    counts = document.get("class_counts")
    if not counts or not document["class_names"]:
        return ""
    totals = [sum(values) for values in zip(*counts.values(), strict=True)]
    pairs = list(zip(document["class_names"], totals, strict=False))
    width = max(totals) or 1
    rows = "".join(
        f'<tr><td style="padding:0 8px;text-align:left">{escape(name)}</td><td style="padding:0;text-align:left">'
        f'<div style="background:#3b82f6;height:9px;width:{120 * total / width:.0f}px"></div></td>'
        f'<td style="padding:0 8px">{total:,}</td></tr>'
        for name, total in pairs[:_MAX_CLASSES]
    )
    more = f"<p>and {len(pairs) - _MAX_CLASSES} more classes</p>" if len(pairs) > _MAX_CLASSES else ""
    return f'<table style="border-collapse:collapse;font-size:12px;margin:6px 0"><tbody>{rows}</tbody></table>{more}'


def _interval(row: Document, metric: str) -> str:
    low, high = (cell(row[f"{metric} (interval_{end})"]) for end in ("low", "high"))
    return low if low == high else f"{low} to {high}"


def _is_open(document: Document) -> bool:
    return document["status"] in ("queued", "running", "paused")


def _uri(png: bytes | None) -> str:
    return f"data:image/png;base64,{base64.b64encode(png or b'').decode()}"
