"""``make attack``: attack a separate web process, and measure the cost in memory and in the delay of others.

The memory goal applies to the peak of the process. The time goals apply to ``/healthz``, and in some attacks to a small
request of another owner; other processes send both during the attack.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.service.service_under_test import ServiceLauncher, ServiceUnderTest, wait_until
from tests.security.attack_cases import ATTACKS, KEY, LEASE_S, OTHER_KEY, STORAGE_QUOTA, Attack
from tests.security.probes import FORM_TYPE, Probe, form_of, probed
from tests.security.slow_inputs import jpeg

MAX_PEAK_MB: Final = 400
MAX_P99_MS: Final = 200
MAX_OTHER_MS: Final = 1000
"""Maximum duration of another owner's small request."""
OTHER_TIMEOUT_S: Final = 600.0
TRAINED_SPEC: Final = {
    "kind": "classifier",
    "epochs": 1,
    "layers": [{"units": 10, "activation": "softmax"}],
    "samples": {"count": 1},
}
SMALL_SWEEP: Final = {"base": {"kind": "classifier"}, "space": {"/batch_size": {"choice": [50, 100]}}}


def probe_of_other(name: str, job_id: str) -> Probe | None:
    """The small request of another owner that competes with an attack for slots."""
    if name == "jpeg_scans":
        document, path = {"images": [base64.b64encode(jpeg(10)).decode(), [[0.5] * 28] * 28]}, f"/jobs/{job_id}/predict"
    elif name == "many_proposals":
        document, path = {"kind": "classifier"}, "/jobs?dry_run=true"
    elif name == "large_sweeps":
        document, path = SMALL_SWEEP, "/sweeps?dry_run=true"
    elif name in ("zips_of_jpegs", "short_rows"):
        rows = b"a,b,label\n" + b"".join(b"%d,%d{number},%c\n" % (n, 7 * n % 9, b"xy"[n % 2]) for n in range(100))
        headers = {"Authorization": f"Bearer {OTHER_KEY}", "Content-Type": FORM_TYPE}
        return Probe("/datasets", "POST", form_of("table", rows, name="small-{number}"), headers, OTHER_TIMEOUT_S)
    else:
        return None
    headers = {"Authorization": f"Bearer {OTHER_KEY}", "Content-Type": "application/json"}
    return Probe(path, "POST", json.dumps(document).encode(), headers, OTHER_TIMEOUT_S)


def peak_mb(service: ServiceUnderTest) -> float:
    """Peak resident memory of a web process, in MB; of several, the largest."""
    peaks = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"service.web.gunicorn_conf" in path.read_bytes() and str(service.home).encode() in (
                path.with_name("environ").read_bytes()
            ):
                lines = path.with_name("status").read_text().splitlines()
                peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return max(peaks)


def measure(launcher: ServiceLauncher, name: str) -> dict[str, Any]:
    """Run one attack on a new service."""
    environ = {"TAPELINE_AUTH": "keys", "TAPELINE_API_KEYS": f"{KEY},{OTHER_KEY}"}
    limits = {f"TAPELINE_OWNER_{what}": "0" for what in ("REQUESTS", "QUEUED", "RUNNING")}
    if name == "much_storage":
        limits["TAPELINE_OWNER_ARTIFACTS"] = str(STORAGE_QUOTA)
    if name == "many_proposals":
        limits["TAPELINE_LEASE_S"] = str(LEASE_S)
    with launcher.open("sqlite", **environ, **limits) as service:
        service.http.headers["Authorization"] = f"Bearer {KEY}"
        service.serve(descriptors=1024 if name == "idle_connections" else None)
        if name == "much_storage":
            service.work()
        needs_jobs = name in ("two_headers", "jpeg_scans")
        jobs = [_train(service, key) for key in (OTHER_KEY, KEY)] if needs_jobs else ["", ""]
        attack, times, other_times = Attack(service, jobs[1]), list[float](), list[float]()
        other = probe_of_other(name, jobs[0])
        if other is not None:
            other.send(service.port, 999_999)  # what is loaded for the first request must not count
        before = peak_mb(service)
        with probed(service.port, Probe(), times), probed(service.port, other, other_times):
            began = time.monotonic()
            ATTACKS[name](attack)
            seconds = time.monotonic() - began
        wait_until(lambda: service.http.get("/healthz").status_code == 200, "an answer afterwards")
        return {
            "attack": ATTACKS[name].__doc__,
            "answers": ", ".join(f"{count} x {what}" for what, count in attack.outcomes.most_common()),
            "note": attack.note,
            "succeeded": attack.succeeded,
            "before_mb": before,
            "peak_mb": peak_mb(service),
            "p99_ms": 1000 * float(np.percentile(times, 99, method="higher")),
            "max_ms": 1000 * max(times),
            "other_ms": 1000 * max(other_times) if other_times else None,
            "probes": len(times),
            "seconds": seconds,
        }


