"""What each operation of a worker costs alone: statements, and CPU time of client and server. A busy machine changes
these figures little, so they predict larger fleets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from benchmarks.fleet.job_data import STEPS_PER_EPOCH
from benchmarks.fleet.measuring import Recorder, percentile_ms
from benchmarks.fleet.server_figures import ServerCpu
from benchmarks.fleet.worker_operations import Fleet, WorkerOperations, usage
from service.jobs.leases import Claim, Position
from service.jobs.renewals import Renewal
from workers.supervisor.lease_keeper import RENEWALS, REQUESTS_INTERVAL_S
from workers.supervisor.machine import CHECK_INTERVAL_S
from workers.supervisor.supervisor import DATABASE_POLL_INTERVAL_S

_NEEDS: Final = ("statements", "client_ms", "server_ms")
_SETTLE_S: Final = 0.5
"""Time for the server to end the processes of closed connections."""

Figures = dict[str, Any]


def measure_costs(fleet: Fleet, pid: int, count: int) -> list[Figures]:
    """Run each operation so many times, one after the other; ``count`` jobs wait in the queue.

    Args:
        pid: of the server's first process.
    """
    recorder, cpu = Recorder(), ServerCpu(pid)
    recorder.listen()
    worker = WorkerOperations(fleet, 1, recorder)
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
    pairs = [claims[start : start + fleet.slots] for start in range(0, len(claims), fleet.slots)]
    renewals = [[Renewal(claim=claim, position=position, used=usage(position)) for claim in pair] for pair in pairs]
    measure("renewal", worker.renew, renewals)
    measure("request poll", worker.read_requests, pairs)
    measure("begin", worker.begin, claims)
    measure("epoch commit", lambda claim: worker.commit_epochs(claim, [worker.epoch_record(claim, 1)]), claims)
    measure("result", worker.succeed, claims)
    worker.close()
    return rows


def predict(rows: Sequence[Figures], fleet: Fleet, workers: int, epoch_s: float) -> Figures:
    """What a fleet needs in which no slot is ever idle: the cost of each operation times its rate."""
    jobs = workers * fleet.slots
    renewals = workers * RENEWALS / fleet.lease_s
    rates = {
        "heartbeat": workers / DATABASE_POLL_INTERVAL_S,
        "store check": workers / CHECK_INTERVAL_S,
        "request poll": workers / REQUESTS_INTERVAL_S - renewals,
        "renewal": renewals,
        "epoch commit": jobs / epoch_s,
        **dict.fromkeys(("claim", "begin", "result"), jobs / epoch_s / fleet.epochs),
    }
    costs = {row["operation"]: row for row in rows}
    needs = {name: sum(costs[operation][name] * rate for operation, rate in rates.items()) for name in _NEEDS}
    return {
        "workers": workers,
        "statements_per_s": round(needs["statements"]),
        "client_processors": round(needs["client_ms"] / 1000, 2),
        "server_processors": round(needs["server_ms"] / 1000, 2),
        "server_processors_of": {
            operation: round(costs[operation]["server_ms"] * rate / 1000, 2) for operation, rate in rates.items()
        },
    }


def describe_costs(document: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"costs (1,000,000 additions take {document['machine']['reference_ms']:g} ms)",
        f"  {'operation':31}{'statements':>11}{'client ms':>11}{'server ms':>11}{'p50 ms':>9}",
    ]
    for row in document["costs"]:
        figures = f"{row['statements']:11.1f}{row['client_ms']:11.2f}{row['server_ms']:11.2f}{row['p50_ms']:9.2f}"
        lines.append(f"  {row['operation']:31}{figures}")
    for row in document["predicted"]:
        parts = sorted(row["server_processors_of"].items(), key=lambda item: -item[1])
        lines.append(
            f"{row['workers']:,} workers need {row['server_processors']:g} processors of the server and "
            f"{row['client_processors']:g} of their own, for {row['statements_per_s']:,} statements/s"
        )
        lines.append("  of the server: " + ", ".join(f"{name} {value:g}" for name, value in parts))
    return "\n".join(lines)
