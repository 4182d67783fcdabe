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
    results: dict[tuple[str, int, bool], dict[str, list[Figures]]] = {
        case: {"bare": [], "served": []} for case in cases
    }
    with both(launcher) as services:
        ports = {}
        for kind, service in services.items():
            service.serve()
            ports[kind] = {"bare": service.serve_bare(), "served": service.port}
        for number in range(rounds + 1):
            for (kind, clients, fresh), by_variant in results.items():
                for variant, variant_figures in by_variant.items():
                    figures = _load(ports[kind][variant], clients, fresh=fresh)
                    if number:  # the first round warms up
                        variant_figures.append(figures)
    return [
        {
            "database": kind,
            "clients": clients,
            "connections": "new each" if fresh else "kept",
            "per_s": spread([item["per_s"] for item in by_variant["served"]], 0),
            "bare": spread([item["per_s"] for item in by_variant["bare"]], 0),
            "ratio": spread(
                [
                    served["per_s"] / bare["per_s"]
                    for served, bare in zip(by_variant["served"], by_variant["bare"], strict=True)
                ]
            ),
            "p50_ms": spread([item["p50_ms"] for item in by_variant["served"]]),
            "p99_ms": spread([item["p99_ms"] for item in by_variant["served"]]),
            "failures": sum(item["failures"] for variant_figures in by_variant.values() for item in variant_figures),
        }
        for (kind, clients, fresh), by_variant in results.items()
    ]


def _load(port: int, clients: int, *, fresh: bool) -> Figures:
    """Load for two seconds, by the compiled load generator wrk if it is installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return dict(json.loads(client("post", port, clients=clients, seconds=2, fresh=fresh).communicate()[0]))
    script = ("-s", str(ROOT / "benchmarks" / "service" / "post.lua"), f"http://127.0.0.1:{port}")
    command = [wrk, "-t1", f"-c{clients}", "-d2s", *script, "--", "close" if fresh else "keep-alive", uuid4().hex]
    completed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(completed.stdout.splitlines()[-1]))
