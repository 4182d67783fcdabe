"""Uploads over HTTP, with the real import sandbox."""

import gzip
import io
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from service.application.datasets import DatasetUploads
from service.datasets import uploads
from service.datasets.formats.idx import idx_header
from service.datasets.info import content_sha256
from service.web.core.core import EXTENSION, Core, provided
from tests import object_servers
from tests.service.web.conftest import MakeApp, SimulatedWorker

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (60, 9, 7)).astype(np.uint8)
LABELS = (np.arange(60) % 5).astype(np.uint8)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return idx_header(array.shape) + array.tobytes()


def npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def upload_dataset(client: FlaskClient, name: str = "mine", **fields: bytes | str) -> Any:
    files = {key: FileStorage(io.BytesIO(value), key) for key, value in fields.items() if isinstance(value, bytes)}
    texts = {key: value for key, value in fields.items() if isinstance(value, str)}
    boundary, body = encode_multipart({"name": name, **texts, **files})
    return client.post("/datasets", data=body, content_type=f"multipart/form-data; boundary={boundary}")


@pytest.mark.parametrize(("level", "preset"), [(0, "fast"), (60, "fast"), (70, "conv"), (255, "conv")])
def test_bright_images_start_from_another_preset(client: FlaskClient, level: int, preset: str) -> None:
    images, labels = np.full((40, 5, 4), level, np.uint8), np.arange(40) % 2
    created = upload_dataset(client, archive=npz(images=images, labels=labels)).json
    assert created["default_preset"] == preset
    if preset == "fast":
        assert created["report"] is None
    else:
        assert created["report"]["mean_level"] == round(level / 255, 3)
        assert created["report"]["notes"][0].startswith(
            "the images are bright: a classifier starts from the preset conv"
        )
    spec = {"kind": "classifier", "dataset": "mine"}
    assert client.post("/jobs?dry_run=true", json=spec).json["resolved"]["preset"] == preset


