"""``python -m benchmarks.tabular``: compares the presets ``table`` with scikit-learn.

Classes: iris, wine, breast-cancer and digits are written as CSV from scikit-learn's bundled data; penguins come from
the package ``palmerpenguins``. Numbers to predict: diabetes comes from scikit-learn, cars and weather from
``vega_datasets``, investment and visits from ``statsmodels``. Each file passes through the product's own import,
preprocessing and trainer. Only this benchmark needs these packages: ``pip install scikit-learn palmerpenguins
vega_datasets statsmodels``.
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
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import RESULTS
from engine import EpochDone
from service import kinds
from service.datasets.cache import Dataset, Examples, open_arrays
from service.datasets.formats.options import TableOptions
from service.datasets.info import DatasetInfo
from service.datasets.shapes import shape_of
from service.datasets.tables.importing import import_table
from service.datasets.tables.preprocessing import Preprocessing
from service.spec.metric_info import KEY_METRICS
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.validation import resolve
from service.states import Task
from workers.training import build

CLASSES: Final = {
    "iris": "target",
    "wine": "target",
    "breast-cancer": "target",
    "digits": "target",
    "penguins": "species",
}
"""Datasets with classes, and their target columns."""
NUMBERS: Final = {
    "diabetes": ("target", "scikit-learn", "load_diabetes"),
    "cars": ("Miles_per_Gallon", "vega_datasets", "cars"),
    "weather": ("temp_max", "vega_datasets", "seattle_weather"),
    "investment": ("invest", "statsmodels", "grunfeld"),
    "visits": ("mdvis", "statsmodels", "randhie"),
}
"""Datasets with a number to predict: the target column, the package, and the name there."""
FOLDS: Final = 5
SEEDS: Final = 5
FIRST_SEED: Final = 5
_T_95: Final = 2.064
"""Student's t for 25 runs."""


def write_csv(name: str, path: Path) -> None:
    """Write a dataset of one of the packages as a CSV file."""
    if name == "penguins":
        path.write_bytes(files("palmerpenguins").joinpath("data/penguins.csv").read_bytes())
        return
    if name in NUMBERS:
        frame(name).to_csv(path, index=False)
        return
    from sklearn import datasets

    data = getattr(datasets, f"load_{name.replace('-', '_')}")()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*map(str, data.feature_names), "target"])
        for row, label in zip(data.data, data.target, strict=True):
            writer.writerow([*(repr(float(value)) for value in row), str(data.target_names[label])])


def frame(name: str) -> Any:
    """The DataFrame of a dataset with a number to predict."""
    _, package, source = NUMBERS[name]
    match package:
        case "scikit-learn":
            from sklearn import datasets

            return getattr(datasets, source)(as_frame=True, scaled=False).frame
        case "vega_datasets":
            from vega_datasets import local_data

            data = getattr(local_data, source)()
            # Names are different texts; a year as a date would have one value in each row.
            return data.drop(columns="Name").assign(Year=data["Year"].dt.year) if name == "cars" else data
        case _:
            from statsmodels import datasets as models

            return getattr(models, source).load_pandas().data


def import_dataset(name: str, folder: Path) -> tuple[DatasetInfo, Examples]:
    """Import a dataset with the product, and concatenate its parts."""
    path, arrays = folder / f"{name}.csv", folder / name
    write_csv(name, path)
    arrays.mkdir()
    target, task = (NUMBERS[name][0], Task.REGRESSION) if name in NUMBERS else (CLASSES[name], None)
    report = import_table(path, arrays, fraction=None, options=TableOptions(target=target, task=task))
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
        report=report.report,
    )
    data = open_arrays(arrays, info)
    inputs = np.concatenate([data.train.inputs, data.validation.inputs])
    return info, Examples(inputs, np.concatenate([data.train.labels, data.validation.labels]))


def score_tapeline(info: DatasetInfo, train: Examples, test: Examples, seed: int) -> float:
    """Accuracy or RMSE of the last epoch of the preset ``table``."""
    info = replace(info, train_count=len(train), validation_count=len(test))
    document = {"kind": kinds.for_task(info.task).name, "preset": "table", "seed": seed}
    spec = match_output_to_dataset(resolve(document), document, shape_of(info))
    trainer = build.trainer(spec, Dataset(info, train, test, ""), Preprocessing.of(info, train.inputs, train.labels))
    metric = KEY_METRICS[spec.kind][0]
    return [report.metrics[metric] for report in trainer.run() if isinstance(report, EpochDone)][-1]


