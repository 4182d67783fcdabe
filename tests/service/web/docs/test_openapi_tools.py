"""The OpenAPI document with third-party tools: a client generator and two linters."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

REDOCLY = "@redocly/cli@2.77.0"
SPECTRAL = "@stoplight/spectral-cli@6.16.3"


@pytest.fixture
def document(client: FlaskClient, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_text(client.get("/openapi.json").text, encoding="utf-8")
    return path


@pytest.mark.stack
def test_the_generated_client_has_a_module_for_every_operation(document: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "config.yml", tmp_path / "generated_client"
    config.write_text("post_hooks: []\n", encoding="utf-8")
    tool = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    arguments = ["--path", str(document), "--config", str(config), "--output-path", str(out)]
    completed = subprocess.run([*tool, *arguments], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    paths = json.loads(document.read_text(encoding="utf-8"))["paths"]
    operation_ids = {operation["operationId"] for methods in paths.values() for operation in methods.values()}
    assert {path.stem for path in out.glob("api/*/*.py")} - {"__init__"} == operation_ids
    assert {"classifier_spec.py", "gan_spec.py"} <= {path.name for path in (out / "models").iterdir()}


def _npx(package: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    npx = shutil.which("npx")
    if npx is None:
        pytest.skip("npx is not installed")
    if subprocess.run([npx, "--yes", package, "--version"], cwd=folder, capture_output=True).returncode:
        pytest.skip(f"npx cannot run {package}")
    return subprocess.run([npx, "--yes", package, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_redocly_finds_no_error(document: Path) -> None:
    completed = _npx(REDOCLY, "lint", document.name, folder=document.parent)
    assert completed.returncode == 0, completed.stdout + completed.stderr


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_spectral_finds_no_error(document: Path) -> None:
    (document.parent / "rules.yaml").write_text('extends: ["spectral:oas"]\n', encoding="utf-8")
    completed = _npx(SPECTRAL, "lint", document.name, "--ruleset", "rules.yaml", folder=document.parent)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def _schemas(node: Any) -> list[dict[str, Any]]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [schema for child in children for schema in _schemas(child)] + ([node] if isinstance(node, dict) else [])


def test_no_default_is_an_object_and_no_string_has_the_default_null(client: FlaskClient) -> None:
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    nodes = [schema for schema in _schemas(schemas) if isinstance(schema.get("description", ""), str)]
    assert [schema for schema in nodes if isinstance(schema.get("default"), dict) and "properties" not in schema] == []
    assert [schema for schema in nodes if schema.get("type") == "string" and schema.get("default", "") is None] == []


def test_an_image_is_sent_as_octet_stream_if_the_client_accepts_nothing_else(client: FlaskClient) -> None:
    path = "/datasets/mnist-10k/preview.png"
    shown = client.get(path, headers={"Accept": "image/avif,image/png,*/*;q=0.8"})
    plain = client.get(path, headers={"Accept": "application/octet-stream"})
    assert (shown.mimetype, plain.mimetype) == ("image/png", "application/octet-stream")
    assert shown.data == plain.data
    assert client.get(path).mimetype == client.get(path, headers={"Accept": "text/csv"}).mimetype == "image/png"
    assert Image.open(io.BytesIO(plain.data)).format == "PNG"
