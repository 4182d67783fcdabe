"""Operations of the API: Job. Written by `make client`."""

from __future__ import annotations

from typing import Any

from tapeline.method_types import Which
from tapeline.methods.calls import BoundCalls, given


class JobMethods(BoundCalls):
    """Methods of ``Job``."""

    def calibration(self, *, checkpoint: Which = "best") -> dict[str, Any]:
        """Compare the confidence of predictions with their accuracy on the validation data.

        The first request for a checkpoint evaluates the whole validation split. ``GET
        /jobs/{job_id}/plots/calibration.png`` draws it.

        Args:
            checkpoint: ``best``, ``latest``, or an epoch number.
        """
        return self._send("GET", "/jobs/{job_id}/calibration", query=given(checkpoint=checkpoint))

    def digests(self, *, after: int = 0) -> dict[str, Any]:
        """List the digests of a job's epochs, as certificates have them: two trainings with equal digests are equal.

        Args:
            after: Only epochs after this one.
        """
        return self._send("GET", "/jobs/{job_id}/digests", query=given(after=after))

    def importance(self, *, checkpoint: Which = "best") -> dict[str, Any]:
        """Show how important each column of a table is: the accuracy that is lost when its values are shuffled, or
        the RMSE that a regressor gains.

        Each column is shuffled five times. The shuffles depend only on the job's seed, so results are reproducible. Of
        columns with the same information, each seems less important than both are together. ``GET
        /jobs/{job_id}/plots/importance.png`` draws it.

        Args:
            checkpoint: ``best``, ``latest``, or an epoch number.
        """
        return self._send("GET", "/jobs/{job_id}/importance", query=given(checkpoint=checkpoint))

    def mistakes(self, *, checkpoint: Which = "best", limit: int | None = None) -> dict[str, Any]:
        """Show the validation images that a checkpoint misclassifies, most confident first.

        The first request for a checkpoint evaluates the whole validation split.

        Args:
            checkpoint: ``best``, ``latest``, or an epoch number.
        """
        return self._send("GET", "/jobs/{job_id}/mistakes", query=given(checkpoint=checkpoint, limit=limit))

    def results(self, *, limit: int | None = None, cursor: str | None = None) -> dict[str, Any]:
        """Show the results of a job so far; ``final`` says whether the job has ended.

        ``artifacts`` is one page of its files, selected by ``limit`` and ``cursor``.

        Args:
            cursor: ``next_cursor`` of the previous page.
        """
        return self._send("GET", "/jobs/{job_id}/results", query=given(limit=limit, cursor=cursor))
