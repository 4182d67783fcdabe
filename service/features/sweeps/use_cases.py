"""Use cases of sweeps: check, submit, control, delete. Each accepts the actor that requests it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from service import kinds
from service.access.audit import Actor, owner_of
from service.application.jobs import Admit, Submitted, admit_all
from service.application.specs import SpecChecks
from service.datasets.info import DatasetInfo
from service.datasets.shapes import shape_of
from service.errors import AdmissionRefused, Fault, SpecError
from service.jobs.submissions import IdempotencyKey
from service.runtime.failpoints import failpoint
from service.runtime.slots import SlotPool
from service.schema.layer_shapes import Shape
from service.spec import validation
from service.spec.fields import shorthand as without_shorthand
from service.spec.metric_info import METRICS, describe
from service.spec.schema import SPEC_MODELS, Kind, Spec
from service.spec.strict_json import pointer_step
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.sweeps import actions, decisions, trials
from service.sweeps.actions import NewSweep
from service.sweeps.checks import objectives, reading
from service.sweeps.checks import settings as setting_checks
from service.sweeps.checks.reading import Reading
from service.sweeps.schema import MAX_JOBS, MAX_PARALLEL, MAX_TPE_VALUES, MAX_TRIALS, SearchName, SweepSpec
from service.sweeps.search import proposals, space
from service.sweeps.search.proposals import STARTUP
from service.sweeps.trial_scheduler import SweepPlan
from service.wording import counted
from tapeline.inputs.values import dotted

_MAX_CHECKED_TRIALS: Final = 100
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
    expected_bytes: int
    """The most that the files of all jobs together are expected to take."""
    first: list[dict[str, Any]]
    """The settings of the first trials, if they are known in advance."""
    notes: list[str]


class _Check:
    def __init__(self, document: Reading, owner: str | None, specs: SpecChecks) -> None:
        self.reading, self.sent, self.owner, self.specs = document, document.sent, owner, specs
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.faulty_fields: set[str] = set()
        """Fields of the base that have faults; the preset's values stand in for them."""
        self.supplied: dict[str, Any] = {}
        """Values of settings that the base lacks and the space supplies."""

    def result(self) -> CheckedSweep:
        base, data = self._resolve_base()
        if base is None or data is None:
            self._check_shape_of_search()
            raise self._error()
        shape = shape_of(data)
        resolved_base = validation.stored(base)
        prepared = self._prepare_base(base, resolved_base)
        spans = {
            pointer: span
            for pointer, span in self.sent.space.items()
            if pointer[1:].partition("/")[0] not in self.faulty_fields
        }
        tried = space.with_settings(prepared, self.supplied)
        self.faults += setting_checks.faults(self.sent, spans, resolved_base, tried)
        objective = self._check_objective(base, data)
        count = self._check_shape_of_search()
        rungs = self._check_rungs(base)
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
            "budget": self.sent.budget.model_dump(mode="json", exclude_none=True) if self.sent.budget else None,
            "rungs": rungs,
        }
        first, trial_bytes = self._check_trials(prepared, shape, count, seeds[0])
        epochs_per_seed = proposals.max_total_epochs(
            self.sent.space, self._search_name, self._search_seed, count, base=base.epochs
        )
        full_epochs = epochs_per_seed * len(seeds)
        epochs = self._max_epochs(decisions.plan_of(resolved, count)) if len(rungs) > 1 else full_epochs
        if self.sent.budget is not None and self.sent.budget.epochs is not None:
            epochs = min(epochs, self.sent.budget.epochs)
        return CheckedSweep(
            spec=self.sent,
            kind=Kind(base.kind),
            resolved=resolved,
            data={"shape": asdict(shape), "upload_id": data.upload_id, "sha256": data.sha256},
            trials=count,
            epochs=epochs,
            epochs_without_halving=full_epochs,
            expected_bytes=math.ceil(trial_bytes * count) * len(seeds),
            first=first,
            notes=self.notes,
        )

    def _error(self) -> SpecError:
        """All faults, without those that follow from a part that was left out."""
        left_out = self.reading.left_out
        own_faults = [fault for fault in self.faults if not reading.follows(fault, left_out, self.faulty_fields)]
        return SpecError([*self.reading.faults, *own_faults], total=self.reading.total + len(own_faults))

    def _resolve_base(self) -> tuple[Spec | None, DatasetInfo | None]:
        """The base, which may lack settings that the space supplies; without its faulty fields, if the rest
        is a spec."""
        sent = self.sent.base
        spec, data, faults = self._try_base(sent)
        missing = {fault.pointer[1:] for fault in faults if fault.code == "missing"} & set(self.sent.space)
        if missing:
            self.supplied = {name: next(iter(space.bounds_of(self.sent.space[name]).values())) for name in missing}
            model = next(
                (model for kind, model in SPEC_MODELS.items() if kind == sent.get("kind")),
                next(iter(SPEC_MODELS.values())),
            )
            sent = space.with_settings(without_shorthand(model, sent), self.supplied)
            spec, data, faults = self._try_base(sent)
        if not faults:
            return spec, data
        for fault in faults:
            pointer = fault.pointer[1:]
            location, prefix = f"#/base{pointer}", ""
            if pointer in self.supplied:
                bound = next(iter(space.bounds_of(self.sent.space[pointer])))
                location, prefix = f"#/space/{pointer_step(pointer)}/{bound}", f"{json.dumps(self.supplied[pointer])}: "
            self.faults.append(replace(fault, pointer=location, detail=prefix + fault.detail))
        remaining = reading.without(sent, faults)
        self.faulty_fields = set(sent) - set(remaining)
        return (None, None) if self.faulty_fields & {"kind", "preset"} else self._try_base(remaining)[:2]

    def _try_base(self, sent: dict[str, Any]) -> tuple[Spec | None, DatasetInfo | None, tuple[Fault, ...]]:
        """The resolved base and its dataset, or its faults."""
        try:
            spec, data, _ = self.specs.check(sent, self.owner)
        except SpecError as error:
            return None, None, error.faults
        if spec.dataset.folds is not None and spec.dataset.fold is None:
            detail = "every trial is one job per seed: set one `fold`, or leave `folds` out"
            return spec, data, (Fault(pointer="#/dataset/folds", detail=detail, code="unsuitable"),)
        if spec.budget is not None:
            detail = "a sweep has its own budget, for all jobs together: move it beside `base`"
            return spec, data, (Fault(pointer="#/budget", detail=detail, code="unsuitable"),)
        return spec, data, ()

    def _prepare_base(self, base: Spec, resolved_base: dict[str, Any]) -> dict[str, Any]:
        """The base as sent, with objects and lists of the preset added where a pointer of the space passes through."""
        # Set the preset explicitly, because the default depends on the dataset.
        sent = {name: value for name, value in self.sent.base.items() if name not in self.faulty_fields}
        prepared: dict[str, Any] = without_shorthand(type(base), sent) | {"preset": base.preset}
        for pointer in self.sent.space:
            if not pointer.startswith("/"):
                continue
            path, sent_value, resolved_value = "", prepared, resolved_base
            for step in space.steps_of(pointer)[:-1]:
                path += f"/{step}"
                if not isinstance(resolved_value, dict) or step not in resolved_value:
                    break
                if isinstance(resolved_value[step], list) and step not in sent_value:
                    prepared = space.with_settings(prepared, {path: resolved_value[step]})
                    break
                resolved_value, sent_value = (
                    resolved_value[step],
                    sent_value.get(step, {}) if isinstance(sent_value, dict) else {},
                )
        return prepared

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
            self._check_tpe_values(search.trials)
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

    def _check_tpe_values(self, count: int) -> None:
        choices = sum(len(span.choice or ()) for span in self.sent.space.values())
        if self._search_name is SearchName.TPE and choices * count > MAX_TPE_VALUES:
            detail = (
                f"{choices:,} choices with {count:,} trials are {choices * count:,} values to weigh for each proposal, "
                f"more than {MAX_TPE_VALUES:,}: use fewer choices or trials, a range of numbers, or random search"
            )
            self._add("#/space", detail, "too_large")

    def _check_objective(self, base: Spec, data: DatasetInfo) -> dict[str, Any]:
        requested = self.sent.objective
        metric = requested.metric if requested is not None else kinds.of(base.kind).key_metrics[0]
        location = "#/objective/metric" if requested is not None else "#/objective"
        is_known = metric.partition("/")[0] in METRICS
        is_guess = is_known and not self.faulty_fields.isdisjoint({"dataset", "layers", "generator", "discriminator"})
        dataset_name = None if "dataset" in self.faulty_fields else data.name
        refusal = (
            None if is_guess else objectives.refusal(metric, base, data, self.sent.space, dataset_name=dataset_name)
        )
        if refusal is not None:
            self._add(location, refusal[0], "unknown_value", refusal[1])
            return {}
        info = describe(metric)
        goal = (requested.goal if requested is not None else None) or info.goal
        if goal is None:
            self._add("#/objective/goal", f"is missing: neither direction of {metric} is better by itself", "missing")
        interval_epochs = base.scored_every_epochs if info.sparse else 1
        if self.sent.halving is not None and self.sent.halving.min_epochs < interval_epochs:
            detail = f"{metric} is first measured after epoch {interval_epochs} (`health.every_epochs` of the base)"
            self._add("#/halving/min_epochs", detail, "out_of_range")
        over_seeds = requested.over_seeds if requested is not None else "mean"
        return {"metric": metric, "goal": goal, "over_seeds": over_seeds}

    def _check_rungs(self, base: Spec) -> list[int]:
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
        for index, seed in enumerate(seeds):
            if seed in seeds[:index]:
                self._add(f"#/seeds/{index}", f"seed {seed} is listed twice", "unsuitable")
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
            cost = len(seeds) * proposals.of_first_trial(
                self.sent.space, self._search_name, self._search_seed, base=base_epochs
            )
        budget = self.sent.budget.epochs if self.sent.budget is not None else None
        if budget is not None and budget < cost:
            which_trial = "the first" if space.EPOCHS in self.sent.space else "one"
            detail = f"is too small for {which_trial} trial, which takes {counted(cost, 'epoch')}"
            detail += f" with {len(seeds)} seeds" if len(seeds) > 1 else ""
            self._add("#/budget/epochs", detail, "out_of_range")
        if self.sent.halving is not None and count < 2:
            self._add("#/halving", "halving needs more than one trial: add settings to `space`", "unsuitable")

    def _check_trials(
        self, base: Mapping[str, Any], shape: Shape, count: int, seed: int
    ) -> tuple[list[dict[str, Any]], float]:
        """Check the combined settings of trials, as far as they are known in advance; also returns the mean of the
        bytes that the files of a job of each are expected to take."""
        checked, invalid, total_bytes = [], [], 0
        for settings in self._known_settings(count):
            checked.append(settings)
            try:
                _, expected_bytes = trials.resolve(trials.document(base, settings, seed=seed, name=None), shape)
            except SpecError as error:
                invalid.append((settings, str(error)))
            else:
                total_bytes += expected_bytes
        if invalid and len(invalid) == len(checked):
            settings, reason = invalid[0]
            detail = f"no trial has valid settings; the first, {_named(settings)}: {reason}"
            raise SpecError([Fault(pointer="#/space", detail=detail[:1000], code="unsuitable")])
        if invalid:
            settings, reason = invalid[0]
            checked_range = f"the first {len(checked)}" if len(checked) < count else str(count)
            self.notes.append(
                f"{len(invalid)} of {checked_range} trials have invalid settings and will fail; the first is "
                f"{_named(settings)}: {reason}"[:1000]
            )
        return checked, total_bytes / len(checked)

    def _known_settings(self, count: int) -> Iterator[dict[str, Any]]:
        for trial in range(min(count, _MAX_CHECKED_TRIALS)):
            if self._search_name is SearchName.GRID:
                yield space.grid_settings(self.sent.space, trial)
            elif self._search_name is SearchName.RANDOM or trial < STARTUP:
                yield space.random_settings(self.sent.space, self._search_seed, trial)

    def _max_epochs(self, plan: SweepPlan) -> int:
        """The maximum number of epochs with halving."""
        max_epochs, synchronous_epochs = plan.max_total_epochs(), replace(plan, asynchronous=False).max_total_epochs()
        if plan.asynchronous and (plan.budget is None or synchronous_epochs < plan.budget):
            description = f"trains the most epochs, {max_epochs:,}, if every result is better than those before it"
            description = (
                description if plan.budget is None or max_epochs <= plan.budget else "may use the whole budget"
            )
            self.notes.append(
                f"asynchronous halving {description}; synchronous halving trains {synchronous_epochs:,} epochs"
            )
        return max_epochs

    def _add(self, pointer: str, detail: str, code: str, suggestion: str | None = None) -> None:
        self.faults.append(Fault(pointer=pointer, detail=detail, code=code, suggestion=suggestion))


