"""Certificates on the whole service: verified, and trained again; a forgery is found at the first other epoch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import checkpoint
from service.local import LocalStack
from service.models.certificates import signing
from service.models.certificates.signing import Signer
from service.runtime.settings import Settings
from tapeline import Client, Job
from tapeline.verify import bundles, claims, manifests
from tapeline.verify.manifests import CLAIMS, SIGNATURE
from tests.service.cli.conftest import Run
from tests.tapeline.verify.making import statement_of

EPOCHS = 4
SPEC: dict[str, Any] = {
    "kind": "classifier",
    "dataset": "iris",
    "epochs": EPOCHS,
    "reuse": "never",
    "checkpoint": {"every_epochs": 1, "keep_last": 2},
    "schedule": {"name": "cosine"},
}

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def job(stack: LocalStack) -> Job:
    with Client(stack.url) as client:
        return client.submit({**SPEC, "name": "certified"}).wait(timeout_s=120)


@pytest.fixture
def folder(job: Job, run: Run, stack: LocalStack, tmp_path: Path) -> Path:
    with Client(stack.url) as client:
        return client.handle(job.id).certificate(tmp_path / "certificate")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of whoever rebuilds, whose key is another than that of the service."""
    monkeypatch.setenv("TAPELINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def signer_of(stack: LocalStack) -> Signer:
    return signing.open_signer(stack.settings)


def forge(folder: Path, by: Signer, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Make another certificate with the key of the service.

    Args:
        change: changes the predicate of the provenance, and the spec in the checkpoint.
    """
    provenance = statement_of((folder / CLAIMS).read_bytes().splitlines()[1])
    state = checkpoint.load(folder / claims.CHECKPOINT_FILE)
    change(provenance["predicate"], state.spec)
    checkpoint.save(folder / claims.CHECKPOINT_FILE, state)
    digests = manifests.hash_folder(folder)
    external = provenance["predicate"]["buildDefinition"]["externalParameters"]
    for product in provenance["predicate"]["runDetails"]["byproducts"]:
        if product["name"] == f"checkpoint/{external['checkpoint']['epoch']}":
            product["digest"]["sha256"] = digests[claims.CHECKPOINT_FILE]
    external["spec_hash"] = "sha256:" + bundles.sha256(bundles.canonical(external["spec"]).encode())
    provenance["subject"][0]["digest"]["sha256"] = manifests.root_digest(digests)
    signature = by.sign(manifests.statement("forged", digests)) + b"\n"
    (folder / SIGNATURE).write_bytes(signature)
    (folder / CLAIMS).write_bytes(signature + by.sign(bundles.canonical(provenance).encode()) + b"\n")


def test_a_certificate_is_downloaded_verified_and_rebuilt(run: Run, job: Job, stack: LocalStack, home: Path) -> None:
    certified = run("certify", "certified", "c", "--json")
    assert certified.exit_code == 0, certified.output
    assert json.loads(certified.stdout)["job"] == job.id
    again = run("certify", "certified", "c")
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)
    verified = run("verify", "c", "--keys", stack.url)
    assert (verified.exit_code, verified.stdout.splitlines()[0][:8]) == (0, "verified")
    before = Path("c", CLAIMS).read_bytes()
    rebuilt = run("verify", "c", "--rebuild", "--as", "https://lab.example/ann")
    assert rebuilt.exit_code == 0, rebuilt.output
    assert f"rebuilt: all {EPOCHS} epochs, the result and the checkpoint of epoch" in rebuilt.stdout
    assert Path("c", CLAIMS).read_bytes().startswith(before)
    kid = signing.open_signer(Settings.from_env({"TAPELINE_HOME": str(home)}, cores=1)).kid
    (claim,) = json.loads(run("verify", "c", "--json").stdout)["rebuilds"]
    assert (claim["key"], claim["verifier"]) == (kid, "https://lab.example/ann")
    assert claim["properties"] == ["TAPELINE_BITWISE_REBUILT"]
    assert kid != signer_of(stack).kid


def test_single_epochs_are_trained_again_from_the_checkpoints_before_them(run: Run, folder: Path) -> None:
    checked = run("verify", str(folder), "--rebuild", "--epochs", f"1,{EPOCHS}", "--json")
    assert checked.exit_code == 0, checked.output
    document = json.loads(checked.stdout)
    assert (document["status"], document["epochs"]) == ("rebuilt", [1, EPOCHS])
    assert document["claim"]["properties"] == [f"TAPELINE_BITWISE_REBUILT_EPOCHS_2_OF_{EPOCHS}"]
    before = (folder / CLAIMS).read_bytes()
    missing = run("verify", str(folder), "--rebuild", "--epochs", "2")
    assert missing.exit_code == 2
    assert "keeps no checkpoint of epoch 1" in missing.stderr
    assert "these epochs can be checked: 1," in missing.stderr
    absent = run("verify", str(folder), "--rebuild", "--epochs", "99")
    assert (absent.exit_code, "has no epoch 99" in absent.stderr) == (2, True)
    assert run("verify", str(folder), "--rebuild", "--epochs", "two").exit_code == 2
    assert (folder / CLAIMS).read_bytes() == before


def test_a_forged_learning_rate_is_found_at_the_first_epoch(run: Run, folder: Path, stack: LocalStack) -> None:
    def other_rate(provenance: dict[str, Any], spec: dict[str, Any]) -> None:
        spec["optimizer"]["learning_rate"] = 0.5
        provenance["buildDefinition"]["externalParameters"]["spec"]["optimizer"]["learning_rate"] = 0.5

    forge(folder, signer_of(stack), other_rate)
    assert run("verify", str(folder), "--keys", stack.url).exit_code == 0, "the signature is valid"
    found = run("verify", str(folder), "--rebuild")
    assert found.exit_code == 1, found.output
    assert "mismatch: epoch 1 is the first that differs" in found.stdout
    assert "tapeline why" in found.stdout
    assert len((folder / CLAIMS).read_bytes().splitlines()) == 2


def test_a_forged_epoch_and_a_forged_checkpoint_are_named(run: Run, folder: Path, stack: LocalStack) -> None:
    def other_epoch(provenance: dict[str, Any], spec: dict[str, Any]) -> None:
        (entry,) = (item for item in provenance["runDetails"]["byproducts"] if item["name"] == "epoch/3")
        entry["digest"]["sha256"] = "0" * 64

    forged = Path(shutil.copytree(folder, folder.with_name("forged")))
    forge(forged, signer_of(stack), other_epoch)
    found = json.loads(run("verify", str(forged), "--rebuild", "--json").stdout)
    assert (found["status"], found["first_difference"]) == ("mismatch", 3)

    state = checkpoint.load(folder / claims.CHECKPOINT_FILE)
    state.tensors[min(state.tensors)].flat[0] += 1
    checkpoint.save(folder / claims.CHECKPOINT_FILE, state)
    forge(folder, signer_of(stack), lambda provenance, spec: None)
    found = json.loads(run("verify", str(folder), "--rebuild", "--json").stdout)
    assert found["status"] == "mismatch"
    assert "in its checkpoint" in found["sentence"]


def test_a_forged_checkpoint_is_found_by_a_check_of_its_epoch(run: Run, folder: Path, stack: LocalStack) -> None:
    state = checkpoint.load(folder / claims.CHECKPOINT_FILE)
    state.tensors[min(state.tensors)].flat[0] += 1
    checkpoint.save(folder / claims.CHECKPOINT_FILE, state)
    forge(folder, signer_of(stack), lambda provenance, spec: None)
    epoch = str(json.loads(run("verify", str(folder), "--json").stdout)["checkpoint"])
    found = json.loads(run("verify", str(folder), "--rebuild", "--epochs", epoch, "--json").stdout)
    assert found["status"] == "mismatch"
    assert "in its checkpoint" in found["sentence"]
    assert len((folder / CLAIMS).read_bytes().splitlines()) == 2, "no claim was added"


def test_a_check_of_other_epochs_says_nothing_of_the_checkpoint(run: Run, folder: Path) -> None:
    checked = run("verify", str(folder), "--rebuild", "--epochs", "1")
    assert checked.exit_code == 0, checked.output
    assert "the weights of the certified checkpoint were not compared" in checked.stdout


def test_a_difference_in_another_environment_is_told_as_such(run: Run, folder: Path, stack: LocalStack) -> None:
    def other_machine(provenance: dict[str, Any], spec: dict[str, Any]) -> None:
        provenance["buildDefinition"]["internalParameters"]["environment"]["blas"] = ["openblas 0.3 Zen"]
        provenance["runDetails"]["byproducts"][0]["digest"]["sha256"] = "0" * 64

    forge(folder, signer_of(stack), other_machine)
    found = run("verify", str(folder), "--rebuild", "--json")
    assert found.exit_code == 3
    document = json.loads(found.stdout)
    assert document["status"] == "environment_differs"
    assert document["environment"]["blas"]["certified"] == ["openblas 0.3 Zen"]


@pytest.mark.parametrize("name", ["nowhere", "iris"])
def test_other_data_are_found_before_anything_is_trained(
    run: Run, folder: Path, stack: LocalStack, client: Client, name: str
) -> None:
    def other_data(provenance: dict[str, Any], spec: dict[str, Any]) -> None:
        (entry,) = (item for item in provenance["buildDefinition"]["resolvedDependencies"] if item["name"] == "dataset")
        entry["digest"]["sha256"], entry["annotations"]["name"] = "d" * 64, name

    forge(folder, signer_of(stack), other_data)
    existing = {job.id for job in client.jobs()}
    for options in ((), ("--epochs", "1")):
        found = run("verify", str(folder), "--rebuild", *options)
        assert found.exit_code == 2, found.output
        assert "d" * 64 in found.stderr
        assert "tapeline upload FILES --name" in found.stderr
    assert {job.id for job in client.jobs()} == existing


def test_a_fork_has_its_first_checkpoint_in_its_certificate(run: Run, job: Job, client: Client, tmp_path: Path) -> None:
    fork = client.handle(job.id).fork({"optimizer": {"learning_rate": 0.01}}, checkpoint=EPOCHS - 1).wait(timeout_s=120)
    folder = fork.certificate(tmp_path / "fork", checkpoint="latest")
    assert (folder / claims.START_FILE).exists()
    rebuilt = run("verify", str(folder), "--rebuild", "--json")
    assert rebuilt.exit_code == 0, rebuilt.output
    fork.delete()
    lost = run("verify", str(folder), "--rebuild")
    assert lost.exit_code == 2
    assert f"{fork.id} is a fork" in lost.stderr


def test_without_a_service_a_rebuild_cannot_be_checked(run: Run, folder: Path) -> None:
    assert run("verify", str(folder), "--rebuild", "--server", "http://127.0.0.1:1").exit_code == 2


def test_a_key_that_cannot_sign_is_found_before_anything_is_trained(run: Run, folder: Path, home: Path) -> None:
    key = Settings.from_env({"TAPELINE_HOME": str(home)}, cores=1).signing_key_file
    signing.open_signer(Settings.from_env({"TAPELINE_HOME": str(home)}, cores=1))
    mode = key.stat().st_mode
    key.chmod(0o644)
    try:
        refused = run("verify", str(folder), "--rebuild")
    finally:
        key.chmod(mode)
    assert (refused.exit_code, "chmod 600" in refused.stderr, "epoch" in refused.stderr) == (2, True, False)


def test_signing_keys_are_rotated_retired_and_shown(run: Run, home: Path) -> None:
    first = json.loads(run("signing-keys", "rotate", "--json").stdout)
    assert first["retired"] is None
    second = json.loads(run("signing-keys", "rotate", "--json").stdout)
    assert second["retired"] == first["kid"]
    listed = json.loads(run("signing-keys", "list", "--json").stdout)
    assert {item["kid"]: item["retired_at"] is None for item in listed} == {first["kid"]: False, second["kid"]: True}
    assert run("signing-keys", "show", second["kid"][:8]).stdout.startswith("-----BEGIN PUBLIC KEY-----")
    wrong = run("signing-keys", "retire", second["kid"], "--at", "yesterday")
    assert (wrong.exit_code, "2026-11-01T00:00Z" in wrong.stderr) == (2, True)
    retired = run("signing-keys", "retire", second["kid"], "--at", "2026-11-01T00:00Z")
    assert "from 2026-11-01T00:00:00Z on" in retired.stdout
    unknown = run("signing-keys", "show", "zz")
    assert (unknown.exit_code, "tapeline signing-keys list" in unknown.stderr) == (1, True)
