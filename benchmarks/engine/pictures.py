"""Draws how the time of a step grows with the size of the network and the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

LINES = {  # key -> label, colour (Okabe & Ito 2008: distinguishable by the colour-blind)
    "torch_ms": ("PyTorch", "#D55E00"),
    "tape_ms": ("engine, plain tape", "#56B4E9"),
    "ms": ("engine", "#0072B2"),
    "handwritten_ms": ("by hand", "#009E73"),
    "floor_ms": ("matrix products", "#777777"),
}
AXES = {"width": "units in the hidden layer", "depth": "hidden layers of 100", "batch": "images in a batch"}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw one panel for each growing quantity and each number of threads."""
    mpl.use("agg")
    import matplotlib.pyplot as plt

    threads = sorted({row["threads"] for row in rows})
    figure, panels = plt.subplots(
        len(threads), len(AXES), figsize=(11, 3.4 * len(threads)), layout="constrained", squeeze=False, sharey=True
    )
    for line, count in zip(panels, threads, strict=True):
        for panel, (quantity, label) in zip(line, AXES.items(), strict=True):
            points = [row for row in rows if (row["growing"], row["threads"]) == (quantity, count)]
            for key, (name, colour) in LINES.items():
                shown = [(point["value"], point[key]) for point in points if point.get(key) is not None]
                if shown:
                    style = "--" if key == "floor_ms" else "-"
                    panel.plot(*zip(*shown, strict=True), style, marker=".", color=colour, label=name)
            panel.set(xscale="log", yscale="log", xlabel=label)
            panel.grid(alpha=0.3)
        line[0].set_ylabel(f"ms a step, {count} thread{'s' if count > 1 else ''}")
    panels[0][0].legend(frameon=False)
    figure.suptitle("What a step of the classifier costs")
    figure.savefig(path, dpi=110)
    plt.close(figure)
