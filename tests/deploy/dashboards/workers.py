"""The dashboard of the workers, their work and their faults."""

from __future__ import annotations

from typing import Final

from tests.deploy.dashboards.panels import NONE_THOUGH_WANTED, RUNNING, Query, chart, number, or_missing, quantile

WORKERS: Final = {
    "Fleet": [
        number(
            "Alive",
            "Workers with a heartbeat within the last minute. Red: none, although jobs want slots.",
            "none",
            or_missing("tapeline_workers"),
            words=NONE_THOUGH_WANTED,
        ),
        number(
            "Missing",
            "Names of workers that fell silent within the last hour without stopping, and did not come back.",
            "none",
            "max(tapeline_workers_missing)",
            limits=[1],
        ),
        number(
            "Draining",
            "Workers that claim no jobs because they stop or are drained.",
            "none",
            "max(tapeline_workers_draining)",
        ),
        number(
            "Blocked",
            "Workers that claim no jobs because of a fault of their machine.",
            "none",
            "sum(max by (reason) (tapeline_workers_blocked))",
            limits=[1],
        ),
        number(
            "Utilization",
            "Share of all slots that run a job.",
            "percentunit",
            f"{RUNNING} / sum(max by (worker) (tapeline_worker_slots))",
            decimals=0,
        ),
        number(
            "Commit, 99th percentile",
            "Latency of the transaction that commits an epoch, over 5 minutes.",
            "s",
            quantile(0.99, "tapeline_commit_seconds", "5m", within="worker"),
            limits=[0.5, 2.5],
        ),
        chart(
            "Running jobs",
            "By worker.",
            "none",
            Query("max by (worker) (tapeline_worker_running)", "{{worker}}"),
            stacked=True,
        ),
        chart(
            "Slots", "By worker.", "none", Query("max by (worker) (tapeline_worker_slots)", "{{worker}}"), stacked=True
        ),
        chart(
            "Heartbeat age",
            "A heartbeat is due every 5 s; after 60 s a worker counts as gone, and its leases expire.",
            "s",
            Query("max by (worker) (tapeline_worker_heartbeat_age_seconds)", "{{worker}}"),
        ),
        chart(
            "Blocked workers",
            "By the fault of their machine: the store, a dataset or memory. /ui/workers names them.",
            "none",
            Query("max by (reason) (tapeline_workers_blocked)", "{{reason}}"),
            stacked=True,
        ),
    ],
    "Work": [
        chart(
            "Commit latency",
            "Of the transaction that commits an epoch, retries in an outage included. Of all workers.",
            "s",
            *(
                Query(quantile(q, "tapeline_commit_seconds", "5m", within="worker"), name)
                for q, name in ((0.5, "median"), (0.9, "90th percentile"), (0.99, "99th percentile"))
            ),
        ),
        chart(
            "Commit latency by worker",
            "95th percentile. One worker alone: its network; all: the database.",
            "s",
            Query(quantile(0.95, "tapeline_commit_seconds", "5m", by="worker", within="worker"), "{{worker}}"),
        ),
        chart(
            "Commits",
            "Transactions that commit epochs, per second, by worker; epochs of less than a second share one.",
            "none",
            Query("max by (worker) (rate(tapeline_commit_seconds_count[5m]))", "{{worker}}"),
            stacked=True,
        ),
        chart(
            "Epoch duration",
            "Median by kind of job. It rises with too many jobs per core, or a busy neighbour.",
            "s",
            Query(quantile(0.5, "tapeline_epoch_seconds", "15m", by="kind"), "{{kind}}"),
        ),
        chart(
            "CPU time",
            "CPU seconds of jobs per second: about the number of cores that train.",
            "none",
            Query("max by (kind) (rate(tapeline_job_cpu_seconds_total[15m]))", "{{kind}}"),
            stacked=True,
        ),
        chart(
            "Peak memory of jobs",
            "95th percentile of the peak resident memory of training processes, of jobs that ended within an hour.",
            "bytes",
            Query(quantile(0.95, "tapeline_job_peak_memory_bytes", "1h", by="kind"), "{{kind}}"),
        ),
    ],
    "Faults": [
        chart(
            "Overdue leases",
            "Time since the first lease of a running job expired. The scheduler requeues such jobs within seconds.",
            "s",
            Query("max(tapeline_expired_lease_seconds)", "oldest"),
        ),
        chart(
            "Scheduler",
            "Time since its last heartbeat, which it writes every 5 seconds. Without it, lost workers are not noticed.",
            "s",
            Query("min(tapeline_scheduler_heartbeat_age_seconds)", "silent for"),
        ),
        chart(
            "Expired leases",
            "In the hour before each point: the worker died, or could not reach the database.",
            "none",
            Query(
                "sum by (worker) (max by (kind, worker) (increase(tapeline_lease_expiries_total[1h])))", "{{worker}}"
            ),
            stacked=True,
        ),
        chart(
            "Lost leases",
            "In the hour before each point: expired ones, and those whose training process died, as without memory.",
            "none",
            Query("sum by (worker) (max by (kind, worker) (increase(tapeline_workers_lost_total[1h])))", "{{worker}}"),
            stacked=True,
        ),
        chart(
            "Failed jobs",
            "In the hour before each point, by the worker that trained them last. One worker alone: its machine.",
            "none",
            Query("sum by (worker) (max by (kind, worker) (increase(tapeline_jobs_failed_total[1h])))", "{{worker}}"),
            stacked=True,
        ),
        chart(
            "Determinism violations",
            "Epochs that were trained again and were not bit-identical, in the day before each point.",
            "none",
            Query("max by (kind) (increase(tapeline_determinism_violations_total[1d])) or vector(0)", "{{kind}}"),
            stacked=True,
        ),
    ],
}
