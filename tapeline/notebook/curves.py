"""Curves as SVG. Colours of text and axes are those of the page around it, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from tapeline.inputs.values import rounded

Series = Mapping[str, Sequence[float | None]]

_WIDTH: Final = 300
_HEIGHT: Final = 130
_LEFT, _TOP, _BOTTOM = 46, 8, 20
_COLOURS: Final = ("#3b82f6", "#f97316", "#10b981", "#a855f7")
"""Readable on white and on black."""


def chart(title: str, epochs: Sequence[int], series: Series) -> str:
    """Curves over the epochs, with a legend; a line crosses epochs without a value. Empty if there are none."""
    values = [value for name in series for value in series[name] if value is not None]
    if not values:
        return ""
    low, high = min(values), max(values)
    span, last = (high - low) or 1.0, max(epochs[-1] - epochs[0], 1)

    def x(epoch: int) -> float:
        return _LEFT + (epoch - epochs[0]) / last * (_WIDTH - _LEFT - 6)

    def y(value: float) -> float:
        return _TOP + (high - value) / span * (_HEIGHT - _TOP - _BOTTOM)

    lines = []
    for colour, values_of_one in zip(_COLOURS, series.values(), strict=False):
        points = [
            f"{x(epoch):.1f} {y(value):.1f}"
            for epoch, value in zip(epochs, values_of_one, strict=True)
            if value is not None
        ]
        width, end = (1.8, "") if len(points) > 1 else (6, "h0")
        if points:
            lines.append(f'<path d="M{"L".join(points)}{end}" stroke="{colour}" stroke-width="{width}"/>')
    ticks = [(high, _TOP + 8), *([(low, _HEIGHT - _BOTTOM)] if high > low else [])]
    labels = [
        f'<text x="{_LEFT - 5}" y="{at}" text-anchor="end">{rounded(float(f"{value:.3g}"))}</text>'
        for value, at in ticks
    ]
    labels += [
        f'<text x="{at:.0f}" y="{_HEIGHT - 5}" text-anchor="{anchor}">{epoch}</text>'
        for epoch, at, anchor in ((epochs[0], _LEFT, "start"), (epochs[-1], _WIDTH - 6, "end"))
        if anchor == "end" or epochs[-1] > epochs[0]
    ]
    legend = " ".join(
        f'<span style="color:{colour}">&#9644;</span> {escape(label(name))}'
        for colour, name in zip(_COLOURS, series, strict=False)
    )
    axes = f"M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - 6}"
    return (
        f'<figure style="margin:0;display:inline-block"><figcaption style="font-size:12px">{legend}</figcaption>'
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'style="max-width:100%" fill="none" stroke-linecap="round" stroke-linejoin="round">'
        f'<path d="{axes}" stroke="currentColor" stroke-opacity=".35" stroke-width="1"/>{"".join(lines)}'
        f'<g fill="currentColor" font-size="10" fill-opacity=".75">{"".join(labels)}</g></svg></figure>'
    )


def label(metric: str) -> str:
    """A metric's name as words."""
    words = metric.replace("_", " ").replace("/", " of ").replace("frechet", "Fréchet")
    return words.replace("rmse", "RMSE").replace("mae", "MAE").replace(" r2", " R²")
