"""``python -m benchmarks.tabular``: compares the preset ``table`` with scikit-learn's ``MLPClassifier``.

Iris, wine, breast-cancer and digits are written as CSV from scikit-learn's bundled data; penguins come from the package
``palmerpenguins``. Each file passes through the product's own import, preprocessing and trainer. Only this benchmark
needs these packages: ``pip install scikit-learn palmerpenguins``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import RESULTS
from engine import EpochDone
from service.datasets.cache import Dataset, Examples, open_arrays
from service.datasets.info import DatasetInfo, TableOptions
from service.datasets.shapes import shape_of
from service.datasets.tables.importing import import_table
from service.datasets.tables.preprocessing import Preprocessing
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.validation import resolve
from workers.training import build

BUNDLED: Final = ("iris", "wine", "breast-cancer", "digits")
TARGETS: Final = {"penguins": "species"}
FOLDS: Final = 5
SEEDS: Final = 5
FIRST_SEED: Final = 5
_T_95: Final = 2.064
"""Student's t for 25 runs."""


def write_csv(name: str, path: Path) -> None:
    """Write one of scikit-learn's bundled datasets, or the penguins, as a CSV file."""
    if name == "penguins":
        path.write_bytes(files("palmerpenguins").joinpath("data/penguins.csv").read_bytes())
        return
    from sklearn import datasets

    data = getattr(datasets, f"load_{name.replace('-', '_')}")()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*map(str, data.feature_names), "target"])
        for row, label in zip(data.data, data.target, strict=True):
            writer.writerow([*(repr(float(value)) for value in row), str(data.target_names[label])])


def import_dataset(name: str, folder: Path) -> tuple[DatasetInfo, Examples]:
    """Import a dataset with the product, and concatenate its parts."""
    path, arrays = folder / f"{name}.csv", folder / name
    write_csv(name, path)
    arrays.mkdir()
    report = import_table(path, arrays, fraction=None, options=TableOptions(target=TARGETS.get(name)))
    info = DatasetInfo(
        name=name,
        title=name,
        kind=report.kind,
        image_shape=(),
        columns=tuple(report.columns or ()),
        classes=report.classes,
        train_count=report.train_count,
        validation_count=report.validation_count,
        class_names=tuple(report.class_names or ()),
        source="",
        licence="",
        sha256=report.sha256,
        available=True,
    )
    data = open_arrays(arrays, info)
    inputs = np.concatenate([data.train.inputs, data.validation.inputs])
    return info, Examples(inputs, np.concatenate([data.train.labels, data.validation.labels]))


def score_tapeline(info: DatasetInfo, train: Examples, test: Examples, seed: int) -> float:
    """Accuracy of the last epoch of the preset ``table``."""
    info = replace(info, train_count=len(train), validation_count=len(test))
    document = {"kind": "classifier", "preset": "table", "seed": seed}
    spec = match_output_to_dataset(resolve(document), document, shape_of(info))
    trainer = build.trainer(spec, Dataset(info, train, test, ""), Preprocessing.fit(info.columns, train.inputs))
    return [report.metrics["val_accuracy"] for report in trainer.run() if isinstance(report, EpochDone)][-1]


def score_sklearn(info: DatasetInfo, train: Examples, test: Examples, seed: int) -> float:
    """Accuracy of ``MLPClassifier`` with default settings, except for enough iterations to converge."""
    from sklearn.neural_network import MLPClassifier

    fitted = Preprocessing.fit(info.columns, train.inputs)  # standardised numbers, one-hot categories
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier(random_state=seed, max_iter=1000).fit(fitted.apply(train.inputs), train.labels)
    return float(model.score(fitted.apply(test.inputs), test.labels))


def folds(labels: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Stratified folds, the same for both libraries. The preset was chosen on other folds and seeds."""
    from sklearn.model_selection import StratifiedKFold

    return iter(StratifiedKFold(FOLDS, shuffle=True, random_state=1).split(np.zeros(len(labels)), labels))


def measure(name: str, folder: Path) -> dict[str, Any]:
    """All runs of one dataset."""
    info, examples = import_dataset(name, folder)
    result: dict[str, Any] = {"dataset": name, "rows": len(examples), "columns": len(info.columns)}
    for library, run in (("tapeline", score_tapeline), ("sklearn", score_sklearn)):
        scores, started_at = [], time.process_time()
        for train, test in folds(examples.labels):
            parts = [Examples(examples.inputs[chosen], examples.labels[chosen]) for chosen in (train, test)]
            scores += [run(info, parts[0], parts[1], seed) for seed in range(FIRST_SEED, FIRST_SEED + SEEDS)]
        half_width = _T_95 * stdev(scores) / math.sqrt(len(scores))
        result[library] = {
            "mean": fmean(scores),
            "half": half_width,
            "seconds": (time.process_time() - started_at) / len(scores),
        }
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| dataset | rows | columns | preset `table` | `MLPClassifier` (95% interval) | s | s, `MLPClassifier` |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        tapeline, peer = row["tapeline"], row["sklearn"]
        low, high = peer["mean"] - peer["half"], peer["mean"] + peer["half"]
        lines.append(
            f"| {row['dataset']} | {row['rows']:,} | {row['columns']} | {tapeline['mean']:.2%} "
            f"| {peer['mean']:.2%} ({low:.2%} to {high:.2%}) | {tapeline['seconds']:.2f} | {peer['seconds']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and store the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="datasets (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for tabular.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name in options.only or (*BUNDLED, "penguins"):
            rows.append(measure(name, Path(folder)))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print("\n" + table(rows))
    if not options.only:
        (options.results / "tabular.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
