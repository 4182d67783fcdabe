"""Jobs and sweeps from data or a dataset, without a spec."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, Unpack

from tapeline.connection import json_body
from tapeline.errors import ApiError
from tapeline.images.files import USUAL_SIZE
from tapeline.inputs.uploads import Given, dataset_name, reason_to_scale
from tapeline.inputs.values import MAX_SEEDS, first_seeds, nested_settings
from tapeline.job import Job, Model
from tapeline.operations.datasets import Dataset, DatasetOperations, UploadOptions
from tapeline.resources import once
from tapeline.sweeps import Sweep

_FRAME_NAME: Final = "table"


def kind_of(dataset: Mapping[str, Any]) -> str:
    """The kind of job that suits a dataset."""
    return "regressor" if dataset.get("task") == "regression" else "classifier"


def suited_kind(datasets: DatasetOperations, name: str) -> str:
    """The kind of job that suits a dataset; of an unknown one a guess, since the check of the spec finds the name."""
    try:
        return kind_of(datasets.dataset(name))
    except ApiError as error:
        if error.status != 404:
            raise
        return "classifier"


def spec_of(dataset: Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a job on a dataset, with other settings as a document.

    Raises:
        TypeError: the settings name another dataset.
    """
    data = settings.get("dataset") or {}
    data = data if isinstance(data, Mapping) else {"name": data}
    if (other := data.get("name", dataset.reference)) not in (dataset.name, dataset.reference):
        raise TypeError(f"the settings name the dataset {other!r}, and the data are {dataset.reference!r}: give one")
    return {
        "kind": kind_of(dataset),
        "name": dataset.name,
        **settings,
        "dataset": {**data, "name": dataset.reference},
    }


