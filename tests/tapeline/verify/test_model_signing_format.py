"""Our bundles have the format of OpenSSF Model Signing v1.0: its schemas accept them, and its test vectors are read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from tapeline.verify import bundles, manifests
from tapeline.verify.bundles import CertificateRefused
from tests.tapeline.verify import making

OMS = Path(__file__).parent / "oms"
SCHEMAS: dict[str, Any] = {
    name: json.loads((OMS / f"{name}.schema.json").read_text())
    for name in ("bundle", "envelope", "statement", "predicate")
}


def validate(name: str, document: Any) -> None:
    resources = [(schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()]
    registry: Registry[Any] = Registry().with_resources(resources)
    jsonschema.Draft202012Validator(SCHEMAS[name], registry=registry).validate(document)


def payload_of(bundle: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))


def test_the_schemas_accept_the_signature_of_a_certificate(tmp_path: Path) -> None:
    folder = making.make(tmp_path / "certificate", making.signer(tmp_path))
    for line in (folder / "claims.jsonl").read_bytes().splitlines():
        validate("bundle", json.loads(line))
    bundle = json.loads((folder / "model.sig").read_bytes())
    validate("statement", payload_of(bundle))


def test_the_valid_vector_is_read_with_its_root_digest() -> None:
    data = (OMS / "key.bundle.json").read_bytes().strip()
    validate("bundle", json.loads(data))
    validate("statement", payload_of(json.loads(data)))
    found = manifests.read(bundles.read(data, "key.bundle.json"))
    assert found.root == "92745110b1ab4368471cbe31664e10174e954b113a3df333db860317b2c6dec4"
    assert sorted(found.files) == ["signme-1", "signme-2"]
    assert "ignore-me" in found.ignored


@pytest.mark.parametrize("name", ["missing-envelope", "missing-verification-material", "wrong-predicate"])
def test_the_invalid_vectors_are_refused(name: str) -> None:
    data = (OMS / f"{name}.bundle.json").read_bytes().strip()
    with pytest.raises(CertificateRefused):
        manifests.read(bundles.read(data, name))
    is_statement = name == "wrong-predicate"
    document = payload_of(json.loads(data)) if is_statement else json.loads(data)
    with pytest.raises(jsonschema.ValidationError):
        validate("statement" if is_statement else "bundle", document)
