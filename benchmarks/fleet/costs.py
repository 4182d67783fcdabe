"""What each operation of a worker costs alone: statements, and CPU time of client and server. A busy machine changes
these figures little, so they predict larger fleets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.fleet.job_data import STEPS_PER_EPOCH
from benchmarks.fleet.measuring import Recorder, percentile_ms
from benchmarks.fleet.server_figures import ServerCpu
from benchmarks.fleet.worker_operations import Fleet, WorkerOperations, children_database
from service.jobs.leases import Claim, Position
from service.storage.database import Database

_SETTLE_S = 0.5
"""Time for the server to end the processes of closed connections."""

Figures = dict[str, Any]


def measure_costs(fleet: Fleet, pid: int, count: int) -> list[Figures]:
    """Run each operation so many times, one after the other; ``count`` jobs wait in the queue.

    Args:
        pid: of the server's first process.
    """
    recorder, cpu = Recorder(), ServerCpu(pid)
    kept = Database(fleet.url, application="tapeline-kept", idle_connections=1, connections=1)
    children = children_database(fleet.url)
    worker, with_kept = (WorkerOperations(fleet, 1, database, recorder) for database in (children, kept))
    rows: list[Figures] = []

    def measure(name: str, operation: Callable[[Any], object], arguments: Sequence[Any]) -> list[Any]:
        operation(arguments[0])  # compiles the statements, and opens the connection of a pool
        time.sleep(_SETTLE_S)
        recorder.take()
        before, client_s = cpu.seconds(), time.process_time()
        results, times = [], []
        for argument in arguments[1:]:
            started_at = time.perf_counter()
            results.append(operation(argument))
            times.append(time.perf_counter() - started_at)
        client_s = time.process_time() - client_s
        statements = recorder.take()["statements"]
        time.sleep(_SETTLE_S)
        number = len(times)
        rows.append(
            {
                "operation": name,
                "statements": round(statements / number, 1),
                "client_ms": round(1000 * client_s / number, 2),
                "server_ms": round(1000 * (cpu.seconds() - before) / number, 2),
                "p50_ms": percentile_ms(times, 50),
            }
        )
        return results

    again = range(count)
    measure("heartbeat", lambda _: worker.heartbeat(2), again)
    measure("store check", lambda _: worker.check_machine(), again)
    claims: list[Claim] = measure("claim", lambda _: worker.claim(), again)
    position = Position(step=STEPS_PER_EPOCH, steps=STEPS_PER_EPOCH * fleet.epochs, steps_per_second=20.0)
    measure("request poll", lambda claim: worker.read_requests([claim]), claims)
    measure("renewal", lambda claim: worker.renew({claim: position}), claims)
    measure("begin", worker.begin, claims)
    measure("epoch commit", lambda claim: worker.commit_epoch(claim, 1), claims)
    measure("epoch commit, connection kept", lambda claim: with_kept.commit_epoch(claim, 2), claims)
    measure("result", worker.succeed, claims[: len(claims) // 2])
    measure("result, connection kept", with_kept.succeed, claims[len(claims) // 2 + 1 :])
    for database in (children, kept):
        database.close()
    worker.close()
    return rows


def describe_costs(rows: Sequence[Figures]) -> str:
    """The figures for people."""
    lines = [f"  {'operation':31}{'statements':>11}{'client ms':>11}{'server ms':>11}{'p50 ms':>9}"]
    for row in rows:
        figures = f"{row['statements']:11.1f}{row['client_ms']:11.2f}{row['server_ms']:11.2f}{row['p50_ms']:9.2f}"
        lines.append(f"  {row['operation']:31}{figures}")
    return "\n".join(lines)
