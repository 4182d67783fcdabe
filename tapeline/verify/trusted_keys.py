"""The public keys that a reader trusts: from a file, or from a service that publishes its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from tapeline.addresses import tls_context
from tapeline.errors import ClientError
from tapeline.verify import bundles, claims, ecdsa
from tapeline.verify.bundles import CertificateRefused

WELL_KNOWN: Final = "/.well-known/tapeline-keys.json"
_MAX_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 15.0


class KeysUnavailable(ClientError):
    """The trusted keys cannot be read."""


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, and when it signed.

    Attributes:
        not_before, retired_at: ``None``: no limit.
    """

    kid: str
    pem: str
    not_before: datetime | None = None
    retired_at: datetime | None = None

    def check(self, signed_at: datetime, where: str) -> str | None:
        """Whether the key was in use; returns a remark about one that is retired now.

        Raises:
            CertificateRefused: it was not.
        """
        time = claims.time_text(signed_at)
        if self.not_before is not None and signed_at < self.not_before.replace(microsecond=0):
            begin = claims.time_text(self.not_before)
            raise CertificateRefused(f"{where} was signed at {time}, before its key {self.kid} existed ({begin})")
        if self.retired_at is None:
            return None
        retired = claims.time_text(self.retired_at)
        if signed_at > self.retired_at:
            raise CertificateRefused(f"{where} was signed at {time}, after its key {self.kid} was retired ({retired})")
        return f"the key {self.kid} was retired at {retired}, after it had signed {where} at {time}"


def load(source: str) -> dict[str, TrustedKey]:
    """Keys by their ids, from a PEM file, a JSON file, or the URL of a service or of its keys.

    Raises:
        KeysUnavailable: they cannot be read, or are malformed.
    """
    try:
        return _load(source)
    except CertificateRefused as error:  # no verdict on a certificate
        raise KeysUnavailable(str(error)) from error


def _load(source: str) -> dict[str, TrustedKey]:
    data = _fetch(source) if source.startswith(("http://", "https://")) else _read(Path(source))
    if data.lstrip().startswith(b"-----BEGIN"):
        pem = data.decode("ascii", "replace")
        kid = ecdsa.kid_of(pem, source)
        return {kid: TrustedKey(kid, pem)}
    document = bundles.parse(data.strip(), source)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise CertificateRefused(f"{source} has no list of keys; give a PEM file, or a document as of {WELL_KNOWN}")
    keys = [_read_key(bundles.as_object(entry, source), source) for entry in listed]
    return {key.kid: key for key in keys}


def _read_key(entry: Mapping[str, object], source: str) -> TrustedKey:
    pem = bundles.as_text(entry.get("public_key"), f"{source}: public_key")
    kid = ecdsa.kid_of(pem, f"{source}: public_key")
    if entry.get("kid") != kid:
        raise CertificateRefused(f"{source}: the key with the id {entry.get('kid')!r} has the id {kid}")
    times = [
        None if entry.get(name) is None else claims.read_time(entry[name], f"{source}: {name}")
        for name in ("not_before", "retired_at")
    ]
    return TrustedKey(kid, pem, *times)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise KeysUnavailable(f"cannot read the keys in {path}: {error.strerror or error}") from error


def _fetch(url: str) -> bytes:
    url = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}{WELL_KNOWN}"
    try:
        response = httpx.get(url, timeout=_TIMEOUT_S, verify=tls_context()).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise KeysUnavailable(f"cannot fetch the keys from {url}: {error}") from error
    return response.content[:_MAX_BYTES]


def describe(keys: Sequence[str]) -> str:
    """Ids of keys in a message."""
    return ", ".join(keys) or "none"
