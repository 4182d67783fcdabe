"""The dashboard of the service: its health, jobs and requests."""

from __future__ import annotations

from typing import Final

from tests.deploy.dashboards.panels import NONE_THOUGH_WANTED, STATES, Query, chart, number, or_missing, quantile

_UP: Final = {"1": ("up", "green"), "0": ("down", "red")}


_ENDED: Final = "sum by (status) (max by (kind, status) (increase(tapeline_job_run_seconds_count[1h])))"


_SERVED: Final = 'tapeline_http_request_seconds_bucket{route!~".*(stream|events).*"}'


SERVICE: Final = {
    "Health": [
        number(
            "Database",
            "Whether the database responded to the last scrape.",
            "none",
            "min(tapeline_database_up)",
            words=_UP,
        ),
        number(
            "Broker",
            "Whether the broker accepted a write. Without it, jobs start up to 5 s later.",
            "none",
            "min(tapeline_broker_up)",
            words=_UP,
        ),
        number(
            "Workers",
            "Workers with a heartbeat within the last minute. Red: none, although jobs want slots.",
            "none",
            or_missing("tapeline_workers"),
            words=NONE_THOUGH_WANTED,
        ),
        number(
            "Alerts",
            "Alerts of Tapeline that fire now. Each has an entry in the runbook, docs/operations.md.",
            "none",
            'count(ALERTS{alertname=~"Tapeline.+", alertstate="firing"}) or vector(0)',
            limits=[1],
        ),
        number(
            "Server errors",
            "Share of responses with a status of 500 or more, within 5 minutes.",
            "percentunit",
            '(sum(rate(tapeline_http_request_seconds_count{status=~"5..", route!="/readyz"}[5m])) or vector(0))'
            " / sum(rate(tapeline_http_request_seconds_count[5m]))",
            limits=[0.01, 0.05],
            decimals=2,
        ),
        number(
            "Certificates",
            "Days until the first TLS certificate of database or broker ends. No data: no connection uses TLS.",
            "d",
            "(min(tapeline_certificate_end_timestamp_seconds) - time()) / 86400",
            limits=[7, 21],
            falling=True,
            decimals=0,
        ),
    ],
    "Jobs": [
        chart(
            "Jobs by state",
            "Queued, running and paused jobs.",
            "none",
            Query(
                'sum by (status) (max by (status, kind) (tapeline_jobs{status=~"queued|running|paused"}))', "{{status}}"
            ),
            stacked=True,
            colours=STATES,
        ),
        chart(
            "Jobs ended in the last hour",
            "Jobs that reached a final state, as a sum over the hour before each point.",
            "none",
            Query(_ENDED, "{{status}}"),
            stacked=True,
            colours=STATES,
        ),
        chart(
            "Run time",
            "Time from a job's first claim to its end, of jobs that ended within 30 minutes.",
            "s",
            Query(quantile(0.5, "tapeline_job_run_seconds", "30m", within="kind, status"), "median"),
            Query(quantile(0.9, "tapeline_job_run_seconds", "30m", within="kind, status"), "90th percentile"),
        ),
        chart(
            "Epochs",
            "Finished epochs per minute, by kind of job.",
            "none",
            Query("60 * max by (kind) (rate(tapeline_epoch_seconds_count[5m]))", "{{kind}}"),
            stacked=True,
        ),
    ],
    "Requests": [
        chart(
            "Requests",
            "Requests per second by status.",
            "reqps",
            Query("sum by (status) (rate(tapeline_http_request_seconds_count[$__rate_interval]))", "{{status}}"),
            stacked=True,
        ),
        chart(
            "Latency",
            "Time to the first byte of a response, without event streams. Long polls count with their full duration.",
            "s",
            *(
                Query(f"histogram_quantile({q}, sum by (le) (rate({_SERVED}[$__rate_interval])))", name)
                for q, name in ((0.5, "median"), (0.9, "90th percentile"), (0.99, "99th percentile"))
            ),
        ),
        chart(
            "Slowest routes",
            "The five routes with the highest 99th percentile of the time to the first byte.",
            "s",
            Query(f"topk(5, histogram_quantile(0.99, sum by (le, route) (rate({_SERVED}[5m]))))", "{{route}}"),
        ),
        chart(
            "Event streams",
            "Open event streams: pages that watch a job, and `tapeline watch`.",
            "none",
            Query("sum(tapeline_stream_clients)", "open"),
        ),
    ],
}
