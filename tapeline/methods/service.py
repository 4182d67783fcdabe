"""Operations of the API: Service. Written by `make client`."""

from __future__ import annotations

from typing import Any, Literal

from tapeline.methods.calls import Calls, given


class Service(Calls):
    """Methods of ``Client``."""

    def presets(self) -> list[dict[str, Any]]:
        """List the presets with a summary, measured results and the full spec."""
        return self._items("GET", "/presets")

    def queue(self, *, owner: str | None = None, limit: int | None = None) -> dict[str, Any]:
        """List the queued jobs in the order in which workers are expected to claim them, and why they wait.

        Without ``owner``, only the caller's jobs are listed; their positions count the jobs of all owners. Owners share
        the slots by their weights; priorities up to 5 order the jobs of one owner, higher ones go before those of all.

        Args:
            owner: For the scope ``admin``: what belongs to this owner (an id or a unique display name), with ``-``,
                to everybody without a key, or, with ``*``, to all. Such reads are in the audit log.
        """
        return self._send("GET", "/queue", query=given(owner=owner, limit=limit))

    def workers(self) -> list[dict[str, Any]]:
        """List the workers of the last minute, with the caller's running jobs."""
        return self._items("GET", "/workers")

    def drain_worker(self, worker_id: str, running: Literal["release", "finish"] = "release") -> dict[str, Any]:
        """Drain a worker: it claims no more jobs. Requires the scope ``admin``.

        Its jobs are released after the current batch, and others continue them; with ``"running": "finish"`` they end
        first. The worker sees that within five seconds. A worker that is started again is not drained.

        Args:
            running: What happens to its running jobs: other workers continue them (``release``), or they end first
                (``finish``).
        """
        return self._send(
            "POST", "/workers/{worker_id}/drain", {"worker_id": worker_id}, body=given(running=running), repeatable=True
        )

    def undrain_worker(self, worker_id: str) -> dict[str, Any]:
        """Let a drained worker claim jobs again, within five seconds. Requires the scope ``admin``."""
        return self._send("DELETE", "/workers/{worker_id}/drain", {"worker_id": worker_id})
