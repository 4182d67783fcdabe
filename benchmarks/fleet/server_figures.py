"""What a PostgreSQL server does meanwhile: its connections, what they wait for, and its CPU time."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import Any, Final

import psutil
import psycopg

SAMPLE_INTERVAL_S: Final = 0.5
_SHOWN: Final = 8
"""The most frequent waits."""
_APPLICATION: Final = "fleet-sampler"
_CONNECTIONS: Final = """
    SELECT application_name, count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name <> %s GROUP BY 1
"""
_WAITS: Final = """
    SELECT coalesce(wait_event_type || ' ' || wait_event, 'CPU'), count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name <> %s AND state = 'active' GROUP BY 1
"""
_LOCK_WAITS: Final = """
    SELECT application_name || ': ' || left(regexp_replace(query, '\\s+', ' ', 'g'), 60), count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' GROUP BY 1
"""
_COUNTERS: Final = """
    SELECT xact_commit, xact_rollback, deadlocks, sessions, wal_bytes::bigint AS wal_bytes
    FROM pg_stat_database, pg_stat_wal WHERE datname = current_database()
"""
_BACKENDS: Final = "SELECT pid, application_name FROM pg_stat_activity WHERE backend_type = 'client backend'"


class ServerCpu:
    """The CPU time of a server.

    Args:
        pid: of its first process.
    """

    def __init__(self, pid: int) -> None:
        self._postmaster = psutil.Process(pid)

    def seconds(self) -> float:
        """Of all its processes, with those that have ended."""
        own = self._postmaster.cpu_times()
        ended = float(own.user + own.system + own.children_user + own.children_system)
        return ended + float(sum(times.user + times.system for times in self._of_children().values()))

    def by_process(self) -> dict[int, float]:
        """Of each process that lives."""
        own = self._postmaster.cpu_times()
        found = {self._postmaster.pid: own.user + own.system}
        return found | {pid: times.user + times.system for pid, times in self._of_children().items()}

    def _of_children(self) -> dict[int, Any]:
        found = {}
        for process in self._postmaster.children():
            with contextlib.suppress(psutil.Error):
                found[process.pid] = process.cpu_times()
        return found


class ServerSampler:
    """Samples a server from ``begin`` to ``end``.

    Args:
        dsn: of the database.
        pid: of the server's first process.
    """

    def __init__(self, dsn: str, pid: int) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True, application_name=_APPLICATION)
        self._server = ServerCpu(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_repeatedly, daemon=True)
        self._samples = 0
        self._most: Counter[str] = Counter()
        self._waits: Counter[str] = Counter()
        self._lock_waits: Counter[str] = Counter()

    def begin(self) -> None:
        """Begin to sample."""
        self._counters = self._read_counters()
        self._cpu = self._cpu_times()
        self._thread.start()

    def end(self, seconds: float) -> dict[str, Any]:
        """The figures since ``begin``, which was so long ago."""
        self._stop.set()
        self._thread.join()
        cpu, counters = self._cpu_times(), self._read_counters()
        change = {name: counters[name] - self._counters[name] for name in counters}
        total = cpu.pop("total") - self._cpu.pop("total")
        by_application: dict[str, float] = {}
        for name, seconds_of in cpu.items():
            application = name.partition("\n")[0]
            spent = max(0.0, seconds_of - self._cpu.get(name, 0.0))
            by_application[application] = by_application.get(application, 0.0) + spent
        by_application["connections that have ended"] = max(0.0, total - sum(by_application.values()))
        return {
            "connections": dict(self._most.most_common()),
            "transactions_per_s": round((change["xact_commit"] + change["xact_rollback"]) / seconds, 1),
            "new_connections_per_s": round(change["sessions"] / seconds, 1),
            "wal_mb_per_s": round(change["wal_bytes"] / seconds / 1e6, 2),
            "deadlocks": change["deadlocks"],
            "active": self._average(self._waits),
            "lock_waits": self._average(self._lock_waits),
            "cpu": round(total / seconds, 2),
            "cpu_of": {name: round(value / seconds, 3) for name, value in by_application.items() if value > 0},
        }

    def _average(self, counts: Counter[str]) -> dict[str, float]:
        return {name: round(count / max(1, self._samples), 2) for name, count in counts.most_common(_SHOWN)}

    def close(self) -> None:
        """Close the connection."""
        self._stop.set()
        self._connection.close()

    def _sample_repeatedly(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL_S):
            self._samples += 1
            total = 0
            for name, count in self._connection.execute(_CONNECTIONS, [_APPLICATION]).fetchall():
                self._most[name] = max(self._most[name], count)
                total += count
            self._most["all"] = max(self._most["all"], total)
            for name, count in self._connection.execute(_WAITS, [_APPLICATION]).fetchall():
                self._waits[name] += count
            for name, count in self._connection.execute(_LOCK_WAITS).fetchall():
                self._lock_waits[name] += count

    def _read_counters(self) -> dict[str, int]:
        cursor = self._connection.execute(_COUNTERS)
        row = cursor.fetchone()
        return dict(zip([column.name for column in cursor.description or ()], row or (), strict=True))

    def _cpu_times(self) -> dict[str, float]:
        """CPU seconds of each live process, by application and pid, and of all, with those that have ended."""
        names: dict[int, str] = dict(self._connection.execute(_BACKENDS).fetchall())
        total = self._server.seconds()
        live = {f"{names.get(pid, 'server')}\n{pid}": seconds for pid, seconds in self._server.by_process().items()}
        return live | {"total": total}
