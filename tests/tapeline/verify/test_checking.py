"""Verification without a service: whatever is not exactly what the signer signed is refused, with the reason."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.models.certificates.signing import Signer
from tapeline.verify import bundles, checking, claims, manifests, trusted_keys
from tapeline.verify.__main__ import main
from tapeline.verify.bundles import CertificateRefused
from tapeline.verify.claims import CHECKPOINT_FILE
from tapeline.verify.manifests import CLAIMS, SIGNATURE
from tests.tapeline.verify import making


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return making.signer(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def other_signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return making.signer(tmp_path_factory.mktemp("other-home"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    return making.make(tmp_path_factory.mktemp("certificates") / "first", signer)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "certificate"))


def keys_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "keys.json"
    path.write_text(text)
    return str(path)


def refusal(folder: Path, trusted: dict[str, trusted_keys.TrustedKey] | None = None) -> str:
    with pytest.raises(CertificateRefused) as error:
        checking.verify(folder, trusted)
    return str(error.value)


def resign(folder: Path, signer: Signer, change: Callable[[dict[str, Any]], None], *, line: int = 1) -> None:
    """Forge a certificate with the key of its owner: change a statement, and sign it again."""
    lines = (folder / CLAIMS).read_bytes().splitlines()
    statement = making.statement_of(lines[line])
    change(statement)
    lines[line] = signer.sign(bundles.canonical(statement).encode())
    (folder / CLAIMS).write_bytes(b"".join(text + b"\n" for text in lines))
    if line == 0:
        (folder / SIGNATURE).write_bytes(lines[0] + b"\n")


def test_a_certificate_is_verified_and_tells_what_was_trained(folder: Path, signer: Signer, tmp_path: Path) -> None:
    found = checking.verify(folder, trusted_keys.load(keys_file(tmp_path, making.published(signer))))
    assert found.is_trusted
    assert found.kid == signer.kid
    assert found.provenance.spec == {
        name: value for name, value in making.resolved().items() if name not in {"name", "tags", "priority", "preset"}
        and name not in {"reuse", "budget"}
    }  # fmt: skip
    assert sorted(found.provenance.epochs) == [1, 2, 3]
    assert found.document()["status"] == "verified"
    assert found.lines()[0].startswith("verified  1 of 1 files")


def test_without_a_trusted_key_the_reader_is_told_to_decide(folder: Path, signer: Signer) -> None:
    found = checking.verify(folder)
    assert not found.is_trusted
    text = "\n".join(found.lines())
    assert signer.kid in text
    assert "anybody may have signed this" in text


def test_the_folder_may_be_renamed(folder: Path) -> None:
    checking.verify(folder.rename(folder.with_name("another name")))


@pytest.mark.parametrize("name", [CHECKPOINT_FILE, SIGNATURE, CLAIMS])
@settings(max_examples=120)
@given(data=st.data())
def test_one_byte_changed_anywhere_is_refused(original: Path, name: str, data: st.DataObject) -> None:
    path = original / name
    content = path.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[position]))
    try:
        path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
        assert refusal(original)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", [CHECKPOINT_FILE, SIGNATURE, CLAIMS])
def test_a_truncated_a_longer_and_a_missing_file_are_refused(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    for changed in (content[:-1], content[: len(content) // 2], b"", content + b"\n", content + b" ", b"\n" + content):
        path.write_bytes(changed)
        assert name in refusal(folder)
    path.unlink()
    assert name in refusal(folder)


def _add(folder: Path) -> None:
    (folder / "pickle.bin").write_bytes(b"")


def _add_below(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").touch()


def _rename(folder: Path) -> None:
    (folder / CHECKPOINT_FILE).rename(folder / "weights.safetensors")


def _link(folder: Path) -> None:
    moved = (folder / CHECKPOINT_FILE).rename(folder.with_name("moved"))
    (folder / CHECKPOINT_FILE).symlink_to(moved)


def _link_signature(folder: Path) -> None:
    moved = (folder / SIGNATURE).rename(folder.with_name("moved"))
    (folder / SIGNATURE).symlink_to(moved)


def _replace_by_folder(folder: Path) -> None:
    (folder / CHECKPOINT_FILE).unlink()
    (folder / CHECKPOINT_FILE).mkdir()


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def _drop_provenance(folder: Path) -> None:
    (folder / CLAIMS).write_bytes((folder / SIGNATURE).read_bytes())


def _swap_lines(folder: Path) -> None:
    first, second = (folder / CLAIMS).read_bytes().splitlines()
    (folder / CLAIMS).write_bytes(second + b"\n" + first + b"\n")


def _repeat_provenance(folder: Path) -> None:
    first, second = (folder / CLAIMS).read_bytes().splitlines()
    (folder / CLAIMS).write_bytes(first + b"\n" + second + b"\n" + second + b"\n")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_add, "pickle.bin is not in the signed list"),
        (_add_below, ".git/config is not in the signed list"),
        (_rename, "checkpoint.safetensors is missing; weights.safetensors is not in the signed list"),
        (_link, "checkpoint.safetensors is a symbolic link"),
        (_link_signature, "has no model.sig: it is not a certificate"),
        (_replace_by_folder, "checkpoint.safetensors is missing"),
        (_pipe, "pipe is neither a file nor a folder"),
        (_drop_provenance, "claims.jsonl has no provenance in line 2"),
        (_swap_lines, "line 1 is not the content of model.sig"),
        (_repeat_provenance, "line 3: the predicate type is 'https://slsa.dev/provenance/v1'"),
    ],
)
def test_files_that_are_not_those_of_the_signer_are_refused(
    folder: Path, change: Callable[[Path], None], text: str
) -> None:
    change(folder)
    assert text in refusal(folder)


def test_a_name_cannot_look_like_a_line_of_the_output(folder: Path) -> None:
    (folder / "a\nverified  1 of 1 files").touch()
    assert refusal(folder) == r"'a\nverified  1 of 1 files' is not in the signed list"


def test_folders_inside_of_each_other_without_end_are_refused(folder: Path) -> None:
    before = Path.cwd()
    os.chdir(folder)
    try:
        for _ in range(150):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(before)
    assert "too many folders inside of each other" in refusal(folder)


@pytest.mark.parametrize("name", [CHECKPOINT_FILE, SIGNATURE, CLAIMS])
def test_files_of_another_model_are_refused(folder: Path, signer: Signer, tmp_path: Path, name: str) -> None:
    other = making.make(tmp_path / "other", signer, value=0.25)
    shutil.copy(other / name, folder / name)
    refusal(folder)


def test_the_provenance_of_another_model_is_refused(folder: Path, signer: Signer, tmp_path: Path) -> None:
    other = making.make(tmp_path / "other", signer, value=0.25)
    provenance = (other / CLAIMS).read_bytes().splitlines()[1]
    (folder / CLAIMS).write_bytes((folder / SIGNATURE).read_bytes() + provenance + b"\n")
    assert "line 2 belongs to another certificate" in refusal(folder)


def test_the_provenance_must_be_signed_by_the_key_of_the_files(
    folder: Path, other_signer: Signer, tmp_path: Path
) -> None:
    other = making.make(tmp_path / "other", other_signer)
    provenance = (other / CLAIMS).read_bytes().splitlines()[1]
    (folder / CLAIMS).write_bytes((folder / SIGNATURE).read_bytes() + provenance + b"\n")
    assert f"is signed by the key {other_signer.kid}" in refusal(folder)


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(statement: dict[str, Any]) -> None:
        target: Any = statement
        *parents, last = path.split("/")
        for part in parents:
            target = target[int(part) if isinstance(target, list) else part]
        target[int(last) if isinstance(target, list) else last] = value

    return change


MANIFEST = "predicate/resources/0"
SERIALIZATION = "predicate/serialization"
DEFINITION = "predicate/buildDefinition"


@pytest.mark.parametrize(
    ("line", "change", "text"),
    [
        (0, _set(f"{MANIFEST}/name", "/etc/passwd"), "not a relative path"),
        (0, _set(f"{MANIFEST}/name", "../checkpoint.safetensors"), "leaves the folder"),
        (0, _set(f"{MANIFEST}/name", "./checkpoint.safetensors"), "not canonical"),
        (0, _set(f"{MANIFEST}/name", "a\\b"), "not a relative path"),
        (0, _set(f"{MANIFEST}/name", ""), "not empty"),
        (0, _set(f"{MANIFEST}/algorithm", "md5"), "the algorithm is 'md5'"),
        (0, _set(f"{MANIFEST}/digest", "00"), "64 hexadecimal digits"),
        (0, _set(f"{MANIFEST}/digest", "0" * 64), "the digests of the files give"),
        (0, _set(f"{MANIFEST}/size", 4), "unknown fields: size"),
        (0, _set("predicate/resources", []), "at least one file"),
        (0, _set("predicate/note", "x"), "unknown fields: note"),
        (0, _set("predicateType", "https://model_signing/Digests/v0.1"), "the predicate type is"),
        (0, _set("subject", []), "exactly one"),
        (0, _set(f"{SERIALIZATION}/method", "shards"), "method is 'shards'"),
        (0, _set(f"{SERIALIZATION}/allow_symlinks", True), "allow_symlinks is True"),
        (0, _set(f"{SERIALIZATION}/allow_symlinks", 0), "allow_symlinks is 0"),
        (0, _set(f"{SERIALIZATION}/hash_type", "blake3"), "hash_type is 'blake3'"),
        (0, _set(f"{SERIALIZATION}/ignore_paths", ["model.sig", "claims.jsonl", "x"]), "leaves out"),
        (1, _set(f"{DEFINITION}/buildType", "https://example.com/x"), "the build type is"),
        (1, _set(f"{DEFINITION}/externalParameters/spec/epochs", 9), "is not that of its spec"),
        (1, _set(f"{DEFINITION}/externalParameters/checkpoint/epoch", 2), "is not the checkpoint of epoch 2"),
        (1, _set("predicate/runDetails/byproducts", []), "not complete"),
        (1, _set("predicate/runDetails/metadata/invocationId", "job_1\nsigned    by the key 0"), "not printable"),
        (1, _set(f"{DEFINITION}/resolvedDependencies/0/annotations/name", "iris\x1b[2K"), "not printable"),
        (1, _set("predicate/runDetails/byproducts/0/name", "epoch/9"), "has no digest of epoch"),
        (1, _set("predicate/runDetails/metadata/tapeline_signedOn", "yesterday"), "is not a time"),
        (1, _set("predicate/runDetails/metadata/tapeline_signedOn", "2026-11-30T12:00"), "no time zone"),
    ],
)
def test_what_the_owner_of_the_key_signed_must_make_sense(
    folder: Path, signer: Signer, line: int, change: Callable[[dict[str, Any]], None], text: str
) -> None:
    resign(folder, signer, change, line=line)
    assert text in refusal(folder)


def test_resources_must_be_sorted_and_different(folder: Path, signer: Signer) -> None:
    def repeat(statement: dict[str, Any]) -> None:
        statement["predicate"]["resources"] *= 2

    def append(statement: dict[str, Any]) -> None:
        first = statement["predicate"]["resources"][0]
        statement["predicate"]["resources"] = [first, {**first, "name": "a.bin"}]

    resign(folder, signer, repeat, line=0)
    assert "is listed twice" in refusal(folder)
    resign(folder, signer, append, line=0)
    assert "not sorted: a.bin comes after" in refusal(folder)


def test_a_checkpoint_of_another_spec_is_refused_even_with_the_owners_key(folder: Path, signer: Signer) -> None:
    spec = {name: value for name, value in making.resolved(epochs=9).items() if name != "name"}
    resign(folder, signer, _set(f"{DEFINITION}/externalParameters/spec", spec))
    resign(folder, signer, _set(f"{DEFINITION}/externalParameters/spec_hash", checking.spec_hash(spec)))
    assert "is of another training or epoch" in refusal(folder)


def test_a_key_that_is_not_trusted_is_refused_and_named(
    folder: Path, signer: Signer, other_signer: Signer, tmp_path: Path
) -> None:
    trusted = trusted_keys.load(keys_file(tmp_path, making.published(other_signer)))
    text = refusal(folder, trusted)
    assert signer.kid in text
    assert other_signer.kid in text


def test_a_retired_key_is_valid_for_what_it_signed_before(folder: Path, signer: Signer, tmp_path: Path) -> None:
    later = making.published(signer, retired_at="2026-12-01T00:00:00Z")
    found = checking.verify(folder, trusted_keys.load(keys_file(tmp_path, later)))
    assert "was retired at 2026-12-01T00:00:00Z" in found.lines()[-1]
    earlier = making.published(signer, retired_at="2026-11-01T00:00:00Z")
    assert "after its key" in refusal(folder, trusted_keys.load(keys_file(tmp_path, earlier)))
    younger = making.published(signer, not_before="2026-12-01T00:00:00Z")
    assert "before its key" in refusal(folder, trusted_keys.load(keys_file(tmp_path, younger)))


def claim(folder: Path, by: Signer, root: str | None = None, verifier: str = "https://lab.example") -> bytes:
    found = manifests.read(bundles.read((folder / SIGNATURE).read_bytes().strip(), SIGNATURE))
    statement = claims.rebuild_statement(
        name="first-certificate",
        root=root or found.root,
        properties=[claims.REBUILT],
        verifier=verifier,
        public_key=by.public_key,
        now=datetime(2026, 12, 24, tzinfo=UTC),
    )
    return by.sign(statement) + b"\n"


def test_rebuilds_are_listed_with_who_signed_them(
    folder: Path, signer: Signer, other_signer: Signer, tmp_path: Path
) -> None:
    with (folder / CLAIMS).open("ab") as file:
        file.write(claim(folder, other_signer))
    trusted = trusted_keys.load(keys_file(tmp_path, making.published(signer)))
    ((rebuild, is_trusted),) = checking.verify(folder, trusted).rebuilds
    assert (rebuild.kid, rebuild.verifier, is_trusted) == (other_signer.kid, "https://lab.example", False)
    both = trusted_keys.load(keys_file(tmp_path, making.published(signer, other_signer)))
    found = checking.verify(folder, both)
    assert found.rebuilds[0][1]
    assert "rebuilt   2026-12-24T00:00:00Z by https://lab.example" in found.lines()[-1]


@pytest.mark.parametrize("text", ["\nrebuilt   by https://lab.example, key 1", "\x1b[2K", "\u202e", "\u2028"])
def test_a_claim_cannot_write_lines_of_its_own(folder: Path, other_signer: Signer, text: str) -> None:
    """Anybody may add a claim: what it says must not look like what the verification says."""
    with (folder / CLAIMS).open("ab") as file:
        file.write(claim(folder, other_signer, verifier=f"https://lab.example{text}"))
    assert "verifier id has characters that are not printable" in refusal(folder)


def test_a_claim_about_another_folder_or_with_another_key_is_refused(
    folder: Path, signer: Signer, other_signer: Signer
) -> None:
    content = (folder / CLAIMS).read_bytes()
    (folder / CLAIMS).write_bytes(content + claim(folder, other_signer, root="0" * 64))
    assert "line 3 belongs to another certificate" in refusal(folder)
    forged = claim(folder, other_signer).replace(other_signer.kid.encode(), signer.kid.encode())
    (folder / CLAIMS).write_bytes(content + forged)
    assert "line 3: it was signed by the key" in refusal(folder)
    (folder / CLAIMS).write_bytes(content + claim(folder, other_signer)[:-20] + b"\n")
    assert "line 3: not JSON" in refusal(folder)


@pytest.fixture
def arguments(folder: Path, signer: Signer, tmp_path: Path) -> list[str]:
    key = tmp_path / "key.pub"
    key.write_text(signer.public_key)
    return [str(folder), "--public-key", str(key)]


def test_the_command_says_what_it_found_and_ends_with_an_exit_code(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("verified")
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trusted"] is True
    assert main([str(folder), "--keys", str(tmp_path / "missing.json")]) == 2
    assert main([str(folder), "--keys", keys_file(tmp_path, "{}")]) == 2, "of the keys, not of the certificate"
    assert "cannot read the keys" in capsys.readouterr().err
    (folder / "more").touch()
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith("mismatch: more is not in the signed list")
    assert main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().err)["status"] == "mismatch"
    assert main([str(folder / "nowhere")]) == 1
    with pytest.raises(SystemExit) as usage:
        main([*arguments, "--keys", "x"])
    assert usage.value.code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "has no list of keys"),
        ('{"keys": [{"kid": "x"}]}', "public_key must be a text"),
        ('{"keys": [{"kid": "x", "public_key": "PEM"}]}', "is not a public key in PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is not a public key in PEM"),
    ],
)
def test_malformed_keys_are_refused(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(trusted_keys.KeysUnavailable, match=message):
        trusted_keys.load(keys_file(tmp_path, text))


def test_a_published_key_with_another_id_is_refused(signer: Signer, tmp_path: Path) -> None:
    document = json.loads(making.published(signer))
    document["keys"][0]["kid"] = "0" * 64
    with pytest.raises(trusted_keys.KeysUnavailable, match=f"has the id {signer.kid}"):
        trusted_keys.load(keys_file(tmp_path, json.dumps(document)))
