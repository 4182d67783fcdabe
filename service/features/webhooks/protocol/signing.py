"""Signatures of messages by the Standard Webhooks specification: HMAC-SHA256 (``v1``) and ed25519 (``v1a``).

Both sign ``id.timestamp.body``. A receiver that knows ``v1`` only skips the others.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SHARED: Final = "whsec_"
_PRIVATE: Final = "whsk_"
_PUBLIC: Final = "whpk_"


def new_secret() -> str:
    """A secret of 256 random bits that sender and receiver share, ``whsec_…``."""
    return _SHARED + b64encode(secrets.token_bytes(32)).decode()


def new_signing_key() -> str:
    """A private ed25519 key, ``whsk_…``."""
    return _PRIVATE + b64encode(secrets.token_bytes(32)).decode()


def public_key_of(signing_key: str) -> str:
    """The public key with which receivers verify, ``whpk_…``."""
    public = _private(signing_key).public_key().public_bytes_raw()
    return _PUBLIC + b64encode(public).decode()


def headers(
    message_id: str, timestamp: int, body: bytes, *, secrets: Sequence[str], signing_keys: Sequence[str]
) -> dict[str, str]:
    """The headers of a message, with a signature for each secret and key.

    Args:
        timestamp: of this attempt, in seconds since 1970. Receivers refuse messages that are older than five minutes.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = [
        "v1," + b64encode(hmac.digest(b64decode(secret.removeprefix(_SHARED)), content, hashlib.sha256)).decode()
        for secret in secrets
    ]
    signatures += ["v1a," + b64encode(_private(key).sign(content)).decode() for key in signing_keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _private(signing_key: str) -> Ed25519PrivateKey:
    # Loaded with the first signature: most schedulers send no messages, and start faster.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(b64decode(signing_key.removeprefix(_PRIVATE)))