def _named(settings: Mapping[str, Any]) -> str:
    return json.dumps({dotted(pointer): value for pointer, value in settings.items()})


_MAX_WAKE_UPS: Final = 32
"""Maximum number of messages per request; further workers find the jobs by polling, within seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeps:
    """Operations on sweeps. The attributes are those of ``Jobs``, and ``slots``, one of which a check occupies."""

    database: Database
    artifacts: ArtifactStore
    specs: SpecChecks
    slots: SlotPool
    admit: Admit = admit_all
    wake_up: Callable[[str], None] = lambda job_id: None
    represent: Callable[[Sweep], dict[str, Any]] = lambda sweep: {"id": sweep.id}

    def submit(self, document: Any, *, by: Actor | None = None, idempotency: IdempotencyKey | None = None) -> Submitted:
        """Store a new sweep and its first trials.

        Raises:
            SpecError: lists every fault.
            AdmissionRefused: a quota of the owner is exhausted.
            IdempotencyConflict: the key was used with another body.
        """
        owner = owner_of(by)
        try:
            checked = self.check(document, by=by)
            first_jobs = min(checked.trials, checked.spec.parallel) * len(checked.resolved["seeds"])
            self.admit(owner, first_jobs, checked.expected_bytes)
        except (SpecError, AdmissionRefused):
            # A request that was accepted once gets the same response, even if something has changed since.
            earlier = Submitted.earlier(self.database, idempotency, owner)
            if earlier is None:
                raise
            return earlier
        new = NewSweep(
            name=checked.spec.name or None,
            kind=checked.kind,
            spec=document,
            resolved=checked.resolved,
            data=checked.data,
            trials=checked.trials,
            owner=owner,
        )
        answer, replayed, queued = actions.submit(
            self.database, new, idempotency=idempotency, represent=self.represent, by=by
        )
        failpoint("submitted")
        self._wake(queued)
        return Submitted(answer, replayed)

    def check(self, document: Any, *, by: Actor | None = None) -> CheckedSweep:
        """Check a sweep without storing anything.

        Raises:
            SpecError: lists every fault.
            Busy: too many sweeps wait to be checked.
        """
        owner = owner_of(by)
        document, names = reading.with_pointers(document)
        try:
            with self.slots.slot(owner):
                return _Check(reading.read(document), owner, self.specs).result()
        except SpecError as error:
            raise reading.relocate_faults(error, names) from error

    def resume(self, sweep_id: str, *, by: Actor | None = None) -> Sweep:
        """Resume a paused sweep."""
        sweep, queued = actions.resume(self.database, sweep_id, owner=owner_of(by), by=by)
        self._wake(queued)
        return sweep

    def delete(self, sweep_id: str, *, by: Actor | None = None) -> None:
        """Delete an ended sweep with all its jobs and files."""
        for job_id in actions.remove(self.database, sweep_id, owner=owner_of(by), by=by):
            self.artifacts.remove_folder(job_id)

    def _wake(self, queued: Sequence[str]) -> None:
        for job_id in queued[:_MAX_WAKE_UPS]:
            self.wake_up(job_id)
