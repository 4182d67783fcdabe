"""Schemathesis over the whole stack: ``python -m tests.security.api_fuzz --requests 5000``.

It generates valid and invalid requests from ``/openapi.json``, and checks each response against the document:
no 5xx, no undocumented status, content type or body. Half of the ids are those of existing jobs and datasets.
Streams are excluded by name, because they do not end.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from service.local import LocalStack
from service.runtime.settings import Settings

STREAMS: Final = ("/stream", "/jobs/{job_id}/stream", "/sweeps/{sweep_id}/stream")
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
HOOKS: Final = Path(__file__).with_name("api_fuzz_hooks.py")


def fuzz(
    url: str, known_ids: dict[str, list[str]], folder: Path, *, requests: int, phases: str, seed: int
) -> tuple[int, int]:
    """Run schemathesis; return its exit code and the number of its requests."""
    report = folder / "events.ndjson"
    operations = sum(
        len(methods)
        for path, methods in httpx.get(f"{url}/openapi.json").json()["paths"].items()
        if path not in STREAMS
    )
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"]
    command += [part for path in STREAMS for part in ("--exclude-path", path)]
    command += ["--checks", ",".join(CHECKS), "--phases", phases, "--continue-on-failure"]
    command += ["--max-examples", str(max(1, requests // operations)), "--seed", str(seed), "--no-color"]
    command += ["--suppress-health-check", "all", "--generation-database", "none", "--warnings", "off"]
    command += ["--report-ndjson-path", str(report), "--request-timeout", "60"]
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "FUZZ_KNOWN": json.dumps(known_ids)}
    code = subprocess.run(command, env=environ, cwd=folder, check=False).returncode
    text = report.read_text() if report.exists() else ""
    return code, text.count('"status_code":')


def prepare(http: httpx.Client) -> dict[str, list[str]]:
    """Create finished jobs and a dataset, and return the ids that requests can use."""
    rng = np.random.default_rng(0)
    archive = io.BytesIO()
    np.savez(archive, images=rng.integers(0, 256, (60, 8, 8)).astype(np.uint8), labels=np.arange(60) % 4)
    http.post("/datasets", data={"name": "small"}, files={"archive": archive.getvalue()}).raise_for_status()
    specs: list[dict[str, Any]] = [
        {"kind": "classifier", "epochs": 2, "name": "one"},
        {"kind": "gan", "epochs": 1, "samples": {"count": 9}},
        {"kind": "classifier", "dataset": {"name": "small"}, "epochs": 1, "batch_size": 10},
    ]
    job_ids = [http.post("/jobs", json=spec).raise_for_status().json()["id"] for spec in specs]
    for job_id in job_ids:
        with http.stream("GET", f"/jobs/{job_id}/stream") as response:
            response.read()  # until the job has ended
    artifacts = [item["id"] for job_id in job_ids for item in http.get(f"/jobs/{job_id}/artifacts").json()["data"]]
    return {
        "job_id": job_ids,
        "artifact_id": artifacts,
        "name": ["small", "mnist-10k", "mnist"],
        "which": ["best", "latest", "1"],
    }


def main() -> int:
    """Start a stack, create some jobs, and run schemathesis against it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument(
        "--phases",
        default="examples,coverage,fuzzing",
        help="of schemathesis; coverage alone sends thousands of requests",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tapeline-fuzz-") as name:
        home = Path(name)
        environ = {"TAPELINE_HOME": str(home / "home"), "TAPELINE_PORT": "0", "TAPELINE_WORKERS": "1"}
        with LocalStack(Settings.from_env(environ, cores=1)) as stack:
            with httpx.Client(base_url=stack.url, timeout=120) as http:
                known_ids = prepare(http)
            code, request_count = fuzz(
                stack.url, known_ids, home, requests=options.requests, phases=options.phases, seed=options.seed
            )
        print(f"{request_count} responses checked, exit code {code}")
        return code


if __name__ == "__main__":
    sys.exit(main())
