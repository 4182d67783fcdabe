"""The dashboard of the queue: why jobs wait, and how fairly."""

from __future__ import annotations

from typing import Final

from tests.deploy.dashboards.panels import (
    COMPETING,
    LOAD,
    NONE_THOUGH_WANTED,
    RUNNING,
    Query,
    chart,
    note,
    number,
    or_missing,
    quantile,
)

_REASONS: Final = {
    "share": "blue",
    "starting": "green",
    "cap": "yellow",
    "quota": "orange",
    "dataset": "purple",
    "no_worker": "red",
    "storage": "dark-red",
    "memory": "semi-dark-red",
}


_WHY: Final = """\
| reason | the job waits for | remedy |
|---|---|---|
| share | a free slot, in the order of fair shares | more workers, if *wanted* stays above *available* |
| starting | a worker that has a free slot, for a moment | if it lasts: `tapeline doctor` |
| cap | a job of its owner to end | `tapeline owners set ann --running-jobs 8` |
| quota | CPU time of the last 30 days to get older | `tapeline owners set ann --cpu-seconds 720000` |
| dataset | a worker that has its folder, or can store it | copy or upload it; if the cache is full: `tapeline doctor` |
| no_worker | a worker: none is alive, or all are drained | start one, `tapeline workers undrain NAME` |
| storage, memory | a fault of every worker's machine to end | `tapeline doctor` |

Of one job: its page, or `tapeline queue`. The series are explained in `docs/operations.md`.
"""


JAIN: Final = f"(sum({COMPETING}) ^ 2 / (count({COMPETING}) * sum({COMPETING} ^ 2))) or vector(1)"
"""Jain's index of fairness of the loads of owners with jobs that waited all the time: 1 if all get what their weights
say, 1/n if one of n gets all. R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984."""


QUEUE: Final = {
    "Why is my job waiting": [
        number(
            "Queued",
            "Jobs that wait for a slot, of all owners.",
            "none",
            'sum(max by (kind) (tapeline_jobs{status="queued"}))',
        ),
        number(
            "Longest wait",
            "Waiting time of the oldest queued job.",
            "s",
            "max(tapeline_longest_wait_seconds)",
            limits=[600, 3600],
        ),
        number(
            "Slots available",
            "Slots of the workers that claim jobs. Red: none, although jobs want some.",
            "none",
            or_missing("tapeline_slots"),
            words=NONE_THOUGH_WANTED,
        ),
        number(
            "Slots wanted",
            "Running jobs, and queued ones that caps and quotas let run.",
            "none",
            "max(tapeline_slots_wanted)",
        ),
        number("Free slots", "Slots without a job.", "none", f"max(tapeline_slots) - {RUNNING}"),
        number(
            "Wait, 90th percentile",
            "Time from submission to the first claim, of jobs that started within 30 minutes.",
            "s",
            quantile(0.9, "tapeline_queue_wait_seconds", "30m"),
            limits=[600, 3600],
        ),
        chart(
            "Why jobs wait",
            "Each queued job counts once, for the reason at the right.",
            "none",
            Query("max by (reason) (tapeline_queue_waiting)", "{{reason}}"),
            stacked=True,
            colours=_REASONS,
        ),
        note("Reasons", _WHY),
        chart(
            "Slots wanted and available",
            "If wanted stays above available, more workers help; if running stays below both, workers do not claim.",
            "none",
            Query("max(tapeline_slots_wanted)", "wanted"),
            Query("max(tapeline_slots)", "available"),
            Query(RUNNING, "running"),
        ),
        chart(
            "Time in the queue",
            "Time from submission to the first claim, of jobs that started within 30 minutes.",
            "s",
            *(
                Query(quantile(q, "tapeline_queue_wait_seconds", "30m"), name)
                for q, name in ((0.5, "median"), (0.9, "90th percentile"), (0.99, "99th percentile"))
            ),
        ),
        chart(
            "Longest wait",
            "Waiting time of the oldest queued job. A steady climb: a job that nobody claims.",
            "s",
            Query("max(tapeline_longest_wait_seconds)", "oldest job"),
        ),
        chart(
            "Starts",
            "First claims per minute, by kind of job.",
            "none",
            Query("60 * max by (kind) (rate(tapeline_queue_wait_seconds_count[5m]))", "{{kind}}"),
            stacked=True,
        ),
    ],
    "Fairness (needs a key of an admin)": [
        number(
            "Fairness",
            "Jain's index of the loads, averaged over 10 minutes, of the owners whose jobs waited all that time. "
            "1: each gets what its weight says (or fewer than two compete); 0.5: one of two gets all.",
            "none",
            JAIN,
            width=6,
            limits=[0.6, 0.8],
            falling=True,
            decimals=2,
        ),
        number(
            "Owners that compete",
            "Owners whose jobs waited for all of the last 10 minutes.",
            "none",
            f"count({COMPETING}) or vector(0)",
            width=6,
        ),
        chart(
            "Fairness",
            "Jain's index, as at the left. Dips of minutes are normal with few slots and long jobs.",
            "none",
            Query(JAIN, "Jain's index"),
            maximum=1,
        ),
        chart(
            "Load by owner",
            "Running jobs divided by the owner's weight, averaged over 10 minutes. Those who compete should be level.",
            "none",
            Query(LOAD, "{{owner}}"),
        ),
        chart(
            "Queued jobs by owner",
            "The twenty owners with most slot-seconds in the last 30 days.",
            "none",
            Query("max by (owner) (tapeline_owner_queued_jobs)", "{{owner}}"),
            stacked=True,
        ),
        chart(
            "Running jobs by owner",
            "The twenty owners with most slot-seconds in the last 30 days.",
            "none",
            Query("max by (owner) (tapeline_owner_running_jobs)", "{{owner}}"),
            stacked=True,
        ),
        chart(
            "Slot-seconds by owner",
            "Time for which jobs held slots, in the last 30 days.",
            "s",
            Query("max by (owner) (tapeline_owner_slot_seconds)", "{{owner}}"),
        ),
    ],
}
