"""Many jobs at once: sweeps, and comparisons of settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, Self
from uuid import uuid4

from service.client import streams
from service.client.connection import Connection, Document, json_body, segment
from service.client.errors import AmbiguousJob, ApiError
from service.client.job import Job
from service.client.lookup import is_id, look_up
from service.client.method_types import Event
from service.client.streams import OnOutage
from service.states import SWEEP_ENDED

_PAGE_SIZE: Final = 500
_SWEEPS_PER_PAGE: Final = 100
_MIN_ID_SUFFIX_LENGTH: Final = 4
_POLL_INTERVAL_S: Final = 1.0


class Sweep(Document):
    """A sweep as of the last request; ``refresh`` and ``wait`` update it. It is a mapping over the API's document."""

    def __repr__(self) -> str:
        return f"<Sweep {self.id} {self._document.get('status', 'not read yet')}>"

    @property
    def id(self) -> str:
        """``swp_`` and 26 letters and digits."""
        return str(self._document["id"])

    @property
    def status(self) -> str:
        """``running``, ``paused``, ``succeeded``, ``failed`` or ``cancelled``."""
        return str(self._document["status"])

    @property
    def page(self) -> str:
        """The address of its page."""
        return f"{self._connection.server}{self._document['urls']['page']}"

    @property
    def best(self) -> dict[str, Any] | None:
        """The best trial so far, as in ``trials``."""
        if self._document["best_trial"] is None:
            return None
        return next(item for item in self.trials() if item["trial"] == self._document["best_trial"])

    def refresh(self) -> Self:
        """Fetch the document again."""
        self._document = self._connection.json("GET", f"/sweeps/{segment(self.id)}")
        return self

    def trials(self, *, sort: str = "trial") -> list[dict[str, Any]]:
        """All trials as flat dictionaries, for example for a DataFrame.

        Each has ``trial``, ``status``, ``epoch`` (of the value), ``last_epoch`` (that a job has completed),
        ``rung_epoch`` (with halving, of the rung of the value: only values of one rung are comparable), the objective's
        metric with the ends of its 95% interval over the seeds, one field for each setting (its JSON pointer), the
        metric and the job of each seed, and ``error``: why the trial failed.
        """
        metric, rows = self._document["objective"]["metric"], []
        for item in self._pages("trials", sort):
            row = {name: item.get(name) for name in ("trial", "status", "epoch", "last_epoch", "rung_epoch")}
            low, high = item["interval"] or (None, None)
            row |= {metric: item["value"], f"{metric} (interval_low)": low, f"{metric} (interval_high)": high}
            row |= item["settings"]
            for job in item["jobs"]:
                row[f"{metric} (seed {job['seed']})"] = job["value"]
                row[f"job (seed {job['seed']})"] = job["job"]
            row["error"] = item["error"]["message"] if item["error"] else None
            rows.append(row)
        return rows

    def trial(self, number: int) -> dict[str, Any]:
        """One trial, as the API represents it."""
        params = {"sort": "trial", "limit": "1", "after": str(number)}
        page = self._connection.json("GET", f"/sweeps/{segment(self.id)}/trials", params=params)
        trial: dict[str, Any] = page["data"][0]
        return trial

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions so far, in order."""
        decisions: list[dict[str, Any]] = []
        after = 0
        while True:
            params = {"after": str(after), "limit": str(_PAGE_SIZE)}
            page = self._connection.json("GET", f"/sweeps/{segment(self.id)}/decisions", params=params)
            decisions += page["data"]
            after = page["next_after"]
            if not page["has_more"]:
                return decisions

    def importance(self) -> Sequence[dict[str, Any]]:
        """The importance of each setting, most important first."""
        document = self._connection.json("GET", f"/sweeps/{segment(self.id)}/importance")
        importances: Sequence[dict[str, Any]] = document["data"]
        return importances

    def plot(
        self, *, metric: str | None = None, band: Literal["range", "interval", "none"] = "range", fmt: str = "png"
    ) -> bytes:
        """The curves of the best trials as a picture: means over the seeds, with a band.

        Args:
            metric: default: that of the objective.
            band: from the lowest to the highest seed, or the 95% interval of the mean.
            fmt: ``png`` or ``svg``.
        """
        path = f"/sweeps/{segment(self.id)}/plots/curves.{fmt}"
        params = {"band": band} | ({"metric": metric} if metric else {})
        with self._connection.response("GET", path, params=params) as response:
            return response.read()

    def events(
        self, *, after: int = 0, outage_timeout_s: float = 60.0, on_outage: OnOutage | None = None
    ) -> Iterator[Event]:
        """Follow the sweep: a ``snapshot``, then every event of its log until it has ended.

        Args:
            outage_timeout_s: how long the service may be unavailable.
            on_outage: called with true when the service has not responded for two seconds, with false when it responds
                again.
        """
        path = f"/sweeps/{segment(self.id)}/stream"
        return streams.events(
            self._connection, path, after=after, outage_timeout_s=outage_timeout_s, on_outage=on_outage
        )

    def wait(self, *, timeout_s: float | None = None) -> Self:
        """Wait until the sweep has ended.

        Raises:
            TimeoutError: it has not ended within ``timeout_s``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.refresh().status not in SWEEP_ENDED:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"sweep {self.id} is {self.status} after {timeout_s} seconds")
            time.sleep(_POLL_INTERVAL_S)
        return self

    def pause(self) -> Self:
        """Pause the sweep and its jobs."""
        return self._do("pause")

    def resume(self) -> Self:
        """Resume the paused sweep."""
        return self._do("resume")

    def cancel(self) -> Self:
        """Cancel the sweep and its unfinished jobs."""
        return self._do("cancel")

    def delete(self) -> None:
        """Delete the ended sweep with all its jobs and files."""
        with self._connection.response("DELETE", f"/sweeps/{segment(self.id)}"):
            pass

    def _do(self, verb: str) -> Self:
        self._document = self._connection.json("POST", f"/sweeps/{segment(self.id)}/{verb}")
        return self

    def _pages(self, resource: str, sort: str) -> Iterator[dict[str, Any]]:
        after = 0
        while True:
            params = {"sort": sort, "limit": str(_PAGE_SIZE), "after": str(after)}
            page = self._connection.json("GET", f"/sweeps/{segment(self.id)}/{resource}", params=params)
            yield from page["data"]
            after += len(page["data"])
            if not page["has_more"]:
                return


