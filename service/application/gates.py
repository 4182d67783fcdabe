"""Checks a version of a model against the gates of an alias. Nothing is stored, and nothing is trained."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.datasets.info import version_name
from service.errors import ArtifactNotFound
from service.jobs.actions import refutes
from service.jobs.queries import lookup
from service.models.certificates import evidence as certificates
from service.models.registry import queries
from service.models.registry.gates import Finding, Remedy
from service.schema.metrics import Goal
from service.spec.fields import suggest_metric
from service.spec.metric_info import TEST_SCORES, describe, number, size
from service.spec.strict_json import canonical
from service.spec.validation import NOT_HASHED, prefix_hash, resolved_hash
from service.states import TERMINAL, Status
from service.storage.artifacts import ArtifactStore
from service.storage.database import visible
from service.storage.model_tables import Model, ModelAlias, ModelVersion
from service.storage.tables import Epoch, Job
from service.sweeps.results.comparison import Comparison, compare_jobs
from service.wording import counted, listed

_SEEDS_BELOW: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The version that is checked, and what belongs to it.

    Attributes:
        owner: whose jobs may be evidence; ``None``: all, without keys.
    """

    session: Session
    artifacts: ArtifactStore
    owner: str | None
    model: Model
    version: ModelVersion
    job: Job

    @property
    def reference(self) -> str:
        """``digits:3``."""
        return f"{self.model.name}:{self.version.version}"


def check(
    session: Session,
    artifacts: ArtifactStore,
    model: Model,
    version: ModelVersion,
    gates: Sequence[Mapping[str, Any]],
    *,
    owner: str | None,
) -> list[Finding]:
    """What each gate, as stored, finds about a version."""
    job = lookup.get(session, version.job_id)
    checked = Checked(session=session, artifacts=artifacts, owner=owner, model=model, version=version, job=job)
    return [_check(checked, gate) for gate in gates]


def _check(checked: Checked, gate: Mapping[str, Any]) -> Finding:
    kind = next(name for name in _CHECKS if name in gate)
    return _CHECKS[kind](checked, gate)


def _metric(checked: Checked, gate: Mapping[str, Any]) -> Finding:
    name, low, high = gate["metric"], gate.get("min"), gate.get("max")
    bounds = " and ".join(
        f"{word} {number(name, bound)}" for word, bound in (("at least", low), ("at most", high)) if bound is not None
    )
    value, why = _value(checked, name)
    if value is None:
        sentence = f"{name} must be {bounds}, and {checked.reference} has no value of it: {why}"
        return Finding(gate=gate, passed=False, sentence=sentence, evidence={"value": None})
    passed = (low is None or value >= low) and (high is None or value <= high)
    sentence = f"{name} is {number(name, value)}; it must be {bounds}"
    return Finding(
        gate=gate, passed=passed, sentence=sentence, evidence={"value": value, "epoch": checked.version.epoch}
    )


def _value(checked: Checked, name: str) -> tuple[float | None, str]:
    """The value of a metric for the version's weights, or why there is none."""
    job, epoch = checked.job, checked.version.epoch
    if name.startswith("test_"):
        scores = job.test_scores or {}
        if name not in scores:
            return None, f"job {job.id} has no scores on a test part" if not scores else _reported(name, scores)
        if scores.get("test_epoch") != epoch:
            return None, f"the test part was scored with the weights of epoch {scores['test_epoch']}, not {epoch}"
        return float(scores[name]), ""
    row = checked.session.get(Epoch, (job.id, epoch))
    metrics = row.metrics if row is not None else {}
    value = metrics.get(name)
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value), ""
    if name in metrics:
        return None, f"it was not finite in epoch {epoch}"
    if name in job.extremes:
        return None, f"it was not measured in epoch {epoch}"
    return None, _reported(name, metrics)


def _reported(name: str, metrics: Mapping[str, Any]) -> str:
    return f"its job does not report it; {suggest_metric(name, sorted(metrics), 'it reports')}"


def _size(checked: Checked, gate: Mapping[str, Any]) -> Finding:
    found, most = checked.version.size_bytes, gate["max_bytes"]
    sentence = f"the checkpoint has {size(found)}; at most {size(most)} are allowed"
    return Finding(gate=gate, passed=found <= most, sentence=sentence, evidence={"size_bytes": found})


