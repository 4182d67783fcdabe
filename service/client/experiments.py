"""What a client does with many jobs at once: sweeps, and comparisons of settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal
from uuid import uuid4

from service.client.connection import Connection, json_body
from service.client.job import Job
from service.client.sweep import Sweep

_PAGE: Final = 100


class Experiments:
    """The part of ``Client`` that is about sweeps and comparisons."""

    _connection: Connection

    def sweep(self, spec: Mapping[str, Any] | bytes, *, idempotency_key: str | None = None) -> Sweep:
        """Start a sweep: many jobs as one experiment.

        Args:
            spec: a document, or JSON text that is sent as it is.
            idempotency_key: as for ``submit``.
        """
        options = json_body(spec, **{"Idempotency-Key": idempotency_key or uuid4().hex})
        return Sweep(self._connection, self._connection.json("POST", "/sweeps", repeatable=True, **options))

    def sweep_dry_run(self, spec: Mapping[str, Any] | bytes) -> dict[str, Any]:
        """What a sweep would do; nothing is stored."""
        params = {"dry_run": "true"}
        return self._connection.json("POST", "/sweeps", params=params, repeatable=True, **json_body(spec))

    def sweeps(self, *, limit: int | None = None, status: str | None = None) -> Iterator[Sweep]:
        """Iterate over sweeps, newest first."""
        params = {"limit": str(_PAGE)} | ({"status": status} if status else {})
        left = limit
        while True:
            page = self._connection.json("GET", "/sweeps", params=params)
            for document in page["data"][:left]:
                yield Sweep(self._connection, document)
            left = None if left is None else left - len(page["data"])
            if not page["has_more"] or (left is not None and left <= 0):
                return
            params["cursor"] = page["next_cursor"]

    def find_sweep(self, sweep_id: str) -> Sweep:
        """The sweep with this id, or the newest whose id ends so, or that has this name."""
        if not sweep_id.startswith("swp_"):
            for found in self.sweeps():
                if found["name"] == sweep_id or found.id.lower().endswith(sweep_id.lower()):
                    return found.refresh()
        return Sweep(self._connection, {"id": sweep_id}).refresh()

    def compare(
        self,
        a: Job | str | Sequence[Job | str],
        b: Job | str | Sequence[Job | str],
        *,
        metric: str | None = None,
        of: Literal["last", "best"] = "last",
    ) -> dict[str, Any]:
        """Compare two settings, each a job or jobs that differ in their seeds.

        Args:
            metric: default: ``val_accuracy`` of classifiers, ``frechet_distance`` of GANs.
            of: the value of the last epoch, or the best of all epochs.

        Returns:
            ``difference`` (``b`` minus ``a``), ``interval``, ``p``, ``n``, and a ``sentence``.
        """
        params = {"a": _ids(a), "b": _ids(b), "of": of} | ({"metric": metric} if metric else {})
        return self._connection.json("GET", "/comparisons", params=params)


def _ids(jobs: Job | str | Sequence[Job | str]) -> str:
    several = [jobs] if isinstance(jobs, Job | str) else jobs
    return ",".join(job.id if isinstance(job, Job) else job for job in several)