def score_mlp(info: DatasetInfo, train: Examples, test: Examples, seed: int) -> float:
    """``MLPClassifier`` or ``MLPRegressor`` with default settings, except for enough iterations to converge."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    fitted = Preprocessing.of(info, train.inputs, train.labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if fitted.target is None:
            model = MLPClassifier(random_state=seed, max_iter=1000).fit(fitted.apply(train.inputs), train.labels)
            return float(model.score(fitted.apply(test.inputs), test.labels))
        standardised = (train.labels - fitted.target["mean"]) / fitted.target["scale"]
        model = MLPRegressor(random_state=seed, max_iter=1000).fit(fitted.apply(train.inputs), standardised)
    return rmse(fitted.to_targets(model.predict(fitted.apply(test.inputs))), test)


def score_trees(info: DatasetInfo, train: Examples, test: Examples, seed: int) -> float:
    """RMSE of ``HistGradientBoostingRegressor`` with default settings."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(random_state=seed).fit(train.inputs, train.labels)
    return rmse(model.predict(test.inputs), test)


def rmse(predictions: NDArray[Any], test: Examples) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean((predictions - test.labels) ** 2)))


def folds(info: DatasetInfo, labels: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Folds, stratified by class; the same for all libraries. The presets were chosen on other folds and seeds."""
    from sklearn.model_selection import KFold, StratifiedKFold

    kind = StratifiedKFold if info.task is Task.CLASSIFICATION else KFold
    return iter(kind(FOLDS, shuffle=True, random_state=1).split(np.zeros(len(labels)), labels))


def measure(name: str, folder: Path) -> dict[str, Any]:
    """All runs of one dataset."""
    info, examples = import_dataset(name, folder)
    result: dict[str, Any] = {"dataset": name, "rows": len(examples), "columns": len(info.columns)}
    if name in NUMBERS:
        result["version"] = version(NUMBERS[name][1])
    runs = {"tapeline": score_tapeline, "sklearn": score_mlp} | ({"trees": score_trees} if name in NUMBERS else {})
    for library, run in runs.items():
        scores, started_at = [], time.process_time()
        for train, test in folds(info, examples.labels):
            parts = [Examples(examples.inputs[chosen], examples.labels[chosen]) for chosen in (train, test)]
            scores += [run(info, parts[0], parts[1], seed) for seed in range(FIRST_SEED, FIRST_SEED + SEEDS)]
        half_width = _T_95 * stdev(scores) / math.sqrt(len(scores))
        result[library] = {
            "mean": fmean(scores),
            "half": half_width,
            "seconds": (time.process_time() - started_at) / len(scores),
        }
    return result


def table_of_classes(rows: list[dict[str, Any]]) -> str:
    """The results for the datasets with classes, as Markdown."""
    lines = [
        "| dataset | rows | columns | preset `table` | `MLPClassifier` (95% interval) | s | s, `MLPClassifier` |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in [row for row in rows if row["dataset"] in CLASSES]:
        tapeline, peer = row["tapeline"], row["sklearn"]
        low, high = peer["mean"] - peer["half"], peer["mean"] + peer["half"]
        lines.append(
            f"| {row['dataset']} | {row['rows']:,} | {row['columns']} | {tapeline['mean']:.2%} "
            f"| {peer['mean']:.2%} ({low:.2%} to {high:.2%}) | {tapeline['seconds']:.2f} | {peer['seconds']:.2f} |"
        )
    return "\n".join(lines)


def table_of_numbers(rows: list[dict[str, Any]]) -> str:
    """The results for the datasets with a number to predict, as Markdown."""
    lines = [
        "| dataset | target | package | rows | columns | preset `table` | `MLPRegressor` (95% interval) | trees | s |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in [row for row in rows if row["dataset"] in NUMBERS]:
        target, package, source = NUMBERS[row["dataset"]]
        tapeline, peer, trees = row["tapeline"], row["sklearn"], row["trees"]
        interval = f"{peer['mean'] - peer['half']:.4g} to {peer['mean'] + peer['half']:.4g}"
        lines.append(
            f"| {row['dataset']} | `{target}` | {package} {row['version']} `{source}` | {row['rows']:,} "
            f"| {row['columns']} | {tapeline['mean']:.4g} | {peer['mean']:.4g} ({interval}) | {trees['mean']:.4g} "
            f"| {tapeline['seconds']:.2f}, {peer['seconds']:.2f}, {trees['seconds']:.2f} |"
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
        for name in options.only or (*CLASSES, *NUMBERS):
            rows.append(measure(name, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    print(f"\n{table_of_classes(rows)}\n\n{table_of_numbers(rows)}")
    path = options.results / "tabular.json"
    measured = {row["dataset"]: row for row in rows}
    earlier = json.loads(path.read_text("utf-8")) if path.exists() else []
    kept = [measured.pop(row["dataset"], row) for row in earlier]
    path.write_text(json.dumps([*kept, *measured.values()], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