def _train(service: ServiceUnderTest, key: str) -> str:
    """Train a job of an owner, and predict with it: the engine must be loaded before the measurement."""
    service.http.headers["Authorization"] = f"Bearer {key}"
    if key == OTHER_KEY:
        service.work()
    job_id = service.submit(**TRAINED_SPEC)
    service.wait_until_ended(job_id)
    body = {"images": [np.zeros((28, 28)).tolist()]}
    service.http.post(f"/jobs/{job_id}/predict", json=body).raise_for_status()
    return job_id


def table_row(row: Mapping[str, Any]) -> str:
    """A row of the Markdown table, with missed goals in bold."""

    def format_value(value: float, limit: float) -> str:
        return f"{value:.0f}" if value < limit else f"**{value:.0f}**"

    note = f"**{row['note']}**" if row["succeeded"] else row["note"]
    answers = "; ".join(filter(None, (row["answers"], note)))
    peak, p99 = format_value(row["peak_mb"], MAX_PEAK_MB), format_value(row["p99_ms"], MAX_P99_MS)
    other = "-" if row["other_ms"] is None else format_value(row["other_ms"], MAX_OTHER_MS)
    return (
        f"| {row['attack']} | {answers or '-'} | {row['before_mb']:.0f} | {peak} | {p99} | {row['max_ms']:.0f} "
        f"| {other} | {row['probes']} in {row['seconds']:.0f} s |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Attack a web process, and measure what it costs.")
    parser.add_argument("attacks", nargs="*", help=f"some of: {', '.join(ATTACKS)}; none: all")
    options = parser.parse_args()
    if unknown := sorted(set(options.attacks) - set(ATTACKS)):
        parser.error(f"no such attack: {', '.join(unknown)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    missed = False
    columns = ("attack", "answers", "MB before", "peak MB", "p99 of `/healthz`, ms", "slowest, ms")
    columns += ("slowest of another owner, ms", "probes")
    sys.stdout.write(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
    with tempfile.TemporaryDirectory(prefix="tapeline-attack-") as folder:
        launcher = ServiceLauncher(Path(folder), None)
        for name in options.attacks or ATTACKS:
            row = measure(launcher, name)
            missed = missed or row["peak_mb"] >= MAX_PEAK_MB or row["p99_ms"] >= MAX_P99_MS
            missed = missed or row["succeeded"] or (row["other_ms"] or 0) >= MAX_OTHER_MS
            sys.stdout.write(table_row(row) + "\n")
            sys.stdout.flush()
        launcher.close()
    load = os.getloadavg()[0]
    sys.stdout.write(f"\n{os.cpu_count()} cores; load {load:.1f} at the end. Goals: below {MAX_PEAK_MB} MB, ")
    sys.stdout.write(f"{MAX_P99_MS} ms and, for another owner, {MAX_OTHER_MS} ms; missed goals are bold.\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
