"""Cross-validation: a spec with folds becomes a set of jobs that together validate on every example once."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.access import keys
from service.datasets.cache import validation_mask
from service.jobs.queries import lookup
from service.runtime.settings import Auth, Quotas
from service.spec import validation
from service.spec.splits import Split
from service.web.core.core import EXTENSION, Core
from tests.service.web.conftest import MakeApp, SimulatedWorker
from tests.service.web.datasets.test_dataset_versions import train
from tests.service.web.jobs.test_test_part import SPEC, write_folder

FOLDS: dict[str, Any] = {**SPEC, "name": "cv", "epochs": 2, "dataset": {"name": "squares", "folds": 5}}


@pytest.fixture
def app(make_app: MakeApp, migrated_url: str, tmp_path: Path) -> Flask:
    write_folder(tmp_path / "data" / "squares", test_seed=3)
    return make_app(migrated_url)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def send(client: FlaskClient, document: Any = FOLDS, **more: Any) -> Any:
    answer = client.post("/jobs", json=document, **more)
    assert answer.status_code == 201, answer.text
    return answer.json


def load_dataset(app: Flask, job_id: str) -> Any:
    core: Core = app.extensions[EXTENSION]
    with core.database.read() as session:
        return core.repository.load(core.repository.of_job(lookup.get(session, job_id)))


def examples(part: Any) -> set[bytes]:
    return {image.tobytes() + bytes([label]) for image, label in zip(part.inputs, part.labels, strict=True)}


def test_a_spec_with_folds_becomes_one_job_per_fold(app: Flask, client: FlaskClient) -> None:
    first = send(client)
    ids = first["fold_jobs"]
    assert (len(set(ids)), ids[0]) == (5, first["id"])
    jobs = [client.get(f"/jobs/{job_id}").json for job_id in ids]
    assert [job["name"] for job in jobs] == [f"cv (fold {fold} of 5)" for fold in range(1, 6)]
    assert [job["resolved"]["dataset"]["fold"] for job in jobs] == list(range(5))
    assert {job["fold_group"] for job in jobs} == {first["fold_group"]}
    assert len({job["spec_hash"] for job in jobs}) == 5
    assert {job["progress"]["steps"] for job in jobs} == {2 * math.ceil(208 / 20)}
    listed = client.get(f"/jobs?fold_group={first['fold_group']}").json["data"]
    assert {job["id"] for job in listed} == set(ids)
    # The spec of a fold, submitted again, is a single job.
    resubmitted = send(client, jobs[3]["spec"])
    assert "fold_jobs" not in resubmitted
    assert resubmitted["fold_group"] is None
    assert resubmitted["spec_hash"] == jobs[3]["spec_hash"]


def test_folds_are_disjoint_and_together_cover_every_example(app: Flask, client: FlaskClient) -> None:
    unsplit = load_dataset(app, send(client, SPEC)["id"])
    pool = examples(unsplit.train) | examples(unsplit.validation)
    labels = np.concatenate([unsplit.train.labels, unsplit.validation.labels])
    covered: set[bytes] = set()
    for job_id in send(client)["fold_jobs"]:
        fold = load_dataset(app, job_id)
        validated = examples(fold.validation)
        assert not covered & validated
        assert examples(fold.train) == pool - validated
        assert (fold.info.train_count, fold.info.validation_count) == (len(fold.train), len(fold.validation))
        assert len(fold.validation) == 52
        for label in range(4):
            expected = np.count_nonzero(labels == label) / 5
            assert abs(np.count_nonzero(fold.validation.labels == label) - expected) < 1
        assert examples(fold.test) == examples(unsplit.test)
        covered |= validated
    assert covered == pool


def test_the_folds_train_and_a_jobs_page_has_the_mean_with_its_interval(app: Flask, client: FlaskClient) -> None:
    submitted = send(client)
    ids = submitted["fold_jobs"]
    initial = client.get(f"/folds/{submitted['fold_group']}").json
    assert (initial["finished"], initial["means"], [job["fold"] for job in initial["jobs"]]) == (0, {}, list(range(5)))
    assert "Cross-validation" in client.get(f"/ui/jobs/{ids[2]}").text
    # In the order in which a worker claims them: by id, as they were submitted at the same time.
    for job_id in sorted(ids):
        assert train(app, job_id).status == "succeeded"
    summary = client.get(f"/folds/{submitted['fold_group']}").json
    assert summary["finished"] == summary["folds"] == 5
    for name in ("val_accuracy", "best:val_accuracy", "val_loss", "test_accuracy"):
        values = [job["metrics"][name] for job in summary["jobs"]]
        mean = summary["means"][name]
        assert mean["mean"] == pytest.approx(statistics.fmean(values))
        margin = 2.7764451 * np.std(values, ddof=1) / math.sqrt(5)  # Student's t for four degrees of freedom
        high = np.mean(values) + margin
        expected = (max(np.mean(values) - margin, 0), high if name == "val_loss" else min(high, 1))
        assert (mean["low"], mean["high"]) == pytest.approx(expected)
    page = client.get(f"/ui/jobs/{ids[2]}").text
    mean = summary["means"]["val_accuracy"]
    assert f"<strong>{mean['mean']:.2%}</strong>" in page
    assert f"{mean['low']:.2%} to {mean['high']:.2%}" in page
    assert "3 (this job)" in page
    # If one fold is deleted, the others remain a group.
    assert client.delete(f"/jobs/{ids[1]}").status_code == 204
    assert [job["fold"] for job in client.get(f"/folds/{submitted['fold_group']}").json["jobs"]] == [0, 2, 3, 4]
    # The mistakes and the confusion matrix of a fold are those on its own validation images.
    mistakes = client.get(f"/jobs/{ids[2]}/mistakes").json
    assert mistakes["validation_count"] == 52
    confusion = client.get(f"/jobs/{ids[2]}/confusion").json
    assert (
        mistakes["count"] == 52 - sum(row[at] for at, row in enumerate(confusion["matrix"]))
        or mistakes["checkpoint"] != 2
    )
    # A fold can be reproduced and forked; the new jobs do not belong to the group.
    reproduction = client.post(f"/jobs/{ids[2]}/reproduce").json
    assert train(app, reproduction["id"]).reproduction["match"] is True
    fork = client.post(f"/jobs/{ids[2]}/fork", json={"overrides": {"epochs": 3, "seed": 9}}).json
    assert reproduction["fold_group"] is fork["fold_group"] is None
    assert fork["resolved"]["dataset"]["fold"] == 2
    # A new seed keeps the split; otherwise the fork would validate on its parent's training examples.
    assert examples(load_dataset(app, fork["id"]).validation) == examples(load_dataset(app, ids[2]).validation)
    assert train(app, fork["id"]).status == "succeeded"


def test_the_interval_of_a_mean_over_folds_stays_within_the_range_of_the_metric(
    client: FlaskClient, worker: SimulatedWorker
) -> None:
    first = send(client, {**FOLDS, "dataset": {"name": "squares", "folds": 2}})
    for accuracy, loss in ((0.9, 0.5), (0.999, 0.01)):
        worker.claim()
        worker.commit_epoch(1, metrics={"val_accuracy": accuracy, "val_loss": loss})
        worker.succeed()
    means = client.get(f"/folds/{first['fold_group']}").json["means"]
    assert (means["val_accuracy"]["high"], means["val_loss"]["low"]) == (1, 0)
    page = client.get(f"/ui/jobs/{first['id']}").text
    assert "<strong>94.95%</strong>" in page
    assert "32.05% to 100.00%" in page


def test_an_idempotency_key_applies_to_all_folds_together(app: Flask, client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = send(client, headers=headers)
    replayed = client.post("/jobs", json=FOLDS, headers=headers)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert replayed.json == first
    assert len(client.get("/jobs").json["data"]) == 5
    conflicting = client.post("/jobs", json=FOLDS | {"epochs": 3}, headers=headers)
    assert (conflicting.status_code, conflicting.json["code"]) == (422, "idempotency_conflict")


def test_all_folds_are_stored_or_none(make_app: MakeApp, sqlite_url: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "data" / "squares", test_seed=None)
    app = make_app(sqlite_url, auth=Auth.KEYS, quotas=Quotas(queued=7))
    core: Core = app.extensions[EXTENSION]
    mine, theirs = (
        {"Authorization": f"Bearer {keys.create(core.database, name='k', owner=owner, scope=keys.Scope.SUBMIT)[1]}"}
        for owner in ("ann", "ben")
    )
    client = app.test_client()
    first = send(client, headers=mine)
    rejected = client.post("/jobs", json=FOLDS, headers=mine)
    assert (rejected.status_code, rejected.json["code"]) == (429, "quota_exceeded")
    assert "5 more would exceed the quota" in rejected.json["detail"]
    assert len(client.get("/jobs", headers=mine).json["data"]) == 5
    send(client, SPEC, headers=mine)
    # Another owner's folds are not found.
    answer = client.get(f"/folds/{first['fold_group']}", headers=theirs)
    assert (answer.status_code, answer.json["code"]) == (404, "folds_not_found")
    assert client.get(f"/jobs?fold_group={first['fold_group']}", headers=theirs).json["data"] == []


def test_a_dry_run_notes_that_each_fold_becomes_a_job(client: FlaskClient) -> None:
    answer = client.post("/jobs?dry_run=true", json=FOLDS).json
    assert "5 jobs are submitted, one for each fold" in answer["notes"][0]
    assert answer["steps"] == 2 * math.ceil(208 / 20)
    assert client.get("/jobs").json["data"] == []


@pytest.mark.parametrize(
    ("data", "pointer", "message"),
    [
        ({"folds": 5, "fold": 5}, "#/dataset/fold", "must be less than 5"),
        ({"fold": 1}, "#/dataset/fold", "requires folds"),
        ({"folds": 5, "validation_fraction": 0.2}, "#/dataset/validation_fraction", "cannot be combined"),
        ({"split_seed": 1}, "#/dataset/split_seed", "has an effect only with"),
        ({"folds": 1}, "#/dataset/folds", "2"),
        ({"validation_fraction": 1.0}, "#/dataset/validation_fraction", "1"),
        ({"validation_fraction": 0.99}, "#/batch_size", "must be at most 3"),
    ],
)
def test_an_invalid_split_is_rejected(client: FlaskClient, data: dict[str, Any], pointer: str, message: str) -> None:
    answer = client.post("/jobs", json=SPEC | {"dataset": {"name": "squares", **data}})
    assert answer.status_code == 422
    (fault,) = [fault for fault in answer.json["errors"] if fault["pointer"] == pointer]
    assert message in fault["detail"]


def test_a_validation_fraction_is_stratified_and_seeded_and_excludes_the_test_part(
    app: Flask, client: FlaskClient
) -> None:
    def load_split(**more: Any) -> Any:
        data = {"name": "squares", "validation_fraction": 0.3, **more.pop("dataset", {})}
        return load_dataset(app, send(client, SPEC | {"dataset": data} | more)["id"])

    dataset = load_split()
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (182, 78, 80)
    assert examples(dataset.validation) == examples(load_split().validation)
    assert examples(dataset.validation) != examples(load_split(seed=1).validation)
    assert examples(load_split(seed=1, dataset={"split_seed": 7}).validation) == examples(
        load_split(seed=2, dataset={"split_seed": 7}).validation
    )
    shares = np.bincount(dataset.validation.labels) / np.bincount(
        np.concatenate([dataset.train.labels, dataset.validation.labels])
    )
    assert np.abs(shares - 0.3).max() < 0.02
    job = train(app, submit_alone(client))
    assert job.status == "succeeded"


def submit_alone(client: FlaskClient) -> str:
    """Cancel all jobs, then submit one with a validation fraction."""
    for job in client.get("/jobs").json["data"]:
        client.post(f"/jobs/{job['id']}/cancel")
    return str(send(client, SPEC | {"dataset": {"name": "squares", "validation_fraction": 0.3}})["id"])


def test_the_split_is_part_of_the_spec_hash() -> None:
    plain = validation.resolve({"kind": "classifier"})
    assert validation.spec_hash(plain) == validation.spec_hash(
        validation.resolve({"kind": "classifier", "dataset": {"validation_fraction": None, "folds": None}})
    )
    split = validation.resolve({"kind": "classifier", "dataset": {"validation_fraction": 0.2}})
    assert validation.spec_hash(plain) != validation.spec_hash(split)


@pytest.mark.parametrize("counts", [[50, 50, 50], [3, 97, 1], [1], [7] * 256])
@pytest.mark.parametrize("folds", [2, 5, 20])
def test_every_fold_has_its_share_of_every_class(counts: Sequence[int], folds: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    masks = [validation_mask(Split(seed=3, folds=folds, fold=fold), labels) for fold in range(folds)]
    assert np.array_equal(np.sum(masks, axis=0), np.ones(len(labels)))
    for fold, mask in enumerate(masks):
        assert np.count_nonzero(mask) == Split(seed=3, folds=folds, fold=fold).validation_count(len(labels))
        per_class = np.bincount(labels[mask], minlength=len(counts))
        assert np.abs(per_class - np.array(counts) / folds).max() < 1


def test_a_split_is_pinned() -> None:
    """It depends on data and seed alone: another version of NumPy must not split differently."""
    labels = np.arange(12) % 3
    mask = validation_mask(Split(seed=5, fraction=0.25), labels)
    assert np.flatnonzero(mask).tolist() == [0, 7, 11]


@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.5, 0.9])
def test_rare_classes_have_examples_in_both_parts(fraction: float) -> None:
    counts = [90, 2, 60, 3, 1]
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    for seed in range(20):
        split = Split(seed=seed, fraction=fraction)
        mask = validation_mask(split, labels)
        assert np.count_nonzero(mask) == split.validation_count(len(labels))
        per_class = np.bincount(labels[mask], minlength=len(counts))
        assert (per_class[:4] >= 1).all()
        assert (per_class[:4] < counts[:4]).all()
        assert per_class[4] == 0  # a single example is used for training
