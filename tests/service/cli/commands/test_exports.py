"""The command ``tapeline export``, of a trained job."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tapeline import Client, ExportFailed, Job

DENSE = [{"units": 16, "activation": "relu"}, {"units": 10, "activation": "softmax"}]


@pytest.fixture
def job(client: Client) -> Job:
    existing = next(client.jobs(name="exported", limit=1), None)
    spec = {"kind": "classifier", "name": "exported", "epochs": 2, "layers": DENSE, "tags": ["a tag"]}
    return (existing or client.submit(spec)).wait(timeout_s=120)


def test_every_format_can_be_exported(run: Callable[..., Result], client: Client, job: Job, tmp_path: Path) -> None:
    for target in ("onnx", "torch", "tensorboard", "huggingface"):
        result = run("export", "exported", "--to", target, "--json")
        assert result.exit_code == 0, result.output
        path = tmp_path / json.loads(result.output)["path"]
        assert path.name.startswith(job.id)
        assert path.read_bytes().startswith(b"PK") == (target != "onnx")
    assert run("export", "exported", "--to", "onnx", "-o", "mine.onnx", "--checkpoint", "2").exit_code == 0
    assert (tmp_path / "mine.onnx").stat().st_size > 1000
    assert run("export", "exported", "--to", "pytorch", "-o", "mine-torch").stdout.startswith("mine-torch.zip ")
    assert (tmp_path / "mine-torch.zip").read_bytes().startswith(b"PK")
    assert client.job("exported").export("torch", tmp_path / "named.zip").exists()


def test_certificates_are_zip_files_and_need_a_new_folder(
    run: Callable[..., Result], client: Client, job: Job, tmp_path: Path
) -> None:
    # Recordings of files are shortened; tests/service/cli/sessions/test_certificates.py has whole ones.
    path = client.download(f"/jobs/{job.id}/certificate?checkpoint=best", tmp_path / "c.zip")
    assert path.read_bytes().startswith(b"PK")
    for refused in (run("certify", "exported", "c.zip"), run("certify", "exported", ".")):
        assert (refused.exit_code, "exists already" in refused.stderr) == (1, True)
    with pytest.raises(FileExistsError, match="exists already"):
        job.certificate(tmp_path)
    digests = job.digests(after=1)
    assert [item["epoch"] for item in digests["epochs"]] == [2]
    assert digests["result_digest"] == job["result_digest"]


def test_options_that_do_not_apply_are_refused(run: Callable[..., Result], job: Job) -> None:
    for arguments, reason in {
        ("onnx", "--uri", "sqlite:///x"): "--uri does not apply to --to onnx",
        ("torch", "--license", "mit"): "--license does not apply to --to torch",
        ("mlflow",): "--to mlflow needs --uri",
        ("mlflow", "--uri", "sqlite:///x", "-o", "x"): "--output does not apply to --to mlflow",
        ("pickle",): "'pickle' is not one of",
    }.items():
        result = run("export", "exported", "--to", *arguments)
        assert result.exit_code == 2
        assert reason in result.output
    result = run("export", "exported", "--to", "onnx", "--checkpoint", "9")
    assert result.exit_code == 1
    assert "available epochs: " in result.output


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed")
def test_without_mlflow_the_install_command_is_named(run: Callable[..., Result], client: Client, job: Job) -> None:
    result = run("export", "exported", "--to", "mlflow", "--uri", "sqlite:///x.db")
    assert result.exit_code == 1
    assert f"mlflow is not installed; install it with: {sys.executable} -m pip install mlflow-skinny" in result.output
    with pytest.raises(ExportFailed, match="mlflow is not installed"):
        client.export_to_mlflow(job, "sqlite:///x.db")
