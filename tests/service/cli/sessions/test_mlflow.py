"""A run that is exported to a real MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapeline import Client, Job

DENSE = [{"units": 16, "activation": "relu"}, {"units": 10, "activation": "softmax"}]


@pytest.fixture
def job(client: Client) -> Job:
    spec = {"kind": "classifier", "name": "exported", "epochs": 2, "layers": DENSE, "tags": ["a tag"]}
    return client.submit(spec).wait(timeout_s=120)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_mlflow_finds_the_run_with_all_metrics(client: Client, job: Job, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store = mlflow.MlflowClient(tracking_uri=uri)
    store.create_experiment("tapeline", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.export_to_mlflow(job, uri)
    assert client.export_to_mlflow(job, uri) == run_id  # the same run, updated
    (run,) = store.search_runs([store.get_experiment_by_name("tapeline").experiment_id])
    assert (run.info.run_id, run.info.status, run.info.run_name) == (run_id, "FINISHED", "exported")
    assert (run.data.tags["tapeline.job_id"], run.data.tags["a tag"]) == (job.id, "true")
    assert run.data.params["optimizer.learning_rate"] == str(job.resolved["optimizer"]["learning_rate"])
    history = job.history().document
    for name, series in history["series"].items():
        logged = {metric.step: metric.value for metric in store.get_metric_history(run_id, name)}
        assert [logged.get(epoch) for epoch in history["epochs"]] == series
        assert run.data.metrics[name] == [value for value in series if value is not None][-1]
    names = {file.path for folder in (None, "model") for file in store.list_artifacts(run_id, folder)}
    assert names >= {"spec.json", "curves.png", "samples.png", "model/checkpoint.safetensors", "model/model.onnx"}
