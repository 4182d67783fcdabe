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
from service.jobs.queries.intervals import Mean, student_t
from service.runtime.settings import Auth, Quotas
from service.spec import validation
from service.spec.splits import Split
from service.web.services import EXTENSION, Services
from tests.service.web.conftest import MakeApp
from tests.service.web.resources.jobs.test_test_part import SPEC, write_folder
from tests.service.web.resources.service.test_dataset_versions import train

FOLDS: dict[str, Any] = {**SPEC, "name": "cv", "epochs": 2, "dataset": {"name": "squares", "folds": 5}}


@pytest.fixture
def app(make_app: MakeApp, either_url: str, tmp_path: Path) -> Flask:
    write_folder(tmp_path / "data" / "squares", test_seed=3)
    return make_app(either_url)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def send(client: FlaskClient, document: Any = FOLDS, **more: Any) -> Any:
    answer = client.post("/jobs", json=document, **more)
    assert answer.status_code == 201, answer.text
    return answer.json


def loaded(app: Flask, job_id: str) -> Any:
    here: Services = app.extensions[EXTENSION]
    with here.database.read() as session:
        return here.repository.load(here.repository.of_job(lookup.get(session, job_id)))


def rows(part: Any) -> set[bytes]:
    return {image.tobytes() + bytes([label]) for image, label in zip(part.inputs, part.labels, strict=True)}


def test_a_spec_with_folds_is_one_job_for_each(app: Flask, client: FlaskClient) -> None:
    first = send(client)
    ids = first["fold_jobs"]
    assert (len(set(ids)), ids[0]) == (5, first["id"])
    made = [client.get(f"/jobs/{job_id}").json for job_id in ids]
    assert [job["name"] for job in made] == [f"cv (fold {fold} of 5)" for fold in range(1, 6)]
    assert [job["resolved"]["dataset"]["fold"] for job in made] == list(range(5))
    assert {job["fold_group"] for job in made} == {first["fold_group"]}
    assert len({job["spec_hash"] for job in made}) == 5
    assert {job["progress"]["steps"] for job in made} == {2 * math.ceil(208 / 20)}
    listed = client.get(f"/jobs?fold_group={first['fold_group']}").json["data"]
    assert {job["id"] for job in listed} == set(ids)
    # As sent, each can be sent again, and is one job.
    again = send(client, made[3]["spec"])
    assert "fold_jobs" not in again
    assert again["fold_group"] is None
    assert again["spec_hash"] == made[3]["spec_hash"]


def test_folds_are_disjoint_and_together_are_everything(app: Flask, client: FlaskClient) -> None:
    whole = loaded(app, send(client, SPEC)["id"])
    pool = rows(whole.train) | rows(whole.validation)
    labels = np.concatenate([whole.train.labels, whole.validation.labels])
    seen: set[bytes] = set()
    for job_id in send(client)["fold_jobs"]:
        part = loaded(app, job_id)
        validated = rows(part.validation)
        assert not seen & validated
        assert rows(part.train) == pool - validated
        assert (part.info.train_count, part.info.validation_count) == (len(part.train), len(part.validation))
        assert len(part.validation) == 52
        for label in range(4):
            expected = np.count_nonzero(labels == label) / 5
            assert abs(np.count_nonzero(part.validation.labels == label) - expected) < 1
        assert rows(part.test) == rows(whole.test)
        seen |= validated
    assert seen == pool


def test_a_set_trains_and_its_page_has_the_mean_with_its_interval(app: Flask, client: FlaskClient) -> None:
    sent = send(client)
    ids = sent["fold_jobs"]
    part = client.get(f"/folds/{sent['fold_group']}").json
    assert (part["finished"], part["means"], [job["fold"] for job in part["jobs"]]) == (0, {}, list(range(5)))
    assert "Cross-validation" in client.get(f"/ui/jobs/{ids[2]}").text
    # In the order in which a worker takes them, which is that of their ids at one time.
    for job_id in sorted(ids):
        assert train(app, job_id).status == "succeeded"
    found = client.get(f"/folds/{sent['fold_group']}").json
    assert found["finished"] == found["folds"] == 5
    for name in ("val_accuracy", "best:val_accuracy", "val_loss", "test_accuracy"):
        values = [job["metrics"][name] for job in found["jobs"]]
        mean = found["means"][name]
        assert mean["mean"] == pytest.approx(statistics.fmean(values))
        margin = 2.7764451 * np.std(values, ddof=1) / math.sqrt(5)  # the t of four degrees of freedom
        assert (mean["low"], mean["high"]) == pytest.approx((np.mean(values) - margin, np.mean(values) + margin))
    page = client.get(f"/ui/jobs/{ids[2]}").text
    mean = found["means"]["val_accuracy"]
    assert f"<strong>{mean['mean']:.2%}</strong>" in page
    assert f"± {mean['high'] - mean['mean']:.2%}" in page
    assert "3 (this job)" in page
    # One of them goes: the others stay a set.
    assert client.delete(f"/jobs/{ids[1]}").status_code == 204
    assert [job["fold"] for job in client.get(f"/folds/{sent['fold_group']}").json["jobs"]] == [0, 2, 3, 4]
    # What a fold's page shows of its images are its own validation images.
    wrong = client.get(f"/jobs/{ids[2]}/mistakes").json
    assert wrong["validation_count"] == 52
    last = client.get(f"/jobs/{ids[2]}/confusion").json
    assert wrong["count"] == 52 - sum(row[at] for at, row in enumerate(last["matrix"])) or wrong["checkpoint"] != 2
    # A fold can be reproduced and forked; neither is a fold of the set.
    again = client.post(f"/jobs/{ids[2]}/reproduce").json
    assert train(app, again["id"]).reproduction["match"] is True
    fork = client.post(f"/jobs/{ids[2]}/fork", json={"overrides": {"epochs": 3, "seed": 9}}).json
    assert again["fold_group"] is fork["fold_group"] is None
    assert fork["resolved"]["dataset"]["fold"] == 2
    # Another seed does not divide anew: the fork would validate on what its parent was trained on.
    assert rows(loaded(app, fork["id"]).validation) == rows(loaded(app, ids[2]).validation)
    assert train(app, fork["id"]).status == "succeeded"


