"""``python -m benchmarks.collapse``: compares cures for mode collapse, one at a time, on the same networks.

Each training runs in a separate process with one BLAS thread, and is stored as soon as it is finished, so the program
can be interrupted and restarted. Samples of the last epoch are scored by the bundled reference classifier.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.tables import RESULTS
from service.spec.presets.definitions import PRESETS
from service.spec.schema import Kind

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = ROOT / "docs" / "mode-collapse.md"
BEGIN, END = (f"<!-- make results ONLY=collapse: {end} -->" for end in ("begin", "end"))
EPOCHS: Final = 15
MNIST, STACKED = "mnist-10k", "stacked-mnist"
SAMPLES: Final = {MNIST: 5000, STACKED: 25_600}
GENERATOR: Final = {
    data: [{"units": units, "activation": "tanh"} for units in (200, 400, pixels)]
    for data, pixels in ((MNIST, 784), (STACKED, 2352))
}
HIDDEN: Final = [
    {"units": 400, "activation": "leaky_relu", "negative_slope": 0.2},
    {"units": 50, "activation": "leaky_relu", "negative_slope": 0.2},
]
DROPOUT: Final = {"type": "dropout", "rate": 0.3}
CURES: Final[dict[str, dict[str, Any]]] = {
    "none": {},
    "discriminator rests every third step": {"discriminator": {"skip_every": 3}},
    "label smoothing 0.1": {"discriminator": {"label_smoothing": 0.1}},
    "dropout 0.3": {"dropout": True},
    "averaged weights 0.999": {"generator": {"average_decay": 0.999}},
    "packs of 2": {"discriminator": {"pack": 2}},
    "spectral normalization": {"discriminator": {"spectral_norm": True}},
    "hinge loss": {"loss": {"name": "hinge"}},
    "hinge loss, spectral normalization": {"loss": {"name": "hinge"}, "discriminator": {"spectral_norm": True}},
    "least squares": {"loss": {"name": "least_squares"}},
    "Wasserstein with gradient penalty 10": {
        "loss": {"name": "wasserstein"},
        "discriminator": {"gradient_penalty": 10.0},
    },
    "R1 penalty 1": {"discriminator": {"r1": 1.0}},
}
COMBINED: Final = "convolutions, R1 penalty 1, averaged weights 0.999, cosine schedule"
"""The networks of the preset ``best`` with several cures, on stacked MNIST."""
COMBINED_EPOCHS: Final = 30
COMBINATION: Final[dict[str, Any]] = {
    "kind": "gan",
    "preset": "best",
    "generator": {
        "layers": [
            *PRESETS[Kind.GAN]["best"]["generator"]["layers"][:-1],
            {"type": "conv2d", "filters": 3, "kernel": 5, "activation": "tanh"},
        ],
        "average_decay": 0.999,
    },
    "discriminator": {
        "layers": [
            {"type": "conv2d", "filters": 32, "kernel": 5, "stride": 2, "activation": "leaky_relu"},
            {"type": "conv2d", "filters": 64, "kernel": 3, "stride": 2, "activation": "leaky_relu"},
            {"type": "flatten"},
            {"units": 256, "activation": "leaky_relu"},
            {"units": 1, "activation": "sigmoid"},
        ],
        "r1": 1.0,
    },
    "optimizer": {"name": "adam", "learning_rate": 0.0005, "beta1": 0.5},
    "schedule": {"name": "cosine"},
    "batch_size": 64,
}


def document(data: str, cure: str, seed: int, epochs: int) -> dict[str, Any]:
    """The spec of a row: the networks of the preset ``stable`` without any of its cures, and one cure."""
    shared = {"dataset": {"name": data}, "seed": seed, "epochs": epochs}
    shared["health"] = {"every_epochs": epochs, "samples": 1000}
    if cure == COMBINED:
        return COMBINATION | shared
    changes = CURES[cure]
    loss = {"name": "binary_cross_entropy"} | changes.get("loss", {})
    output_layer = {"units": 1, "activation": "sigmoid" if loss["name"] == "binary_cross_entropy" else "linear"}
    hidden = [item for layer in HIDDEN for item in ((layer, DROPOUT) if "dropout" in changes else (layer,))]
    return shared | {
        "kind": "gan",
        "preset": "stable",
        "loss": loss,
        "generator": {"layers": GENERATOR[data], "average_decay": None} | changes.get("generator", {}),
        "discriminator": {"layers": [*hidden, output_layer], "r1": 0.0} | changes.get("discriminator", {}),
    }


def train(data: str, cure: str, seed: int, epochs: int, work: Path) -> dict[str, Any]:
    """Train a row to its end, and score its samples."""
    import numpy as np

    from engine import DivergedError, EpochDone, GanTrainer
    from service.datasets import cache
    from service.datasets.formats.array_folders import ArrayCache
    from service.kinds.gan.training import make_samples, reference_classifier
    from service.pictures import grids
    from service.spec.validation import resolve
    from workers.training import build

    spec = resolve(document(data, cure, seed, epochs))
    digits = cache.load("mnist-10k", work, cache=ArrayCache(work))
    trainer = build.trainer(spec, cache.load(data, work, cache=ArrayCache(work)))
    reference = reference_classifier(digits)
    assert isinstance(trainer, GanTrainer)
    assert reference is not None
    started_at = time.process_time()
    try:
        for report in trainer.run():
            if isinstance(report, EpochDone):
                print(report.epoch, file=sys.stderr, flush=True)
    except DivergedError as error:
        return {"diverged": str(error), "seconds": round(time.process_time() - started_at, 1)}
    seconds = time.process_time() - started_at
    images = make_samples(trainer, seed, "collapse", SAMPLES[data])
    picture = picture_path(work, data, cure, seed)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(grids.sample_grid(images[:64]))
    if data == STACKED:
        red, green, blue = (reference.evaluate(images[..., channel]).labels for channel in range(3))
        shares = np.bincount(100 * red + 10 * green + blue, minlength=1000) / len(images)
        present = shares[shares > 0]
        divergence = float(np.sum(present * np.log(1000 * present)))  # all modes are equally frequent in the data
        return {"modes": len(present), "kl": round(divergence, 4), "seconds": round(seconds, 1)}
    scores = reference.score(images)
    counts = np.bincount(reference.evaluate(images).labels, minlength=10)
    return {
        "modes": int(np.count_nonzero(counts)),
        "covered": round(10 * scores["mode_coverage"]),
        "kl": round((1 - scores["class_entropy"]) * math.log(10), 4),
        "rarest": round(scores["min_class_share"], 4),
        "distance": round(scores["frechet_distance"], 1),
        "seconds": round(seconds, 1),
    }


def picture_path(work: Path, data: str, cure: str, seed: int) -> Path:
    """The path of the sample grid of a row."""
    return work / "collapse" / data / f"{cure.replace(' ', '-')}-{seed}.png"


def stacked_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of stacked MNIST in Markdown."""
    lines = ["| cure | epochs | seeds | modes of 1,000 | KL | CPU seconds |", "|---|--:|--:|--:|--:|--:|"]
    for epochs in sorted({row["epochs"] for row in rows}):
        for cure in (*CURES, COMBINED):
            group = [row for row in rows if (row["cure"], row["epochs"]) == (cure, epochs) and "diverged" not in row]
            if group:
                cells = f"{epochs} | {len(group)} | {_median(group, 'modes', 0, min)} | {_median(group, 'kl', 2, max)}"
                lines.append(f"| {cure} | {cells} | {statistics.median(row['seconds'] for row in group):.0f} |")
    return "\n".join(lines)


