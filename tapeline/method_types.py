"""Arguments and results of the client's methods, besides jobs.

The dictionaries may have more fields than are typed here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict

from tapeline.errors import MissingPackage
from tapeline.notebook import plain

Which = Literal["best", "latest"] | int
"""A checkpoint: best, latest, or the number of an epoch."""


_Class = TypedDict("_Class", {"class": int | str}, total=False)  # a keyword of Python


class GenerateOptions(_Class, total=False):
    """Options for generating images; see ``POST /jobs/{id}/generate``."""

    count: int
    """Number of points of ``seed`` (default: 16)."""
    seed: int
    seeds: Sequence[int]
    """Seeds; the first point of each is used."""
    latent: Sequence[Sequence[float]]
    """Latent points, given explicitly."""
    steps: int
    """Number of interpolation steps from each point to the next."""
    checkpoint: Which
    """Default: best."""
    scale: int
    """Scale factor of the picture."""


class Records(list[dict[str, Any]]):
    """A list of dictionaries, which is also a table."""

    def to_frame(self) -> Any:
        """The records as a DataFrame of pandas.

        Raises:
            MissingPackage: pandas is not installed.
        """
        try:
            import pandas as pd  # lazily: it is optional
        except ImportError:
            raise MissingPackage("pandas", "to_frame()") from None
        return pd.DataFrame(self)

    def _repr_html_(self) -> str:
        from tapeline.notebook.cards import table

        return table(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As IPython shows it in a terminal."""
        printer.text(plain.table(self))


class Comparison(dict[str, Any]):
    """The comparison of two settings, as the document of the API. ``difference`` is ``b`` minus ``a``."""

    @property
    def sentence(self) -> str:
        """The result in words; it begins with the side that is better, whichever of ``a`` and ``b`` that is."""
        return str(self["sentence"])

    @property
    def difference(self) -> float | None:
        """The mean of ``b`` minus that of ``a``."""
        return None if self["difference"] is None else float(self["difference"])

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the difference over the seeds; ``None``: unknown, as ``why_no_interval`` says."""
        return None if self["interval"] is None else (self["interval"][0], self["interval"][1])

    def to_frame(self) -> Any:
        """The pairs of values by seed as a DataFrame of pandas."""
        return Records(self["pairs"]).to_frame()

    def __repr__(self) -> str:
        return f"<Comparison: {self.sentence}>"

    def _repr_html_(self) -> str:
        from tapeline.notebook.cards import comparison

        return comparison(self)


class Prediction(dict[str, Any]):
    """What a network predicts, as the document of the API.

    Of a classifier, ``classes`` is the most probable class of each image or row, ``class_names`` has their names, and
    ``probabilities`` those of every class. Of a regressor, ``values`` are the numbers in the unit of ``target``, the
    column that it predicts, and ``typical_error`` is the RMSE on the validation data. ``checkpoint`` is the epoch of
    the checkpoint. For rows, ``unknown_values`` were no category of their column, and ``absent_columns`` were missing;
    both were treated as missing values. ``notes`` are sentences about empty cells, and values outside the training
    data. With ``explain``: ``seen``, the images after preprocessing, and ``saliency``, the gradient of the predicted
    logit.
    """

    model: str | None
    """The version of a model that was used, such as ``digits:3``; ``None``: a job was."""

    def __init__(
        self, document: Mapping[str, Any], given: Sequence[Mapping[str, Any]] = (), *, model: str | None = None
    ) -> None:
        """Take the document of the API, and what tells the images or rows apart: a ``file``, or the cells."""
        super().__init__(document)
        self._given, self.model = given, model
        if self.get("values") is not None:
            for name in ("probabilities", "classes", "class_names"):
                self.pop(name, None)

    @property
    def predictions(self) -> Records:
        """A dictionary for each image or row: ``label``, ``probability``, and the ``probabilities`` of all classes by
        name; of a regressor ``value``, in the unit of the target; of a file its name, ``file``."""
        if self.get("values") is not None:
            return Records({"value": value} for value in self["values"])
        names = self["class_names"]
        records = Records(
            {"label": names[index], "probability": row[index], "probabilities": dict(zip(names, row, strict=True))}
            for index, row in zip(self["classes"], self["probabilities"], strict=True)
        )
        is_of_rows = self.get("unknown_values") is not None
        return (
            records
            if is_of_rows
            else Records({**file, **row} for file, row in zip(self._given or [{}] * len(records), records, strict=True))
        )

    @property
    def labels(self) -> list[str]:
        """The name of the most probable class of each image or row."""
        return [self["class_names"][index] for index in self.get("classes", ())]

    def to_frame(self) -> Any:
        """The predictions as a DataFrame of pandas, with a column for each class, or one named like the target."""
        return self._flat().to_frame()

    def _flat(self, given: Sequence[Mapping[str, Any]] = ()) -> Records:
        """Rows without inner dictionaries, and with the cells beside the predictions."""
        target = str(self.get("target") or "value")
        if any(target in cells for cells in given):
            target = f"predicted {target}"
        rows = Records()
        for index, row in enumerate(self.predictions):
            by_class = row.pop("probabilities", {})
            flat = {target if name == "value" else name: value for name, value in row.items()}
            flat |= {f"probability of {name}": value for name, value in by_class.items()}
            rows.append(
                flat | {name: cell for name, cell in (given[index] if given else {}).items() if name not in flat}
            )
        return rows

    def __repr__(self) -> str:
        rows = self._flat(self._given)
        facts = [f"{len(rows):,}", *filter(None, [self.model]), f"checkpoint of epoch {self.get('checkpoint')}"]
        return f"<Prediction of {', '.join(facts)}>\n{plain.table(rows)}"

    def _repr_html_(self) -> str:
        return self._flat(self._given)._repr_html_()


class Residuals(Records):
    """The validation rows for which a regressor is furthest from the target, worst first: for each a dictionary with
    ``index``, ``target``, ``prediction``, ``residual`` (their difference), and its cells.

    ``points`` has ``target`` and ``prediction`` of all rows, or of 2,000; ``document`` is that of the API.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        for item in self.document["worst"]:
            row = {name: item[name] for name in ("index", "target", "prediction")}
            row["residual"] = item["target"] - item["prediction"]
            self.append(row | {name: value for name, value in item["row"].items() if name not in row})

    @property
    def points(self) -> Records:
        """``target`` and ``prediction`` of the validation rows."""
        return Records(dict(zip(("target", "prediction"), pair, strict=True)) for pair in self.document["points"])

    def __repr__(self) -> str:
        facts = f"{len(self)} of {self.document['validation_count']:,} rows, target {self.document['target']}"
        return f"<Residuals: {facts}, checkpoint of epoch {self.document['checkpoint']}>\n{plain.table(self)}"


