"""The page of a job as rendered by the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, update

from service.jobs import commits, leases
from service.jobs.queries import lookup
from service.states import MachineFaultReason
from service.storage.database import Database
from service.storage.tables import Epoch, Event, Job
from service.web.core.core import EXTENSION, Core
from service.web.http.templates import NOTHING
from service.web.jobs import overview
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.markup import one_line

Submit = Callable[..., str]


def tile_text(page: str, name: str) -> str:
    """The text of one tile."""
    match = re.search(rf'data-(?:metric|resource)="{name}">(.*?)(?:<div class="tile[ "]|</section>)', page, re.DOTALL)
    assert match is not None, f"no tile {name}"
    return " ".join(re.sub(r"<[^>]+>", " ", match[1]).split())


def set_columns(app: Flask, job_id: str, **values: Any) -> None:
    core: Core = app.extensions[EXTENSION]
    with core.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def test_the_best_value_is_shown_with_its_epoch(client: FlaskClient, worker: SimulatedWorker, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    for epoch, loss in enumerate([0.5, 0.25, 0.25, float("nan"), 0.75], start=1):
        worker.commit_epoch(epoch, metrics={"val_loss": loss, "val_accuracy": 0.1 * epoch})
    page = client.get(f"/ui/jobs/{job_id}").text
    assert "best 0.25 in epoch 2" in tile_text(page, "val_loss")
    assert "0.75" in tile_text(page, "val_loss")
    assert "best 50.00% in epoch 5" in tile_text(page, "val_accuracy")


def test_the_calibration_mentions_label_smoothing_only_if_it_was_used(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    for smoothing in (0.1, 0.0):
        job_id = submit(client, loss={"name": "softmax_cross_entropy", "label_smoothing": smoothing})
        worker.claim()
        worker.commit_epoch(1)
        page = one_line(client.get(f"/ui/jobs/{job_id}").text)
        assert 'id="calibration"' in page
        assert ("The job trains with label smoothing of 0.1, which lowers" in page) is bool(smoothing)
        assert ("label smoothing of" in page) is bool(smoothing)
        worker.succeed()


def test_the_tile_of_the_training_loss_says_what_this_job_adds_to_it(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    for label_smoothing, weights, sentence in (
        (0.1, "balanced", "In this job: label smoothing of 0.1, balanced class weights and augmented images."),
        (0.0, None, "In this job: augmented images."),
    ):
        loss = {"name": "softmax_cross_entropy", "label_smoothing": label_smoothing, "class_weights": weights}
        job_id = submit(client, loss=loss)
        worker.claim()
        worker.commit_epoch(1, metrics={"train_loss": 0.5, "val_loss": 0.25})
        page = client.get(f"/ui/jobs/{job_id}").text
        assert sentence in tile_text(page, "train_loss")
        assert "without label smoothing and class weights" in tile_text(page, "val_loss")
        worker.succeed()


def test_an_accuracy_on_few_rows_is_shown_with_their_number_and_its_interval(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1, metrics={"val_accuracy": 1.0, "val_loss": 0.2}, confusion=[[15, 0], [0, 15]])
    worker.commit_epoch(2, metrics={"val_accuracy": 0.9, "val_loss": 0.3}, confusion=[[12, 3], [0, 15]], best=False)
    page = client.get(f"/ui/jobs/{job_id}").text
    assert "100.00% of 30, 95% interval 89% to 100% best 100.00% in epoch 1" in tile_text(page, "val_accuracy")
    page = client.get(f"/ui/jobs/{job_id}?checkpoint=latest").text
    expected = "90.00% of 30, 95% interval 74% to 97% best 100.00% in epoch 1"
    assert expected in tile_text(page, "val_accuracy")
    assert "95% confidence" not in tile_text(page, "val_loss")
    results = client.get(f"/jobs/{job_id}/results").json
    assert (results["intervals"]["val_accuracy"]["n"], results["best"]["intervals"]["val_accuracy"]["n"]) == (30, 30)
    [listed] = client.get("/jobs").json["data"]
    assert listed["intervals"] == {"val_accuracy": results["intervals"]["val_accuracy"]}


def test_if_accuracies_are_tied_the_tile_names_the_epoch_of_the_best_checkpoint(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job_id = submit(client)
    worker.claim()
    for epoch, (accuracy, is_best) in enumerate([(0.5, True), (0.9, True), (0.9, True), (0.9, False)], start=1):
        worker.commit_epoch(epoch, metrics={"val_accuracy": accuracy}, best=is_best)
    assert "best 90.00% in epoch 3" in tile_text(client.get(f"/ui/jobs/{job_id}").text, "val_accuracy")


def test_resources_are_shown_only_if_they_were_measured(
    app: Flask, client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1)
    set_columns(app, job_id, cpu_seconds=None, peak_memory_bytes=None)
    page = client.get(f"/ui/jobs/{job_id}").text
    assert 'data-resource="cpu"' not in page
    assert 'data-resource="memory"' not in page
    set_columns(app, job_id, cpu_seconds=7260.0, peak_memory_bytes=123_400_000, started_ms=1000, finished_ms=5500)
    page = client.get(f"/ui/jobs/{job_id}").text
    assert tile_text(page, "cpu").endswith("2.0 h")
    assert tile_text(page, "memory").endswith("123 MB")
    assert tile_text(page, "duration").endswith("under a second"), "an epoch of half a second"
    set_columns(app, job_id, status="succeeded")
    page = client.get(f"/ui/jobs/{job_id}").text
    assert "trained under a second, 5 s from start to end" in page
    assert client.get(f"/jobs/{job_id}/results").json["trained_seconds"] == 0.5
    set_columns(app, job_id, reused_epochs=1)
    assert client.get(f"/jobs/{job_id}/results").json["trained_seconds"] == 0


def test_a_class_without_images_has_null_scores_shown_as_dashes(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job_id = submit(client)
    worker.claim()
    matrix = [[5 if row == column else 0 for column in range(10)] for row in range(10)]
    matrix[3] = [0] * 10
    worker.commit_epoch(1, confusion=matrix)
    assert client.get(f"/jobs/{job_id}/confusion").json["per_class"][3] == {
        "class_name": "3",
        "support": 0,
        "precision": None,
        "recall": None,
        "f1": None,
    }
    page = one_line(client.get(f"/ui/jobs/{job_id}").text)
    row = re.search(r'<tr><th scope="row"><span>3</span></th>(<td class="number">.*?)</tr>', page)
    assert row is not None
    assert re.findall(r">([^<]+)<", row[1]) == ["0", *[NOTHING] * 3]


def test_a_confusion_matrix_of_another_size_is_labelled_with_class_numbers(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1, confusion=[[2, 1], [0, 3]])
    confusion = client.get(f"/jobs/{job_id}/confusion").json
    assert confusion["class_names"] == ["0", "1"]
    assert 'aria-label="True 0, predicted 1: 1 image"' in client.get(f"/ui/jobs/{job_id}").text


def test_a_confusion_matrix_is_selected_by_checkpoint(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job_id = submit(client)
    worker.claim()
    matrices = [[[3, 2], [2, 3]], [[5, 0], [0, 5]], [[4, 1], [0, 5]]]
    for epoch, matrix in enumerate(matrices, 1):
        worker.commit_epoch(epoch, confusion=matrix, best=epoch == 2, keep_last=1)
    epochs = {"": 3, "?checkpoint=best": 2, "?checkpoint=latest": 3, "?checkpoint=1": 1, "?epoch=1": 1}
    for query, epoch in epochs.items():
        answer = client.get(f"/jobs/{job_id}/confusion{query}").json
        assert (answer["epoch"], answer["matrix"]) == (epoch, matrices[epoch - 1])
        if query != "?epoch=1":
            drawn = client.get(f"/jobs/{job_id}/plots/confusion.png{query}")
            assert (
                drawn.headers["ETag"]
                == client.get(f"/jobs/{job_id}/plots/confusion.png?checkpoint={epoch}").headers["ETag"]
            )
    etags = {
        client.get(f"/jobs/{job_id}/plots/confusion.png?checkpoint={epoch}").headers["ETag"] for epoch in (1, 2, 3)
    }
    assert len(etags) == 3
    for path in ("confusion", "plots/confusion.png"):
        assert client.get(f"/jobs/{job_id}/{path}?checkpoint=4").json["code"] == "not_yet"
        assert client.get(f"/jobs/{job_id}/{path}?checkpoint=last").status_code == 400


def test_children_are_listed_newest_first_and_only_those_of_the_owner(database: Database) -> None:
    def job(number: int, **values: Any) -> Job:
        fixed = {"kind": "classifier", "tags": [], "priority": 5, "spec": {}, "resolved": {}, "spec_hash": "x"}
        times = {"created_ms": number, "queued_ms": number, "epochs": 1, "steps": 1}
        return Job(id=f"job_{number}", owner="ann", name=f"number {number}", **fixed, **times, **values)

    with database.write() as session:
        session.add_all([job(1), *(job(number, parent_id="job_1") for number in range(2, 8)), job(8)])
    with database.write() as session:
        session.execute(update(Job).where(Job.id == "job_7").values(owner="bob"))
    with database.read() as session:
        rows, count = lookup.children(session, "job_1", owner="ann", limit=3)
        assert ([row.id for row in rows], count) == (["job_6", "job_5", "job_4"], 5)
        rows, count = lookup.children(session, "job_1", limit=30)
        assert (len(rows), count) == (6, 6)
        child, foreign = session.get_one(Job, "job_2"), session.get_one(Job, "job_7")
        parent = lookup.parent(session, child, owner="ann")
        assert parent is not None
        assert parent.id == "job_1"
        assert lookup.parent(session, foreign, owner="bob") is None
        assert lookup.parent(session, parent, owner="ann") is None


def test_markup_in_a_note_is_escaped(client: FlaskClient, submit: Submit) -> None:
    job_id = submit(client)
    client.patch(f"/jobs/{job_id}", json={"note": "<script>alert(1)</script>\nsecond", "starred": True})
    page = client.get(f"/ui/jobs/{job_id}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\nsecond" in page
    assert 'id="star" data-live aria-pressed="true"' in one_line(page)


@contextmanager
def collect_loaded_rows(model: type[Event] | type[Epoch]) -> Iterator[list[Any]]:
    """Collect the rows of a table that are loaded inside the block."""
    rows: list[Any] = []

    def collect(row: Any, _: Any) -> None:
        rows.append(row)

    event.listen(model, "load", collect)
    try:
        yield rows
    finally:
        event.remove(model, "load", collect)


def test_the_page_of_a_long_job_loads_only_the_rows_that_it_shows(
    either_app: Flask, make_worker: Callable[[Flask], SimulatedWorker], submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = submit(client, epochs=9)
    for epoch in (1, 2, 3):
        claim = worker.claim()
        for number in range(30):
            commits.log(worker.database, claim, "info", "note", f"line {epoch}-{number:02d}")
        worker.commit_epoch(epoch, metrics={"val_loss": 1 / epoch})
        leases.release_lease(worker.database, claim, None)
    with collect_loaded_rows(Event) as events:
        page = client.get(f"/ui/jobs/{job_id}").text
    lines = re.findall(r"line (\d-\d\d)", page)
    assert lines == sorted(lines, reverse=True)
    assert ("3-29" in lines, "1-29" in lines, len(events)) == (True, False, 60)
    assert "resumed after epoch 2" in page
    monkeypatch.setattr(overview, "_MAX_SHOWN_FILES", 2)
    with collect_loaded_rows(Epoch) as epochs:
        page = client.get(f"/ui/jobs/{job_id}").text
    assert [row.epoch for row in epochs] == [3]
    assert "3 other files, the newest 2 of which are listed" in page


def test_a_job_that_was_released_says_why_it_waits(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job_id = submit(client)
    error = {"code": "storage", "message": "[Errno 28] No space left on device"}
    leases.release_for_fault(
        worker.database,
        worker.claim(),
        MachineFaultReason.STORE,
        error,
        store_timeout_s=600,
        then=lambda session, job: None,
    )
    page = client.get(f"/ui/jobs/{job_id}", headers={"Accept": "text/html"}).text
    assert "its machine cannot store or read files" in page
    assert client.get(f"/jobs/{job_id}").json["reason"] == "storage"
    assert "No space left on device; the job waits for another machine, or until this one is well" in page
