"""Logging of jobs as MLflow runs, from the client's machine; the service needs neither MLflow nor its URL."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from tapeline import downloads
from tapeline.connection import Connection
from tapeline.errors import ApiError, ExportFailed
from tapeline.inputs.values import flat_settings
from tapeline.job import Job
from tapeline.method_types import Which

_MAX_METRICS: Final = 1000
_MAX_PARAMS: Final = 100
"""Maximum number per request; these are MLflow's limits."""
_MAX_TEXT_LENGTH: Final = 5000
_RUN_STATUSES: Final = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
_JOB_TAG: Final = "tapeline.job_id"
_MUTABLE_SETTINGS: Final = ("name", "tags", "priority")
"""Settings that can change after submission, and are therefore logged as tags: MLflow's params are immutable."""


def log_run(connection: Connection, job: Job, uri: str, *, experiment: str, checkpoint: Which) -> str:
    """Log a job; returns the id of its run. An existing run of the job in the experiment is updated.

    Raises:
        ExportFailed: MLflow is not installed, or rejects a request.
    """
    try:
        from mlflow.exceptions import MlflowException  # optional, and takes seconds to load
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        python = shlex.quote(sys.executable)  # the one that runs this, whether it is on the PATH or not
        detail = f"{error.name} is not installed; install it with: {python} -m pip install mlflow-skinny"
        raise ExportFailed(detail) from error
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # both log each migration of a new store
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _log(MlflowClient(tracking_uri=uri), connection, job, experiment, checkpoint)
    except MlflowException as error:
        raise ExportFailed(f"MLflow at {uri}: {str(error).splitlines()[0][:500]}") from error


def _log(mlflow: Any, connection: Connection, job: Job, experiment: str, checkpoint: Which) -> str:
    existing = mlflow.get_experiment_by_name(experiment)
    experiment_id = existing.experiment_id if existing is not None else mlflow.create_experiment(experiment)
    runs = mlflow.search_runs([experiment_id], f"tags.`{_JOB_TAG}` = '{job.id}'", max_results=1)
    started_ms = _milliseconds(job["started_at"] or job["created_at"])
    if runs:
        run_id = str(runs[0].info.run_id)
        mlflow.update_run(run_id, name=job.name or job.id)
    else:
        run = mlflow.create_run(experiment_id, start_time=started_ms, run_name=job.name or job.id)
        run_id = str(run.info.run_id)
    for name, value in _tags(job).items():
        mlflow.set_tag(run_id, name, value)
    _log_settings(mlflow, run_id, job)
    _log_metrics(mlflow, run_id, job, started_ms)
    _log_files(mlflow, run_id, connection, job, checkpoint)
    if job.ended:
        ended_ms = _milliseconds(job["finished_at"])
        mlflow.set_terminated(run_id, _RUN_STATUSES[job.status], end_time=ended_ms)
    return run_id


def _tags(job: Job) -> dict[str, str]:
    tags = {
        _JOB_TAG: job.id,
        "tapeline.kind": job.kind,
        "tapeline.dataset": str(job.resolved["dataset"]["name"]),
        "tapeline.spec_hash": str(job["spec_hash"]),
        "tapeline.result_digest": job["result_digest"],
        "tapeline.best_epoch": job.best_epoch,
        "tapeline.tags": ", ".join(job.tags),
        "mlflow.source.name": job.page,
        "mlflow.note.content": job["note"],
    }
    tags |= {tag: "true" for tag in job.tags if all(character.isalnum() or character in "_-./ " for character in tag)}
    return {name: str(value)[:_MAX_TEXT_LENGTH] for name, value in tags.items() if value not in (None, "")}


def _log_settings(mlflow: Any, run_id: str, job: Job) -> None:
    from mlflow.entities import Param

    settings = ((name, str(value)[:_MAX_TEXT_LENGTH]) for name, value in flat_settings(job.resolved))
    params = [Param(name, text) for name, text in settings if text and name not in _MUTABLE_SETTINGS]
    for start in range(0, len(params), _MAX_PARAMS):
        mlflow.log_batch(run_id, params=params[start : start + _MAX_PARAMS])


def _log_metrics(mlflow: Any, run_id: str, job: Job, started_ms: int) -> None:
    from mlflow.entities import Metric

    history = job.history().document
    times = [started_ms + round(1000 * seconds) for seconds in accumulate(history["seconds"])]
    metrics = [
        Metric(name, value, time, epoch)
        for name, series in history["series"].items()
        for epoch, time, value in zip(history["epochs"], times, series, strict=True)
        if value is not None
    ]
    if (test_epoch := job.test_epoch) is not None:
        scores = {"test_accuracy": job.test_accuracy, "test_loss": job.test_loss}
        metrics += [Metric(name, score, times[-1], test_epoch) for name, score in scores.items() if score is not None]
    for start in range(0, len(metrics), _MAX_METRICS):
        mlflow.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])


def _log_files(mlflow: Any, run_id: str, connection: Connection, job: Job, checkpoint: Which) -> None:
    with tempfile.TemporaryDirectory(prefix="tapeline-") as folder:
        for path in _save_files(connection, job, Path(folder), checkpoint):
            mlflow.log_artifact(run_id, str(path), "model" if path.suffix in (".safetensors", ".onnx") else None)


def _save_files(connection: Connection, job: Job, folder: Path, checkpoint: Which) -> Iterator[Path]:
    spec, provenance = folder / "spec.json", folder / "provenance.json"
    spec.write_text(json.dumps(job.resolved, indent=2))
    provenance.write_text(json.dumps(job["provenance"], indent=2))
    yield from (spec, provenance)
    if job.epoch:
        yield job.download_checkpoint(checkpoint, folder / "checkpoint.safetensors")
        try:
            yield job.export("onnx", folder / "model.onnx", checkpoint=checkpoint)
        except ApiError as error:
            if error.code != "extra_missing":  # the service cannot export ONNX; log the run without it
                raise
        results = job.results()
        pictures = {f"{name}.png": url for name, url in results["plots"].items()}
        if results["samples"]["latest"] is not None:
            pictures["samples.png"] = results["samples"]["latest"]["url"]
        for name, url in pictures.items():
            yield downloads.download(connection, url, folder / name)


def _milliseconds(text: str) -> int:
    return round(1000 * datetime.fromisoformat(text).timestamp())
