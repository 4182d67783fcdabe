"""The dashboard of one owner."""

from __future__ import annotations

from typing import Final

from tests.deploy.dashboards.panels import COMPETING, LOAD, STATES, Query, chart, number


def _own(metric: str) -> str:
    return f'max(tapeline_owner_{metric}{{owner="$owner"}})'


def _share(metric: str) -> str:
    return f"{_own(metric)} / clamp_min(sum(max by (owner) (tapeline_owner_{metric})), 1)"


OWNER: Final = {
    "Now": [
        number("Running", "Jobs that run.", "none", _own("running_jobs")),
        number("Queued", "Jobs that wait.", "none", _own("queued_jobs")),
        number("Load", "Running jobs divided by the owner's weight.", "none", _own("load"), decimals=2),
        number("CPU time", "Of the last 30 days; a quota limits it.", "s", _own("cpu_seconds")),
        number("Slot time", "Time for which jobs held slots, in the last 30 days.", "s", _own("slot_seconds")),
        number("Stored", "Bytes of job files and datasets, some hours old.", "bytes", _own("bytes")),
        chart(
            "Jobs",
            "Running and queued jobs of the owner.",
            "none",
            Query(_own("running_jobs"), "running"),
            Query(_own("queued_jobs"), "queued"),
            stacked=True,
            colours={state: STATES[state] for state in ("running", "queued")},
        ),
        chart(
            "Share of the running jobs",
            "Of those of the twenty owners with most slot-seconds.",
            "percentunit",
            Query(_share("running_jobs"), "$owner"),
            maximum=1,
        ),
        chart(
            "Load, beside that of others",
            "Running jobs divided by the weight, over 10 minutes. While jobs wait, it should be near the mean.",
            "none",
            Query('max(avg_over_time(tapeline_owner_load{owner="$owner"}[10m]))', "$owner"),
            Query(f"avg({COMPETING}) or avg({LOAD})", "mean of those who compete"),
        ),
        chart(
            "CPU and slot time",
            "Of the last 30 days.",
            "s",
            Query(_own("cpu_seconds"), "CPU"),
            Query(_own("slot_seconds"), "slots"),
        ),
        chart(
            "Share of the slot time",
            "Of the last 30 days.",
            "percentunit",
            Query(_share("slot_seconds"), "$owner"),
            maximum=1,
        ),
        chart("Stored bytes", "Of job files and datasets.", "bytes", Query(_own("bytes"), "stored")),
    ]
}
