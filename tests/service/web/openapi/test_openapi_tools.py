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


@pytest.mark.slow
def test_a_client_is_generated_for_every_operation(document: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "config.yml", tmp_path / "generated_client"
    config.write_text("post_hooks: []\n", encoding="utf-8")
    tool = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    arguments = ["--path", str(document), "--config", str(config), "--output-path", str(out)]
    made = subprocess.run([*tool, *arguments], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    paths = json.loads(document.read_text(encoding="utf-8"))["paths"]
    wanted = {operation["operationId"] for methods in paths.values() for operation in methods.values()}
    assert {path.stem for path in out.glob("api/*/*.py")} - {"__init__"} == wanted
    assert {"classifier_spec.py", "gan_spec.py"} <= {path.name for path in (out / "models").iterdir()}


def _npx(package: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    npx = shutil.which("npx")
    if npx is None:
        pytest.skip("npx is not installed")
    if subprocess.run([npx, "--yes", package, "--version"], cwd=folder, capture_output=True).returncode:
        pytest.skip(f"npx cannot run {package}")
    return subprocess.run([npx, "--yes", package, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_redocly_finds_no_error(document: Path) -> None:
    found = _npx(REDOCLY, "lint", document.name, folder=document.parent)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_spectral_finds_no_error(document: Path) -> None:
    (document.parent / "rules.yaml").write_text('extends: ["spectral:oas"]\n', encoding="utf-8")
    found = _npx(SPECTRAL, "lint", document.name, "--ruleset", "rules.yaml", folder=document.parent)
    assert found.returncode == 0, found.stdout + found.stderr


def _schemas(node: Any) -> list[dict[str, Any]]:
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [schema for part in below for schema in _schemas(part)] + ([node] if isinstance(node, dict) else [])


def test_no_default_is_an_object_and_none_is_null_where_null_is_not_allowed(client: FlaskClient) -> None:
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    found = [schema for schema in _schemas(schemas) if isinstance(schema.get("description", ""), str)]
    assert [schema for schema in found if isinstance(schema.get("default"), dict) and "properties" not in schema] == []
    assert [schema for schema in found if schema.get("type") == "string" and schema.get("default", "") is None] == []


def test_an_image_comes_as_plain_bytes_to_a_client_that_accepts_only_these(client: FlaskClient) -> None:
    path = "/datasets/mnist-10k/preview.png"
    shown = client.get(path, headers={"Accept": "image/avif,image/png,*/*;q=0.8"})
    plain = client.get(path, headers={"Accept": "application/octet-stream"})
    assert (shown.mimetype, plain.mimetype) == ("image/png", "application/octet-stream")
    assert shown.data == plain.data
    assert client.get(path).mimetype == client.get(path, headers={"Accept": "text/csv"}).mimetype == "image/png"
    assert Image.open(io.BytesIO(plain.data)).format == "PNG"
