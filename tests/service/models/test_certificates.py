"""Signing keys and signers, and what a gate can learn of a certificate."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import safetensors
from sqlalchemy import select

from service.access.audit import Actor
from service.errors import SigningKeyNotFound, SigningUnavailable
from service.models.certificates import contents, evidence, signing, signing_keys
from service.runtime.settings import Settings
from service.states import Status
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database, now_ms
from service.storage.stores import open_store
from service.storage.tables import Artifact, AuditEntry, Job, SigningKey
from tests.tapeline.verify import making


def settings(home: Path, **environ: str) -> Settings:
    return Settings.from_env({"TAPELINE_HOME": str(home)} | environ, cores=1)


def test_the_key_is_made_once_even_by_several_processes_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(8) as pool:
        found = {signer.kid for signer in pool.map(lambda _: signing.open_signer(settings(home)), range(16))}
    assert len(found) == 1
    assert [path.name for path in (home / "keys").iterdir()] == ["signing-key.pem"]
    assert stat.S_IMODE((home / "keys" / "signing-key.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"", 0o600, "cannot be used"),
        (b"not a key", 0o600, "cannot be used"),
        (None, 0o644, "chmod 600"),
    ],
)
def test_an_unusable_key_is_refused_with_the_remedy_and_not_replaced(
    tmp_path: Path, content: bytes | None, mode: int, message: str
) -> None:
    path = tmp_path / "keys" / "signing-key.pem"
    signing.open_signer(settings(tmp_path))
    if content is not None:
        path.write_bytes(content)
    path.chmod(mode)
    before = path.read_bytes()
    with pytest.raises(SigningUnavailable, match=message):
        signing.open_signer(settings(tmp_path))
    assert path.read_bytes() == before


@pytest.mark.stack
def test_a_key_on_another_curve_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing-key.pem"
    path.parent.mkdir()
    command = ["openssl", "ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.chmod(0o600)
    with pytest.raises(SigningUnavailable, match="P-256"):
        signing.open_signer(settings(tmp_path))


def external(tmp_path: Path, command: str) -> Settings:
    """Settings with a command, and a file of the public key of ``tmp_path / "private.pem"``."""
    own = signing.open_signer(settings(tmp_path, TAPELINE_SIGNING_KEY=str(tmp_path / "private.pem")))
    (tmp_path / "public.pem").write_text(own.public_key)
    return settings(tmp_path, TAPELINE_SIGNING_KEY=str(tmp_path / "public.pem"), TAPELINE_SIGNING_COMMAND=command)


@pytest.mark.stack
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_command_signs_in_place_of_the_key(tmp_path: Path) -> None:
    found = signing.open_signer(external(tmp_path, f"openssl dgst -sha256 -sign {tmp_path / 'private.pem'}"))
    folder = making.make(tmp_path / "certificate", found)
    assert found.kid in (folder / "model.sig").read_text()
    assert not (tmp_path / "keys").exists()


@pytest.mark.stack
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/nonexistent/command", r"cannot be run \(FileNotFoundError\): check its path"),
        ("false", "ended with exit code 1"),
        ("true", "wrote 0 bytes"),
        ("cat", "wrote [0-9]+ bytes"),
        ("printf nonsense", "is not a signature by the key"),
        ("'", r"cannot be run \(ValueError\)"),
    ],
)
def test_a_command_that_does_not_sign_is_refused(tmp_path: Path, command: str, message: str) -> None:
    signer = signing.open_signer(external(tmp_path, command))
    with pytest.raises(SigningUnavailable, match=message):
        making.make(tmp_path / "certificate", signer)
    assert not (tmp_path / "certificate").exists()


def test_with_a_command_the_public_key_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SigningUnavailable, match="must be the file of its public key"):
        signing.open_signer(settings(tmp_path, TAPELINE_SIGNING_COMMAND="true"))


def test_keys_are_published_once_and_stay_after_they_are_retired(database: Database, tmp_path: Path) -> None:
    signer, by = making.signer(tmp_path), Actor(owner="ann", key_id="k1")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: signing_keys.register(database, signer, by=by), range(8)))
    signing_keys.retire(database, signer.kid, at_ms=2_000_000, by=by)
    signing_keys.retire(database, signer.kid, at_ms=1_000_000, by=by)
    row = signing_keys.retire(database, signer.kid, by=by)
    assert signing_keys.document(row) == {
        "kid": signer.kid,
        "public_key": signer.public_key,
        "not_before": "1970-01-01T00:00:00Z",
        "retired_at": "1970-01-01T00:16:40Z",
    }
    with database.read() as session:
        assert [key.kid for key in signing_keys.all_of(session)] == [signer.kid]
        assert signing_keys.find(session, signer.kid[:6]).kid == signer.kid
        actions = session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)).all()
        for text in ("", "x"):
            with pytest.raises(SigningKeyNotFound):
                signing_keys.find(session, text)
    assert actions == ["new_signing_key", "retire_signing_key", "retire_signing_key", "retire_signing_key"]
    with pytest.raises(SigningUnavailable, match="was retired"):
        signing_keys.register(database, signer)
    with pytest.raises(SigningKeyNotFound):
        signing_keys.retire(database, "0" * 64)


def job(**values: Any) -> Job:
    columns: Mapping[str, Any] = {
        "id": "job_1",
        "kind": "classifier",
        "tags": [],
        "priority": 0,
        "spec": {},
        "resolved": making.resolved(),
        "spec_hash": "sha256:x",
        "status": Status.SUCCEEDED,
        "epoch": 3,
        "epochs": 3,
        "steps": 3,
        "reusable": True,
        "start_epoch": 0,
        "result_digest": "sha256:x",
        "dataset_sha256": "sha256:x",
        "provenance": {"code": "sha256:x"},
        "created_ms": now_ms(),
        "queued_ms": now_ms(),
    }
    return Job(**{**columns, **values})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"status": Status.RUNNING}, "it is running, and only a succeeded job"),
        ({"status": Status.FAILED}, "it is failed"),
        ({"reusable": False}, "bits are in doubt: it went on in another environment"),
        ({"provenance": None}, "an earlier release"),
        ({"provenance": {"numpy": "2.4"}}, "an earlier release"),
        ({"result_digest": None}, "an earlier release"),
        ({"dataset_sha256": None}, "the digest of its data"),
        ({"start_epoch": 3}, "certify its parent"),
        ({"investigation": {"a": "x"}}, "an investigation, which has no result"),
    ],
)
def test_a_job_whose_bits_are_not_certain_has_no_certificate(values: dict[str, Any], reason: str) -> None:
    refusal = contents.refusal(job(**values), 3)
    assert refusal is not None
    assert reason in str(refusal)
    assert contents.refusal(job(), 3) is None


def test_a_gate_finds_only_a_certificate_of_these_bytes_with_a_known_key(database: Database, tmp_path: Path) -> None:
    signer, artifacts = making.signer(tmp_path), open_store(settings(tmp_path))
    folder = making.make(tmp_path / "certificate", signer)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"first/{path.name}")
    certified = artifacts.write("job_1", ArtifactKind.CERTIFICATE, 3, 0, packed.getvalue())
    checkpoint = making.artifact((folder / "checkpoint.safetensors").read_bytes(), 3)

    def state(checkpoint: Artifact) -> evidence.CertificateEvidence:
        with database.read() as session:
            return evidence.state(session, artifacts, job(), checkpoint)

    missing = state(checkpoint)
    assert (missing.certified, missing.reason) == (False, "no certificate was made yet")
    assert missing.request == "GET /jobs/job_1/certificate?checkpoint=3"
    with database.write() as session:
        session.add(job())
        session.flush()
        row = Artifact(
            id="art_1", job_id="job_1", kind=certified.kind, epoch=3, lease=0, name="c.zip", path=certified.path,
            media_type="application/zip", size_bytes=certified.size_bytes, sha256=certified.sha256, created_ms=0,
        )  # fmt: skip
        session.add(row)
    assert "which is not trusted" in state(checkpoint).reason
    signing_keys.register(database, signer)
    found = state(checkpoint)
    assert (found.certified, found.kid, found.request) == (True, signer.kid, None)
    assert found.signed_at == "2026-11-30T12:00:00Z"
    assert "another file than the checkpoint" in state(making.artifact(b"another", 3)).reason
    with database.write() as session:
        session.get_one(SigningKey, signer.kid).retired_ms = 1
    assert "was retired" in state(checkpoint).reason
    artifacts.remove([certified.path])
    assert "not valid" in state(checkpoint).reason


@pytest.mark.stack
def test_the_digest_of_an_installed_package_is_that_of_its_unpacked_wheel(tmp_path: Path) -> None:
    root = Path(safetensors.__file__).parent.parent
    command = "find safetensors -type f -not -name '*.pyc' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    result = subprocess.run(["sh", "-c", command], cwd=root, capture_output=True, text=True, check=True)
    assert contents.installed_digest("safetensors") == result.stdout.split()[0]
    assert sys.modules["safetensors"] is safetensors
