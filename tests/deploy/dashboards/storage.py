"""The dashboard of the stored files and the store."""

from __future__ import annotations

from typing import Final

from tests.deploy.dashboards.panels import Query, chart, number

_FREE: Final = "min(tapeline_disk_free_bytes / tapeline_disk_size_bytes)"
_GROWTH: Final = "sum(max by (kind) (deriv(tapeline_artifact_bytes[6h])))"

STORAGE: Final = {
    "Space": [
        number(
            "Free",
            "Share of the artifact folder's disk. With an object store: of the machine of the web process.",
            "percentunit",
            _FREE,
            limits=[0.1, 0.2],
            falling=True,
            decimals=0,
        ),
        number("Free bytes", "Of the artifact folder's disk.", "bytes", "min(tapeline_disk_free_bytes)"),
        number("Stored", "Bytes of all stored files of jobs.", "bytes", "sum(max by (kind) (tapeline_artifact_bytes))"),
        number("Growth per day", "As of the last 6 hours.", "bytes", f"86400 * {_GROWTH}"),
        number(
            "Full in",
            "At the growth of the last 6 hours; at most ten years.",
            "d",
            f"clamp_max(min(tapeline_disk_free_bytes) / clamp_min(86400 * {_GROWTH}, 1), 3650)",
            limits=[3, 14],
            falling=True,
            decimals=0,
        ),
        number(
            "Largest owner",
            "Share of the quota of stored files that the owner with most bytes has used. 0: there is no quota.",
            "percentunit",
            "max(tapeline_largest_owner_artifact_bytes / tapeline_owner_artifact_limit_bytes)",
            limits=[0.8, 0.95],
            decimals=0,
        ),
        chart(
            "Stored bytes by kind",
            "Checkpoints take nearly all. `tapeline gc` shows what can be deleted.",
            "bytes",
            Query("max by (kind) (tapeline_artifact_bytes)", "{{kind}}"),
            stacked=True,
        ),
        chart(
            "Disk",
            "Of the artifact folder.",
            "bytes",
            Query("min(tapeline_disk_free_bytes)", "free"),
            Query("min(tapeline_disk_size_bytes)", "size"),
        ),
        chart(
            "Bytes by owner",
            "Job files and datasets, of the twenty owners with most slot-seconds. Needs a key of an admin.",
            "bytes",
            Query("max by (owner) (tapeline_owner_bytes)", "{{owner}}"),
            stacked=True,
        ),
        chart(
            "Growth",
            "Bytes per day by kind, as of the last 6 hours.",
            "bytes",
            Query("86400 * max by (kind) (deriv(tapeline_artifact_bytes[6h]))", "{{kind}}"),
        ),
    ],
    "Faults": [
        chart(
            "Store errors",
            "In the 15 minutes before each point: a worker could not store or read a file, and released the job.",
            "none",
            Query("max by (worker) (increase(tapeline_store_errors_total[15m]))", "{{worker}}"),
            stacked=True,
        ),
        chart(
            "Workers without the store",
            "Workers that claim no jobs until the store works again.",
            "none",
            Query('max(tapeline_workers_blocked{reason="store"})', "blocked"),
        ),
        chart(
            "Damaged files",
            "Missing or damaged when they were read last; 0 is sound. `tapeline doctor --files` lists them.",
            "none",
            Query("max(tapeline_damaged_files)", "damaged"),
        ),
    ],
}
