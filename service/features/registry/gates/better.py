"""Settings that are better than those of another version, over several seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.datasets.info import version_name
from service.features.registry import queries
from service.features.registry.gates.kinds import Checked, Document, Finding, Form, GateKind, Remedy
from service.features.registry.names import NAME_PATTERN, is_reserved
from service.features.registry.tables import ModelAlias, ModelVersion
from service.jobs.queries import lookup
from service.schema.base import StrictModel
from service.schema.metrics import Goal
from service.spec.metric_info import TEST_SCORES, describe, number
from service.spec.strict_json import canonical
from service.spec.validation import NOT_HASHED, prefix_hash, resolved_hash
from service.states import TERMINAL, Status
from service.statistics import CONFIDENCE
from service.storage.database import visible
from service.storage.tables import Job
from service.sweeps.results.comparison import Comparison, compare_jobs
from service.wording import counted, listed

MAX_SEEDS: Final = 50
_SEEDS_BELOW: Final = 10**9


def _target(text: str) -> str:
    if text.startswith("@") and is_reserved(text[1:]):
        detail = "no alias can be {name}, so there would never be anything to surpass; name another, or `:NUMBER`"
        raise PydanticCustomError("reserved", detail, {"name": repr(text[1:])})
    return text


class Fields(StrictModel):
    """Its fields."""

    better_than: (
        Annotated[str, StringConstraints(pattern=rf"^(?:@{NAME_PATTERN}|:[1-9]\d{{0,8}})$"), AfterValidator(_target)]
        | None
    ) = None
    """The settings of the version must be better than those of another one, over several seeds: that of an alias of
    the same model (`@champion`), or a version (`:3`). The gate is met
    while the alias has never held a version; of a removed alias, the version that it held last counts."""
    seeds: Annotated[int, Field(ge=2, le=MAX_SEEDS)] | None = None
    """Number of seeds with which both settings are trained (default: 5). They follow from the settings, so that nobody
    chooses them."""
    confidence: Annotated[float, Field(ge=0.5, le=0.9999)] | None = None
    """Of the two-sided interval of the difference (default: 0.95). Its lower end must be above `margin`."""
    margin: Annotated[float, Field(ge=0)] | None = None
    """In the unit of the metric (default: 0)."""


def _check_fields(gate: Any) -> None:
    if gate.metric is None:
        raise PydanticCustomError("no_metric", "`better_than` needs the `metric` to compare")
    if describe(gate.metric).goal is None:
        detail = "neither high nor low values of {name} are better: choose a metric with a direction"
        raise PydanticCustomError("no_direction", detail, {"name": repr(gate.metric)})


def _check(checked: Checked, gate: Document) -> Finding:
    """Whether the settings of the version are better than those of another one, with the jobs that exist."""

    def finding(sentence: str, *, passed: bool = False, remedies: Sequence[Remedy] = (), **evidence: Any) -> Finding:
        return Finding(gate=gate, passed=passed, sentence=sentence, evidence=evidence, remedies=remedies)

    session, target = checked.session, gate["better_than"]
    version = _number_of(checked, target)
    if version is None:
        return finding(
            f"{target} has never held a version: there is nothing to compare with", passed=True, compared_with=None
        )
    facts: dict[str, Any] = {"compared_with": version}
    reference = f"{checked.model.name}:{version}"
    other = session.get(ModelVersion, (checked.model.id, version))
    if other is None:  # otherwise, whoever deletes it has nothing to surpass
        return finding(
            f"{reference}, with which the gate compares, does not exist: an admin edits the gate or forces the move",
            **facts,
        )
    if other.version == checked.version.version:
        return finding(f"{checked.reference} is what {target} holds: it is not better than itself", **facts)
    sides = {reference: lookup.get(session, other.job_id), checked.reference: checked.job}
    for side, job in sides.items():
        if job.start_epoch:
            return finding(f"{side} was forked from a checkpoint: its settings alone do not give its weights", **facts)
    hashes = [_hash_without_seed(job) for job in sides.values()]
    if hashes[0] == hashes[1]:
        return finding(f"{checked.reference} and {reference} have the same settings, apart from the seed", **facts)
    seeds = seeds_of(hashes, gate["seeds"])
    groups = {side: _SeedGroup.find(session, job, seeds, owner=checked.owner) for side, job in sides.items()}
    facts |= {"seeds": seeds, "jobs": {side: list(group.done.values()) for side, group in groups.items()}}
    remedies = [group.remedy(side, gate["metric"]) for side, group in groups.items() if group.missing]
    if remedies or any(group.unfinished for group in groups.values()):
        counts = [f"{len(group.done)} of {len(seeds)} of {side}" for side, group in groups.items()]
        state = "not all have been trained" if remedies else "some are still training"
        sentence = f"comparing needs the same {len(seeds)} seeds on both sides, and {state}: {', '.join(counts)}"
        facts["unfinished"] = {side: list(group.unfinished.values()) for side, group in groups.items()}
        return finding(sentence, remedies=remedies, **facts)
    current = max(group.newest for group in groups.values())[1]
    outdated = {side: group.without(current) for side, group in groups.items()}
    if any(group.missing for group in outdated.values()):
        ids = [
            job_id for group in groups.values() for seed, job_id in group.done.items() if group.code[seed] != current
        ]
        sentence = f"{listed(ids)} ran other code than the newest of these jobs: more than the settings differs"
        remedies = [group.remedy(side, gate["metric"]) for side, group in outdated.items() if group.missing]
        return finding(sentence, remedies=remedies, **facts)
    a, b = (list(group.done.values()) for group in groups.values())
    result = compare_jobs(
        session, a, b, metric=gate["metric"], which="best", owner=checked.owner, confidence=gate["confidence"]
    )
    result = replace(result, a=replace(result.a, label=reference), b=replace(result.b, label=checked.reference))
    passed = _is_better(result, gate["margin"])
    return finding(_verdict(result, gate["margin"]), passed=passed, **facts, **_numbers(result))


def _number_of(checked: Checked, target: str) -> int | None:
    """The number of the version that a gate compares with: of an alias that was removed, the one that it held last.
    ``None``: its alias has never held one."""
    if target.startswith(":"):
        return int(target[1:])
    row = checked.session.get(ModelAlias, (checked.model.id, target[1:]))
    if row is None or row.version is not None:
        return None if row is None else row.version
    return queries.last_held(checked.session, checked.model.id, row.alias)


def _hash_without_seed(job: Job) -> str:
    return resolved_hash(job.resolved, without=NOT_HASHED | {"seed"})


def seeds_of(hashes: Sequence[str], count: int) -> list[int]:
    """The seeds of a comparison. They follow from both settings, so that neither a lucky seed of the version nor a
    choice of seeds can decide it."""
    text, found = canonical(list(hashes)), list[int]()
    for position in range(2 * count):
        digest = hashlib.sha256(f"{text} {position}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big") % _SEEDS_BELOW
        if seed not in found and len(found) < count:
            found.append(seed)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _SeedGroup:
    """The jobs of one setting with the seeds of a comparison.

    Attributes:
        done: the ids of succeeded jobs by seed, of several the newest.
        code: the digest of the code that they ran, by seed; empty: it was not recorded.
        newest: the time and code of the newest one.
        unfinished: the ids of jobs that have not ended, by seed.
        missing: seeds without such jobs.
    """

    job: Job
    done: Mapping[int, str]
    code: Mapping[int, str]
    newest: tuple[int, str]
    unfinished: Mapping[int, str]
    missing: Sequence[int]

    @classmethod
    def find(cls, session: Session, job: Job, seeds: Sequence[int], *, owner: str | None) -> _SeedGroup:
        """Jobs with the spec of ``job``, its data, and one of the seeds."""
        wanted = {resolved_hash(spec): spec for seed in seeds for spec in _specs(job, seed)}
        prefixes = {prefix_hash(spec) for spec in wanted.values()}
        query = select(Job.id, Job.status, Job.spec_hash, Job.provenance, Job.created_ms).where(
            Job.prefix_hash.in_(prefixes),
            Job.spec_hash.in_(wanted),
            Job.start_epoch == 0,
            Job.dataset_sha256.is_not_distinct_from(job.dataset_sha256),
            visible(Job.owner, owner),
        )
        done, unfinished = dict[int, str](), dict[int, str]()
        code, newest = dict[int, str](), (0, "")
        for row in session.execute(query.order_by(Job.created_ms, Job.id)):
            seed = wanted[row.spec_hash]["seed"]
            if row.status == Status.SUCCEEDED:
                done[seed], code[seed] = row.id, str((row.provenance or {}).get("code", ""))
                newest = (row.created_ms, code[seed])
            elif row.status not in TERMINAL:
                unfinished[seed] = row.id
        ordered = {seed: done[seed] for seed in seeds if seed in done}
        waiting = {seed: unfinished[seed] for seed in seeds if seed in unfinished and seed not in done}
        missing = [seed for seed in seeds if seed not in done and seed not in unfinished]
        return cls(job=job, done=ordered, code=code, newest=newest, unfinished=waiting, missing=missing)

    def without(self, code: str) -> _SeedGroup:
        """The group in which the seeds that ran other code are missing."""
        return replace(self, missing=[seed for seed in self.done if self.code[seed] != code])

    def remedy(self, side: str, metric: str) -> Remedy:
        """The sweep that trains the missing seeds."""
        *_, spec = _specs(self.job, 0)
        base = {name: value for name, value in spec.items() if name not in _NOT_IN_BASE}
        body: dict[str, Any] = {"name": f"seeds of {side}", "base": base, "seeds": list(self.missing)}
        if metric not in TEST_SCORES:
            body["objective"] = {"metric": metric}
        return Remedy(method="POST", path="/sweeps", body=body)


_NOT_IN_BASE: Final = {"seed", "name", "tags", "priority", "reuse", "budget"}


def _specs(job: Job, seed: int) -> Iterator[dict[str, Any]]:
    """The resolved spec of a job with another seed; of an upload also with the version of its data, which is last."""
    spec = job.resolved | {"seed": seed}
    yield spec
    if job.upload_id is not None and job.dataset_sha256 is not None:
        name = version_name(spec["dataset"]["name"].partition("@")[0], job.dataset_sha256)
        yield spec | {"dataset": spec["dataset"] | {"name": name}}


def _is_better(result: Comparison, margin: float) -> bool:
    if result.test is None or result.no_verdict is not None or not result.varies:
        return False
    sign = -1.0 if describe(result.metric).goal is Goal.MINIMIZE else 1.0
    return min(sign * result.test.low, sign * result.test.high) > margin


def _verdict(result: Comparison, margin: float) -> str:
    text = result.sentence.rstrip(".")
    if margin and result.no_verdict is None:
        text += f"; it must be better by more than {number(result.metric, margin)}"
    return text


def _numbers(result: Comparison) -> dict[str, Any]:
    test = result.test if result.no_verdict is None else None
    return {
        "metric": result.metric,
        "values": {
            name: {str(seed): value for seed, value in side.values.items()}
            for name, side in (("other", result.a), ("version", result.b))
        },
        "difference": result.difference,
        "interval": None if test is None else [test.low, test.high],
        "confidence": result.confidence,
        "p": None if test is None else test.p,
    }


def _text(gate: Document) -> str:
    metric = gate["metric"]
    margin = f" by more than {number(metric, gate['margin'])}" if gate.get("margin") else ""
    over = f"over {counted(gate.get('seeds', 5), 'seed')}, at {100 * gate.get('confidence', 0.95):.4g}% confidence"
    return f"better than {gate['better_than']} in {describe(metric).label}{margin}, {over}"


KIND: Final = GateKind(
    key="better_than",
    fields=Fields,
    shares=frozenset({"metric"}),
    valid=_check_fields,
    defaults={"seeds": 5, "confidence": CONFIDENCE, "margin": 0.0},
    check=_check,
    text=_text,
    form=Form(
        name="Better than a version",
        texts=("better_than", "metric"),
        begins={"better_than": "@champion", "metric": "", "seeds": 5, "confidence": 0.95, "margin": 0},
        labels={
            "better_than": "Better than",
            "metric": "in",
            "seeds": "seeds",
            "confidence": "confidence",
            "margin": "by more than",
        },
    ),
    example={"better_than": "@champion", "metric": "val_accuracy", "seeds": 5},
)