def _median(rows: Sequence[dict[str, Any]], name: str, digits: int, worst: Any) -> str:
    """The median of several values and, in parentheses, the worst one."""
    values = [row[name] for row in rows]
    shown = f"{statistics.median(values):.{digits}f}" if digits else f"{statistics.median(values):g}"
    return shown if len(values) == 1 else f"{shown} ({worst(values):.{digits}f})"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown: for each cure, the median over its seeds and, in parentheses, the worst value."""
    lines = [
        "| cure | seeds | digits covered | KL | rarest digit | Fréchet distance | CPU seconds |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for cure in CURES:
        group = [row for row in rows if row["cure"] == cure]
        finished = [row for row in group if "diverged" not in row]
        if not group:
            continue
        if not finished:
            lines.append(f"| {cure} | {len(group)} | diverged | | | | |")
            continue

        cells = [
            _median(finished, "covered", 0, min),
            _median(finished, "kl", 3, max),
            f"{100 * statistics.median(row['rarest'] for row in finished):.1f}%",
            _median(finished, "distance", 1, max),
            f"{statistics.median(row['seconds'] for row in finished):.0f}",
        ]
        lines.append(f"| {cure} | {len(finished)} of {len(group)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(work: Path, path: Path) -> None:
    """Draw the samples of seed 0 of all cures side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    pictures = [(cure, picture_path(work, MNIST, cure, 0)) for cure in CURES]
    pictures = [(cure, picture) for cure, picture in pictures if picture.exists()]
    if not pictures:
        return
    rows = -(-len(pictures) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(12, 3.3 * rows), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (cure, picture) in zip(axes.flat, pictures, strict=False):
        axis.imshow(plt.imread(picture), cmap="gray", interpolation="nearest")
        axis.set_title(cure, fontsize=9)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    Image.open(drawn).convert("L").quantize(16).save(path, optimize=True)


def write(rows: Sequence[dict[str, Any]], epochs: int) -> None:
    """Write the table into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    selected = [row for row in rows if row["epochs"] == epochs]
    sections = ["MNIST:", table([row for row in selected if row["data"] == MNIST])]
    stacked = [row for row in rows if row["data"] == STACKED]
    sections += ["Stacked MNIST:", stacked_table(stacked)] if stacked else []
    body = "\n\n".join(sections)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Read the command line, train the missing rows, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=[MNIST, STACKED], default=[MNIST, STACKED])
    parser.add_argument("--cures", nargs="+", choices=[*CURES, COMBINED], default=[*CURES, COMBINED], metavar="CURE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "presets", help="unpacked data, sample grids")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for JSON and Markdown")
    parser.add_argument("--row", nargs=3, metavar=("DATA", "CURE", "SEED"), help="train this one and print it as JSON")
    parser.add_argument("--table", action="store_true", help="do not train; write the table from the stored results")
    options = parser.parse_args()
    if options.row:
        data, cure, seed = options.row
        print(json.dumps(train(data, cure, int(seed), options.epochs, options.work)))
        return
    path = options.results / "collapse.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    existing = {(row["data"], row["cure"], row["seed"], row["epochs"]) for row in rows}
    seeds = range(0 if options.table else options.seeds)
    single = [cure for cure in options.cures if cure != COMBINED]
    runs = [(data, cure, options.epochs) for data, cure in itertools.product(options.data, single)]
    runs += [(STACKED, COMBINED, COMBINED_EPOCHS)] if STACKED in options.data and COMBINED in options.cures else []
    for seed, (data, cure, epochs) in itertools.product(seeds, runs):
        if (data, cure, seed, epochs) in existing:
            continue
        command = [sys.executable, "-m", "benchmarks.collapse", "--row", data, cure, str(seed), "--epochs"]
        command += [str(epochs), "--work", str(options.work)]
        environment = os.environ | dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        child = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        row = {"data": data, "cure": cure, "seed": seed, "epochs": epochs} | json.loads(child.stdout)
        rows.append(row)
        print(row, flush=True)
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    write(rows, options.epochs)
    draw(options.work, DOCUMENT.with_suffix(".png"))
    print(
        table([row for row in rows if row["data"] == MNIST]),
        stacked_table([row for row in rows if row["data"] == STACKED]),
        sep="\n\n",
    )


if __name__ == "__main__":
    main()
