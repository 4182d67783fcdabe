"""``python -m benchmarks.fleet``: run simulated workers on a PostgreSQL server of their own, and measure both."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.fleet.checks import count_defects
from benchmarks.fleet.costs import describe_costs, measure_costs, predict
from benchmarks.fleet.job_data import submit_jobs
from benchmarks.fleet.measuring import Durations, percentile_ms
from benchmarks.fleet.server_figures import ServerSampler
from benchmarks.fleet.simulation import Schedule, run
from benchmarks.fleet.worker_operations import Fleet
from benchmarks.postgresql import PostgresServer, serve_postgresql
from benchmarks.service.__main__ import machine
from migrations.upgrade import upgrade
from service.datasets import builtins
from service.maintenance import store_id
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from workers.supervisor.supervisor import DATABASE_POLL_INTERVAL_S
from workers.training.provenance import base_provenance

ROOT: Final = Path(__file__).parents[2]
LEASE_S: Final = 30.0
"""The default with PostgreSQL."""
_EVENTS_PER_EPOCH: Final = 3
_LEAD_S: Final = 1.0
"""Time for the processes of the simulator to get the schedule."""
_SETTLE_S: Final = 5.0
"""From the start of the last slot to the measurement."""
_SPARE_CONNECTIONS: Final = 20
_COST_ROUNDS: Final = 200
_BUSY: Final = 0.95
"""Share of the processors at which they are the limit."""
_REACHED: Final = 0.9
"""Share of the epochs that a fleet reaches whose slots are free for a moment between two jobs."""
_WORKERS_PER_PROCESS: Final = 5
"""With more, their threads wait for the interpreter's lock, which real workers do not share."""
_SHOWN: Final = 10
"""The most lost leases that are listed."""

