"""A sweep: its document, and operations on it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from tapeline.inputs.values import dotted
from tapeline.method_types import Records
from tapeline.notebook import cards
from tapeline.resources import Resource

_PAGE_SIZE: Final = 500


class Trial(dict[str, Any]):
    """A trial; ``id`` is its name in a comparison. Settings can be read by their JSON pointers, too, until 0.3."""

    def __init__(self, items: Mapping[str, Any], id_: str) -> None:
        super().__init__(items)
        self.id = id_

    def __missing__(self, name: str) -> Any:
        if name.startswith("/") and (setting := dotted(name)) in self:
            warnings.warn(f"{name!r} goes with 0.3: use {setting!r}", DeprecationWarning, stacklevel=2)
            return self[setting]
        raise KeyError(name)


class Importances(Records):
    """The importance of settings; ``note`` says how to read it."""

    def __init__(self, items: Sequence[dict[str, Any]], note: str) -> None:
        super().__init__(items)
        self.note = note


class Sweep(Resource):
    """A sweep as of the last request; ``refresh`` and ``wait`` update it. It is a mapping over the API's document."""

    _noun = "sweep"

    def _state(self) -> Any:
        return self.status, self["trials"], self["best_trial"], self["epochs_trained"]

    def _line(self) -> str:
        counts, metric = self["trials"], self["objective"]["metric"]
        best = "" if self["best_trial"] is None else f"  best {metric} {self['best_value']:.4g}"
        problem = f"  {self['error']['message']}" if self["error"] else ""
        done = counts["succeeded"] + counts["stopped"] + counts["failed"]
        return f"{self['name'] or self.id}  {self.status}  {done}/{counts['total']} trials{best}{problem}"

    def _html(self) -> str:
        self._read("best_sentence")  # that of a list is a summary
        return cards.sweep(self._document, self.trials(sort="best"))

    @property
    def best_sentence(self) -> str | None:
        """Which trial is the best so far, and whether by more than chance; ``None`` if there is nothing to say."""
        sentence: str | None = self._read("best_sentence")
        return sentence

    @property
    def best(self) -> Trial | None:
        """The best trial so far, as in ``trials``."""
        if self._document["best_trial"] is None:
            return None
        best = next(item for item in self.trials() if item["trial"] == self._document["best_trial"])
        return Trial(best, f"{self.id}:{best['trial']}")

    def trials(self, *, sort: str = "trial") -> Records:
        """All trials as flat dictionaries; ``to_frame()`` makes a DataFrame.

        Each has ``trial``, ``status``, ``epoch`` (of the value), ``last_epoch`` (that a job has completed),
        ``rung_epoch`` (with halving, of the rung of the value: only values of one rung are comparable), the objective's
        metric with the ends of its 95% interval over the seeds, one field for each setting (dotted), the
        metric and the job of each seed, and ``error``: why the trial failed.
        """
        metric, rows = self._document["objective"]["metric"], Records()
        for item in self._connection.items(f"{self._path}/trials", {"sort": sort}, page_size=_PAGE_SIZE):
            row = {name: item.get(name) for name in ("trial", "status", "epoch", "last_epoch", "rung_epoch")}
            low, high = item["interval"] or (None, None)
            row |= {metric: item["value"], f"{metric} (interval_low)": low, f"{metric} (interval_high)": high}
            row |= {dotted(pointer): value for pointer, value in item["settings"].items()}
            for job in item["jobs"]:
                row[f"{metric} (seed {job['seed']})"] = job["value"]
                row[f"job (seed {job['seed']})"] = job["job"]
            row["error"] = item["error"]["message"] if item["error"] else None
            rows.append(Trial(row, f"{self.id}:{row['trial']}"))
        return rows

    def trial(self, number: int) -> Trial:
        """One trial, as the API represents it, with dotted names of its ``settings``."""
        params = {"sort": "trial", "limit": "1", "cursor": str(number)}
        page = self._connection.json("GET", f"{self._path}/trials", params=params)
        trial, id_ = page["data"][0], f"{self.id}:{number}"
        settings = {dotted(pointer): value for pointer, value in trial["settings"].items()}
        return Trial(trial | {"settings": Trial(settings, id_)}, id_)

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions so far, in order."""
        decisions: list[dict[str, Any]] = []
        query, has_more = {"limit": str(_PAGE_SIZE)}, True
        while has_more:
            after = {"after": str(decisions[-1]["seq"] if decisions else 0)}
            page = self._connection.json("GET", f"{self._path}/decisions", params=query | after)
            decisions += page["data"]
            has_more = page["has_more"]
        return decisions

    def importance(self) -> Importances:
        """The importance of each setting, most important first; ``to_frame()`` makes a DataFrame."""
        document = self._connection.json("GET", f"{self._path}/importance")
        return Importances(
            [item | {"setting": dotted(item["setting"])} for item in document["data"]], document.get("note", "")
        )

    def plot(
        self, *, metric: str | None = None, band: Literal["range", "interval", "none"] = "range", fmt: str = "png"
    ) -> bytes:
        """The curves of the best trials as a picture: means over the seeds, with a band.

        Args:
            metric: default: that of the objective.
            band: from the lowest to the highest seed, or the 95% interval of the mean.
            fmt: ``png`` or ``svg``.
        """
        path = f"{self._path}/plots/curves.{fmt}"
        params = {"band": band} | ({"metric": metric} if metric else {})
        with self._connection.response("GET", path, params=params) as response:
            return response.read()
