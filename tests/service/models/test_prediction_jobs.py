"""Batch predictions on the whole service, through web process, broker and worker: the numbers of a request."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.local import LocalStack
from tapeline import Client, Job

MIXED = "age,city,since,income,label\n" + "".join(
    f"{n % 40 if n % 7 else ''},{('Oslo', 'Bergen', 'Bodø')[n % 3]},2024-{n % 12 + 1:02d}-{n % 28 + 1:02d},"
    f"{n * 1.1:.3f},{'ab'[n % 40 > 19]}\n"
    for n in range(1400)
)


@pytest.fixture(scope="module")
def client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.url) as client:
        yield client


def trained(client: Client, dataset: str, **more: Any) -> Job:
    job = client.submit({"kind": "classifier", "dataset": dataset, "epochs": 2, **more}).wait(timeout_s=120)
    assert job.status == "succeeded", job.error
    return job


def predicted(client: Client, model: Job | str, dataset: str, folder: Path, **more: Any) -> list[list[str]]:
    job = client.predict_dataset(model, dataset, **more).wait(timeout_s=120)
    assert job.status == "succeeded", job.error
    path = job.download_predictions(folder)
    assert path.suffix == ".csv"
    return rows_of(path)


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("kind", "target", "added"),
    [("classifier", "label", 4), ("regressor", "income", 1)],
)
def test_rows_have_the_numbers_of_a_request_with_the_same_rows_to_the_last_digit(
    client: Client, tmp_path: Path, kind: str, target: str, added: int
) -> None:
    (tmp_path / "people.csv").write_text(MIXED, encoding="utf-8")
    data = client.upload(f"people-{kind}", tmp_path / "people.csv", target=target)
    job = trained(client, data.name, kind=kind)
    header, *rows = predicted(client, job, data.name, tmp_path)
    assert header[-added:][0] == "prediction"
    assert len(rows) == 1400
    names = header[:-added]
    assert names[-1] == target, "the target is beside the prediction"

    text = io.StringIO()
    csv.writer(text).writerows([names, *(row[:-added] for row in rows)])
    (tmp_path / "again.csv").write_text(text.getvalue(), encoding="utf-8")
    job.predict_table(tmp_path / "again.csv", tmp_path / "answer.csv")
    _, *answered = rows_of(tmp_path / "answer.csv")
    assert [row[-added:] for row in answered] == [row[-added:] for row in rows]
    sent = {tuple(line.split(",")) for line in MIXED.splitlines()[1:]}
    order = [names.index(name) for name in ("age", "city", "since", "income", "label")]
    found = {tuple(row[index] for index in order) for row in rows}
    assert {row[:3] for row in found} == {row[:3] for row in sent}, "cells are as in the uploaded file"


def test_images_have_the_probabilities_of_a_request_with_the_same_images(client: Client, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200, dtype=np.uint8) % 4
    images = (rng.integers(0, 60, (200, 12, 12)) + 45 * labels[:, None, None]).astype(np.uint8)
    parts = {"x_train": images[:150], "y_train": labels[:150], "x_test": images[150:], "y_test": labels[150:]}
    np.savez(tmp_path / "squares.npz", **parts)
    data = client.upload("squares", tmp_path / "squares.npz")
    job = trained(client, data.name, batch_size=30)
    header, *rows = predicted(client, f"{job.id}@latest", data.name, tmp_path, part="validation")
    assert header[:5] == ["index", "part", "class", "prediction", "probability"]
    assert [row[:3] for row in rows] == [[str(n), "validation", str(label)] for n, label in enumerate(labels[150:])]
    answer = job.predict(images[150:], checkpoint="latest")
    assert [row[5:] for row in rows] == [[f"{share:.6g}" for share in shares] for shares in answer["probabilities"]]
    assert [row[3] for row in rows] == [answer["class_names"][index] for index in answer["classes"]]


def test_the_reference_stays_pinned_while_the_job_gets_other_best_checkpoints(client: Client) -> None:
    job = trained(client, "iris", checkpoint={"keep_last": 10})
    prediction = client.predict_dataset(f"{job.id}@1", "iris", name="first epoch").wait(timeout_s=60)
    pinned = prediction.resolved["model"]
    assert (pinned["reference"], pinned["checkpoint"]) == (f"{job.id}@1", 1)
    assert prediction["progress"]["step"] == 150
    assert prediction.epochs == 1
    (log,) = [event for event in prediction.events() if event.type == "log"]
    assert (log.data["code"], log.data["message"].split(",")[0]) == ("predicted", "150 rows")
