"""A real Prometheus, from Debian's packages: ``make prometheus``, or installed on the machine."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tests.object_servers import free_ports
from tests.waiting import wait_until

_PATH: Final = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
WHY_SKIPPED: Final = "Prometheus is not installed: make prometheus, or Debian's packages prometheus and promtool"


def program(name: str) -> str | None:
    """The path of ``prometheus`` or ``promtool``; ``None`` if it is not installed."""
    return shutil.which(name, path=_PATH)


class Prometheus:
    """The HTTP API of a Prometheus."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def values(self, expr: str, *, seconds: float = 60) -> list[float]:
        """The numbers that a query gave within the last seconds, of all series.

        Raises:
            ValueError: Prometheus does not accept the query.
        """
        now = time.time()
        parameters: dict[str, Any] = {"query": expr, "start": now - seconds, "end": now, "step": 2}
        answer = self._client.get("/api/v1/query_range", params=parameters)
        if not answer.is_success:
            raise ValueError(f"{expr}: {answer.text}")
        series = answer.json()["data"]["result"]
        numbers = [float(number) for item in series for _, number in item["values"]]
        return [number for number in numbers if not math.isnan(number)]

    def labels(self, metric: str, label: str) -> list[str]:
        """The values of a label of a metric."""
        answer = self._client.get(f"/api/v1/label/{label}/values", params={"match[]": metric})
        found: list[str] = json.loads(answer.text)["data"]
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextmanager
def serve(folder: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus with this configuration; at the end of the block it is stopped."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (port,) = free_ports(1)
    command = [
        str(program("prometheus")),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:

        def is_ready() -> bool:
            assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
            return prometheus.is_ready()

        wait_until(is_ready, "Prometheus")
        yield prometheus
    finally:
        prometheus.close()
        process.kill()
        process.wait()
