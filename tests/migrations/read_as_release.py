"""Read a database with the web application of another release: ``python tests/migrations/read_as_release.py SETTINGS``.

The tree of that release comes first in PYTHONPATH; this module imports nothing else of the project. SETTINGS is a JSON
document: ``environ``, the ``key`` of a user, and a ``spec`` to submit. Prints a document: for each path its status and
the error that was logged, and the ``submitted`` job. Every address of the release's own ``/openapi.json`` that needs no
more than ids of jobs, sweeps and datasets is asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import structlog

from service.runtime.settings import Settings
from service.web.app import create_app

_logged: list[str] = []


def record_error(_: Any, __: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Keep the exception, and log nothing."""
    if (error := sys.exc_info()[1]) is not None:
        _logged.append(f"{type(error).__name__}: {error}"[:600])
    raise structlog.DropEvent


def paths(templates: dict[str, Any], ids: dict[str, list[str]]) -> Iterator[str]:
    """The addresses to read."""
    for template, methods in templates.items():
        names = [part[1:].partition("}")[0] for part in template.split("/") if part.startswith("{")]
        if "get" not in methods or "stream" in template or not set(names) <= set(ids):
            continue
        for values in product(*(ids[name] for name in names)):
            yield template.format(**dict(zip(names, values, strict=True)))


def main() -> None:
    """Read everything, then submit a job."""
    settings = json.loads(sys.argv[1])
    structlog.configure(processors=[record_error], cache_logger_on_first_use=False)
    client = create_app(Settings.from_env(settings["environ"], cores=1)).test_client()
    headers = {"Authorization": f"Bearer {settings['key']}", "Accept": "application/json"}
    found = {}

    def get(path: str) -> Any:
        _logged.clear()
        response = client.get(path, headers=headers, buffered=True)
        found[path] = [response.status_code, _logged[-1] if _logged and response.status_code >= 500 else ""]
        return response

    ids = {
        "job_id": [item["id"] for item in (get("/jobs?limit=100").json or {}).get("data", [])],
        "sweep_id": [item["id"] for item in (get("/sweeps").json or {}).get("data", [])],
        "name": [item["name"] for item in (get("/datasets").json or {}).get("data", [])],
    }
    for path in paths(client.get("/openapi.json", headers=headers).json["paths"], ids):
        get(path)
    submitted = client.post("/jobs", json=settings["spec"], headers=headers)
    sys.stdout.write(json.dumps({"found": found, "submitted": submitted.json}))


if __name__ == "__main__":
    main()