def test_a_key_counts_for_the_set(app: Flask, client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = send(client, headers=headers)
    again = client.post("/jobs", json=FOLDS, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json == first
    assert len(client.get("/jobs").json["data"]) == 5
    other = client.post("/jobs", json=FOLDS | {"epochs": 3}, headers=headers)
    assert (other.status_code, other.json["code"]) == (422, "idempotency_conflict")


def test_a_set_is_stored_whole_or_not_at_all(make_app: MakeApp, sqlite_url: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "data" / "squares", test_seed=None)
    app = make_app(sqlite_url, auth=Auth.KEYS, quotas=Quotas(queued=7))
    here: Services = app.extensions[EXTENSION]
    mine, others = (
        {"Authorization": f"Bearer {keys.create(here.database, name='k', owner=who, scope=keys.Scope.SUBMIT)[1]}"}
        for who in ("ann", "ben")
    )
    client = app.test_client()
    first = send(client, headers=mine)
    refused = client.post("/jobs", json=FOLDS, headers=mine)
    assert (refused.status_code, refused.json["code"]) == (429, "quota_exceeded")
    assert "5 more would exceed the quota" in refused.json["detail"]
    assert len(client.get("/jobs", headers=mine).json["data"]) == 5
    send(client, SPEC, headers=mine)
    # Another owner's set is not there.
    answer = client.get(f"/folds/{first['fold_group']}", headers=others)
    assert (answer.status_code, answer.json["code"]) == (404, "folds_not_found")
    assert client.get(f"/jobs?fold_group={first['fold_group']}", headers=others).json["data"] == []


def test_a_dry_run_says_that_there_will_be_several(client: FlaskClient) -> None:
    answer = client.post("/jobs?dry_run=true", json=FOLDS).json
    assert "5 jobs are submitted, one for each fold" in answer["notes"][0]
    assert answer["steps"] == 2 * math.ceil(208 / 20)
    assert client.get("/jobs").json["data"] == []


@pytest.mark.parametrize(
    ("data", "pointer", "said"),
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
def test_an_invalid_split_is_rejected(client: FlaskClient, data: dict[str, Any], pointer: str, said: str) -> None:
    answer = client.post("/jobs", json=SPEC | {"dataset": {"name": "squares", **data}})
    assert answer.status_code == 422
    (fault,) = [fault for fault in answer.json["errors"] if fault["pointer"] == pointer]
    assert said in fault["detail"]


def test_a_share_is_stratified_seeded_and_never_the_test_part(app: Flask, client: FlaskClient) -> None:
    def divided(**more: Any) -> Any:
        data = {"name": "squares", "validation_fraction": 0.3, **more.pop("dataset", {})}
        return loaded(app, send(client, SPEC | {"dataset": data} | more)["id"])

    one = divided()
    assert (len(one.train), len(one.validation), len(one.test)) == (182, 78, 80)
    assert rows(one.validation) == rows(divided().validation)
    assert rows(one.validation) != rows(divided(seed=1).validation)
    assert rows(divided(seed=1, dataset={"split_seed": 7}).validation) == rows(
        divided(seed=2, dataset={"split_seed": 7}).validation
    )
    shares = np.bincount(one.validation.labels) / np.bincount(np.concatenate([one.train.labels, one.validation.labels]))
    assert np.abs(shares - 0.3).max() < 0.02
    job = train(app, send_and_drop(client))
    assert job.status == "succeeded"


def send_and_drop(client: FlaskClient) -> str:
    """Cancel what waits, then send one job with a fraction."""
    for job in client.get("/jobs").json["data"]:
        client.post(f"/jobs/{job['id']}/cancel")
    return str(send(client, SPEC | {"dataset": {"name": "squares", "validation_fraction": 0.3}})["id"])


def test_a_division_counts_in_the_hash() -> None:
    plain = validation.resolve({"kind": "classifier"})
    assert validation.spec_hash(plain) == validation.spec_hash(
        validation.resolve({"kind": "classifier", "dataset": {"validation_fraction": None, "folds": None}})
    )
    divided = validation.resolve({"kind": "classifier", "dataset": {"validation_fraction": 0.2}})
    assert validation.spec_hash(plain) != validation.spec_hash(divided)


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


def test_a_division_is_pinned() -> None:
    """To data and seed alone: another NumPy must not divide differently."""
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
        assert per_class[4] == 0  # one example is for training


def test_the_quantile_is_that_of_the_tables() -> None:
    table = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 30: 2.042, 120: 1.980}
    assert {freedom: round(student_t(0.95, freedom), 3) for freedom in table} == table


@pytest.mark.parametrize("freedom", [*range(1, 12), 29, 100, 1001])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_quantile_is_that_of_scipy(confidence: float, freedom: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert student_t(confidence, freedom) == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-9)


def test_one_measurement_has_no_interval() -> None:
    assert Mean.of([0.5]) == Mean(1, 0.5, None, None)
