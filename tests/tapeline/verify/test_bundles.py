"""Bundles are read strictly: each unknown, repeated, missing or malformed part is refused, and named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tapeline.verify import bundles, manifests
from tapeline.verify.bundles import CertificateRefused
from tests.tapeline.verify import making


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    signer = making.signer(tmp_path_factory.mktemp("home"))
    found: dict[str, Any] = json.loads(signer.sign(manifests.statement("name", {"a": "0" * 64})))
    return found


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        target: Any = document
        *parents, last = path.split("/")
        for part in parents:
            target = target[int(part) if isinstance(target, list) else part]
        if value is None:
            del target[last]
        else:
            target[last] = value

    return change


ENVELOPE, MATERIAL = "dsseEnvelope", "verificationMaterial"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("mediaType", "application/json"), "the media type is"),
        (at("mediaType", None), "lacks mediaType"),
        (at("note", 1), "unknown fields: note"),
        (at(MATERIAL, None), "lacks verificationMaterial"),
        (at(MATERIAL, []), "verificationMaterial must be an object"),
        (at(f"{MATERIAL}/tlogEntries", [{}]), "tlogEntries must be empty"),
        (at(f"{MATERIAL}/timestampVerificationData", {}), "unknown fields: timestampVerificationData"),
        (at(f"{MATERIAL}/publicKey", {}), "publicKey lacks hint"),
        (at(f"{MATERIAL}/publicKey/rawBytes", "AA=="), "unknown fields: rawBytes"),
        (at(f"{MATERIAL}/publicKey/hint", "A" * 64), "hint must be a SHA-256"),
        (at(ENVELOPE, None), "lacks dsseEnvelope"),
        (at(f"{ENVELOPE}/payloadType", "text/plain"), "the payload type is"),
        (at(f"{ENVELOPE}/payload", "e30"), "not base64"),
        (at(f"{ENVELOPE}/payload", "e31="), "canonical form"),
        (at(f"{ENVELOPE}/payload", "e30="), "statement lacks _type"),
        (at(f"{ENVELOPE}/signatures", []), "it has 0 signatures, and must have exactly one"),
        (at(f"{ENVELOPE}/signatures", [{"sig": "AA=="}] * 2), "it has 2 signatures, and must have exactly one"),
        (at(f"{ENVELOPE}/signatures/0/keyid", "mine"), "keyid must be empty"),
        (at(f"{ENVELOPE}/signatures/0/extra", 1), "unknown fields: extra"),
        (at(f"{ENVELOPE}/signatures/0/sig", ""), "not empty"),
        (at(f"{ENVELOPE}/signatures/0/sig", 7), "must be a text"),
    ],
)
def test_a_malformed_bundle_is_refused(
    document: dict[str, Any], change: Callable[[dict[str, Any]], None], message: str
) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    with pytest.raises(CertificateRefused, match=message):
        bundles.read(json.dumps(changed).encode(), "model.sig")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "a": 1}', "'a' appears twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "inside of each other|not JSON"),
        (b"", "not JSON"),
        (b" {}", "blanks before or after"),
    ],
)
def test_only_plain_json_is_read(text: bytes, message: str) -> None:
    with pytest.raises(CertificateRefused, match=message):
        bundles.read(text, "model.sig")


def test_the_id_of_the_key_may_be_left_out_of_the_signature(document: dict[str, Any]) -> None:
    for change in (at(f"{ENVELOPE}/signatures/0/keyid", None), at(f"{MATERIAL}/tlogEntries", None)):
        changed = copy.deepcopy(document)
        change(changed)
        bundles.read(json.dumps(changed).encode(), "model.sig")


def test_the_signed_bytes_are_those_of_the_protocols_example() -> None:
    # The test vector of DSSE v1.0, protocol.md.
    encoded = bundles.pae(b"hello world", "http://example.com/HelloWorld")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_an_empty_folder_and_one_with_only_a_signature_have_nothing_to_sign(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(CertificateRefused, match="without files cannot be signed"):
            manifests.statement("empty", manifests.hash_folder(tmp_path))
        (tmp_path / "model.sig").touch()