def _settings_of(fields: Mapping[str, Any], settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments that are given, and the other settings, as a document.

    Raises:
        TypeError: something is given as both.
    """
    given = _given(fields)
    if twice := given.keys() & (settings or {}).keys():
        raise TypeError(f"given twice, as an argument and in settings: {', '.join(sorted(twice))}")
    return nested_settings((given | dict(settings or {})).items())


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


class TrainingOperations(DatasetOperations):
    """The methods of ``Client`` that submit jobs and sweeps."""

    def submit(self, spec: Mapping[str, Any] | bytes, *, idempotency_key: str | None = None) -> Job:
        """Submit a job.

        Args:
            spec: a document, or JSON text that is sent as it is.
            idempotency_key: a name for this request; a repeated request with the same key and spec creates no second
                job and returns the first one. By default a new key, which allows the client to retry.
        """
        options = once(spec, idempotency_key)
        return Job(self._connection, self._connection.json("POST", "/jobs", **options))

    def train(
        self,
        data: Any = None,
        *,
        dataset: str | Dataset | None = None,
        name: str | None = None,
        kind: str | None = None,
        preset: str | None = None,
        epochs: int | None = None,
        settings: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **upload: Unpack[UploadOptions],
    ) -> Job:
        """Submit a job that trains on files, a DataFrame, or a dataset of the service.

        Files that the service has already under this name are not stored again. Images of a folder that need a size are
        fitted to 32 x 32, with a warning.

        Args:
            data: a folder with a folder of images for each class, a table, an archive, several files, or a DataFrame of
                pandas; as ``upload``. Or a ``Dataset``.
            dataset: the dataset to train on, in place of ``data``.
            name: of the job, and of the uploaded dataset (default: that of the dataset or file; of a DataFrame,
                ``table``).
            kind: ``classifier``, ``regressor`` or ``gan`` (default: the one that suits the target).
            preset: default: the one that suits the dataset.
            settings: other fields of the spec by dotted names, such as ``{"optimizer.learning_rate": 0.01}``.
            idempotency_key: as for ``submit``.
            upload: see ``UploadOptions``; for example ``target="price"`` or ``size="64"``.
        """
        given = _settings_of({"kind": kind, "preset": preset, "epochs": epochs, "name": name}, settings)
        if (data is None) == (dataset is None):
            raise TypeError("train() needs either data, such as train('rows.csv'), or dataset='name'")
        if isinstance(data, Dataset):
            dataset = data
        if dataset is not None and upload:
            raise TypeError(f"train(): {', '.join(upload)} are options of an upload, and the dataset is stored already")
        source = self._find(dataset) if dataset is not None else self._uploaded(data, name, upload)
        return self.submit(spec_of(source, given), idempotency_key=idempotency_key)

    def sweep(
        self,
        spec: Mapping[str, Any] | bytes | None = None,
        *,
        dataset: str | Dataset | None = None,
        space: Mapping[str, Any] | None = None,
        seeds: int | Sequence[int] | None = None,
        name: str | None = None,
        kind: str | None = None,
        preset: str | None = None,
        epochs: int | None = None,
        settings: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Sweep:
        """Start a sweep: many jobs as one experiment.

        Args:
            spec: a document, or JSON text that is sent as it is; or none, and the arguments below.
            dataset: the dataset to train on.
            space: the settings to try, each with a list of values, or a range such as ``{"log": [0.001, 0.3]}``.
            seeds: their number (5 is the seeds 0 to 4), or the seeds themselves.
            kind, preset, epochs, settings: of all jobs, as for ``train``.
            idempotency_key: as for ``submit``.
            options: further fields of a sweep, such as ``search={"name": "tpe", "trials": 40}`` or ``objective``.
        """
        arguments: dict[str, Any] = {
            "dataset": dataset,
            "space": space,
            "seeds": seeds,
            "name": name,
            "kind": kind,
            "preset": preset,
        }
        spec = self._sweep_spec(spec, **arguments, epochs=epochs, settings=settings, **options)
        request = once(spec, idempotency_key)
        return Sweep(self._connection, self._connection.json("POST", "/sweeps", **request))

    def predict_dataset(
        self,
        model: str | Job | Model,
        dataset: str | Dataset,
        *,
        part: Literal["all", "train", "validation", "test"] = "all",
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job that predicts a dataset with a trained classifier or regressor.

        ``predict_dataset("job_…", "pets").wait().download_predictions()`` gets the CSV file. ``Job.predict`` answers at
        once, for a few images or rows, or a file.

        Args:
            model: a job, or its id, for the best checkpoint; a version of a model; or a reference:
                ``digits@champion``, ``digits:3``, ``job_…@7``. It is resolved at the submission.
            dataset: the dataset to predict, in the shape of the one that the model was trained on.
            part: of the dataset; ``all`` is training, validation and test part in this order.
            name: of the job.
            idempotency_key: as for ``submit``.
        """
        data = dataset.reference if isinstance(dataset, Dataset) else dataset
        spec = {"kind": "prediction", "model": model if isinstance(model, str) else model._used_reference}
        return self.submit(
            {**spec, "dataset": {"name": data, "part": part}, **_given({"name": name})}, idempotency_key=idempotency_key
        )

    def dry_run(self, spec: Mapping[str, Any] | bytes) -> dict[str, Any]:
        """The resolved spec and its estimated cost; nothing is stored."""
        params = {"dry_run": "true"}
        return self._connection.json("POST", "/jobs", params=params, repeatable=True, **json_body(spec))

    def sweep_dry_run(self, spec: Mapping[str, Any] | bytes | None = None, **arguments: Any) -> dict[str, Any]:
        """The resolved sweep and its cost; nothing is stored. The arguments are those of ``sweep``."""
        params, spec = {"dry_run": "true"}, self._sweep_spec(spec, **arguments)
        return self._connection.json("POST", "/sweeps", params=params, repeatable=True, **json_body(spec))

    def _sweep_spec(
        self,
        spec: Mapping[str, Any] | bytes | None,
        *,
        dataset: str | Dataset | None = None,
        space: Mapping[str, Any] | None = None,
        seeds: int | Iterable[int] | None = None,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        kind: str | None = None,
        preset: str | None = None,
        epochs: int | None = None,
        **options: Any,
    ) -> Mapping[str, Any] | bytes:
        fields = {"kind": kind, "preset": preset, "epochs": epochs}
        if spec is not None:
            others = {"dataset": dataset, "space": space, "seeds": seeds, "name": name, "settings": settings}
            if given := _given({**others, **fields, **options}):
                raise TypeError(f"sweep(): write into the spec, or give without one: {', '.join(given)}")
            return spec
        if dataset is None:
            raise TypeError("sweep() needs a spec, or dataset='name' and space={...} or seeds=5")
        for setting, values in (space or {}).items():
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise TypeError(
                    f"space: {setting} is {values!r}; give a list such as [0.001, 0.01], or a range such as "
                    "{'log': [0.001, 0.3]}"
                )
        base = spec_of(self._find(dataset), _settings_of(fields, settings))
        name_of_data = base.pop("name")
        spec = {"name": name or name_of_data, "base": base, **options}
        if space:
            spec["space"] = {n: {"choice": list(v)} if not isinstance(v, Mapping) else v for n, v in space.items()}
        if seeds is not None:
            spec["seeds"] = (
                first_seeds(seeds) if isinstance(seeds, int) else list(itertools.islice(seeds, MAX_SEEDS + 1))
            )
        return spec

    def _find(self, dataset: str | Dataset) -> Dataset:
        return dataset if isinstance(dataset, Dataset) else self.dataset(dataset)

    def _uploaded(self, data: Any, name: str | None, options: UploadOptions) -> Dataset:
        if hasattr(data, "to_csv"):
            name = name or _FRAME_NAME
            with TemporaryDirectory(prefix="tapeline-upload-") as folder:
                path = Path(folder, f"{dataset_name(name)}.csv")
                data.to_csv(path, index=False)
                return self.upload(dataset_name(name), path, **options)
        files: Given = data
        first = Path(next(iter(files.values())) if isinstance(files, Mapping) else _first(files))
        is_unscaled = first.is_dir() and not options.get("size")
        if is_unscaled and (reason := reason_to_scale(first)):
            options = {**options, "size": USUAL_SIZE}
            warnings.warn(f"{reason}: they are fitted to {USUAL_SIZE} x {USUAL_SIZE}; choose with size=", stacklevel=3)
        return self.upload(dataset_name(name or first.resolve().name), files, **options)


def _first(files: Any) -> Any:
    return files if isinstance(files, str | os.PathLike) else files[0]