def test_four_idx_files_are_a_dataset(client: FlaskClient) -> None:
    answer = upload_dataset(
        client,
        images=gzip.compress(idx(IMAGES)),
        labels=idx(LABELS),
        validation_images=idx(IMAGES[:10]),
        validation_labels=gzip.compress(idx(LABELS[:10])),
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == "/datasets/mine"
    dataset = client.get("/datasets/mine").json
    assert dataset == answer.json
    assert (dataset["image_shape"], dataset["classes"], dataset["uploaded"]) == ([9, 7], 5, True)
    assert (dataset["train_count"], dataset["validation_count"]) == (60, 10)
    assert "mine" in [item["name"] for item in client.get("/datasets").json["data"]]
    assert "mine" in client.get("/limits").json["datasets"]
    preview = client.get(dataset["urls"]["preview"])
    assert (preview.status_code, preview.data[:8]) == (200, b"\x89PNG\r\n\x1a\n")


def test_an_upload_has_the_sha256_of_the_built_in_dataset_with_the_same_data(client: FlaskClient) -> None:
    from service.datasets.builtins import BUILT_IN

    bundled = BUILT_IN["mnist-10k"].shipped
    assert bundled is not None
    fields = ("images", "labels", "validation_images", "validation_labels")
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = {field: (bundled / f"{name}-ubyte.gz").read_bytes() for field, name in zip(fields, names, strict=True)}
    answer = upload_dataset(client, **files)
    assert answer.status_code == 201, answer.text
    assert answer.json["sha256"] == client.get("/datasets/mnist-10k").json["sha256"]
    assert content_sha256(BUILT_IN["mnist-10k"].digests) == answer.json["sha256"]


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<f4", "<f8", "?"])
def test_an_archive_of_any_plain_type_is_stored_as_bytes(app: Flask, dtype: str) -> None:
    bits = IMAGES > 127
    pixels = {"f": IMAGES / 255, "b": bits}.get(np.dtype(dtype).kind, IMAGES).astype(dtype)
    answer = upload_dataset(
        app.test_client(), archive=npz(x_train=pixels[..., None], y_train=LABELS.astype("<i8")[:, None])
    )
    assert answer.status_code == 201, answer.text
    core: Core = app.extensions[EXTENSION]
    dataset = core.repository.load(core.repository.describe("mine", None))
    stored = np.concatenate([dataset.train.inputs, dataset.validation.inputs])
    expected = bits * np.uint8(255) if dtype == "?" else IMAGES
    assert sorted(map(bytes, stored)) == sorted(map(bytes, expected))


def test_the_split_keeps_images_with_their_labels_and_is_stratified(app: Flask) -> None:
    images = np.zeros((60, 4, 4), np.uint8)
    images[:, 0, 0] = np.arange(60)
    answer = upload_dataset(app.test_client(), archive=npz(images=images, labels=LABELS), validation_fraction="0.25")
    assert (answer.json["train_count"], answer.json["validation_count"]) == (45, 15)
    core: Core = app.extensions[EXTENSION]
    dataset = core.repository.load(core.repository.describe("mine", None))
    assert np.bincount(dataset.validation.labels).tolist() == [3] * 5
    for part_images, labels in (
        (dataset.train.inputs, dataset.train.labels),
        (dataset.validation.inputs, dataset.validation.labels),
    ):
        assert (part_images[:, 0, 0] % 5 == labels).all()


@pytest.mark.parametrize(
    ("fields", "parameter", "reason"),
    [
        ({}, "archive", "is missing"),
        ({"archive": npz(x=IMAGES, y=LABELS, z=LABELS)}, "archive", "has an unknown array 'z'"),
        ({"archive": npz(x=IMAGES, y=LABELS), "validation_fraction": "2"}, "validation_fraction", "between 0 and 1"),
        ({"archive": npz(x=IMAGES, y=LABELS), "validation_fraction": "nan"}, "validation_fraction", "between 0 and 1"),
        ({"archive": npz(x=IMAGES, y=LABELS), "colour": "red"}, "colour", "is unknown"),
        ({"archive": "text"}, "archive", "expected a file upload"),
    ],
)
def test_invalid_datasets_are_rejected_with_the_field(
    app: Flask, fields: dict[str, bytes | str], parameter: str, reason: str
) -> None:
    answer = upload_dataset(app.test_client(), **fields)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_upload"), answer.text
    assert {item["parameter"]: item["detail"] for item in answer.json["errors"]}.get(parameter, "").find(reason) >= 0, (
        answer.text
    )
    assert not list((app.extensions[EXTENSION].settings.artifacts / "datasets").iterdir())


@pytest.mark.parametrize("name", ["", "..", ".cache", "a/b", "a b", "ä", "x" * 65, "a\x00"])
def test_an_invalid_dataset_name_is_rejected(client: FlaskClient, name: str) -> None:
    answer = upload_dataset(client, name, archive=npz(x=IMAGES, y=LABELS))
    assert (answer.status_code, answer.json["errors"][0]["parameter"]) == (422, "name")


def test_repeating_an_upload_or_using_a_built_in_datasets_name_is_a_conflict(client: FlaskClient) -> None:
    archive = npz(x=IMAGES, y=LABELS)
    stored = upload_dataset(client, archive=archive)
    assert stored.status_code == 201
    for name in ("mine", "mnist-10k", "mnist"):
        conflict = upload_dataset(client, name, archive=archive)
        assert (conflict.status_code, conflict.json["code"]) == (409, "dataset_exists")
        assert conflict.json.get("version") == (stored.json["version"] if name == "mine" else None)


def test_a_dataset_can_be_deleted_only_when_no_job_needs_it(
    app: Flask, client: FlaskClient, submit: Any, worker: SimulatedWorker
) -> None:
    assert upload_dataset(client, archive=npz(x=IMAGES, y=LABELS)).status_code == 201
    job_id = submit(client, dataset={"name": "mine"}, batch_size=10)
    rejected = client.delete("/datasets/mine")
    assert (rejected.status_code, rejected.json["code"], rejected.json["jobs"]) == (409, "dataset_in_use", [job_id])
    client.post(f"/jobs/{job_id}/cancel")
    assert client.delete("/datasets/mine").status_code == 204
    assert client.get("/datasets/mine").status_code == 404
    assert client.delete("/datasets/mine").status_code == 404
    assert client.post("/jobs", json={"kind": "classifier", "dataset": {"name": "mine"}}).status_code == 422


def test_a_built_in_dataset_cannot_be_deleted(client: FlaskClient) -> None:
    answer = client.delete("/datasets/mnist-10k")
    assert (answer.status_code, answer.json["code"]) == (409, "dataset_fixed")


def test_two_owners_may_use_the_same_name_for_their_datasets(make_app: MakeApp, sqlite_url: str) -> None:
    from service.runtime.settings import Auth

    app = make_app(sqlite_url, auth=Auth.KEYS, api_keys=("one-key-of-some-length", "another-of-some-length"))
    owner, stranger = app.test_client(), app.test_client()
    owner.environ_base["HTTP_AUTHORIZATION"] = "Bearer one-key-of-some-length"
    stranger.environ_base["HTTP_AUTHORIZATION"] = "Bearer another-of-some-length"
    assert upload_dataset(owner, archive=npz(x=IMAGES, y=LABELS)).status_code == 201
    rejected = stranger.post("/jobs", json={"kind": "classifier", "dataset": {"name": "mine"}})
    assert (rejected.status_code, rejected.json["errors"][0]["code"]) == (422, "dataset_not_found")
    assert "mine" not in rejected.text.replace("'mine'", "")
    assert upload_dataset(stranger, archive=npz(x=IMAGES[:40], y=LABELS[:40])).status_code == 201
    assert owner.get("/datasets/mine").json["train_count"] > stranger.get("/datasets/mine").json["train_count"]


def test_an_interrupted_upload_is_deleted_after_a_while(app: Flask, client: FlaskClient) -> None:
    upload_dataset(client, archive=npz(x=IMAGES, y=LABELS))
    core: Core = app.extensions[EXTENSION]
    files = provided(DatasetUploads, app).files
    (files.artifacts / "datasets" / ".ds_BROKEN").mkdir()
    (files.artifacts / "datasets" / "ds_NOROW").mkdir()
    (files.artifacts / "datasets" / "ds_NOROW" / "meta.json").touch()

    def upload_ids() -> set[str]:
        with core.database.read() as session:
            return uploads.ids(session)

    assert files.sweep(upload_ids, older_than_s=60) == []
    assert files.sweep(upload_ids, older_than_s=-1) == [".ds_BROKEN", "ds_NOROW"]
    assert not (files.artifacts / "datasets" / "ds_NOROW").exists()
    assert client.get("/datasets/mine/preview.png").status_code == 200


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"x", "multipart/form-data", 400),
        (b"--x\r\n", "multipart/form-data; boundary=x", 400),
        (b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nmine', "multipart/form-data; boundary=x", 400),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 422),
    ],
)
def test_an_invalid_upload_form_is_rejected(client: FlaskClient, body: bytes, content_type: str, status: int) -> None:
    assert client.post("/datasets", data=body, content_type=content_type).status_code == status


