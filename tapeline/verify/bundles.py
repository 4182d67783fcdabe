"""Signed statements: in-toto statements in DSSE envelopes, in bundles of Sigstore, as in OpenSSF Model Signing v1.0.

Reading is strict: a field that is unknown, missing, repeated or of another type is refused, because a reader that
guesses can be made to see something else than the signer signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tapeline.errors import ClientError

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
HEX_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class CertificateRefused(ClientError, ValueError):
    """A certificate is damaged, was changed, or does not belong to its files. The message names what is wrong."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A signed statement whose signature has not been verified yet.

    Attributes:
        where: the file and line, for messages.
        kid: the hint of the bundle: the SHA-256 (hex) of the signer's public key as PEM.
        payload: the bytes that were signed, the JSON text of the statement.
    """

    where: str
    kid: str
    payload: bytes
    signature: bytes
    statement: Mapping[str, Any]

    @property
    def predicate_type(self) -> str:
        """The URI that says what the statement claims."""
        return str(self.statement["predicateType"])

    @property
    def predicate(self) -> Mapping[str, Any]:
        """What the statement claims."""
        return as_object(self.statement["predicate"], f"{self.where}: predicate")

    @property
    def subject(self) -> tuple[str, str]:
        """The name and the SHA-256 (hex) of the only subject."""
        where = f"{self.where}: subject"
        subjects = self.statement["subject"]
        if not isinstance(subjects, list) or len(subjects) != 1:
            raise CertificateRefused(f"{where} must be a list of exactly one")
        fields(subjects[0], where, {"name", "digest"})
        fields(subjects[0]["digest"], f"{where}: digest", {"sha256"})
        return as_text(subjects[0]["name"], f"{where}: name"), as_digest(subjects[0]["digest"]["sha256"], where)


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The bytes that are signed: the pre-authentication encoding of DSSE v1.0."""
    return b" ".join(
        [b"DSSEv1", b"%d" % len(payload_type), payload_type.encode(), b"%d" % len(payload), payload],
    )


def sha256(data: bytes) -> str:
    """The SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical(document: Any) -> str:
    """The canonical JSON text of a document, as the service has it: sorted keys, no blanks."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def statement(predicate_type: str, predicate: Mapping[str, Any], *, name: str, digest: str) -> bytes:
    """The JSON text of an in-toto statement about one subject.

    Args:
        digest: the SHA-256 (hex) of the subject.
    """
    subject = {"name": name, "digest": {"sha256": digest}}
    document = {"_type": STATEMENT_TYPE, "subject": [subject], "predicateType": predicate_type, "predicate": predicate}
    return canonical(document).encode()


def write(payload: bytes, signature: bytes, kid: str) -> bytes:
    """A bundle as one line of JSON, without a line break.

    Args:
        signature: ECDSA in DER, over ``pae(payload)``.
    """
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": kid}, "tlogEntries": []}
    return canonical({"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()


def read(data: bytes, where: str) -> Bundle:
    """Read a bundle. The signature is not verified.

    Raises:
        CertificateRefused: it is no bundle with exactly one signature by a key, over an in-toto statement.
    """
    document = parse(data, where)
    fields(document, where, {"mediaType", "verificationMaterial", "dsseEnvelope"})
    if document["mediaType"] != MEDIA_TYPE:
        raise CertificateRefused(f"{where}: the media type is {document['mediaType']!r}, not {MEDIA_TYPE}")
    material = document["verificationMaterial"]
    fields(material, f"{where}: verificationMaterial", {"publicKey"}, {"tlogEntries"})
    if material.get("tlogEntries", []) != []:
        raise CertificateRefused(f"{where}: tlogEntries must be empty: it is signed by a key, not in a log")
    fields(material["publicKey"], f"{where}: publicKey", {"hint"})
    kid = as_digest(material["publicKey"]["hint"], f"{where}: hint")
    envelope = document["dsseEnvelope"]
    fields(envelope, f"{where}: dsseEnvelope", {"payload", "payloadType", "signatures"})
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise CertificateRefused(f"{where}: the payload type is {envelope['payloadType']!r}, not {PAYLOAD_TYPE}")
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        count = len(signatures) if isinstance(signatures, list) else "no list of"
        raise CertificateRefused(f"{where}: it has {count} signatures, and must have exactly one")
    fields(signatures[0], f"{where}: signature", {"sig"}, {"keyid"})
    if signatures[0].get("keyid") not in (None, ""):
        raise CertificateRefused(f"{where}: keyid must be empty; the key is named by hint")
    payload = _base64(envelope["payload"], f"{where}: payload")
    content = parse(payload, f"{where}: payload")
    fields(content, f"{where}: statement", {"_type", "subject", "predicateType", "predicate"})
    if content["_type"] != STATEMENT_TYPE:
        raise CertificateRefused(f"{where}: the payload is {content['_type']!r}, not {STATEMENT_TYPE}")
    as_text(content["predicateType"], f"{where}: predicateType")
    return Bundle(where, kid, payload, _base64(signatures[0]["sig"], f"{where}: sig"), content)


def parse(data: bytes, where: str) -> Any:
    """Parse JSON whose objects have no key twice, whose numbers are finite, and with no blanks around it.

    Raises:
        CertificateRefused: it is something else.
    """
    if data != data.strip():
        raise CertificateRefused(f"{where}: there are blanks before or after the JSON")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()  # no half of a pair of surrogates
    except RecursionError as error:
        raise CertificateRefused(f"{where}: too many objects or lists inside of each other") from error
    except ValueError as error:
        raise CertificateRefused(f"{where}: not JSON: {error}") from error
    return document


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _base64(value: Any, where: str) -> bytes:
    """Decode base64 in its only canonical form: other texts with the same bytes could be exchanged unnoticed."""
    text = as_text(value, where)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CertificateRefused(f"{where} is not base64: {error}") from error
    if base64.b64encode(data).decode() != text or not data:
        raise CertificateRefused(f"{where} is empty or not in the canonical form of base64")
    return data


def fields(value: Any, where: str, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Check the fields of an object.

    Raises:
        CertificateRefused: it is no object, lacks a field, or has another one.
    """
    document = as_object(value, where)
    if missing := sorted(set(required) - document.keys()):
        raise CertificateRefused(f"{where} lacks {', '.join(missing)}")
    if extra := sorted(document.keys() - {*required, *optional}):
        raise CertificateRefused(f"{where} has unknown fields: {', '.join(extra)[:200]}")


def as_object(value: Any, where: str) -> Mapping[str, Any]:
    """A value that must be an object."""
    if not isinstance(value, dict):
        raise CertificateRefused(f"{where} must be an object")
    return value


def as_text(value: Any, where: str) -> str:
    """A value that must be a text with at least one character."""
    if not isinstance(value, str) or not value:
        raise CertificateRefused(f"{where} must be a text that is not empty")
    return value


def as_line(value: Any, where: str) -> str:
    """A text that is shown to people: nothing in it may look like another line, or change what is shown before."""
    if not as_text(value, where).isprintable():
        raise CertificateRefused(f"{where} has characters that are not printable: {value!a}")
    return str(value)


def as_digest(value: Any, where: str) -> str:
    """A value that must be a SHA-256 in lower-case hexadecimal."""
    if not isinstance(value, str) or HEX_SHA256.fullmatch(value) is None:
        raise CertificateRefused(f"{where} must be a SHA-256 of 64 hexadecimal digits in lower case")
    return value