Figures = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=_positive, nargs="+", default=[200], metavar="N", help="one run for each N")
    parser.add_argument("--slots", type=_positive, default=2, help="jobs at a time of each worker")
    parser.add_argument("--epoch-seconds", type=float, default=2.0, help="duration of an epoch")
    parser.add_argument("--epochs", type=_positive, default=30, help="epochs of each job")
    parser.add_argument("--owners", type=_positive, default=20, help="owners of the jobs")
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the measurement, after the first jobs")
    parser.add_argument("--costs", action="store_true", help="only measure the cost of each operation, and predict")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args()
    if options.costs:
        document: Any = measure_all_costs(options)
        print(describe_costs(document))
    else:
        document = []
        for count in options.workers:
            document.append(measure(count, options))
            print(describe(document[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if not options.costs and any(row["defects"] for row in document) else 0


def measure_all_costs(options: argparse.Namespace) -> Figures:
    """The costs of operations, and what fleets would need."""
    with _prepared(options, jobs=_COST_ROUNDS, connections=_SPARE_CONNECTIONS) as (fleet, server):
        costs = measure_costs(fleet, server.pid, _COST_ROUNDS)
        predicted = [predict(costs, fleet, count, options.epoch_seconds) for count in options.workers]
    return {"costs": costs, "predicted": predicted, "machine": machine() | {"reference_ms": reference_ms()}}


@contextmanager
def _prepared(options: argparse.Namespace, *, jobs: int, connections: int) -> Iterator[tuple[Fleet, PostgresServer]]:
    """A server with a migrated database in which so many jobs wait."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tapeline-fleet-")))
        server = stack.enter_context(serve_postgresql(max_connections=connections + _SPARE_CONNECTIONS))
        url = server.create_database("fleet")
        database = Database(url)
        stack.callback(database.close)
        upgrade(database)
        store_id.verify(database, ArtifactFolder(folder))
        submit_jobs(database, jobs, epochs=options.epochs, owners=options.owners)
        fleet = Fleet(
            url=url,
            store=str(folder),
            datasets=builtins.names(folder),
            provenance=base_provenance() | {"dataset": "0" * 64},
            slots=options.slots,
            lease_s=LEASE_S,
            epochs=options.epochs,
        )
        yield fleet, server


def measure(count: int, options: argparse.Namespace) -> Figures:
    """One run with so many workers."""
    job_s = options.epochs * options.epoch_seconds
    # So that the jobs end evenly spread over time. A slot begins at the latest at the end of the ramp.
    ramp_s = max(job_s, DATABASE_POLL_INTERVAL_S)
    warm_up_s = ramp_s + _SETTLE_S
    jobs = count * options.slots * (math.ceil((warm_up_s + options.seconds) / job_s) + 1)
    with ExitStack() as stack:
        # Each worker has up to 4 connections, and each of its training processes one.
        prepared = _prepared(options, jobs=jobs, connections=count * (4 + options.slots))
        fleet, server = stack.enter_context(prepared)
        sampler = stack.enter_context(
            closing(ServerSampler(f"user=postgres dbname=fleet host={server.socket}", server.pid))
        )
        scheduler = stack.enter_context(_scheduler(fleet))
        pipes, processes = _start(fleet, count)
        start_at = time.monotonic() + _LEAD_S
        schedule = Schedule(
            start_at=start_at,
            ramp_s=ramp_s,
            measure_at=start_at + warm_up_s,
            until=start_at + warm_up_s + options.seconds,
            epoch_s=options.epoch_seconds,
        )
        for pipe in pipes:
            pipe.send(schedule)
        time.sleep(max(0.0, schedule.measure_at - time.monotonic()))
        sampler.begin()
        scheduler_cpu_s, busy = _cpu_seconds(scheduler), psutil.cpu_times()
        time.sleep(max(0.0, schedule.until - time.monotonic()))
        seconds = time.monotonic() - schedule.measure_at
        server_figures = sampler.end(seconds)
        scheduler_cpu = (_cpu_seconds(scheduler) - scheduler_cpu_s) / seconds
        machine_cpu = _busy_seconds(psutil.cpu_times(), busy) / seconds
        results = [pipe.recv() for pipe in pipes]
        for process in processes:
            process.join()
        with closing(Database(fleet.url)) as database, database.read() as session:
            defects = count_defects(session, [acknowledged for _, acknowledged in results])
    measured = [figures for figures, _ in results]
    wanted = count * options.slots * options.seconds / options.epoch_seconds
    row: Figures = {
        "workers": count,
        "slots": options.slots,
        "epoch_seconds": options.epoch_seconds,
        "epochs": options.epochs,
        "owners": options.owners,
        "seconds": options.seconds,
        "statements_per_s": round(sum(process["statements"] for process in measured) / options.seconds, 1),
        "operations": _summarize([process["durations"] for process in measured], options.seconds),
        "retries": sum(process["retries"] for process in measured),
        "errors": sum(process["errors"] for process in measured),
        "server": server_figures,
        "cpu": {
            "server": server_figures["cpu"],
            "simulator": round(sum(process["cpu_s"] for process in measured) / options.seconds, 2),
            "scheduler": round(scheduler_cpu, 2),
            "machine": round(machine_cpu, 2),
        },
        "jobs_ended": sum(len(acknowledged["ended"]) for _, acknowledged in results),
        "defects": defects,
        "lost": [text for _, acknowledged in results for text in acknowledged["lost"]][:_SHOWN],
        "of_wanted": round(sum(len(process["durations"].get("epoch age", ())) for process in measured) / wanted, 3),
        "machine": machine() | {"reference_ms": reference_ms()},
    }
    return row | {"limit": _find_limit(row)}


def _find_limit(row: Mapping[str, Any]) -> str:
    """What keeps the fleet from its epochs."""
    cpu, cores = row["cpu"], row["machine"]["cores"]
    if cpu["machine"] >= _BUSY * cores:
        others = cpu["machine"] - cpu["server"] - cpu["simulator"] - cpu["scheduler"]
        parts = {"server": cpu["server"], "simulator": cpu["simulator"], "other programs": round(max(0.0, others), 2)}
        return f"all {cores} processors are busy ({_list(parts)}): the durations are theirs"
    if row["of_wanted"] < _REACHED:
        return "the server: processors are idle, and epochs are late"
    return "none: the fleet commits its epochs in time"


def reference_ms() -> float:
    """CPU time of a fixed loop: how slow the processors are at the moment, since others share them."""
    started_at = time.process_time()
    total = 0
    for number in range(1_000_000):
        total += number
    return round(1000 * (time.process_time() - started_at), 1)


def _summarize(durations: Sequence[Durations], seconds: float) -> dict[str, Figures]:
    names = sorted({name for process in durations for name in process})
    found: dict[str, Figures] = {}
    for name in names:
        values = [value for process in durations for value in process.get(name, ())]
        found[name] = {
            "per_s": round(len(values) / seconds, 1),
            "p50_ms": percentile_ms(values, 50),
            "p99_ms": percentile_ms(values, 99),
            "max_ms": percentile_ms(values, 100),
        }
    epochs = found.get("epoch age", {}).get("per_s", 0.0)
    return found | {"event": {"per_s": round(_EVENTS_PER_EPOCH * epochs, 1)}}


def _start(fleet: Fleet, count: int) -> tuple[list[Connection], list[SpawnProcess]]:
    """Start the processes of the simulator, and wait until they are ready."""
    context = multiprocessing.get_context("spawn")
    pipes, started = [], []
    processes = math.ceil(count / _WORKERS_PER_PROCESS)
    for first in range(processes):
        pipe, other = context.Pipe()
        process = context.Process(target=run, args=(other, fleet, range(first, count, processes), count), daemon=True)
        process.start()
        other.close()  # the end of the process then ends the pipe
        pipes.append(pipe)
        started.append(process)
    for pipe in pipes:
        pipe.recv()
    return pipes, started


@contextmanager
def _scheduler(fleet: Fleet) -> Iterator[psutil.Process]:
    """The product's scheduler: it looks for expired leases."""
    folder = Path(fleet.store)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAPELINE_")}
    environ = {
        "TAPELINE_HOME": str(folder / "home"),
        "TAPELINE_DATABASE_URL": fleet.url,
        "TAPELINE_STORE": folder.as_uri(),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "workers.scheduler"]
    with (folder / "scheduler.log").open("wb") as log:
        process = subprocess.Popen(command, env=inherited | environ, stdout=log, stderr=log, cwd=folder)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _busy_seconds(now: Any, before: Any) -> float:
    """CPU time of all processes of the machine, with those that have nothing to do with the benchmark."""
    names = [name for name in now._fields if name not in ("idle", "iowait", "guest", "guest_nice")]
    return float(sum(getattr(now, name) - getattr(before, name) for name in names))


def describe(row: Mapping[str, Any]) -> str:
    """The figures for people."""
    server, cpu = row["server"], row["cpu"]
    title = (
        f"{row['workers']} workers with {row['slots']} slots, epochs of {row['epoch_seconds']:g} s: "
        f"{row['of_wanted']:.0%} of the epochs that slots without any delay would commit"
    )
    rates = {"statements": row["statements_per_s"], "transactions": server["transactions_per_s"]}
    rates |= {"new connections": server["new_connections_per_s"], "MB of WAL": server["wal_mb_per_s"]}
    faults = {"deadlocks": server["deadlocks"], "retries": row["retries"], "errors": row["errors"]}
    lines = [
        title,
        f"  per second: {_list(rates)}",
        f"  connections, at most: {_list(server['connections'])}",
        (
            f"  processors: {_list(cpu)}, of {row['machine']['cores']}; "
            f"1,000,000 additions take {row['machine']['reference_ms']:g} ms"
        ),
        f"  processors of the server: {_list(server['cpu_of'])}",
        f"  connections at work, on average: {_list(server['active'])}",
        *(f"    waiting for a lock: {count:g} {name}" for name, count in server["lock_waits"].items()),
        f"  {_list(faults)}",
    ]
    for name, figures in row["operations"].items():
        times = (
            ""
            if "p50_ms" not in figures
            else f"  p50 {figures['p50_ms']:8.2f}  p99 {figures['p99_ms']:8.2f}  max {figures['max_ms']:8.1f} ms"
        )
        lines.append(f"  {name:14}{figures['per_s']:9.1f}/s{times}")
    lines.append(f"  limit: {row['limit']}")
    lines.append(f"  defects: {_list(row['defects']) or 'none'}")
    lines += [f"    {text}" for text in row["lost"]]
    return "\n".join(lines)


def _list(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in figures.items())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
