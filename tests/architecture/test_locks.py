"""The lock files have hashes for all packages, and no trace of the machine that generated them."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from service.storage.artifacts import EXPORTS

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-dev.lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_contains_no_url_or_local_path(name: str) -> None:
    text = (ROOT / name).read_text()
    assert [trace for trace in ("find-links", "://", " @ /", "index-url") if trace in text] == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_in_a_lock_has_a_hash(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"(?m)^\s*#.*\n?", "", text).strip())
    assert len(entries) > 30
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_an_installation_by_make_creates_every_export() -> None:
    pinned = re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text())
    assert {item.library.lower() for item in EXPORTS.values() if item.library is not None} <= set(pinned)


def test_the_locks_pin_the_same_versions() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text()))

    runtime, dev = (pins(name) for name in LOCKS)
    assert {name: dev.get(name) for name in runtime} == runtime


def test_torch_and_mlflow_are_in_no_lock() -> None:
    assert not any(re.search(r"(?m)^(torch|mlflow)", (ROOT / name).read_text()) for name in LOCKS)


def test_the_licence_of_every_installed_package_is_listed() -> None:
    names = re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text())
    listed = re.findall(r"(?m)^\| (\S+) +\| (.*?) *\|", (ROOT / "docs" / "licences.md").read_text())
    licences = {name.lower().replace("_", "-"): licence for name, licence in listed}
    assert [name for name in names if name not in licences] == [], "run make licences"
    assert "UNKNOWN" not in licences.values()


@pytest.mark.nightly
def test_the_software_bill_of_materials_is_valid_and_lists_the_lock(tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion  # imported here: importing it builds forty parsers
    from cyclonedx.validation.json import JsonStrictValidator

    (options,) = re.findall(r"(?m)^SBOM := (.+)$", (ROOT / "Makefile").read_text())
    path = tmp_path / "tapeline.cdx.json"
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", *options.split(), "--output-file", str(path)]
    subprocess.run([*command, "requirements.lock"], cwd=ROOT, check=True, capture_output=True)
    text = path.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    pins = re.findall(r"(?m)^([a-z0-9-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text())
    assert {(item["name"], item["version"]) for item in document["components"]} == set(pins)
    assert all(item["externalReferences"][0]["hashes"] for item in document["components"])
    assert document["metadata"]["component"]["name"] == "tapeline"


def test_every_image_can_be_pinned() -> None:
    module = runpy.run_path(str(ROOT / ".ci" / "pin_images.py"))
    tags = {"python:3.13-slim", "redis:8-alpine", "postgres:17-alpine", "chrislusf/seaweedfs:4.48", "caddy:2-alpine"}
    assert set(module["images"](ROOT).values()) == tags
    stages = re.findall(r"(?m)^FROM (\S+)", (ROOT / "Dockerfile").read_text())
    assert set(stages) == {"${PYTHON_IMAGE}", "dependencies"}