Side = Job | Sweep | str
"""A job, a sweep or a trial, in a comparison."""


class Experiments:
    """The methods of ``Client`` for sweeps and comparisons."""

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
        """The resolved sweep and its cost; nothing is stored."""
        params = {"dry_run": "true"}
        return self._connection.json("POST", "/sweeps", params=params, repeatable=True, **json_body(spec))

    def sweeps(self, *, limit: int | None = None, status: str | None = None) -> Iterator[Sweep]:
        """Iterate over sweeps, newest first."""
        params = {"limit": str(_SWEEPS_PER_PAGE)} | ({"status": status} if status else {})
        remaining = limit
        while True:
            page = self._connection.json("GET", "/sweeps", params=params)
            for document in page["data"][:remaining]:
                yield Sweep(self._connection, document)
            remaining = None if remaining is None else remaining - len(page["data"])
            if not page["has_more"] or (remaining is not None and remaining <= 0):
                return
            params["cursor"] = page["next_cursor"]

    def find_sweep(self, sweep_id: str) -> Sweep:
        """The sweep with this id, or the newest one with this name or id suffix (four letters or more)."""
        if sweep_id and not sweep_id.startswith("swp_"):
            is_id_suffix = len(sweep_id) >= _MIN_ID_SUFFIX_LENGTH
            for sweep in self.sweeps():
                if sweep["name"] == sweep_id or (is_id_suffix and sweep.id.lower().endswith(sweep_id.lower())):
                    return sweep.refresh()
        return Sweep(self._connection, {"id": sweep_id}).refresh()

    def compare(
        self,
        a: Side | Sequence[Side],
        b: Side | Sequence[Side],
        *,
        metric: str | None = None,
        of: Literal["last", "best"] = "last",
    ) -> dict[str, Any]:
        """Compare two settings.

        Args:
            a, b: a job, or jobs that differ in their seeds; a sweep, for its best trial; or a name or id of one of
                these, such as ``"rates:3"`` for a trial of the sweep ``rates``.
            metric: default: ``val_accuracy`` of classifiers, ``frechet_distance`` of GANs.
            of: the value of the last epoch, or the best of all epochs.

        Returns:
            ``difference`` (``b`` minus ``a``), ``interval``, ``p``, ``n``, and a ``sentence``.
        """
        params = {"a": self._ids(a), "b": self._ids(b), "of": of} | ({"metric": metric} if metric else {})
        return self._connection.json("GET", "/comparisons", params=params)

    def why(self, a: Side, b: Side) -> dict[str, Any]:
        """The differences of two jobs: ``spec``, ``provenance``, ``dataset``, the first differing ``epoch``
        and ``checkpoint``, and a ``sentence``. Nothing is trained.

        A trial with several seeds is represented by its job with the other side's seed, or else by that of
        its first seed.
        """
        return self._connection.json("GET", "/differences", params={"a": self._ids(a), "b": self._ids(b)})

    def investigate(self, a: Side, b: Side, *, idempotency_key: str | None = None) -> Job:
        """Submit a job that trains two others again, to find the first batch and tensor in which they differ.

        When it has succeeded, ``job["investigation"]`` has ``found`` and a ``sentence``.
        """
        options = json_body(
            {"a": self._ids(a), "b": self._ids(b)}, **{"Idempotency-Key": idempotency_key or uuid4().hex}
        )
        return Job(self._connection, self._connection.json("POST", "/differences", repeatable=True, **options))

    def find_side(self, text: str, *, find_job: Callable[[str], Job] | None = None) -> Job | str:
        """Resolve the text of a comparison's side: to a job, or the id of a sweep or a trial.

        ``rates:1`` is a trial of the sweep ``rates``, and ``rates`` its best one, unless a job has this name.

        Args:
            find_job: finds a job by its name or id.

        Raises:
            AmbiguousJob, ApiError: several jobs match, or nothing matches.
        """
        sweep, colon, trial = text.rpartition(":")
        if text.startswith("swp_"):
            return text
        if colon and (trial.isdecimal() or not trial):
            with suppress(ApiError):
                return f"{self.find_sweep(sweep).id}:{trial}"
        try:
            return find_job(text) if find_job else look_up(self._connection, text).job
        except (AmbiguousJob, ApiError):
            with suppress(ApiError):
                return self.find_sweep(text).id
            raise

    def _ids(self, side: Side | Sequence[Side]) -> str:
        sides = [side] if isinstance(side, Job | Sweep | str) else side
        # Ids are sent unchanged: this saves a request, and the service reports unknown ones.
        resolved = [
            self.find_side(item) if isinstance(item, str) and not all(map(is_id, item.split(","))) else item
            for item in sides
        ]
        return ",".join(item if isinstance(item, str) else item.id for item in resolved)
