"""Gates that need other jobs: a reproduction, and the same seeds of two settings."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from service.errors import ServiceError
from service.features.registry.errors import GateFailed
from service.features.registry.gates import Gate
from service.features.registry.gates.better import seeds_of as better_seeds
from service.features.registry.gates.kinds import Finding
from service.features.registry.registry import MoveRequest, Registry, VersionRequest
from service.features.registry.tables import ModelAlias
from service.jobs import actions
from service.spec.validation import prefix_hash, resolve, resolved_hash
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact, Epoch, Job
from tests.conftest import sqlite_only

GATE = Gate(better_than="@champion", metric="val_accuracy")
A, B = ({"kind": "classifier", "dataset": "iris", "preset": "table", "batch_size": size} for size in (16, 32))


@dataclass
class Jobs:
    """Inserts rows of ended jobs: what gates read, without the training."""

    database: Database
    count: int = 0

    def add(self, spec: Mapping[str, Any], accuracy: float | None = 0.9, **columns: Any) -> str:
        """The id of a succeeded job with one epoch and a checkpoint."""
        self.count += 1
        job_id = f"job_{self.count:026}"
        resolved = resolve(dict(spec)).model_dump(mode="json")
        metrics = {"val_accuracy": accuracy, "val_loss": 0.5}
        extremes = {
            name: {"min": value, "min_epoch": 1, "max": value, "max_epoch": 1} for name, value in metrics.items()
        }
        values: dict[str, Any] = {
            "id": job_id, "kind": "classifier", "tags": [], "priority": 5, "spec": dict(spec), "resolved": resolved,
            "spec_hash": resolved_hash(resolved), "prefix_hash": prefix_hash(resolved), "status": "succeeded",
            "epochs": 1, "epoch": 1, "best_epoch": 1, "steps": 10, "metrics": metrics, "extremes": extremes,
            "dataset_sha256": "sha256:iris", "created_ms": self.count, "queued_ms": self.count, "finished_ms": 9,
        }  # fmt: skip
        epoch = {"job_id": job_id, "epoch": 1, "step": 10, "metrics": metrics, "seconds": 1.0}
        artifact = {"id": f"art_{self.count}", "job_id": job_id, "kind": "checkpoint", "epoch": 1, "name": "c"}
        artifact |= {"path": job_id, "media_type": "x", "size_bytes": 1000, "sha256": f"{self.count:064}"}
        with self.database.write() as session:
            session.execute(insert(Job).values(values | columns))
            session.execute(insert(Epoch).values(epoch | {"lease": 1, "finished_ms": 9}))
            session.execute(insert(Artifact).values(artifact | {"lease": 1, "created_ms": 9}))
        return job_id


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> Registry:
    return Registry(database=database, artifacts=ArtifactFolder(tmp_path))


def register(registry: Registry, *job_ids: str) -> None:
    for job_id in job_ids:
        registry.register("iris", VersionRequest(job=job_id))


def check(registry: Registry, gate: Gate, version: int = 2) -> Finding:
    registry.change_gates("iris", "champion", [gate])
    [finding] = registry.evaluate("iris", "champion", version).findings
    return finding


def seeds_of(finding: Finding) -> list[int]:
    return list(finding.evidence["seeds"])


def test_a_gate_of_no_known_kind_is_refused_and_one_of_a_newer_version_is_not_met(
    registry: Registry, jobs: Jobs, database: Database
) -> None:
    register(registry, jobs.add(A))
    with pytest.raises(ValueError, match="must be one condition: `metric` with `min` or `max`, `better_than`"):
        Gate(min=0.9)
    registry.change_gates("iris", "champion", [])
    with database.write() as session:
        gates = [{"min": 0.9}, {"metric": "val_accuracy", "beats": "x"}]
        session.execute(update(ModelAlias).values(gates=gates))
    findings = registry.evaluate("iris", "champion", 1).findings
    assert [(finding.passed, finding.sentence) for finding in findings] == [
        (False, "this version of the service cannot check it: min 0.9"),
        (False, "this version of the service cannot check it: metric val_accuracy, beats x"),
    ]


def test_the_first_champion_has_nothing_to_surpass(registry: Registry, jobs: Jobs) -> None:
    register(registry, jobs.add(A))
    finding = check(registry, GATE, 1)
    assert (finding.passed, finding.evidence) == (True, {"compared_with": None})
    registry.move("iris", "champion", MoveRequest(version=1))
    again = check(registry, GATE, 1)
    assert (again.passed, "not better than itself" in again.sentence) == (False, True)


@sqlite_only
@pytest.mark.parametrize(("epoch", "passes"), [(1, True), (2, False)])
def test_scores_of_the_test_part_count_for_the_weights_that_have_them(
    registry: Registry, jobs: Jobs, epoch: int, passes: bool
) -> None:
    register(registry, jobs.add(A, test_scores={"test_accuracy": 0.9, "test_epoch": epoch}))
    finding = check(registry, Gate(metric="test_accuracy", min=0.8), 1)
    assert (finding.passed, finding.evidence["value"]) == (passes, 0.9 if passes else None)
    assert passes or "scored with the weights of epoch 2, not 1" in finding.sentence


def test_missing_seeds_are_named_with_the_sweeps_that_train_them(registry: Registry, jobs: Jobs) -> None:
    register(registry, jobs.add(A), jobs.add(B))
    registry.move("iris", "champion", MoveRequest(version=1))
    finding = check(registry, GATE)
    seeds = seeds_of(finding)
    assert (finding.passed, len(set(seeds)), len(finding.remedies)) == (False, 5, 2)
    assert "0 of 5 of iris:1, 0 of 5 of iris:2" in finding.sentence
    for remedy, spec in zip(finding.remedies, (A, B), strict=True):
        assert (remedy.method, remedy.path) == ("POST", "/sweeps")
        assert remedy.body is not None
        assert (remedy.body["seeds"], remedy.body["base"]["batch_size"]) == (seeds, spec["batch_size"])
        assert remedy.body["objective"] == {"metric": "val_accuracy"}
    jobs.add(A | {"seed": seeds[0]})
    jobs.add(A | {"seed": seeds[1]}, status="running", finished_ms=None)
    jobs.add(A | {"seed": seeds[2]}, dataset_sha256="sha256:other")
    jobs.add(A | {"seed": seeds[3]}, status="failed")
    again = check(registry, GATE)
    assert list(again.evidence["unfinished"].values()) == [["job_00000000000000000000000004"], []]
    first, second = (remedy.body or {} for remedy in again.remedies)
    assert (first["seeds"], second["seeds"]) == (seeds[2:], seeds)


@pytest.mark.parametrize(
    ("gate", "gains", "passed"),
    [
        ({}, [0.02, 0.021, 0.019, 0.02, 0.022], True),
        ({}, [0.02, -0.03, 0.04, -0.01, 0.0], False),
        ({}, [-0.02, -0.021, -0.019, -0.02, -0.022], False),
        ({"margin": 0.03}, [0.02, 0.021, 0.019, 0.02, 0.022], False),
        ({"margin": 0.015}, [0.02, 0.021, 0.019, 0.02, 0.022], True),
        ({"confidence": 0.8}, [0.02, 0.001, 0.01, -0.002, 0.012], True),
        ({"confidence": 0.99}, [0.02, 0.001, 0.01, -0.002, 0.012], False),
        ({}, [0.02] * 5, False),
    ],
)
def test_a_version_must_be_better_by_more_than_chance(
    registry: Registry, jobs: Jobs, gate: Mapping[str, Any], gains: Sequence[float], passed: bool
) -> None:
    register(registry, jobs.add(A), jobs.add(B))
    registry.move("iris", "champion", MoveRequest(version=1))
    better = GATE.model_copy(update=dict(gate))
    for position, (seed, gain) in enumerate(zip(seeds_of(check(registry, better)), gains, strict=True)):
        accuracy = 0.9 + position / 100
        jobs.add(A | {"seed": seed}, accuracy)
        jobs.add(B | {"seed": seed}, accuracy + gain)
    finding = check(registry, better)
    assert (finding.passed, finding.remedies) == (passed, ()), finding.sentence
    assert "iris:2" in finding.sentence
    assert "iris:1" in finding.sentence
    assert finding.evidence["difference"] == pytest.approx(sum(gains) / 5)
    low, high = finding.evidence["interval"]
    assert low <= finding.evidence["difference"] <= high
    if passed:
        registry.move("iris", "champion", MoveRequest(version=2))
    else:
        with pytest.raises(GateFailed):
            registry.move("iris", "champion", MoveRequest(version=2))


@sqlite_only
def test_lower_is_better_for_a_loss(registry: Registry, jobs: Jobs) -> None:
    def extremes(value: float) -> dict[str, Any]:
        return {"val_loss": {"min": value, "min_epoch": 1, "max": value, "max_epoch": 1}}

    register(registry, jobs.add(A), jobs.add(B))
    registry.move("iris", "champion", MoveRequest(version=1))
    gate = Gate(better_than="@champion", metric="val_loss", seeds=3)
    for position, seed in enumerate(seeds_of(check(registry, gate))):
        jobs.add(A | {"seed": seed}, extremes=extremes(0.5 + position / 1000))
        jobs.add(B | {"seed": seed}, extremes=extremes(0.4 + position / 2000))
    assert check(registry, gate).passed
    registry.move("iris", "champion", MoveRequest(version=2))
    assert not check(registry, gate, 1).passed


def test_the_same_settings_with_a_lucky_seed_are_no_better_model(registry: Registry, jobs: Jobs) -> None:
    register(registry, jobs.add(A, 0.8), jobs.add(A | {"seed": 7}, 0.99))
    registry.move("iris", "champion", MoveRequest(version=1))
    finding = check(registry, GATE)
    assert (finding.passed, "the same settings, apart from the seed" in finding.sentence) == (False, True)


def test_a_fork_is_not_compared_by_its_settings(registry: Registry, jobs: Jobs) -> None:
    register(registry, jobs.add(A), jobs.add(B, start_epoch=1))
    registry.move("iris", "champion", MoveRequest(version=1))
    assert "forked from a checkpoint" in check(registry, GATE).sentence


def test_seeds_follow_from_both_settings() -> None:
    first = better_seeds(["sha256:a", "sha256:b"], 5)
    assert first == better_seeds(["sha256:a", "sha256:b"], 5)
    assert better_seeds(["sha256:a", "sha256:b"], 8)[:5] == first
    assert len({*first, *better_seeds(["sha256:b", "sha256:a"], 5), *better_seeds(["sha256:a", "sha256:c"], 5)}) == 15


@sqlite_only
def test_a_model_is_rarely_better_than_itself(registry: Registry, jobs: Jobs) -> None:
    """200 comparisons of two settings whose accuracies have one distribution: at most 5% may be accepted at 95%. With a
    two-sided interval it is 2.5%: of 200, more than 10 would be accepted with a probability of 1%."""
    register(registry, jobs.add(A), jobs.add(B))
    registry.move("iris", "champion", MoveRequest(version=1))
    seeds = seeds_of(check(registry, GATE))
    rows = {(side, seed): jobs.add(spec | {"seed": seed}) for side, spec in (("a", A), ("b", B)) for seed in seeds}
    rng, accepted = random.Random(1), 0
    for _ in range(200):
        with jobs.database.write() as session:
            for job_id in rows.values():
                value = 1 / (1 + math.exp(-rng.gauss(2.0, 0.5)))
                job = session.get_one(Job, job_id)
                job.extremes = {"val_accuracy": {"min": value, "min_epoch": 1, "max": value, "max_epoch": 1}}
        accepted += registry.evaluate("iris", "champion", 2).passed
    assert 0 < accepted <= 10


@sqlite_only
@pytest.mark.parametrize(
    ("match", "columns", "passed", "part", "remedies"),
    [
        (True, {}, True, "with the same bits", 0),
        (None, {"status": "running", "finished_ms": None}, False, "has not ended", 0),
        (False, {}, False, "epoch 3 differs", 0),
        (None, {"status": "failed"}, False, "has not been reproduced", 1),
    ],
)
def test_a_reproduction_is_evidence_only_with_the_same_bits(
    registry: Registry,
    jobs: Jobs,
    match: bool | None,
    columns: Mapping[str, Any],
    passed: bool,
    part: str,
    remedies: int,
) -> None:
    job = jobs.add(A)
    register(registry, job)
    before = check(registry, Gate(reproduced=True), 1)
    assert (before.passed, [remedy.path for remedy in before.remedies]) == (False, [f"/jobs/{job}/reproduce"])
    reproduction = {"of": job, "match": match, "first_difference": {"epoch": 3, "differs": ["val_loss"]}}
    jobs.add(A, parent_id=job, reproduction=reproduction, **columns)
    finding = check(registry, Gate(reproduced=True), 1)
    assert (finding.passed, len(finding.remedies)) == (passed, remedies)
    assert part in finding.sentence


def test_one_failed_reproduction_outweighs_others_also_after_its_deletion(registry: Registry, jobs: Jobs) -> None:
    job = jobs.add(A)
    register(registry, job)
    _, failed = (jobs.add(A, parent_id=job, reproduction={"of": job, "match": match}) for match in (True, False))
    assert not check(registry, Gate(reproduced=True), 1).passed
    actions.remove(jobs.database, failed)
    finding = check(registry, Gate(reproduced=True), 1)
    assert (finding.passed, "in doubt" in finding.sentence) == (False, True)


def test_a_reproduction_in_another_environment_shows_nothing(registry: Registry, jobs: Jobs) -> None:
    job = jobs.add(A)
    register(registry, job)
    elsewhere = {"of": job, "match": False, "provenance_differs": ["numpy"]}
    other = jobs.add(A, parent_id=job, reproduction=elsewhere)
    assert check(registry, Gate(reproduced=True), 1).remedies
    actions.remove(jobs.database, other)
    jobs.add(A, parent_id=job, reproduction={"of": job, "match": True})
    assert check(registry, Gate(reproduced=True), 1).passed


def test_a_removed_alias_is_surpassed_as_the_version_that_it_held_last(registry: Registry, jobs: Jobs) -> None:
    register(registry, jobs.add(A), jobs.add(B))
    registry.move("iris", "champion", MoveRequest(version=1))
    registry.change_gates("iris", "champion", [GATE])
    registry.remove_alias("iris", "champion")
    with pytest.raises(GateFailed, match="0 of 5 of iris:1"):
        registry.move("iris", "champion", MoveRequest(version=2))
    registry.delete_version("iris", 1)
    with pytest.raises(GateFailed, match="iris:1, with which the gate compares, does not exist"):
        registry.move("iris", "champion", MoveRequest(version=2))


def test_a_version_that_does_not_exist_is_not_surpassed(registry: Registry, jobs: Jobs) -> None:
    register(registry, jobs.add(A), jobs.add(B))
    gate = Gate(better_than=":1", metric="val_accuracy")
    registry.delete_version("iris", 1)
    finding = check(registry, gate)
    assert (finding.passed, finding.evidence) == (False, {"compared_with": 1})


def test_gates_do_not_end_with_their_model(registry: Registry, jobs: Jobs) -> None:
    register(registry, jobs.add(A))
    check(registry, GATE, 1)
    with pytest.raises(ServiceError, match="@champion"):
        registry.delete("iris")
    registry.change_gates("iris", "champion", [])
    registry.delete("iris")


def test_seeds_that_ran_other_code_are_trained_again(registry: Registry, jobs: Jobs) -> None:
    register(registry, jobs.add(A), jobs.add(B))
    registry.move("iris", "champion", MoveRequest(version=1))
    seeds = seeds_of(check(registry, GATE))
    for number, seed in enumerate(seeds):
        jobs.add(A | {"seed": seed}, 0.8 + number / 1000, provenance={"code": "sha256:old"})
    for number, seed in enumerate(seeds):
        jobs.add(B | {"seed": seed}, 0.9 + number / 999, provenance={"code": "sha256:new"})
    finding = check(registry, GATE)
    assert not finding.passed
    assert "ran other code" in finding.sentence
    [remedy] = finding.remedies
    assert remedy.body is not None
    assert (remedy.body["seeds"], remedy.body["base"]["batch_size"]) == (seeds, 16)
    for number, seed in enumerate(seeds):
        jobs.add(A | {"seed": seed}, 0.8 + number / 1000, provenance={"code": "sha256:new"})
    assert check(registry, GATE).passed
