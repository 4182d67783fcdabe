"""Makes the CSV files of ``iris`` and ``breast-cancer`` out of the data in scikit-learn, and describes them.

    pip install scikit-learn==1.9.1
    python -m service.data.make_tables

The files in scikit-learn have the names of the classes in their first line and numbers for them in the last column.
Here the columns have names, and the classes are written out. ``dataset.json`` has what an import says of each file.
"""

import csv
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

from service.datasets.info import TableOptions
from service.datasets.tables.importing import import_table

TARGET = Path(__file__).parent
_IRIS = ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"]
_MEASURES = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave_points", "symmetry",
    "fractal_dimension",
)  # fmt: skip
_BREAST = [f"{which}_{measure}" for which in ("mean", "error", "worst") for measure in _MEASURES]


def main() -> None:
    """Write both folders beside this script."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-learn is not installed")
    source = Path(spec.origin).parent / "datasets" / "data"
    for name, file, columns, target in (
        ("iris", "iris.csv", _IRIS, "species"),
        ("breast-cancer", "breast_cancer.csv", _BREAST, "diagnosis"),
    ):
        folder = TARGET / name
        folder.mkdir(exist_ok=True)
        with (source / file).open(newline="") as read, (folder / f"{name}.csv").open("w", newline="") as written:
            rows = csv.reader(read)
            _, _, *classes = next(rows)
            out = csv.writer(written, lineterminator="\n")
            out.writerow([*columns, target])
            out.writerows([*values, classes[int(label)]] for *values, label in rows)
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


if __name__ == "__main__":
    main()
