"""The client's ``Job``, and looking up jobs by name."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tapeline import AmbiguousJob, ApiError, Client
from tests.tapeline.stub.scenes import Recordings

TINY = {
    "kind": "classifier",
    "epochs": 2,
    "layers": [{"units": 10, "activation": "softmax"}],
    "checkpoint": {"keep_last": 2},
}
LONG = {"kind": "gan", "epochs": 1000}


@pytest.fixture(scope="session")
def trained(recordings: Recordings) -> str:
    with recordings.scene("jobs", "trained") as url, Client(url) as client:
        job = client.submit(TINY | {"name": "trained", "tags": ["client"]}).wait(timeout_s=120)
        assert job.status == "succeeded"
        return job.id


def test_a_job_exposes_its_document_by_attribute_and_by_key(client: Client, trained: str) -> None:
    job = client.job(trained)
    assert (job.id, job.name, job.kind, job.status, job.tags) == (
        trained,
        "trained",
        "classifier",
        "succeeded",
        ["client"],
    )
    assert (job.epoch, job.epochs, job.ended, job.error, job.parent_id) == (2, 2, True, None, None)
    assert job["metrics"]["val_accuracy"] == job.metrics["val_accuracy"]
    assert job.spec == TINY | {"name": "trained", "tags": ["client"]}
    assert job.resolved["batch_size"] == job["resolved"]["batch_size"]
    assert (job.best_epoch in (1, 2), job.result_digest) == (True, job["result_digest"])
    assert job.created_at.tzinfo is not None
    assert job.page == f"{client.server}/ui/jobs/{trained}"
    assert repr(job) == f"<Job {trained} 'trained' succeeded>"
    assert json.loads(json.dumps(job.document)) == job
    assert job != client.submit(TINY).cancel()


def test_a_listed_job_fetches_what_the_list_leaves_out(client: Client, trained: str) -> None:
    (job,) = client.jobs(name="trained")
    assert "resolved" not in job
    assert job.resolved["epochs"] == 2
    assert [listed.id for listed in client.list(tag="client")] == [trained]


def test_a_job_is_watched_to_its_end(client: Client) -> None:
    job = client.submit(TINY)
    events = list(job.events())
    assert [event.type for event in events].count("metrics") == 2
    assert events[-1].type == "end"
    assert job.status == "queued", "as it was when it was last read"
    assert job.refresh().status == "succeeded"
    history = job.history()
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[-1]["val_accuracy"] == history.series["val_accuracy"][-1] == job.metrics["val_accuracy"]
    assert list(history.to_frame()["val_loss"]) == history.document["series"]["val_loss"]
    with pytest.warns(DeprecationWarning, match=r"use history\(\)\.document\['epochs'\]"):
        assert history["epochs"] == [1, 2]


def test_waiting_ends_after_its_timeout(client: Client) -> None:
    job = client.submit(LONG)
    with pytest.raises(TimeoutError, match=r"is still (queued|running) after 0\.1 s"):
        job.wait(timeout_s=0.1)
    job.cancel()
    assert job.wait(timeout_s=120).status == "cancelled"
    job.delete()
    with pytest.raises(ApiError, match="no"):
        job.refresh()


def test_a_trained_job_predicts_and_its_files_are_downloaded(client: Client, trained: str, tmp_path: Path) -> None:
    job = client.job("trained")
    digit = client.download("/datasets/mnist-10k/validation/7.png", tmp_path / "digit.png")
    prediction = job.predict([digit], explain=True)
    assert prediction["class_names"][prediction["classes"][0]].isdecimal()
    assert prediction["saliency"] is not None
    names = {path.name for path in job.download(tmp_path / "files")}
    assert names >= {"checkpoint-0002.safetensors", "curves.png", "confusion.png", "samples.gif"}
    assert b"layers.0.weight" in job.download_checkpoint("latest", tmp_path / "latest.safetensors").read_bytes()
    assert [item["epoch"] for item in job.checkpoints()] == [1, 2]
    assert job.results()["final"] is True


def test_a_job_is_forked_reproduced_and_changed(client: Client, trained: str) -> None:
    job = client.job(trained)
    fork = job.fork({"epochs": 3, "optimizer": {"learning_rate": 0.01}}, checkpoint=1)
    assert (fork.name, fork.parent_id, fork["start_epoch"]) == ("trained-2", trained, 1)
    reproduction = job.reproduce().wait(timeout_s=120)
    assert reproduction.reproduction is not None
    assert reproduction.reproduction["match"] is True
    assert fork.wait(timeout_s=120).change(name="renamed", tags=["a"]).name == "renamed"
    assert client.job(fork.id).tags == ["a"]


def test_a_cross_validation_is_submitted_as_a_whole(client: Client, trained: str) -> None:
    spec = TINY | {"epochs": 1, "dataset": "mnist-10k"}
    jobs = client.submit_folds(spec, 3, idempotency_key="cross")
    repeated = client.submit_folds(spec, 3, idempotency_key="cross")
    assert [job.id for job in repeated] == [job.id for job in jobs]
    assert [job.resolved["dataset"]["fold"] for job in jobs] == [0, 1, 2]
    assert [job.wait(timeout_s=120).status for job in jobs] == ["succeeded"] * 3
    cross_validation = client.folds(jobs[1])
    assert [item["id"] for item in cross_validation["jobs"]] == [job.id for job in jobs]
    mean = sum(job.metrics["val_accuracy"] or 0 for job in jobs) / 3
    assert cross_validation["means"]["val_accuracy"]["mean"] == pytest.approx(mean)
    assert client.folds(client.submit_folds({**spec, "dataset": {"name": "mnist-10k", "folds": 2}})[0])["folds"] == 2
    with pytest.raises(LookupError, match="not a fold"):
        client.folds(trained)


def test_the_examples_of_a_dataset_are_read_from_all_pages(client: Client, tmp_path: Path) -> None:
    examples = list(client.dataset_examples("mnist-10k", part="validation", label=7, limit=3))
    assert (len(examples), {item["label"] for item in examples}) == (3, {7})
    digit = client.download(f"/datasets/mnist-10k/validation/{examples[2]['index']}.png", tmp_path / "digit.png")
    assert np.array_equal(pixels(base64.b64decode(examples[2]["image"])), pixels(digit.read_bytes()))
    table = tmp_path / "table.csv"
    table.write_text("width,class\n" + "".join(f"{row**2},{'small' if row < 75 else 'large'}\n" for row in range(150)))
    client.upload("widths", {"table": table})
    training = list(client.dataset_examples("widths"))
    assert len(training) == client.dataset("widths")["train_count"] > 100, "more than a page"
    assert list(client.dataset_rows("widths", limit=101)) == training[:101]
    rows = [item["values"] for item in [*training, *client.dataset_examples("widths", part="validation")]]
    assert sorted(row["width"] for row in rows) == [row**2 for row in range(150)]
    assert [column["name"] for column in client.dataset_columns("widths")["columns"]] == ["width"]


def pixels(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_network_of_a_table_is_evaluated(client: Client) -> None:
    spec = {"kind": "classifier", "name": "flowers", "dataset": "iris", "epochs": 2}
    job = client.submit(spec).wait(timeout_s=120)
    assert {column["column"] for column in client.job("flowers").importance()["columns"]} == {
        column["name"] for column in client.dataset_columns("iris")["columns"]
    }
    counted = sum(map(sum, client.job("flowers").confusion(epoch=2)["matrix"]))
    assert counted == job.calibration()["validation_count"] == job.mistakes(checkpoint=2)["validation_count"]
    assert client.bisect("flowers", "val_accuracy", below=1.1).epoch == 1


def test_what_the_service_offers_is_listed(client: Client) -> None:
    assert {("classifier", "fast"), ("gan", "stable")} <= {(item["kind"], item["name"]) for item in client.presets()}
    assert client.api_keys() == []
    assert client.upload_progress("not-an-upload")["state"] == "absent"
    with pytest.raises(ApiError) as caught:
        client.rotate_key("key_0123456789ab")
    assert caught.value.code == "keys_not_required"


def test_a_gan_generates_images(client: Client) -> None:
    spec: dict[str, Any] = {
        "kind": "gan",
        "epochs": 1,
        "generator": {"layers": [{"units": 784, "activation": "tanh"}]},
        "discriminator": {"layers": [{"units": 1, "activation": "sigmoid"}]},
    }
    job = client.submit(spec).wait(timeout_s=120)
    assert len(job.generate(seed=1, count=2)["images"]) == 2
    assert job.generate_picture(count=4).data.startswith(b"\x89PNG")


def test_a_full_name_selects_the_newest_job_that_has_it(client: Client) -> None:
    older, newer, longer = (client.submit(LONG | {"name": name}) for name in ("twin", "twin", "twin two"))
    lookup = client.look_up("twin")
    assert (lookup.job.id, lookup.namesakes) == (newer.id, 2)
    assert client.job(older.id).id == older.id
    assert client.job("win TWO").id == longer.id
    assert client.job(older.id[-6:].lower()).id == older.id
    with pytest.raises(AmbiguousJob) as caught:
        client.job("win")
    assert [job["id"] for job in caught.value.candidates] == [longer.id, newer.id, older.id]
    lines = str(caught.value).splitlines()
    assert lines[1].startswith(f"  {longer.id}  twin two  ")
    assert re.search(r" \d+ (s|min|h|d) old$", lines[1])
    for job in (older, newer, longer):
        job.cancel()


def test_an_unknown_job_name_is_an_error(client: Client, trained: str) -> None:
    with pytest.raises(ApiError, match=r"no job matches 'nothing' by id or name; client\.jobs\(\) lists the jobs"):
        client.job("nothing")
    with pytest.raises(ApiError):
        client.job("")


def test_former_methods_of_the_client_take_a_job_or_its_id_and_say_what_replaces_them(
    client: Client, trained: str
) -> None:
    job = client.job(trained)
    with pytest.warns(DeprecationWarning, match=r"use client\.job\(\.\.\.\)\.results\("):
        assert client.results(job) == client.results(trained) == job.results()
    with pytest.warns(DeprecationWarning, match=r"\.history\("):
        assert client.metrics(job) == client.metrics(job=trained) == job.history()


def test_a_dataset_is_predicted_by_a_job_whose_file_is_downloaded(client: Client, trained: str, tmp_path: Path) -> None:
    model = client.train(dataset="iris", epochs=1).wait(timeout_s=120)
    job = client.predict_dataset(model, "iris", part="validation", name="validated")
    assert (job.kind, job.name, job.resolved["model"]["job"]) == ("prediction", "validated", model.id)
    assert job.wait(timeout_s=120).status == "succeeded"
    header, *rows = job.download_predictions(tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith("sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm,species,prediction")
    assert len(rows) == job["progress"]["steps"] == 21
    latest = client.predict_dataset(f"{trained}@latest", client.dataset("mnist-10k"))
    assert latest.resolved["model"]["checkpoint"] == 2
    latest.cancel()
    with pytest.raises(ValueError, match="has no predictions: it is a classifier that is succeeded"):
        client.job(trained).download_predictions(tmp_path)
