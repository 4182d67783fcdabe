"""Operations of the API: Administration. Written by `make client`."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from tapeline.methods.calls import Calls, given


class OwnerPatch(TypedDict, total=False):
    """Fields to change."""

    display_name: str | None
    weight: float | None
    running_jobs: int | None
    max_priority: int | None
    queued_jobs: int | None
    requests_per_minute: int | None
    streams: int | None
    upload_bytes_per_day: int | None
    dataset_bytes: int | None
    artifact_bytes: int | None
    cpu_seconds: int | None


class Administration(Calls):
    """Methods of ``Client``."""

    def api_keys(self) -> list[dict[str, Any]]:
        """List all API keys, without their secrets."""
        return self._items("GET", "/keys")

    def rotate_key(self, key_id: str, overlap_s: float = 86400) -> dict[str, Any]:
        """Rotate an API key: create its successor, and let it expire after an overlap.

        The new key has the same name, owner and scope; if the old one expires, the new one gets the same lifetime from
        now on. The old key stays valid for ``overlap_s``, but never longer than before, so that programs can be changed
        one by one. A key is rotated once: afterwards rotate its successor. The new key itself is only in this response,
        which is not stored: if it was lost, rotate the successor, ``replaced_by``, with ``overlap_s`` 0.

        Args:
            overlap_s: How long the old key stays valid, in seconds, but not beyond its own expiry; 0: it expires at
                once.
        """
        return self._send("POST", "/keys/{key_id}/rotate", {"key_id": key_id}, body=given(overlap_s=overlap_s))

    def owners(self, *, limit: int | None = None) -> list[dict[str, Any]]:
        """List owners: their settings, limits and jobs. Requires the scope ``admin``.

        An owner is known by a key, a job or its own settings. They are sorted by name; ``-``, the last, stands for
        everybody without a key, if there are jobs or settings of theirs.

        Args:
            limit: The most items to return.
        """
        return self._pages("GET", "/owners", limit=limit)

    def owner(self, owner_id: str) -> dict[str, Any]:
        """Show an owner, named by its id or its display name. Requires the scope ``admin``."""
        return self._send("GET", "/owners/{owner_id}", {"owner_id": owner_id})

    def change_owner(self, owner_id: str, /, **changes: Unpack[OwnerPatch]) -> dict[str, Any]:
        """Change an owner's name, weight, cap, highest priority or quotas. Requires the scope ``admin``.

        Null sets the default of the service again. A change takes effect within two seconds, without a restart. A lower
        highest priority lowers that of unfinished jobs.

        Args:
            display_name: A name for people, in any script.
            weight: The share of the slots, relative to other owners.
            running_jobs: The most jobs that run at a time.
            max_priority: The highest priority of its jobs; from 6 on they start before those of all owners.
            queued_jobs: The most queued jobs; 0: no limit, as in the following.
            streams: Open streams per web process.
            dataset_bytes: Bytes of all datasets.
            artifact_bytes: Bytes of the files of all jobs.
            cpu_seconds: CPU seconds of all jobs in 30 days; further jobs wait.
        """
        return self._send("PATCH", "/owners/{owner_id}", {"owner_id": owner_id}, body=changes)