class Generated(TypedDict):
    """Generated images."""

    images: list[Any]
    """Rows of numbers in [0, 1], or PNGs in base64."""
    latent: list[list[float]] | None
    """With ``with_latent``: the latent points of the images."""
    checkpoint: int


class History(Records):
    """The metrics of all completed epochs: for each a dictionary with ``epoch``, ``seconds`` and its metrics, which are
    ``None`` if a value is not finite or was not measured. ``document`` has the same as columns, and the findings."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        epochs, seconds, series = (self.document[name] for name in ("epochs", "seconds", "series"))
        super().__init__(
            {"epoch": epoch, "seconds": seconds[index], **{name: values[index] for name, values in series.items()}}
            for index, epoch in enumerate(epochs)
        )

    @property
    def series(self) -> dict[str, list[float | None]]:
        """The values of each metric, by its name."""
        return dict(self.document["series"])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            text = f"history()[{key!r}] goes with 0.3: use history().document[{key!r}]"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return self.document[key]
        return super().__getitem__(key)


@dataclass(frozen=True, slots=True)
class Picture:
    """A generated picture."""

    data: bytes
    checkpoint: int
    """The epoch of the checkpoint that was used."""
    model: str | None = None
    """The version of a model that was used, such as ``faces:3``."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, bytes]:
        return {"image/gif" if self.data.startswith(b"GIF") else "image/png": self.data}


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job's stream."""

    type: str
    """``snapshot``, ``status``, ``metrics``, ``sample``, ``checkpoint``, ``health``, ``log``, ``end``, ``progress``."""
    data: Mapping[str, Any]
    seq: int | None = None
    """Its number in the job's log; ``None`` for ``snapshot`` and ``progress``, which are not stored."""


Measured = tuple[int, float | None]
"""An epoch, and the metric's value in it; ``None`` if it was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """The epoch from which a metric is bad to the end, and how it was found."""

    metric: str
    epoch: int
    value: float | None
    before: Measured | None
    """The epoch before it, which is good, and its value; ``None`` if ``epoch`` is the first."""
    probes: Sequence[Measured]
    """The probed epochs with their values, in order."""
    times: int
    """How often the metric turned from good to bad."""
    checkpoint: int | None
    """The last kept checkpoint before it, to fork from."""
    sentence: str
    """The result in words."""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the document of the API."""
        fields = {name: document[name] for name in ("metric", "epoch", "value", "times", "checkpoint", "sentence")}
        before = _pair(document["before"]) if document["before"] is not None else None
        return cls(before=before, probes=[_pair(probe) for probe in document["probes"]], **fields)


def _pair(document: Mapping[str, Any]) -> Measured:
    return document["epoch"], document["value"]