def test_an_unwritable_artifact_folder_is_reported_as_full_storage(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (app.extensions[EXTENSION].settings.artifacts).write_text("a file where the folder should be")
    answer = upload_dataset(client, archive=npz(x=IMAGES, y=LABELS))
    assert (answer.status_code, answer.json["code"]) == (507, "storage_full")


def test_an_upload_is_told_that_the_store_does_not_respond(
    make_app: MakeApp, migrated_url: str, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_servers.credentials().items():
        monkeypatch.setenv(name, value)
    with closing(object_servers.FaultyProxy(moto)) as proxy:
        store = {"store": f"s3://{object_servers.BUCKET}/uploads", "store_endpoint": proxy.url, "lease_s": 3.0}
        client = make_app(migrated_url, **store).test_client()
        proxy.fault = lambda exchange: (503, b"") if exchange.method == "PUT" else None
        answer = upload_dataset(client, archive=npz(x=IMAGES, y=LABELS))
        assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
        assert client.get("/datasets/mine").status_code == 404
        proxy.fault = lambda exchange: None
        assert upload_dataset(client, archive=npz(x=IMAGES, y=LABELS)).status_code == 201
        assert client.get("/datasets/mine/preview.png").status_code == 200
        assert client.delete("/datasets/mine").status_code == 204


def test_a_dry_run_notes_what_a_preset_uses_for_few_images(app: Flask) -> None:
    client = app.test_client()
    images = np.random.default_rng(0).integers(0, 256, (400, 16, 16), np.uint8)
    assert upload_dataset(client, "few", archive=npz(x=images, y=np.arange(400, dtype=np.uint8) % 4)).status_code == 201
    spec = {"kind": "classifier", "preset": "conv", "dataset": "few"}
    notes = client.post("/jobs?dry_run=true", json=spec).json["notes"]
    assert "Preset conv takes batch_size 16 and 58 epochs for 340 training images." in notes


@pytest.mark.parametrize("preset", ["classic", "stable", "best"])
def test_a_gan_preset_is_adapted_to_an_upload_of_another_size(app: Flask, preset: str) -> None:
    client = app.test_client()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 16, 16), np.uint8)
    created = upload_dataset(client, "small", archive=npz(x=images, y=np.arange(40, dtype=np.uint8) % 4))
    assert (created.status_code, created.json["state"]) == (201, "ready")
    spec = {"kind": "gan", "preset": preset, "dataset": "small"}
    plan = client.post("/jobs?dry_run=true", json=spec)
    assert plan.status_code == 200, plan.text
    notes = plan.json["notes"]
    assert f"The layers of preset {preset} are adapted to images of 16 x 16." in notes
    assert any(note.startswith("batch_size is") for note in notes)
    assert client.post("/jobs", json=spec).status_code == 201
