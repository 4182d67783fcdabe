"""Makes the CSV files of ``iris``, ``breast-cancer`` and ``diabetes`` out of the data in scikit-learn, and describes
them.

    pip install scikit-learn==1.9.1
    python -m service.data.make_tables

The files in scikit-learn have the names of the classes in their first line and numbers for them in the last column.
Here the columns have names, and the classes are written out; those of ``diabetes`` are separate arrays of numbers.
``dataset.json`` has what an import says of each file.
"""

import csv
import gzip
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from service.datasets.formats.options import TableOptions
from service.datasets.tables.importing import import_table

TARGET = Path(__file__).parent
_IRIS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
_MEASURES = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave_points", "symmetry",
    "fractal_dimension",
)  # fmt: skip
_DIABETES = [
    "age", "sex", "body_mass_index", "blood_pressure", "cholesterol", "ldl", "hdl", "cholesterol_hdl_ratio",
    "log_triglycerides", "glucose",
]  # fmt: skip
_BREAST = [f"{which}_{measure}" for which in ("mean", "error", "worst") for measure in _MEASURES]


def main() -> None:
    """Write both folders beside this script."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-learn is not installed")
    source = Path(spec.origin).parent / "datasets" / "data"
    for name, columns, target in (
        ("iris", _IRIS, "species"),
        ("breast-cancer", _BREAST, "diagnosis"),
        ("diabetes", _DIABETES, "progression"),
    ):
        folder = TARGET / name
        folder.mkdir(exist_ok=True)
        rows = _diabetes(source) if name == "diabetes" else _classes(source / f"{name.replace('-', '_')}.csv")
        with (folder / f"{name}.csv").open("w", newline="") as written:
            out = csv.writer(written, lineterminator="\n")
            out.writerow([*columns, target])
            out.writerows(rows)
        with tempfile.TemporaryDirectory() as arrays:
            options = TableOptions(target=target)
            found = import_table(folder / f"{name}.csv", Path(arrays), fraction=None, options=options)
        described = {
            "columns": list(found.columns or ()),
            "class_names": list(found.class_names or ()),
            "train_count": found.train_count,
            "validation_count": found.validation_count,
            "target": target,
            "sha256": found.sha256,
        }
        (folder / "dataset.json").write_text(json.dumps(described, indent=1) + "\n")
        sys.stdout.write(f"{name}: {found.train_count} + {found.validation_count} rows, {found.sha256}\n")


def _classes(path: Path) -> Iterator[list[str]]:
    """The rows of a file, with the names of their classes."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        _, _, *classes = next(rows)
        for *values, label in rows:
            yield [*values, classes[int(label)]]


def _diabetes(source: Path) -> Iterator[list[str]]:
    """The rows of the two files of diabetes: inputs that are not standardised, and the target."""
    inputs, targets = (
        gzip.decompress((source / f"diabetes_{part}.csv.gz").read_bytes()).decode().splitlines()
        for part in ("data_raw", "target")
    )
    for values, target in zip(inputs, targets, strict=True):
        yield [f"{float(value):g}" for value in (*values.split(), target)]


if __name__ == "__main__":
    main()
