"""Validates sweeps: reports all faults at once, or returns everything that is known before the first trial."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from service.application.experiments import objectives, setting_checks, sweep_reading
from service.application.experiments.sweep_reading import Reading
from service.application.specs import SpecChecks
from service.datasets.info import DatasetInfo
from service.datasets.shapes import shape_of
from service.errors import Fault, SpecError
from service.spec.fields import shorthand as without_shorthand
from service.spec.metric_info import METRICS, describe
from service.spec.schema import ClassifierSpec, GanSpec, Kind, Spec
from service.spec.strict_json import pointer_step
from service.spec.validation import Shape
from service.sweeps import decisions, trials
from service.sweeps.schema import MAX_JOBS, MAX_PARALLEL, MAX_TRIALS, SearchName, SweepSpec
from service.sweeps.search import epochs as epochs_of_trials
from service.sweeps.search import space
from service.sweeps.search.proposals import STARTUP
from service.sweeps.trial_scheduler import SweepPlan
from service.wording import counted

_CHECKED_TRIALS: Final = 100
"""Maximum number of trials whose settings are checked in combination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSweep:
    """A valid sweep."""

    spec: SweepSpec
    kind: Kind
    resolved: dict[str, Any]
    """The sweep with all defaults."""
    data: dict[str, Any]
    trials: int
    epochs: int
    """The maximum number of epochs of all jobs together."""
    epochs_without_halving: int
    first: list[dict[str, Any]]
    """The settings of the first trials, if they are known in advance."""
    notes: list[str]


def check(document: Any, owner: str | None, specs: SpecChecks) -> CheckedSweep:
    """Check everything that can be wrong with a sweep.

    Raises:
        SpecError: lists every fault.
    """
    reading = sweep_reading.read(document)
    return _Check(reading, owner, specs).result()


