"""``POST /jobs``, compared with a bare view."""

from __future__ import annotations

import json
import shutil
import subprocess
from uuid import uuid4

from benchmarks.service.figures import KINDS, Figures, both, client, spread
from benchmarks.service.service_under_test import ROOT, ServiceLauncher


def post(launcher: ServiceLauncher, rounds: int) -> list[Figures]:
    """POST /jobs with a new idempotency key each time, compared with a view that only inserts the rows; no worker."""
    loads = [(1, False), (8, False), (16, False), (8, True)]
    cases = [(kind, *load) for kind in KINDS for load in loads]
    found: dict[tuple[str, int, bool], dict[str, list[Figures]]] = {case: {"bare": [], "served": []} for case in cases}
    with both(launcher) as services:
        ports = {}
        for kind, service in services.items():
            service.serve()
            ports[kind] = {"bare": service.serve_bare(), "served": service.port}
        for number in range(rounds + 1):
            for (kind, clients, fresh), items in found.items():
                for who, answers in items.items():
                    answer = _load(ports[kind][who], clients, fresh=fresh)
                    if number:  # the first round warms up
                        answers.append(answer)
    return [
        {
            "database": kind,
            "clients": clients,
            "connections": "new each" if fresh else "kept",
            "per_s": spread([item["per_s"] for item in items["served"]], 0),
            "bare": spread([item["per_s"] for item in items["bare"]], 0),
            "ratio": spread(
                [one["per_s"] / bare["per_s"] for one, bare in zip(items["served"], items["bare"], strict=True)]
            ),
            "p50_ms": spread([item["p50_ms"] for item in items["served"]]),
            "p99_ms": spread([item["p99_ms"] for item in items["served"]]),
            "failures": sum(item["failures"] for both in items.values() for item in both),
        }
        for (kind, clients, fresh), items in found.items()
    ]


def _load(port: int, clients: int, *, fresh: bool) -> Figures:
    """Load for two seconds, by the compiled load generator wrk if it is installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return dict(json.loads(client("post", port, clients=clients, seconds=2, fresh=fresh).communicate()[0]))
    script = ("-s", str(ROOT / "benchmarks" / "service" / "post.lua"), f"http://127.0.0.1:{port}")
    command = [wrk, "-t1", f"-c{clients}", "-d2s", *script, "--", "close" if fresh else "keep-alive", uuid4().hex]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))