def _approvals(checked: Checked, gate: Mapping[str, Any]) -> Finding:
    rows = queries.approvals(checked.session, checked.model.id, [checked.version.version])
    needed = gate["approvals"]
    by = [{"owner": row.owner, "key": row.key_id, "note": row.note} for row in rows]
    path = f"/models/{checked.model.name}/versions/{checked.version.version}/approvals"
    sentence = f"{checked.reference} has {counted(len(rows), 'approval')}; it needs {needed}"
    remedies = [] if len(rows) >= needed else [Remedy(method="POST", path=path, body={})]
    return Finding(gate=gate, passed=not remedies, sentence=sentence, evidence={"approvals": by}, remedies=remedies)


def _reproduced(checked: Checked, gate: Mapping[str, Any]) -> Finding:
    """Whether a reproduction of the job ended with the same bits, and none with others."""
    job = checked.job
    query = select(Job).where(Job.parent_id == job.id, Job.reproduction.is_not(None)).order_by(Job.created_ms, Job.id)
    rows = [row for row in checked.session.scalars(query) if row.reproduction is not None]
    matches = {row.id: (row.reproduction or {}).get("match") for row in rows}
    equal = [job_id for job_id, match in matches.items() if match]
    different = [row for row in rows if refutes(row)]
    open_ids = [row.id for row in rows if matches[row.id] is None and row.status not in TERMINAL]
    remedies: list[Remedy] = []
    if not job.reusable:
        sentence = (
            f"the bits of job {job.id} are in doubt: it went on in another environment, or an epoch that was trained "
            "again or a reproduction had others; register another job"
        )
    elif different:
        first = (different[0].reproduction or {}).get("first_difference") or {}
        sentence = f"{different[0].id} did not reproduce job {job.id}: epoch {first.get('epoch')} differs"
    elif equal:
        sentence = f"{equal[0]} reproduced job {job.id} with the same bits"
    elif open_ids:
        sentence = f"{open_ids[0]} is reproducing job {job.id}, and has not ended"
    elif job.status != Status.SUCCEEDED:
        sentence = f"job {job.id} is {job.status}: only a succeeded job can be reproduced"
    else:
        sentence = f"job {job.id} has not been reproduced"
        remedies = [Remedy(method="POST", path=f"/jobs/{job.id}/reproduce")]
    passed = bool(equal) and not different and job.reusable
    return Finding(gate=gate, passed=passed, sentence=sentence, evidence={"reproductions": matches}, remedies=remedies)


def _certificate(checked: Checked, gate: Mapping[str, Any]) -> Finding:
    """Whether the checkpoint has a certificate, which is verified now."""
    path = f"/jobs/{checked.job.id}/certificate?checkpoint={checked.version.epoch}"
    try:
        checkpoint = lookup.checkpoint(checked.session, checked.job, str(checked.version.epoch))
    except ArtifactNotFound as error:
        return Finding(gate=gate, passed=False, sentence=str(error), evidence={"certified": False})
    found = certificates.state(checked.session, checked.artifacts, checked.job, checkpoint)
    evidence = {"certified": found.certified, "kid": found.kid, "signed_at": found.signed_at}
    sentence = f"{checked.reference}: {found.reason}"
    remedies = [Remedy(method="GET", path=path)] if found.request is not None else []
    return Finding(gate=gate, passed=found.certified, sentence=sentence, evidence=evidence, remedies=remedies)


def _better(checked: Checked, gate: Mapping[str, Any]) -> Finding:
    """Whether the settings of the version are better than those of another one, with the jobs that exist."""

    def finding(sentence: str, *, passed: bool = False, remedies: Sequence[Remedy] = (), **evidence: Any) -> Finding:
        return Finding(gate=gate, passed=passed, sentence=sentence, evidence=evidence, remedies=remedies)

    session, target = checked.session, gate["better_than"]
    number = _number_of(checked, target)
    if number is None:
        return finding(
            f"{target} has never held a version: there is nothing to compare with", passed=True, compared_with=None
        )
    facts: dict[str, Any] = {"compared_with": number}
    reference = f"{checked.model.name}:{number}"
    other = session.get(ModelVersion, (checked.model.id, number))
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


_CHECKS: Final[Mapping[str, Callable[[Checked, Mapping[str, Any]], Finding]]] = {
    "better_than": _better,
    "reproduced": _reproduced,
    "certificate": _certificate,
    "max_bytes": _size,
    "approvals": _approvals,
    "metric": _metric,
}
"""By the field that tells the kind of a gate."""