class _Check:
    def __init__(self, reading: Reading, owner: str | None, specs: SpecChecks) -> None:
        self.reading, self.sent, self.owner, self.specs = reading, reading.sent, owner, specs
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.unknown: set[str] = set()
        """Fields of the base that have faults; the preset's values stand in for them."""
        self.supplied: dict[str, Any] = {}
        """Values of settings that the base lacks and the space supplies."""

    def result(self) -> CheckedSweep:
        base, data = self._base()
        if base is None or data is None:
            self._check_shape_of_search()
            raise self._error()
        shape = shape_of(data)
        whole = base.model_dump(mode="json")
        prepared = self._prepared(base, whole)
        for pointer, span in self.sent.space.items():
            if pointer[1:].partition("/")[0] not in self.unknown:
                self.faults += setting_checks.faults(
                    self.sent, pointer, span, whole, space.with_settings(prepared, self.supplied)
                )
        objective = self._objective(base, data)
        count = self._check_shape_of_search()
        rungs = self._rungs(base)
        seeds = self.sent.seeds or [base.seed]
        self._check_numbers(seeds, count, rungs, base.epochs)
        if self.faults or self.reading.faults:
            raise self._error()
        resolved = {
            "name": self.sent.name,
            "base": prepared,
            "seeds": seeds,
            "space": {
                pointer: span.model_dump(mode="json", by_alias=True, exclude_none=True)
                for pointer, span in self.sent.space.items()
            },
            "objective": objective,
            "search": {
                "name": self._search_name,
                "trials": count,
                "seed": self._search_seed,
            },
            "halving": self.sent.halving.model_dump(mode="json") if self.sent.halving else None,
            "parallel": self.sent.parallel,
            "max_failed": self.sent.max_failed,
            "reuse": self.sent.reuse.value,
            "budget": self.sent.budget.model_dump(mode="json") if self.sent.budget else None,
            "rungs": rungs,
        }
        first = self._check_trials(prepared, shape, count, seeds[0])
        each = epochs_of_trials.max_total_epochs(
            self.sent.space, self._search_name, self._search_seed, count, base=base.epochs
        )
        whole_epochs = each * len(seeds)
        epochs = self._most_epochs(decisions.plan_of(resolved, count)) if len(rungs) > 1 else whole_epochs
        if self.sent.budget is not None:
            epochs = min(epochs, self.sent.budget.epochs)
        return CheckedSweep(
            spec=self.sent,
            kind=Kind(base.kind),
            resolved=resolved,
            data={"shape": asdict(shape), "upload_id": data.upload_id, "sha256": data.sha256},
            trials=count,
            epochs=epochs,
            epochs_without_halving=whole_epochs,
            first=first,
            notes=self.notes,
        )

    def _error(self) -> SpecError:
        """All faults, without those that follow from a part that was left out."""
        left_out = self.reading.left_out
        found = [fault for fault in self.faults if not sweep_reading.follows(fault, left_out, self.unknown)]
        return SpecError([*self.reading.faults, *found], total=self.reading.total + len(found))

    def _base(self) -> tuple[Spec | None, DatasetInfo | None]:
        """The base, which may lack settings that the space supplies. Without its faulty fields, if that is a spec."""
        sent = self.sent.base
        spec, data, faults = self._tried(sent)
        lacking = {fault.pointer[1:] for fault in faults if fault.code == "missing"} & set(self.sent.space)
        if lacking:
            self.supplied = {name: next(iter(space.bounds_of(self.sent.space[name]).values())) for name in lacking}
            model = GanSpec if sent.get("kind") == Kind.GAN else ClassifierSpec
            sent = space.with_settings(without_shorthand(model, sent), self.supplied)
            spec, data, faults = self._tried(sent)
        if not faults:
            return spec, data
        for fault in faults:
            place = fault.pointer[1:]
            here, of_value = f"#/base{place}", ""
            if place in self.supplied:
                where = next(iter(space.bounds_of(self.sent.space[place])))
                here, of_value = f"#/space/{pointer_step(place)}/{where}", f"{json.dumps(self.supplied[place])}: "
            self.faults.append(replace(fault, pointer=here, detail=of_value + fault.detail))
        rest = sweep_reading.without(sent, faults)
        self.unknown = set(sent) - set(rest)
        return (None, None) if self.unknown & {"kind", "preset"} else self._tried(rest)[:2]

    def _tried(self, sent: dict[str, Any]) -> tuple[Spec | None, DatasetInfo | None, tuple[Fault, ...]]:
        """The resolved base and its dataset, or its faults."""
        try:
            spec, data = self.specs.check(sent, self.owner)
        except SpecError as error:
            return None, None, error.faults
        if spec.dataset.folds is not None and spec.dataset.fold is None:
            detail = "every trial is one job per seed: set one `fold`, or leave `folds` out"
            return spec, data, (Fault(pointer="#/dataset/folds", detail=detail, code="unsuitable"),)
        return spec, data, ()

    def _prepared(self, base: Spec, whole: dict[str, Any]) -> dict[str, Any]:
        """The base as sent, with objects and lists of the preset added where a pointer of the space passes through."""
        # Set the preset explicitly, because the default depends on the dataset.
        sent = {name: value for name, value in self.sent.base.items() if name not in self.unknown}
        made: dict[str, Any] = without_shorthand(type(base), sent) | {"preset": base.preset}
        for pointer in self.sent.space:
            if not pointer.startswith("/"):
                continue
            above, here, there = "", made, whole
            for step in space.steps_of(pointer)[:-1]:
                above += f"/{step}"
                if not isinstance(there, dict) or step not in there:
                    break
                if isinstance(there[step], list) and step not in here:
                    made = space.with_settings(made, {above: there[step]})
                    break
                there, here = there[step], here.get(step, {}) if isinstance(here, dict) else {}
        return made

    @property
    def _search_name(self) -> SearchName:
        return self.sent.search.name if self.sent.search is not None else SearchName.GRID

    @property
    def _search_seed(self) -> int:
        return self.sent.search.seed if self.sent.search is not None else 0

    def _check_shape_of_search(self) -> int:
        """The checks that do not need the base; returns the number of trials."""
        if "search" in self.reading.left_out:
            return 1
        search, spans = self.sent.search, self.sent.space
        if self._search_name is not SearchName.GRID:
            if not spans:
                self._add("#/space", f"{self._search_name} needs at least one setting to search", "missing")
            if search is None or search.trials is None:
                self._add("#/search/trials", f"is missing: {self._search_name} needs the number of trials", "missing")
                return 1
            return search.trials
        size = space.grid_size(spans)
        if size is None:
            for pointer, span in spans.items():
                if space.values_of(span) is None:
                    detail = "a grid needs values: use `choice` or a `step`, or search with random or tpe"
                    self._add(f"#/space/{pointer_step(pointer)}", detail, "unsuitable")
            return 1
        if size > MAX_TRIALS:
            detail = f"the grid has {size:,} combinations; at most {MAX_TRIALS:,} are allowed: use random or tpe"
            self._add("#/space", detail, "too_large")
            return 1
        if search is not None and search.trials not in (None, size):
            self._add("#/search/trials", f"the grid has {size} combinations: leave it out, or use random", "unsuitable")
        return size

    def _objective(self, base: Spec, data: DatasetInfo) -> dict[str, Any]:
        asked = self.sent.objective
        kind = Kind(base.kind)
        metric = asked.metric if asked is not None else objectives.OBJECTIVES[kind]
        where = "#/objective/metric" if asked is not None else "#/objective"
        is_known = metric.partition("/")[0] in METRICS
        is_guess = is_known and not self.unknown.isdisjoint({"dataset", "layers", "generator", "discriminator"})
        on = None if "dataset" in self.unknown else data.name
        refused = None if is_guess else objectives.refusal(metric, base, data, self.sent.space, on=on)
        if refused is not None:
            self._add(where, refused[0], "unknown_value", refused[1])
            return {}
        info = describe(metric)
        goal = (asked.goal if asked is not None else None) or info.goal
        if goal is None:
            self._add("#/objective/goal", f"is missing: neither direction of {metric} is better by itself", "missing")
        every = base.health.every_epochs if isinstance(base, GanSpec) and info.sparse else 1
        if self.sent.halving is not None and self.sent.halving.min_epochs < every:
            detail = f"{metric} is first measured after epoch {every} (`health.every_epochs` of the base)"
            self._add("#/halving/min_epochs", detail, "out_of_range")
        over = asked.over_seeds if asked is not None else "mean"
        return {"metric": metric, "goal": goal, "over_seeds": over}

    def _rungs(self, base: Spec) -> list[int]:
        halving = self.sent.halving
        if halving is None:
            return [base.epochs]
        if halving.min_epochs >= base.epochs:
            detail = f"must be less than the epochs of a trial, {base.epochs}; it is {halving.min_epochs}"
            self._add("#/halving/min_epochs", detail, "out_of_range")
            return [base.epochs]
        rungs = [halving.min_epochs]
        while rungs[-1] * halving.factor < base.epochs:
            rungs.append(rungs[-1] * halving.factor)
        return [*rungs, base.epochs]

    def _check_numbers(self, seeds: list[int], count: int, rungs: list[int], base_epochs: int) -> None:
        for place, seed in enumerate(seeds):
            if seed in seeds[:place]:
                self._add(f"#/seeds/{place}", f"seed {seed} is listed twice", "unsuitable")
        if count * len(seeds) > MAX_JOBS:
            detail = f"{count:,} trials with {counted(len(seeds), 'seed')} are more than {MAX_JOBS:,} jobs"
            self._add("#/seeds", detail, "too_large")
        if min(self.sent.parallel, count) * len(seeds) > MAX_PARALLEL:
            detail = (
                f"{counted(self.sent.parallel, 'trial')} with {counted(len(seeds), 'seed')} are more than "
                f"{MAX_PARALLEL:,} jobs at a time"
            )
            self._add("#/parallel", detail, "too_large")
        cost = rungs[0] * len(seeds)
        if space.EPOCHS in self.sent.space:
            cost = len(seeds) * epochs_of_trials.of_first_trial(
                self.sent.space, self._search_name, self._search_seed, base=base_epochs
            )
        if self.sent.budget is not None and self.sent.budget.epochs < cost:
            which = "the first" if space.EPOCHS in self.sent.space else "one"
            detail = f"is too small for {which} trial, which takes {counted(cost, 'epoch')}"
            detail += f" with {len(seeds)} seeds" if len(seeds) > 1 else ""
            self._add("#/budget/epochs", detail, "out_of_range")
        if self.sent.halving is not None and count < 2:
            self._add("#/halving", "halving needs more than one trial: add settings to `space`", "unsuitable")

    def _check_trials(self, base: Mapping[str, Any], shape: Shape, count: int, seed: int) -> list[dict[str, Any]]:
        """Check the combined settings of trials, as far as they are known in advance."""
        known, invalid = [], []
        for settings in self._known(count):
            known.append(settings)
            try:
                trials.resolve(trials.document(base, settings, seed=seed, name=None), shape)
            except SpecError as error:
                invalid.append((settings, str(error)))
        if invalid and len(invalid) == len(known):
            settings, why = invalid[0]
            detail = f"no trial has valid settings; the first, {json.dumps(settings)}: {why}"
            raise SpecError([Fault(pointer="#/space", detail=detail[:1000], code="unsuitable")])
        if invalid:
            settings, why = invalid[0]
            among = f"the first {len(known)}" if len(known) < count else str(count)
            self.notes.append(
                f"{len(invalid)} of {among} trials have invalid settings and will fail; the first is "
                f"{json.dumps(settings)}: {why}"[:1000]
            )
        return known

    def _known(self, count: int) -> Iterator[dict[str, Any]]:
        for trial in range(min(count, _CHECKED_TRIALS)):
            if self._search_name is SearchName.GRID:
                yield space.grid_settings(self.sent.space, trial)
            elif self._search_name is SearchName.RANDOM or trial < STARTUP:
                yield space.random_settings(self.sent.space, self._search_seed, trial)

    def _most_epochs(self, plan: SweepPlan) -> int:
        """The maximum number of epochs with halving."""
        most, least = plan.most_epochs(), replace(plan, asynchronous=False).most_epochs()
        if plan.asynchronous and (plan.budget is None or least < plan.budget):
            worst = f"trains the most epochs, {most:,}, if every result is better than those before it"
            worst = worst if plan.budget is None or most <= plan.budget else "may use the whole budget"
            self.notes.append(f"asynchronous halving {worst}; synchronous halving trains {least:,} epochs")
        return most

    def _add(self, pointer: str, detail: str, code: str, suggestion: str | None = None) -> None:
        self.faults.append(Fault(pointer=pointer, detail=detail, code=code, suggestion=suggestion))
